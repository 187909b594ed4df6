"""A scheme as a table of function pointers: from C, ctypes, cffi, numba and a capsule; and tables that misbehave."""

import ctypes
import importlib.util
import random
import subprocess
import sys

import own_schemes
import pytest
from test_own_python import SMALL, said, small

import hgmcore as hgm
from hgmcore.explore.check import Checked
from hgmcore.explore.observed import preamble
from hgmcore.explore.scopes import find
from hgmcore.explore.walk import GROUNDS, sequence
from hgmcore.own import callbacks, tables
from hgmcore.own.tables import OFFSET, Table, table

ENTIRE = OFFSET["_entire_mapcount"]
INCLUDE = '#include "hgmcore/scheme.h"'
INSTALL = """
static int install(hgm_cost *cost, const hgm_options *options, const hgm_leaf *leaf) { %s }
static void removed(hgm_cost *cost, const hgm_options *options, const hgm_leaf *leaf) { %s }
static int64_t counts(const hgm_options *options, const hgm_folio *folio, uint64_t page) { return 0; }
static void answers(const hgm_options *options, const hgm_folio *folio, hgm_answer *answer) { }
"""


@pytest.fixture(scope="module")
def c_head(tmp_path_factory):
    """A library with head_per_leaf as the table c_head."""
    return ctypes.CDLL(own_schemes.library(tmp_path_factory.mktemp("c"), own_schemes.c_head()))


def c_table(library, name="c_head"):
    return Table.in_dll(library, name)


def by_ctypes(**changed):
    """head_per_leaf in Python functions that ctypes makes callbacks of."""

    def leaf_install(cost, options, leaf):
        leaf = leaf.contents
        tables.ref_add(cost, leaf.folio, leaf.count)
        tables.map_add(cost, leaf.folio, 1, ENTIRE, leaf.count)
        return 1

    def leaf_remove(cost, options, leaf):
        leaf = leaf.contents
        tables.map_add(cost, leaf.folio, 1, ENTIRE, -leaf.count)
        tables.ref_add(cost, leaf.folio, -leaf.count)

    def page_mapcount(options, folio, page):
        return tables.count(folio, 1, ENTIRE)

    def answer_folio(options, folio, answer):
        answer.contents.mapcount = folio.contents.page[1]._entire_mapcount
        answer.contents.mapped = answer.contents.mapcount > 0

    functions = {
        "leaf_install": leaf_install,
        "leaf_remove": leaf_remove,
        "page_mapcount": page_mapcount,
        "answer_folio": answer_folio,
    }
    given = {"state": {"compound": "_entire_mapcount"}, "exceptions": own_schemes.EXCEPTIONS, **functions, **changed}
    return table("by_ctypes", "head_per_leaf by ctypes", **given)


def in_c(c_head):
    return c_table(c_head)


def functions_of_c(c_head):
    """A table that Python fills, of functions in C."""
    c = c_table(c_head)
    return table(
        "functions",
        "head_per_leaf of C functions",
        state={"compound": "_entire_mapcount"},
        exceptions=own_schemes.EXCEPTIONS,
        **{
            name: ctypes.cast(getattr(c, name), ctypes.c_void_p).value
            for name in ("leaf_install", "leaf_remove", "page_mapcount", "answer_folio")
        },
    )


def by_cffi(c_head):
    ffi = pytest.importorskip("cffi").FFI()
    ffi.cdef(tables.CDEF)
    ffi.cdef("extern hgm_scheme c_head;")
    return ffi.dlopen(c_head._name).c_head


def by_cffi_pointer(c_head):
    ffi = pytest.importorskip("cffi").FFI()
    ffi.cdef(tables.CDEF)
    ffi.cdef("extern hgm_scheme c_head;")
    by_cffi_pointer.kept = library = ffi.dlopen(c_head._name)
    return ffi.addressof(library, "c_head")


def by_pointer(c_head):
    return ctypes.pointer(c_table(c_head))


def by_capsule(c_head):
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return new(ctypes.addressof(c_table(c_head)), b"hgmcore.scheme.v1", None)


