"""Both forms of a trace: their meaning, that neither loses anything, and the input that each refuses."""

import io
import os
import re
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgmcore import get_include, replay, sizes
from hgmcore.replay import plain as simple
from hgmcore.trace import File, Trace, TraceError, binary, statements, text

HEADER = Path(get_include(), "hgmcore", "hgm.h")

# Every form of every statement, as the writer writes it.
EVERY = """\
hgmcore-trace 1
# provenance guest: "redis \\"7\\"\\n# not a comment"
file F 2M 4
file S 4K 9 shmem
populate F 0 4
mmap A v F 0 2M shared minor
@7:99 mmap A a anon:2M 0 4M private
mmap A h F 2M 2M shared minor wp hgm
mmap B v S 0 36K private
register A v minor
register A v wp
register A v minor wp
unregister A v
split A v 0 2M
@3 continue A v 0 4K urgent
@0:5 continue A v 4K 4K
touch A v 8K
touch A v 8K write
dontneed A v 0 2M
collapse A v 0 2M
munmap A v 0 2M
mprotect A v 0 2M rw
mprotect A v 0 2M none
mprotect A v 0 2M r
mremap A v 4M
mremap A v 0 2M w
fork A C
touch C w 0
exit A
punch F 0 8M
truncate F 0
migrate A v 0 2M
migrate A v 0 2M all
hwpoison A v 20K
pin F 0 3
unpin F 3
fail 1
observe
phase install
observe
phase half-way
phase install
"""


def parse(body, head="hgmcore-trace 1\nfile F 2M 4\nmmap A v F 0 2M shared\n"):
    return Trace.parse(head + body, "guest.hgm")


def refusal(call, *args):
    with pytest.raises(TraceError) as caught:
        call(*args)
    return str(caught.value)


def in_binary(trace):
    stream = io.BytesIO()
    binary.write(trace, stream)
    return stream.getvalue()


# What a trace is


def test_statements_in_both_forms():
    trace = Trace.parse(EVERY)
    assert trace.to_text() == EVERY
    assert Trace.load(io.BytesIO(in_binary(trace))) == trace


def test_columns():
    trace = Trace.parse(EVERY)
    at = {line: index for index, line in enumerate(EVERY.splitlines()[2:])}
    ops = trace.operations

    def row(line):
        return tuple(ops[at[line]].tolist())  # offset, length, target, arg, op, flags

    assert row("populate F 0 4") == (0, 4, 0, 0, 1, 0)
    assert row("mmap A v F 0 2M shared minor") == (0, 2 << 20, 0, 0, 2, 1 | 2)
    assert row("@7:99 mmap A a anon:2M 0 4M private") == (0, 4 << 20, 1, 2, 2, 0)
    assert row("mmap A h F 2M 2M shared minor wp hgm") == (2 << 20, 2 << 20, 2, 0, 2, 1 | 2 | 4 | 8)
    assert row("@3 continue A v 0 4K urgent") == (0, 4096, 0, 0, 6, 16)
    assert row("touch A v 8K write") == (8192, 0, 0, 0, 7, 32)
    assert row("mprotect A v 0 2M rw") == (0, 2 << 20, 0, 0, 11, 128 | 32)
    assert row("mprotect A v 0 2M r") == (0, 2 << 20, 0, 0, 11, 128)
    assert row("mremap A v 4M") == (0, 4 << 20, 0, 0xFFFF, 12, 0)
    assert row("mremap A v 0 2M w") == (0, 2 << 20, 0, 4, 12, 0)
    assert row("fork A C") == (0, 0, 0, 2, 13, 0)
    assert row("migrate A v 0 2M all") == (0, 2 << 20, 0, 0, 17, 64)
    assert row("pin F 0 3") == (0, 3, 0, 0, 19, 0)
    assert row("unpin F 3") == (3, 1, 0, 0, 20, 0)
    assert trace.thread[at["@3 continue A v 0 4K urgent"]] == 3
    assert trace.time[at["@0:5 continue A v 4K 4K"]] == 5
    assert (trace.time == -1).sum() == len(trace) - 2


def test_header():
    header = Trace.parse(EVERY).header
    assert header.files == [
        File("F", 2 << 20, 4), File("S", 4096, 9, "shmem"), File("anon:2M", 2 << 20, 0, "anon")]
    assert header.processes == ["A", "B", "C"]
    named = [(header.processes[m.process], m.name) for m in header.mappings]
    assert named == [("A", "v"), ("A", "a"), ("A", "h"), ("B", "v"), ("A", "w"),
                     ("C", "v"), ("C", "a"), ("C", "h"), ("C", "w")]  # a child has its parent's, not B's
    assert header.provenance == {"guest": 'redis "7"\n# not a comment'}
    assert header.phases == ["install", "half-way"]


