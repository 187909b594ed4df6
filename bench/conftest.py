"""One table of all that was measured: work, scheme, ns, roofline, ratio, goal."""

import pytest
from rooflines import compile_rooflines


@pytest.fixture(scope="session")
def library():
    return compile_rooflines()


def pytest_terminal_summary(terminalreporter, config):
    session = getattr(config, "_benchmarksession", None)
    rows = [bench.extra_info for bench in session.benchmarks if "ratio" in bench.extra_info] if session else []
    if not rows:
        return
    write = terminalreporter.write_line
    terminalreporter.section("against the roofline (ns for each operation, medians of the same rounds)")
    write(f"{'work':34} {'scheme':16} {'ns':>7} {'roofline':>9} {'ratio':>6} {'goal':>5}")
    for row in rows:
        write(f"{row['work']:34} {row['scheme']:16} {row['ns']:7.2f} {row['roofline']:9.2f} {row['ratio']:6.2f} "
              f"{row['goal']:5.2f}")
