"""`hgmcore help`, and the JSON schemas against what the commands really write."""

import json
import re
from pathlib import Path

import jsonschema
import pytest

import hgmcore as hgm
from hgmcore import cli
from hgmcore.options import OPTIONS
from hgmcore.replay import plain
from hgmcore.report.formats import FORMATS, schemas
from hgmcore.trace.statements import NAMES

TRACE = """\
hgmcore-trace 1
file F 2M 2
file S 2M 1 shmem
populate F 0 1
mmap A v F 0 4M shared minor hgm
mmap A s S 0 2M shared
mmap A a anon:2M 0 2M private
touch A s 0 write
touch A a 0 write
touch A v 0
continue A v 0 4K
continue A v 0 4K
fork A B
touch B a 0 write
pin F 0
punch F 0 2M
observe
"""
SCHEDULE = """hgmcore-schedule 1
scheme head_per_leaf
locks pt
scope geometry=tiny-2 processes=1 ops=exit,punch
a exit A
b punch F 0 8K
""" + "@a\n" * 3 + "@b\n" * 2
LOG = "8568@1795369131.000100:postcopy_init_range mem0: 0x7f8320000000 offset=0x0 length=0x400000\n" \
      "8742@1795369132.000000:postcopy_place_page host=0x7f8320005000\nrubbish\n"


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("t.hgm").write_text(TRACE)
    Path("q.log").write_text(LOG)
    Path("s.schedule").write_text(SCHEDULE)
    Path("s.toml").write_text('inputs = "t.hgm"\nschemes = "hugetlb"\n')


def printed(capfd, *arguments):
    assert cli.run(list(arguments)) == 0
    out, err = capfd.readouterr()
    assert err == ""
    return out


def checked(value, name=None):
    """`value`, once it is known to satisfy the schema of its format."""
    schema = schemas()[name or value["format"]]
    jsonschema.validators.validator_for(schema)(schema).validate(value)
    return value


WRITES = {
    "hgmcore-replay 1": ["replay", "t.hgm", "--scheme", "mm_id", "--operations", "all"],
    "hgmcore-check 1": ["check", "subtree", "--scope", "pair-small"],
    "hgmcore-walk 1": ["check", "subtree", "--walk", "1"],
    "hgmcore-races 1": ["check", "head_per_leaf", "--races", "--scope", "race", "--locks", "pt"],
    "hgmcore-schedule 1": ["replay", "--schedule", "s.schedule"],
    "hgmcore-info 1": ["info", "t.hgm"],
    "hgmcore-convert 1": ["convert", "t.hgm", "-o", "u.hgm"],
    "hgmcore-import 1": ["import", "qemu", "q.log", "-o", "q.hgm"],
    "hgmcore-schemes 1": ["schemes"],
    "hgmcore-costs 1": ["schemes", "subtree", "--costs"],
    "hgmcore-workloads 1": ["workloads"],
    "hgmcore-explain 1": ["explain", "t.hgm", "--scheme", "head_per_leaf"],
    "hgmcore-validate 1": ["validate"],
    "hgmcore-sweep 1": ["sweep", "s.toml"],
}


@pytest.mark.parametrize("name", WRITES)
def test_what_commands_write_fits_the_schema(name, capfd):
    value = checked(json.loads(printed(capfd, *WRITES[name], "--json", "-")))
    assert value["format"] == name


@pytest.mark.parametrize("scheme", hgm.schemes.NAMES)
def test_replays_of_every_scheme_fit(scheme, capfd):
    checked(json.loads(printed(capfd, "replay", "t.hgm", "--scheme", scheme, "--json", "-")))


@pytest.mark.parametrize("repeat, options", [(0, {}), (2, {}), (0, {"hvo": "on"})])
def test_comparisons_fit(repeat, options):
    result = checked(json.loads(json.dumps(plain(hgm.compare("t.hgm", repeat=repeat, **options)))))
    assert ("measured" in result["schemes"]["hugetlb"]) == bool(repeat)
    assert ("refused_why" in result["schemes"]["mm_id"]) == bool(options)
    result["schemes"]["subtree"]["errors"]["own"]["x"] = 1
    with pytest.raises(jsonschema.ValidationError):
        checked(result)


def test_lines_of_a_sweep_fit(capfd):
    printed(capfd, "sweep", "s.toml", "--processes", "1")
    for line in Path("s.sweep/results.jsonl").read_text().splitlines():
        checked({**json.loads(line)}, "hgmcore-sweep 1, lines")
    checked({"format": "hgmcore-sweep 1, lines", "task": "x", "error": "y"})


def test_steps_fit(capfd):
    head, *lines = printed(capfd, "step", "t.hgm", "--scheme", "subtree,mm_id", "--json", "-").splitlines()
    checked(json.loads(head))
    assert len([checked(json.loads(line), "hgmcore-step 1, lines") for line in lines]) == 2 * (TRACE.count("\n") - 1)


def test_a_schema_refuses_what_is_another(capfd):
    value = json.loads(printed(capfd, "replay", "t.hgm", "--scheme", "mm_id", "--json", "-"))
    for change in (lambda v: v.update(more=1), lambda v: v["cost"].pop("lines"), lambda v: v.update(scheme=7),
                   lambda v: v["observations"][0]["folios"][0].pop("truth"),
                   lambda v: v["operations"][0].update(error=17)):
        other = json.loads(json.dumps(value))
        change(other)
        with pytest.raises(jsonschema.ValidationError):
            checked(other)


def test_every_schema_is_one_and_every_format_has_one(capfd):
    assert set(json.loads(printed(capfd, "help", "json"))) == set(FORMATS)
    for schema in schemas().values():
        jsonschema.validators.validator_for(schema).check_schema(schema)
    written = set()
    package = Path(hgm.__file__).parent
    for path in package.rglob("*.py"):
        written |= set(re.findall(r'"format": "(hgmcore-[\w-]+ \d+)"', path.read_text()))
    assert written <= set(FORMATS) and len(written) > 8


def test_the_references(capfd):
    text = printed(capfd, "help", "trace")
    assert all(re.search(rf"^{name}( |$)", text, re.MULTILINE) for name in NAMES)
    assert all(re.search(rf"^  {name} ", printed(capfd, "help", "options"), re.MULTILINE) for name in OPTIONS)
    glossary = printed(capfd, "help", "glossary")
    assert "\nfolio\n" in glossary and "\nPTE, PMD, PUD\n" in glossary and "| " not in glossary
    rows = (Path(hgm.__file__).parent / "report/glossary.md").read_text().count("\n|") - 2
    assert len(re.findall(r"^\S", glossary, re.MULTILINE)) == rows + 1
    for topic in ("trace", "options", "glossary"):
        assert max(map(len, printed(capfd, "help", topic).splitlines())) <= 80
    assert "Print a reference" in printed(capfd, "help")


def test_no_such_topic(capfd):
    assert cli.run(["help", "traces"]) == 2
    assert "'traces' is not one of 'trace', 'options', 'json', 'glossary'" in capfd.readouterr().err
