"""One table of all that was measured: work, scheme, ns, roofline, ratio, goal, and what else does the work."""

import pytest
from kernel import kernel
from rooflines import compile_rooflines


@pytest.fixture(scope="session")
def library():
    return compile_rooflines()


def pytest_terminal_summary(terminalreporter, config):
    session = getattr(config, "_benchmarksession", None)
    infos = [bench.extra_info for bench in session.benchmarks] if session else []
    write = terminalreporter.write_line
    for info in infos:
        if "rate" in info:
            write(f"{info['work']}: {info['rate']:,} {info['unit']} a second (goal {info['goal']:,})")
    threads = [info for info in infos if "speedup" in info]
    if threads:
        terminalreporter.section("two threads against one (ns for each leaf of 4K)")
        write(f"{'work':24} {'locks':7} {'scheme':18} {'one':>7} {'two':>7} {'speed-up':>8} {'goal':>5}")
    for row in threads:
        write(f"{row['work']:24} {row['locks']:7} {row['scheme']:18} {row['one']:7.2f} {row['two']:7.2f} "
              f"{row['speedup']:8.2f} {row['goal'] or '-':>5}{' *' if row['speedup'] < (row['goal'] or 0) else ''}")
    rows = [info for info in infos if "ratio" in info]
    if not rows:
        return
    terminalreporter.section("against the roofline (ns for each leaf of 4K)")
    write(f"{'work':28} {'scheme':18} {'ns':>7} {'roofline':>8} {'ratio':>6} {'goal':>5} {'NumPy':>6} {'kernel':>6}")
    for row in rows:
        others = (f"{row[name]:6.1f}" if row.get(name) is not None else f"{'-':>6}" for name in ("numpy", "kernel"))
        write(f"{row['work']:28} {row['scheme']:18} {row['ns']:7.2f} {row['roofline']:8.2f} {row['ratio']:6.2f} "
              f"{row['goal']:5.2f} {' '.join(others)}{' *' if row['ratio'] > row['goal'] else ''}")
    write("ratio: the median of the rounds'; *: misses the goal. NumPy: the same with NumPy alone.")
    write(f"kernel: this one doing it{': ' + kernel()['skipped'] if 'skipped' in kernel() else ''}.")