def by_numba(c_head):
    pytest.importorskip("numba")
    path = own_schemes.HEADER.parents[3] / "examples/own_scheme_numba.py"
    spec = importlib.util.spec_from_file_location("own_scheme_numba", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.by_numba


def in_python(c_head):
    return by_ctypes()


DOORS = [in_c, functions_of_c, by_pointer, by_capsule, by_cffi, by_cffi_pointer, by_numba, in_python]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_each_door_counts_as_the_compiled_scheme(c_head, door):
    scheme = door(c_head)
    assert hgm.schemes.load(scheme) is hgm.schemes.load(scheme)
    for number, ground in enumerate(GROUNDS):
        lines = [*preamble(ground), *sequence(random.Random(number), ground, 30), "observe"]
        for options in ({}, {"batch": "6.12"}):
            assert said(hgm.replay(lines, scheme, **options)) == said(hgm.replay(lines, "head_per_leaf", **options))
    found = []
    for one in (scheme, "head_per_leaf"):
        checked = Checked(one, find("pair-small")).run()
        found.append((checked.ended, checked.search.distinct, [checked.search.violation(k) for k in range(17)]))
    assert found[0] == found[1]


# What a scheme needs the engine to find out, it is told: the needs are read from the table.
NEEDY = {
    "logical_counter": ("HGM_NEEDS_COUNTER | HGM_NEEDS_ZAPS", ""),
    "logical_scan": ("HGM_NEEDS_SCAN | HGM_NEEDS_ZAPS", ""),
    "special_bit": ("HGM_NEEDS_BIT | HGM_NEEDS_SCAN | HGM_NEEDS_ZAPS", ""),
}


def logical(name, needs):
    """C text of the logical mapping with the needs of one of its three schemes."""
    engine = hgm.schemes.load(name)
    text = lambda pairs: " ".join(f"{key}={value}" for key, value in pairs.items())  # noqa: E731
    return f"""
#define HGM_NEEDS ({needs})
#include "hgmcore/scheme.h"

HGM_INLINE int hgm_leaf_install(hgm_cost *cost, const hgm_options *options, const hgm_leaf *leaf)
{{
	if (!leaf->first_leaf)
		return 0;
	hgm_ref_add(cost, leaf->folio, 1);
	hgm_map_add(cost, &leaf->folio->page[1], &leaf->folio->page[1]._entire_mapcount, 1);
	return HGM_KEEPS | HGM_COUNTS;
}}

HGM_INLINE void hgm_leaf_remove(hgm_cost *cost, const hgm_options *options, const hgm_leaf *leaf) {{ }}

HGM_INLINE int hgm_subtree_zapped(hgm_cost *cost, const hgm_options *options, const hgm_subtree *subtree)
{{
	if (!(subtree->removed > 0 && subtree->empty))
		return 0;
	hgm_map_add(cost, &subtree->folio->page[1], &subtree->folio->page[1]._entire_mapcount, -1);
	hgm_ref_add(cost, subtree->folio, -1);
	return 1;
}}

HGM_INLINE int64_t hgm_page_mapcount(const hgm_options *options, const hgm_folio *folio, uint64_t page)
{{
	return folio->page[1]._entire_mapcount;
}}

HGM_INLINE void hgm_answer_folio(const hgm_options *options, const hgm_folio *folio, hgm_answer *answer)
{{
	answer->mapcount = answer->refs = folio->page[1]._entire_mapcount;
	answer->mapped = answer->mapcount > 0;
}}

HGM_SCHEME(logical, .name = "c_{name}", .explanation = "{name} in C", .state = "compound=_entire_mapcount",
    .defaults = "{text(engine.defaults)}", .exceptions = "{text(engine.exceptions)}");
"""


@pytest.mark.parametrize("name", NEEDY)
def test_needs_are_read_from_the_table(name, tmp_path):
    scheme = c_table(ctypes.CDLL(own_schemes.library(tmp_path, logical(name, NEEDY[name][0]))), "logical")
    for number, ground in enumerate(GROUNDS):
        lines = [*preamble(ground), *sequence(random.Random(number), ground, 50), "observe"]
        assert said(hgm.replay(lines, scheme)) == said(hgm.replay(lines, name))


def test_two_tables_run_side_by_side(c_head):
    """Each thread goes by the table of the machine that it runs."""
    lines = ["file F 2M 8", "populate F 0 8", "mmap A v F 0 16M shared minor hgm", "mmap B v F 0 16M shared minor hgm"]
    lines += [
        f"@{thread} continue {process} v {page * 4}K 4K"
        for page in range(4096)
        for thread, process in ((1, "A"), (2, "B"))
    ]
    trace = hgm.load(lines)
    one, two = (hgm.replay(trace, c_table(c_head), threads=n, observe_end=True) for n in (1, 2))
    assert two["operations_at_once"] > 4000
    assert said(one)["observations"] == said(two)["observations"]


def test_a_table_is_known_by_name(c_head, monkeypatch):
    monkeypatch.setattr(hgm.schemes, "_registered", {})
    hgm.register(c_table(c_head))
    assert hgm.compare(SMALL, schemes=["c_head"], repeat=0)["schemes"]["c_head"]["cost"]["atomics"]["map"] == 3
    assert "head_per_leaf in C" in hgm.schemes.load("c_head").explanation


def test_a_file_defines_a_table(c_head, tmp_path, monkeypatch):
    monkeypatch.setattr(hgm.schemes, "_registered", {})
    (tmp_path / "mine.py").write_text(
        "import ctypes\nfrom hgmcore.own.tables import Table\n\n"
        f"mine = Table.in_dll(ctypes.CDLL({c_head._name!r}), 'c_head')\n"
    )
    assert hgm.schemes.load_file(str(tmp_path / "mine.py")) == ["c_head"]


# -- what is refused


def test_the_structures_are_those_of_the_headers(tmp_path):
    names = {
        "hgm_page": tables.Page,
        "hgm_folio": tables.Folio,
        "hgm_cost": tables.Cost,
        "hgm_options": tables.Options,
        "hgm_leaf": tables.Leaf,
        "hgm_subtree": tables.Subtree,
        "hgm_answer": tables.Answer,
        "hgm_scheme": Table,
    }
    fields = [
        (name, field[0], getattr(structure, field[0]))
        for name, structure in names.items()
        for field in structure._fields_
    ]
    spelled = {("hgm_page", "private"): "private_"}
    text = (
        INCLUDE
        + "\n#include <stddef.h>\nunsigned sizes[] = {"
        + ", ".join(f"sizeof({name})" for name in names)
        + "};\n"
    )
    text += (
        "unsigned offsets[] = {"
        + ", ".join(f"offsetof({name}, {spelled.get((name, field), field)})" for name, field, _ in fields)
        + "};\n"
    )
    library = ctypes.CDLL(own_schemes.library(tmp_path, text))
    assert list((ctypes.c_uint * len(names)).in_dll(library, "sizes")) == [ctypes.sizeof(one) for one in names.values()]
    assert list((ctypes.c_uint * len(fields)).in_dll(library, "offsets")) == [place.offset for *_, place in fields]


@pytest.mark.parametrize(
    "change, error, text",
    [
        ({"abi": 1}, ImportError, r"has HGM_ABI 1 and \d+ bytes; this hgmcore has HGM_ABI \d+ and tables of"),
        ({"size": 8}, ImportError, r"and 8 bytes; this hgmcore has"),
        ({"name": None}, ValueError, "a scheme's name is a word"),
        ({"name": b"\xff"}, ValueError, "its name is no UTF-8 text"),
        ({"explanation": None}, ValueError, "scheme 'by_ctypes': no explanation"),
        ({"state": b"compound"}, ValueError, "scheme 'by_ctypes': state: 'compound' is not of the form key=value"),
        ({"state": b"x=_x"}, ValueError, "struct page has no word '_x'"),
        ({"needs": 1 << 20}, ValueError, "scheme 'by_ctypes': unknown needs or quirks 0x100000, 0x0"),
        (
            {"leaf_install": tables.FUNCTIONS["leaf_install"](0)},
            ValueError,
            "scheme 'by_ctypes': its table has no leaf_install",
        ),
        ({"needs": 32}, ValueError, "no table_add, which HGM_NEEDS_TABLES asks for"),
        ({"needs": 64}, ValueError, "no subtree_zapped, which HGM_NEEDS_ZAPS asks for"),
    ],
)
def test_a_wrong_table_is_refused(change, error, text):
    scheme = by_ctypes()
    for name, value in change.items():
        setattr(scheme, name, value)
    with pytest.raises(error, match=text):
        hgm.Machine(scheme)


def test_a_wrong_table_of_a_file_is_one_line(tmp_path):
    (tmp_path / "mine.py").write_text("from hgmcore.own.tables import Table\nmine = Table()\n")
    with pytest.raises(ValueError, match="mine.py: the table of a scheme has HGM_ABI 0 and 0 bytes; this hgmcore has"):
        hgm.schemes.load_file(str(tmp_path / "mine.py"))


@pytest.mark.parametrize(
    "arguments, error, text",
    [
        ({"leaf_instal": print}, TypeError, "scheme 'x': leaf_instal is no reaction"),
        ({"leaf_install": "print"}, TypeError, "leaf_install: 'print' is no function"),
        ({"needs": ("all",)}, ValueError, "scheme 'x': needs: 'all' is none of scan,"),
        ({"exceptions": {"x": "fault"}}, ValueError, "scheme 'x': exceptions: x=fault is no property"),
    ],
)
def test_table_says_what_is_wrong(arguments, error, text):
    with pytest.raises(error, match=text):
        table("x", "X", **arguments)


def test_a_null_pointer_and_another_capsule_are_refused():
    with pytest.raises(ValueError, match="address 0"):
        hgm.Machine(ctypes.POINTER(Table)())
    import datetime  # it has a capsule of its own

    with pytest.raises(ValueError, match=r"another name than hgmcore.scheme.v1"):
        hgm.Machine(datetime.datetime_CAPI)


# -- misbehaviour


def test_a_python_function_that_raises_is_reported():
    def raises(*_):
        raise LookupError("where")

    machine, mapping = small(by_ctypes(leaf_remove=raises))
    mapping.uffd_continue(0, "8K")
    with pytest.raises(
        hgm.SchemeError, match=r"scheme 'by_ctypes': leaf_remove: LookupError: where, at record 3 \(dontneed\)"
    ):
        mapping.dontneed(0, "4K")
    machine, mapping = small(by_ctypes(answer_folio=raises))
    with pytest.raises(hgm.SchemeError, match="scheme 'by_ctypes': answer_folio: LookupError: where$"):
        machine.observe()


@pytest.mark.parametrize(
    "install, why",
    [
        ("return 4;", "its answer is not 0, HGM_KEEPS, HGM_COUNTS or both"),
        ("return -1;", "its answer is not 0, HGM_KEEPS, HGM_COUNTS or both"),
        ('hgm_fail(options, "no room for an owner"); return 0;', "no room for an owner"),
        ('hgm_fail(options, "first"); hgm_fail(options, "second"); return 9;', "first"),
    ],
)
def test_nonsense_from_c_is_reported(install, why, tmp_path):
    text = (
        "#define HGM_NEEDS 0\n"
        + INCLUDE
        + INSTALL.replace("%s", install, 1).replace("%s", "")
        + """
hgm_scheme odd = {.abi = HGM_ABI, .size = sizeof(hgm_scheme), .name = "odd", .explanation = "Odd", .leaf_install =
install,
	.leaf_remove = removed, .page_mapcount = counts, .answer_folio = answers};
"""
    )
    text = text.replace("#define HGM_NEEDS 0\n", "")
    machine, mapping = small(Table.in_dll(ctypes.CDLL(own_schemes.library(tmp_path, text)), "odd"))
    with pytest.raises(hgm.SchemeError) as raised:
        mapping.uffd_continue(0, "4K")
    assert str(raised.value) == f"scheme 'odd': leaf_install: {why}, at record 2 (continue)"
    assert machine.operations == 3
    machine.observe()


def test_a_scheme_finds_its_user_pointer(tmp_path):
    text = (
        INCLUDE
        + INSTALL.replace("%s", "++*(int *)hgm_user(options); return 0;", 1).replace("%s", "")
        + """
static int calls;
int *here = &calls;
hgm_scheme users = {.abi = HGM_ABI, .size = sizeof(hgm_scheme), .name = "users", .explanation = "Users", .user = &calls,
	.leaf_install = install, .leaf_remove = removed, .page_mapcount = counts, .answer_folio = answers};
"""
    )
    library = ctypes.CDLL(own_schemes.library(tmp_path, text))
    _, mapping = small(Table.in_dll(library, "users"))
    mapping.uffd_continue(0, "12K")
    assert ctypes.POINTER(ctypes.c_int).in_dll(library, "here").contents.value == 3


def test_the_c_contract_compiles_as_cplusplus(tmp_path):
    source = tmp_path / "x.cpp"
    source.write_text(INCLUDE + "\nint main() { hgm_scheme table = {}; return (int)table.abi; }\n")
    done = subprocess.run(
        ["g++", "-Wall", "-Werror", "-fsyntax-only", "-I", hgm.get_include(), str(source)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_numbers_are_those_of_the_headers():
    assert callbacks.SIZE == ctypes.sizeof(Table)
    assert sys.byteorder == "little"
