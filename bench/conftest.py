"""Prints one table of all measurements: work, scheme, ns, roofline, ratio, goal, and other programs' times."""

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
    for section, key, table in (("rates", "rate", rates),
                                ("every step from every state of a tiny machine", "search", searches),
                                ("two threads against one", "speedup", two_threads),
                                ("a scheme of one's own, beside the built-in one", "door", doors),
                                ("a guest of 1 TiB against one of 1 GiB", "tib", guests),
                                ("one operation at a time, and records, by each language", "language", languages),
                                ("against the roofline", "ratio", against_the_roofline),
                                ("the same, short", "column", short)):
        if rows := [info for info in infos if key in info]:
            terminalreporter.section(section)
            for line in table(rows):
                write(line)


def star(missed):
    """The remark behind a row that misses its goal."""
    return " *" if missed else ""


def number(value, form, width):
    return f"{value:{width}{form}}" if value is not None else f"{'-':>{width}}"


def rates(rows):
    for row in rows:
        yield (f"{row['work']:52} {row['rate']:>12,} {row['unit']} a second, goal {row['goal']:,}"
               f"{star(row['rate'] < row['goal'])}")


def searches(rows):
    yield "million steps a second of CPU time; C loop: copies, hashes and probes as many states; ratio: of the two;"
    yield "goals: a ratio of 3, 32 bytes a state, of which 16 for its key; *: misses one"
    yield (f"{'scope':12} {'scheme':18} {'states':>8} {'M/s':>6} {'goal':>5} {'C loop':>7} {'ratio':>5} "
           f"{'bytes/state':>11} {'of key':>6}")
    for row in rows:
        ratio = row["loop"] / row["steps"]
        missed = row["steps"] < row["goal"] or ratio > 3 or row["bytes"] > 32 or row["key"] > 16
        yield (f"{row['search']:12} {row['scheme']:18} {row['states']:8,} {row['steps'] / 1e6:6.2f} "
               f"{row['goal'] / 1e6:5.1f} {row['loop'] / 1e6:7.1f} {ratio:5.2f} "
               f"{row['bytes']:11.1f} {row['key']:6}{star(missed)}")


def languages(rows):
    yield "ns for each leaf of 4K of seqR, head_per_leaf; *: misses the goal"
    for row in rows:
        yield (f"{row['language']:18} {row['ns']:8.2f}  roofline {row['roofline']:6.2f}  goal "
               f"{number(row['goal'], '', 5)}"
               f"{star(row['goal'] and row['ns'] > row['goal'])}")


def two_threads(rows):
    yield "ns for each leaf of 4K; speed-up: median of the rounds, best: of the fastest; *: misses the goal"
    yield (f"{'work':24} {'locks':7} {'scheme':16} {'one':>6} {'two':>6} {'speed-up':>8} {'best':>5} {'roofline':>8} "
           f"{'goal':>5}")
    for row in rows:
        yield (f"{row['work']:24} {row['locks']:7} {row['scheme']:16} {row['one']:6.2f} {row['two']:6.2f} "
               f"{row['speedup']:8.2f} {row['best']:5.2f} {number(row['roofline'], '.2f', 8)} "
               f"{number(row['goal'], '', 5)}"
               f"{star(row['speedup'] < (row['goal'] or 0))}")


def doors(rows):
    yield "ns for each leaf; ratio: median of the rounds'; *: misses the goal"
    yield f"{'door':16} {'work':24} {'ns':>8} {'built in':>8} {'ratio':>7} {'goal':>5}"
    for row in rows:
        yield (f"{row['door']:16} {row['work']:24} {row['ns']:8.2f} {row['built_in']:8.2f} {row['times']:7.2f} "
               f"{number(row['goal'], '.2f', 5)}{star(row['goal'] is not None and row['times'] > row['goal'])}")


def guests(rows):
    yield f"{'scheme':18} {'ns 1T':>6} {'ns 1G':>6} {'ratio':>6} {'goal':>5} {'memory':>7} {'goal':>5}"
    for row in rows:
        yield (f"{row['scheme']:18} {row['tib']:6.2f} {row['one']:6.2f} {row['per_piece']:6.2f} {row['goal']:5.2f} "
               f"{row['memory']:7.2f} {row['memory_goal']:5.2f}"
               f"{star(row['per_piece'] > row['goal'] or row['memory'] > row['memory_goal'])}")


def against_the_roofline(rows):
    yield "ns for each leaf; ratio: median of the rounds'; *: misses the goal; NumPy: the same with NumPy alone"
    yield f"kernel: this one doing it{': ' + kernel()['skipped'] if 'skipped' in kernel() else ''}"
    yield f"{'work':26} {'scheme':18} {'ns':>6} {'roofline':>8} {'ratio':>5} {'goal':>5} {'NumPy':>5} {'kernel':>6}"
    for row in rows:
        yield (f"{row['work']:26} {row['scheme']:18} {row['ns']:6.2f} {row['roofline']:8.2f} {row['ratio']:5.2f} "
               f"{row['goal']:5.2f} {number(row.get('numpy'), '.1f', 5)} {number(row.get('kernel'), '.1f', 6)}"
               f"{star(row['ratio'] > row['goal'])}")


def short(rows):
    """Two tables, a line for each scheme: nanoseconds, and ratios."""
    cells = {(row["scheme"], row["column"]): row for row in rows if row["column"]}
    schemes, columns = (list(dict.fromkeys(key[i] for key in cells)) for i in range(2))

    def line(name, values):
        return f"{name:18}" + "".join(f"{value:>5}" if value[-1:] in "* " else f"{value:>4} " for value in values)

    def lines(form):
        for scheme in schemes:
            yield line(scheme, [form(cells[scheme, column]) if (scheme, column) in cells else "-"
                                for column in columns])

    def each(form):
        return [form([row for (_, at), row in cells.items() if at == column]) for column in columns]

    def ns(value):
        if value is None:
            return "-"
        return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"

    yield line("ns for each leaf", columns)
    yield from lines(lambda row: ns(row["ns"]))
    yield line("NumPy, at best", each(lambda these: ns(min(row["numpy"] for row in these))))
    yield line("this kernel", each(lambda these: ns(these[0]["kernel"])))
    yield ""
    yield line("ratio to roofline", columns)
    yield from lines(lambda row: f"{row['ratio']:.2f}{'*' if row['ratio'] > row['goal'] else ' '}")
    yield line("goal", each(lambda these: f"{these[0]['goal']:.2f}"))
    yield "seq, rnd: continues of 4K in order and at random, R: with the look-ups' references; fill: one"
    yield "continue, base_only; zap: dontneed; unmp: munmap; fork, B: batched; coll: collapse, 2: by 2M first"
