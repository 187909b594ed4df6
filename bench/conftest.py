"""One table of all that was measured: work, scheme, ns, roofline, ratio, goal."""

import pytest
from rooflines import compile_rooflines


@pytest.fixture(scope="session")
def library():
    return compile_rooflines()


def pytest_terminal_summary(terminalreporter, config):
    session = getattr(config, "_benchmarksession", None)
    infos = [bench.extra_info for bench in session.benchmarks] if session else []
    write = terminalreporter.write_line
    for info in infos:
        if "lines_per_second" in info:
            write(f"import of a QEMU log: {info['lines_per_second']:,} lines a second (goal {info['goal']:,})")
    rows = [info for info in infos if "ratio" in info]
    if not rows:
        return
    terminalreporter.section("against the roofline (ns for each operation, medians of the same rounds)")
    write(f"{'work':34} {'scheme':16} {'ns':>7} {'roofline':>9} {'ratio':>6} {'goal':>5}")
    for row in rows:
        write(f"{row['work']:34} {row['scheme']:16} {row['ns']:7.2f} {row['roofline']:9.2f} {row['ratio']:6.2f} "
              f"{row['goal']:5.2f}")
