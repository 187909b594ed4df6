"""The shortest part of a trace with a scheme's first error: it shows that error, and no operation of it can go."""

import json

import pytest

import hgmcore as hgm
from hgmcore import cli, schemes, shrink
from hgmcore.analysis.explain import explain, kind
from hgmcore.analysis.properties import PROPERTIES, wrong

NOISE = ["mmap A w F 0 2M shared", "touch A w 0", "dontneed A w 0 2M", "phase later", "observe"]
LINES = ["file G 2M 1", "file F 2M 2", "populate F 0 2", "mmap A v F 0 4M shared minor hgm", *NOISE,
         *(f"continue A v {4 * i}K 4K" for i in range(40)), "observe", "dontneed A v 0 2M", "observe"]


def observed(lines, scheme):
    machine = hgm.Machine(scheme)
    machine.run(lines)
    return machine.observe()


def test_the_shortest_part_by_hand():
    result = explain(LINES, "head_per_leaf", properties=["false_shared"])
    assert result["error"]["property"] == "false_shared" and result["shortest"]
    file, populate, mmap, one, other, observe = result["trace"].splitlines()[1:]
    assert [file, populate, mmap, observe] == [*LINES[1:4], "observe"]
    assert one.startswith("continue A v ") and other.startswith("continue A v ") and one != other
    assert result["operations"] == 6


def test_the_kind_of_an_error_is_the_scheme_s_word():
    kinds = {(scheme, name): explain(LINES, scheme, properties=[name])["error"]["kind"] for scheme, name in (
        ("subtree", "refs_not_explained"), ("head_per_leaf", "false_shared"), ("head_per_leaf", "pss_error_bytes"),
        ("logical_scan", "page_mapcount_wrong_pages"))}
    assert list(kinds.values()) == ["fault", "definition", "consequence", "definition"]
    assert kind(schemes.load("mm_id"), "leaked_folios") == "promise"


def test_what_is_defined_otherwise_is_explained_only_where_nothing_else_is_wrong():
    lines = [*LINES[:8], *LINES[10:30]]
    assert wrong(observed([*lines, "observe"], "mm_id")).keys() == {"false_shared_hugetlb"}
    error = explain(lines, "mm_id")["error"]
    assert (error["property"], error["kind"]) == ("false_shared_hugetlb", "rule")
    more = [*lines, "mmap B b F 0 2M shared", "touch B b 0"]
    error = explain(more, "mm_id")["error"]
    assert (error["property"], error["kind"]) == ("smaps_shared_error_bytes", "consequence")
    assert error["index"] > explain(more, "mm_id", properties=["false_shared_hugetlb"])["error"]["index"]


@pytest.mark.parametrize("scheme, name", [("head_per_leaf", "false_shared"), ("subtree", "refs_not_explained"),
                                          ("logical_scan", "page_mapcount_wrong_pages")])
def test_no_operation_can_go(scheme, name):
    lines = explain(LINES, scheme, properties=[name])["trace"].splitlines()[1:-1]
    assert wrong(observed(lines, scheme), [name])
    for i, line in enumerate(lines):
        try:
            rest = hgm.load(lines[:i] + lines[i + 1:])
        except hgm.TraceError:    # it declares what others use
            continue
        assert not wrong(observed(rest, scheme), [name]), f"{line!r} is not needed"


def test_all_that_is_there_may_be_needed():
    """Names that only the removed operations declared are gone, and numbers are those of the new header."""
    lines = ["file G 2M 1", "mmap Z z G 0 2M shared", *LINES[1:4], "mmap A own anon:2M 0 2M private", "fork A B",
             "touch B v 0", "touch B own 0 write", "fork B C", "touch C own 0 write", "fork C D", "observe"]
    result = explain(lines, "per_page_posted", properties=["false_exclusive"])
    trace = hgm.load(result["trace"].splitlines())
    assert trace.to_text() == result["trace"]
    assert wrong(observed(trace, "per_page_posted"), ["false_exclusive"])
    assert "Z" not in trace.header.processes and "F" not in [file.name for file in trace.header.files]


def test_the_gravest_of_several_is_explained():
    result = explain(LINES[:-1], "per_page_posted")
    seen = wrong(observed(LINES[:10], "per_page_posted"))
    assert list(seen) == [name for name in PROPERTIES if name in seen] and len(seen) > 1
    assert result["error"]["property"] == next(iter(seen))


def test_nothing_is_wrong():
    result = explain(LINES, "mm_id", properties=["false_shared", "false_exclusive"])
    assert (result["error"], result["trace"], result["operations"]) == (None, None, 0)


def test_time_that_is_over_is_said():
    result = explain(LINES, "head_per_leaf", properties=["false_shared"], seconds=1e-9)
    assert not result["shortest"] and result["operations"] > 6
    assert wrong(observed(result["trace"].splitlines()[1:], "head_per_leaf"), ["false_shared"])


def test_a_long_recording():
    result = explain("recording:qemu-postcopy_redis_4k", "head_per_leaf", properties=["false_shared"])
    assert result["operations"] == 7 and result["shortest"]


def test_properties():
    with pytest.raises(ValueError, match="did you mean 'false_shared'.*known: freed_while_mapped"):
        explain(LINES, "subtree", properties=["false_share"])
    assert set(wrong(observed(LINES[:10], "head_per_leaf"))) == {"page_mapcount_wrong_pages"}


def test_the_command(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.hgm").write_text("\n".join(["hgmcore-trace 1", *LINES, ""]))
    assert cli.run(["explain", "t.hgm", "--scheme", "head_per_leaf", "--property", "false_shared"]) == 0
    out, err = capfd.readouterr()
    assert err == "" and "First error: false_shared" in out and "WRONG    false_shared 1" in out
    assert max(map(len, out.splitlines())) <= 80
    assert cli.run(["explain", "t.hgm", "--scheme", "mm_id", "--property", "false_shared", "--property",
                    "pss_error_bytes"]) == 0
    assert "Nothing is wrong" in capfd.readouterr().out
    assert cli.run(["explain", "t.hgm", "--scheme", "subtree", "--property", "x"]) == 2
    assert "unknown property 'x'" in capfd.readouterr().err
    assert cli.run(["explain", "t.hgm", "--scheme", "subtree", "--json", "-"]) == 0
    assert json.loads(capfd.readouterr().out)["format"] == "hgmcore-explain 1"


def test_shrinking():
    def fails(numbers):
        return 7 in numbers and sum(n for n in numbers if n % 2 == 0) >= 4

    simpler = (lambda n: n // 2 * 2, lambda n: min(n, 4))
    found = shrink.shortest(range(20), fails, simpler=simpler)
    assert sorted(found) == [4, 7]
    together = shrink.shortest([1, 2, 3, 4], lambda numbers: 4 in numbers, belongs=lambda n: n == 4)
    assert together == [3, 4]
    assert shrink.shortest([1], lambda numbers: True) == [1]


def test_a_trace_that_maps_nothing_is_not_called_right(capfd, tmp_path):
    path = tmp_path / "t.hgm"
    path.write_text("hgmcore-trace 1\nfile F 2M 1\nmmap A v F 0 2M shared\ncontinue A v 0 4K\n")
    assert cli.run(["explain", str(path), "--scheme", "subtree"]) == 0
    out = capfd.readouterr().out
    assert "Nothing was tested: no operation mapped or unmapped anything." in out and "Nothing is wrong" not in out
    assert explain(LINES[:10], "mm_id")["tested"]
