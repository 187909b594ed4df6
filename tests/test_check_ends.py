"""A search of `hgmcore check` that is ended from outside, as a process: what is known is said."""

import os
import signal
import subprocess
import sys
import time

import pytest

LARGE = ["check", "mm_id", "--scope", "pair-small,four", "--symmetry", "none"]
LIMITED = """
import resource, sys
from hgmcore import cli, schemes
schemes.load("mm_id")
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (int(sys.argv[1]) << 20),) * 2)
sys.exit(cli.run(sys.argv[2:]))
"""


@pytest.mark.parametrize("threads", ["1", "2"])
def test_ctrl_c_prints_what_is_known(threads):
    process = subprocess.Popen(
        [sys.executable, "-m", "hgmcore", *LARGE, "--threads", threads], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while cpu_of(process.pid) < 1.5:
        assert process.poll() is None
        time.sleep(0.02)
    before = cpu_of(process.pid)
    process.send_signal(signal.SIGINT)
    after = before
    while process.poll() is None:
        after = max(after, cpu_of(process.pid))
        time.sleep(0.02)
    out, error = (text.decode() for text in process.communicate())
    assert process.returncode == 0 and error == "" and after - before < 1
    assert "closed" in out and "stopped" in out and "Interrupted: what no search finished is unknown." in out


def cpu_of(pid):
    """CPU seconds of a process, which other programs do not lengthen."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            words = stat.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def test_memory_that_runs_out_is_one_line_and_what_was_found():
    found = subprocess.run(
        [sys.executable, "-c", LIMITED, "40", *LARGE], capture_output=True, text=True, timeout=140
    )
    assert found.returncode == 2, found.stderr
    line = "hgmcore: error: out of memory: scheme mm_id, scope four: what is not said of it is unknown\n"
    assert found.stderr == line
    assert "scope pair-small" in found.stdout and "closed" in found.stdout