def test_a_binary_trace_of_before_phases_loads(monkeypatch):
    old = vars(parse("observe").header) | {"phases": None}
    monkeypatch.setattr(binary, "vars", lambda header: {k: v for k, v in old.items() if k != "phases"}, raising=False)
    data = in_binary(parse("observe"))
    monkeypatch.undo()
    assert b'"phases"' not in data and Trace.load(io.BytesIO(data)) == parse("observe")


@pytest.mark.parametrize("statement", statements.STATEMENTS, ids=lambda statement: statement.usage)
def test_each_example_in_both_forms(statement):
    trace = Trace.parse(statements.EXAMPLE_BEGINS + statement.example + "\n")
    assert statements.form_of(*trace.operations[-1][["op", "arg"]].tolist()) is statement
    assert trace.to_text().endswith(f"\n{statement.example}\n")
    assert Trace.load(io.BytesIO(in_binary(trace))) == trace
    assert statement.help.endswith(".") and len(statement.example) < 70


def test_the_reference():
    shown = statements.reference()
    assert max(map(len, shown.splitlines())) <= 80
    joined = " ".join(shown.split())
    for statement in statements.STATEMENTS:
        assert f"{statement.usage} {statement.help} e.g. {statement.example}" in joined


def test_a_phase_counts_nothing_and_changes_nothing():
    body = "populate F 0 1\nsplit A v 0 2M\n{}continue A v 0 4K\n{}observe\n"
    head = "hgmcore-trace 1\nfile F 2M 4\nmmap A v F 0 2M shared minor\n"
    plain, phased = (replay(parse(body.format(*2 * [line]), head), "head_per_leaf") for line in ("", "phase p\n"))
    assert plain["cost"] | {"operations": 0, "ns_per_operation": 0} == phased["cost"] | {
        "operations": 0, "ns_per_operation": 0}
    one, other = (simple(result["observations"][0]) for result in (plain, phased))
    assert one["folios"] == other["folios"] and one["index"] + 2 == other["index"]
    assert not len(phased["operations"])


@pytest.mark.parametrize("line, reason", [("phase", "phase: NAME is missing (expected: phase NAME)"),
                                          ("phase 7", "phase: '7' cannot name a phase"),
                                          ("phase a b", "phase: unexpected 'b' (expected: phase NAME)")])
def test_a_bad_phase(line, reason):
    assert reason in refusal(parse, line)


def test_codes_are_those_of_the_c_header():
    source = HEADER.read_text()
    names = re.findall(r"HGM_OP_(\w+)", re.search(r"enum hgm_op \{(.*?)\}", source, re.DOTALL)[1])
    assert statements.CODES == {name.lower(): code for code, name in enumerate(names)}, "STATEMENTS against hgm.h"
    for name, value in re.findall(r"#define HGM_OPF_(\w+) (\d+)", source):
        assert getattr(statements, name) == int(value)
    assert statements.OPERATION.itemsize == 24


def test_columns_without_content_are_none():
    assert parse("observe").thread is None and parse("observe").time is None
    assert parse("@0 observe") == parse("observe")
    assert parse("@1 observe") != parse("observe")
    assert parse("@1:0 observe") != parse("@1 observe")
    assert parse("@2 observe").time is None


def test_equality_is_of_content():
    one = parse("# a comment\ncontinue A v 0x0 4096")
    other = Trace.parse(one.to_text(), "elsewhere")
    assert one == other and one.lines.tolist() != other.lines.tolist()
    assert one != parse("continue A v 0 8K") and one != parse("continue A v 0 4K", "hgmcore-trace 1\n"
                                                              "file F 1G 4\nmmap A v F 0 2M shared\n")
    assert one != "hgmcore-trace 1"


def test_anonymous_memory_is_one_for_each_folio_size():
    one, other = (parse(f"mmap A a anon:2M 0 2M private\nmmap A b anon:{size} 0 2M private")
                  for size in ("2M", "0x200000"))
    assert one == other and [file.name for file in one.header.files] == ["F", "anon:2M"]


def test_geometry():
    trace = Trace.parse("hgmcore-trace 1\n\ngeometry arm64-64k\nfile F 512M 1\n")
    assert trace.header.geometry == "arm64-64k"
    assert Trace.parse(trace.to_text()) == trace == Trace.load(io.BytesIO(in_binary(trace)))


