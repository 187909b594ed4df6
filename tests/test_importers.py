"""What importers share: the help that tells how to record, progress, errors, and memory."""

import errno
import io
import lzma
import os
import pty
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hgmcore import Trace, TraceError, importers, recordings
from hgmcore.cli import run

DATA = Path(__file__).parent / "data"
KERNEL = Path(recordings.__file__).parent / "kernel"
SLICES = {
    "qemu": ["qemu-balloon_4k.qemutrace", "qemu-postcopy_2M.qemutrace"],
    "perf": ["postgres_hugepages.perfscript", "gcc.perfscript", "true.perftrace"],
    "lackey": ["true.lackey", "python.lackeywin"],
    "pagemap": ["postgres.pagemapsnap", "postgres.smaps"],
}
CASES = [(format, slice) for format, slices in SLICES.items() for slice in slices]


@pytest.mark.parametrize("name", importers.NAMES)
def test_help_tells_how_to_record(name, capfd):
    importer = importers.load(name)
    assert len(importer.explanation.strip().splitlines()[0]) < 100
    assert all(option.help for option in importer.options)
    lines = importers.commands(name)
    assert len(lines) > 1 and all(line.startswith("    ") for line in lines)
    assert any(f"hgmcore import {name}" in line for line in lines)
    for arguments in (["import", "--help"], ["import", name, "--help"]):
        assert run(arguments) == 0
        shown = capfd.readouterr().out
        assert all(line.strip() in shown for line in lines)
    assert all(len(line) <= 80 or line.strip() in "".join(lines) for line in shown.splitlines())


@pytest.mark.parametrize("format, slice", CASES)
def test_a_slice_comes_in_by_the_command_line(format, slice, tmp_path, capfd):
    path = tmp_path / "t.parquet"
    assert run(["import", format, str(DATA / slice), "-o", str(path)]) == 0
    trace = Trace.load(path)
    assert f"{len(trace):,} operations" in capfd.readouterr().out
    assert trace.header.provenance["importer"] == format and trace.header.provenance["source"] == slice


@pytest.mark.parametrize("format, slice", CASES)
def test_a_slice_of_another_format_is_one_line(format, slice, tmp_path, capfd):
    for other in SLICES:
        if other != format:
            assert run(["import", other, str(DATA / slice), "-o", str(tmp_path / "t.hgm")]) == 2
            message = capfd.readouterr().err
            assert message.startswith("hgmcore: error: ") and message.count("\n") == 1
            assert not (tmp_path / "t.hgm").exists()


def test_progress_is_told_of_files_alone():
    path, told = DATA / "true.lackey", []
    trace, _ = importers.read("lackey", path, None, lambda *progress: told.append(progress))
    assert len(trace) and told[-1] == (path.stat().st_size, path.stat().st_size, "reading")
    with subprocess.Popen(["cat", path], stdout=subprocess.PIPE) as pipe:
        told.clear()
        importers.read("lackey", f"/dev/fd/{pipe.stdout.fileno()}", None, lambda *progress: told.append(progress))
    assert not told


def test_no_space_for_temporary_files(monkeypatch):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    with pytest.raises(TraceError, match=re.escape(f"no space left in {tempfile.gettempdir()} for temporary files")):
        importers.read("lackey", DATA / "true.lackey")


def test_a_terminal_shows_progress(tmp_path):
    master, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen([sys.executable, "-m", "hgmcore", "import", "lackey", DATA / "true.lackey", "-o", "t.hgm"],
                          stdout=terminal, stderr=terminal, env=environment, cwd=tmp_path) as process:
        os.close(terminal)
        shown = b""
        try:
            while part := os.read(master, 65536):
                shown += part
        except OSError:  # the terminal's other end was closed
            pass
        os.close(master)
        assert process.wait(600) == 0
    assert b"reading" in shown and b"100%" in shown and b"operations" in shown


PEAK = """
import sys
from programs import memory_peak
from hgmcore.trace import binary, wellformed
from hgmcore import importers
binary.ROW_GROUP = wellformed.CHUNK = 1 << 14
trace, _ = importers.read(sys.argv[1], sys.argv[2], **eval(sys.argv[3]))
trace.save(sys.argv[2] + ".hgmt")
print(len(trace), memory_peak())
"""


@pytest.mark.parametrize("format, slice, times, options", [
    ("lackey", "true.lackey", 100, {"later": "touch", "window": 1}),
    ("perf", "gcc.perfscript", 100, {"later": "touch"}),
    ("qemu", "qemu-balloon_4k.qemutrace", 200, {"start": "empty"}),
    ("strace", "qemu-postcopy_4k.strace", 10, {}),
    ("bpftrace", "uffd-stress.bt", 10, {}),
])
def test_memory_does_not_grow_with_a_recording(format, slice, times, options, tmp_path):
    data = (DATA / slice).read_bytes()
    _check_memory(format, options, tmp_path, times, lambda number: data * number)


def snapshot(runs):
    """A snapshot of one VMA, of which every second page is there."""
    first = 0x7F0000000000
    lines = [f"V {first:x}-{first + runs * 8192:x} rw-p 00000000 0 \n"]
    lines += [f"P {first + at * 8192:#x} 1 77 map={1 + at % 3} x=0 sd=0 anon \n" for at in range(runs)]
    return "".join(lines).encode()


def kernel_recording(steps):
    """The beginning of a kernel recording, then reads and observations without end."""
    lines = lzma.open(KERNEL / "a08_collapse.jsonl.xz").read().splitlines(keepends=True)
    read = b'{"t":"op","i":2,"proc":"A","op":"read","region":"m0","off":0,"len":4096,"ret":0,"errno":""}\n'
    return b"".join(lines[:6]) + (read + lines[5]) * steps


@pytest.mark.parametrize("format, made, times", [
    ("pagemap", snapshot, 10_000),
    ("kernel-recording", kernel_recording, 2_000),
])
def test_memory_does_not_grow_with_what_is_made(format, made, times, tmp_path):
    _check_memory(format, {}, tmp_path, times, made)


def _check_memory(format, options, tmp_path, times, made):
    """The peak of an import stays where it is when the recording that `made` gives is 20 times as long."""
    peaks, lengths = [], []
    for number in (times, 20 * times):
        path = tmp_path / f"{number}"
        path.write_bytes(made(number))
        environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}  # its own keeps some megabytes more or less
        result = subprocess.run([sys.executable, "-c", PEAK, format, path, repr(options)], capture_output=True,
                                text=True, check=True, env=environment)
        length, peak = map(int, result.stdout.split())
        lengths.append(length)
        peaks.append(peak << 10)
    assert lengths[1] > 8 * lengths[0]
    assert peaks[1] < peaks[0] + (20 << 20), f"{peaks[0] >> 20} MiB, then {peaks[1] >> 20} MiB"