def test_lines_of_statements():
    trace = Trace.parse("hgmcore-trace 1  # first\n\n  file F 2M 1 # a file\r\n#\nobserve")
    assert trace.lines.tolist() == [3, 5]


def test_provenance_only_above_the_first_statement():
    assert parse('# provenance late: "x"\nobserve').header.provenance == {}
    assert Trace.parse('hgmcore-trace 1\n# provenance guest: hand-made\n').header.provenance == {}


@pytest.mark.parametrize("spelled, value", [
    ("0", 0), ("4096", 4096), ("0x1000", 4096), ("4K", 4096), ("0x10K", 1 << 14), ("2M", 1 << 21),
    ("1G", 1 << 30), ("1T", 1 << 40), ("007", 7), (str(2**63 - 1), 2**63 - 1),
    ("0x7fffffffffffffff", 2**63 - 1)])
def test_sizes(spelled, value):
    assert sizes.parse_size(spelled) == value
    assert sizes.parse_size(value) == value


@given(st.integers(0, 2**63 - 1), st.integers(0, 63))
def test_sizes_come_back(value, shift):
    value = value >> shift << shift
    assert sizes.parse_size(sizes.format_size(value)) == value


def test_sizes_use_the_largest_exact_unit():
    assert [sizes.format_size(n) for n in (0, 1, 4096, 2 << 20, (2 << 20) + 4096, 1 << 30, 1 << 52)] == [
        "0", "1", "4K", "2M", "2052K", "1G", "4096T"]


# No loss


@st.composite
def traces(draw):
    """The text of a valid trace, with names and numbers of many shapes."""
    word = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,6}", fullmatch=True)
    size = st.integers(0, 2**63 - 1) | st.integers(0, 1 << 20).map(lambda n: n << 12)
    spell = size.flatmap(lambda n: st.sampled_from([str(n), hex(n), sizes.format_size(n)]))
    lines, files, mappings, processes = [], [], [], []

    def add(*words):
        prefix = draw(st.sampled_from(["", "", f"@{draw(st.integers(0, 2**32 - 1))}",
                                       f"@{draw(st.integers(0, 9))}:{draw(st.integers(0, 2**63 - 1))}"]))
        lines.append(" ".join(filter(None, [prefix, *words])))

    def flags(*words):
        return " ".join(draw(st.permutations(words))[:draw(st.integers(0, len(words)))])

    for name in draw(st.lists(word, min_size=1, max_size=3, unique=True)):
        kind, pages = draw(st.sampled_from(["", "hugetlb", "shmem"])), draw(st.integers(1, 2**22))
        page = draw(st.sampled_from(["2M", "4K" if kind == "shmem" else "1G", "0x200000"]))
        add("file", name, page, str(pages), kind)
        files.append((name, pages))
    for _ in range(draw(st.integers(1, 25))):
        file, pages = draw(st.sampled_from(files))
        first = draw(st.integers(0, pages - 1))
        kind = draw(st.sampled_from(["mmap", "anon", "file", "range", "touch", "fork", "mremap", "none"]))
        if kind == "mmap" or not mappings:
            process, name = draw(word if not processes else st.sampled_from(processes) | word), draw(word)
            add("mmap", process, name, file, draw(spell), draw(spell),
                draw(st.sampled_from(["shared", "private"])), flags("minor", "wp", "hgm"))
        elif kind == "anon":
            process, name = draw(st.sampled_from(processes)), draw(word)
            add("mmap", process, name, draw(st.sampled_from(["anon:2M", "anon:4096", "anon:0x200000"])), "0",
                draw(spell), "private")
        elif kind == "file":
            add(draw(st.sampled_from(["populate", "pin", "unpin"])), file, str(first), str(pages - first))
            add("punch", file, str(first * 4096), str(draw(st.integers(0, 4096))))
            add("truncate", file, draw(spell))
            continue
        elif kind == "fork":
            parent, child = draw(st.sampled_from(processes)), draw(word)
            if child not in processes:
                add("fork", parent, child)
                mappings += [(child, name) for process, name in mappings if process == parent]
                processes.append(child)
            continue
        elif kind == "none":
            add("observe")
            add("fail", str(draw(st.integers(1, 9))))
            add("exit", draw(st.sampled_from(processes)))
            continue
        else:
            process, name = draw(st.sampled_from(mappings))
            if kind == "touch":
                add("touch", process, name, draw(spell), flags("write"))
                add("hwpoison", process, name, draw(spell))
            elif kind == "mremap":
                add("mremap", process, name, draw(spell))
                name = draw(word)
                add("mremap", process, mappings[0][1] if process == mappings[0][0] else
                    next(n for p, n in mappings if p == process), draw(spell), draw(spell), name)
            else:
                op = draw(st.sampled_from(["split", "dontneed", "collapse", "munmap", "continue", "migrate"]))
                add(op, process, name, draw(spell), draw(spell),
                    flags({"continue": "urgent", "migrate": "all"}.get(op, "")))
                add("mprotect", process, name, draw(spell), draw(spell),
                    draw(st.sampled_from(["r", "rw", "none"])))
                add("register", process, name, draw(st.sampled_from(["minor", "wp", "wp minor"])))
                continue
        if process not in processes:
            processes.append(process)
        if (process, name) not in mappings:
            mappings.append((process, name))
    return "hgmcore-trace 1\n" + "\n".join(lines) + "\n"


@given(traces())
def test_no_form_loses_anything(body):
    trace = Trace.parse(body)
    assert len(trace) == body.count("\n") - 1
    from_text, from_binary = Trace.parse(trace.to_text()), Trace.load(io.BytesIO(in_binary(trace)))
    assert from_text == trace == from_binary
    assert from_binary.to_text() == trace.to_text()


def test_no_loss_over_blocks_of_the_reader_and_the_writer():
    count = text.CHUNK + 5
    body = "".join(f"@{i % 3}:{i} continue A v {4 * i + 1}K 4K\n" for i in range(count))
    trace = parse(body)
    assert trace.operations["offset"][2:].tolist() == [1024 * (4 * i + 1) for i in range(count)]
    assert trace.lines[-1] == count + 3
    assert trace.to_text().endswith(body)


def test_an_empty_trace():
    trace = Trace.parse("hgmcore-trace 1")
    assert len(trace) == 0
    assert Trace.parse(trace.to_text()) == trace == Trace.load(io.BytesIO(in_binary(trace)))


@pytest.mark.parametrize("name", ["t.hgm", "t.hgmt", "t.parquet"])
def test_files(tmp_path, name):
    trace = Trace.parse(EVERY)
    trace.save(tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(b"hgmcore-trace 1" if name == "t.hgm" else b"PAR1")
    again = Trace.load(tmp_path / name)
    assert again == trace and again.name == str(tmp_path / name)
    assert os.listdir(tmp_path) == [name]


def test_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(in_binary(Trace.parse(EVERY)))))
    assert Trace.load("-") == Trace.parse(EVERY)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"oops")))
    assert refusal(Trace.load, "-").startswith("<stdin>:1: not a trace")


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    def fail(trace, stream):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    path = tmp_path / "t.hgm"
    path.write_text("old")
    monkeypatch.setattr(text, "write", fail)
    assert refusal(parse("observe").save, path) == f"{path}: No space left on device"
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["t.hgm"]


def test_save_to_a_pipe(tmp_path):
    path, got = tmp_path / "pipe.hgm", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: got.append(path.read_text()), daemon=True)
    reader.start()
    Trace.parse(EVERY).save(path)
    reader.join(timeout=600)
    assert got == [EVERY] and path.is_fifo() and os.listdir(tmp_path) == ["pipe.hgm"]


def test_records_have_the_layout_of_the_c_header():
    """OPERATION and RESULT have the fields of hgm_operation and hgm_result, in their order and sizes."""
    import numpy as np

    from hgmcore.core.machine import RESULT

    sizes = {"uint64_t": "u8", "uint32_t": "u4", "uint16_t": "u2", "uint8_t": "u1", "int32_t": "i4"}
    source = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.S)
    pairs = ("hgm_operation", statements.OPERATION, {}), ("hgm_result", RESULT, {"error": "errno"})
    for struct, dtype, renamed in pairs:
        body = re.search(rf"typedef struct {struct} {{(.*?)}}", source, flags=re.S)[1]
        fields = [(renamed.get(name.strip(), name.strip()), sizes[kind]) for kind, names in
                  re.findall(r"(\w+)\s+([\w, ]+);", body) for name in names.split(",")]
        assert np.dtype(fields) == dtype, struct
    no_arg = re.search(r"#define HGM_NO_ARG (0x[0-9a-fA-F]+)", source)
    assert int(no_arg[1], 16) == statements.NO_ARG
