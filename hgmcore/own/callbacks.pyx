# cython: language_level=3, cdivision=True
"""The engine that calls a scheme's reactions through a table of function pointers (hgm_scheme of scheme.h).

It is compiled once, from the same sources as each scheme's own. What the others know when they are compiled it reads
from the table of the machine that it runs (include/hgmcore/callbacks.h). A machine has a copy of the table.
"""
cdef extern from "hgmcore/callbacks.h":    # before all that includes scheme.h
    pass

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid

from hgmcore.core.core cimport Engine
from hgmcore.core.machine cimport Machine
from hgmcore.engine cimport instantiate
from hgmcore.operations.dispatch cimport run
from hgmcore.scheme cimport *

from hgmcore.own.texts import pairs, word

cdef extern from "hgmcore/callbacks.h" nogil:
    hgm_scheme *now "hgm_now"
    int32_t hgm_in_range(hgm_cost *cost, int32_t now, int32_t by) noexcept

cdef enum:
    KNOWN_NEEDS = 8191
    KNOWN_QUIRKS = 15

ABI = HGM_ABI
"""HGM_ABI of this hgmcore: what a table has in its first field."""

SIZE = sizeof(hgm_scheme)
"""sizeof(hgm_scheme) of this hgmcore: what a table has in its second field."""


cdef extern from *:
    uint32_t __atomic_fetch_or(uint32_t *at, uint32_t bits, int order) nogil


cdef uint64_t run_by_table(Machine *m, const hgm_operation *ops, uint64_t n, uint64_t index) noexcept nogil:
    """run(), with the machine's table as that of this thread. A reaction may itself run another machine."""
    global now
    cdef hgm_scheme *before = now
    cdef uint64_t done
    now = m.config.options.scheme
    done = run(m, ops, n, index)
    now = before
    return done


cdef uint64_t run_with_gil(Machine *m, const hgm_operation *ops, uint64_t n, uint64_t index) noexcept nogil:
    """run_by_table() of reactions that are Python code, which then need not take the GIL anew for each leaf."""
    with gil:
        return run_by_table(m, ops, n, index)


cdef Engine generic = instantiate("callbacks", "", {}, {}, {}, {})


cdef str text(const char *given, str name, str what):
    if given is NULL:
        return ""
    try:
        return given.decode()
    except UnicodeDecodeError:
        raise ValueError(f"scheme{name}: its {what} is no UTF-8 text") from None


cdef object absent(const hgm_scheme *table):
    """The first function that the table must have and has not, or None."""
    if table.leaf_install is NULL:
        return "leaf_install"
    if table.leaf_remove is NULL:
        return "leaf_remove"
    if table.page_mapcount is NULL:
        return "page_mapcount"
    if table.answer_folio is NULL:
        return "answer_folio"
    if table.needs & NEEDS_TABLES and table.table_add is NULL:
        return "table_add, which HGM_NEEDS_TABLES asks for"
    if table.needs & NEEDS_TABLES and table.table_free is NULL:
        return "table_free, which HGM_NEEDS_TABLES asks for"
    if table.needs & NEEDS_ZAPS and table.subtree_zapped is NULL:
        return "subtree_zapped, which HGM_NEEDS_ZAPS asks for"
    if table.needs & NEEDS_KILL and table.kill is NULL:
        return "kill, which HGM_NEEDS_KILL asks for"
    return None


cdef class TableEngine(Engine):
    """The engine of a scheme that is a table. It keeps a copy of the table, and `owner`, which keeps what is in it."""
    cdef hgm_scheme copy
    cdef readonly object owner

    def failure(self):
        """As its owner tells it (`raised` of python.Reactions and tables.Owner)."""
        raised = getattr(self.owner, "raised", None)
        return raised and raised()

    def __repr__(self):
        return f"<hgmcore engine {self.name}, by callbacks>"


cdef TableEngine filled(TableEngine engine, const hgm_scheme *table, object owner, bint python):
    """Make `engine` that of the table's scheme. ImportError: another ABI. ValueError: what is wrong in the table."""
    if table.abi != HGM_ABI or table.size != sizeof(hgm_scheme):
        raise ImportError(f"the table of a scheme has HGM_ABI {table.abi} and {table.size} bytes; this hgmcore has "
                          f"HGM_ABI {HGM_ABI} and tables of {sizeof(hgm_scheme)} bytes: compile the scheme anew, and "
                          "fill in both")
    name = text(table.name, "", "name")
    engine.name = word(name)
    name = f" '{name}'"
    if table.needs & ~<uint32_t>KNOWN_NEEDS or table.quirks & ~<uint32_t>KNOWN_QUIRKS:
        raise ValueError(f"scheme{name}: unknown needs or quirks {table.needs & ~<uint32_t>KNOWN_NEEDS:#x}, "
                         f"{table.quirks & ~<uint32_t>KNOWN_QUIRKS:#x}")
    missing = absent(table)
    if missing is not None:
        raise ValueError(f"scheme{name}: its table has no {missing}")
    engine.explanation = text(table.explanation, name, "explanation")
    if not engine.explanation.strip():
        raise ValueError(f"scheme{name}: no explanation (its first line is the summary)")
    engine.state = pairs(name, "state", text(table.state, name, "state"))
    engine.defaults = pairs(name, "defaults", text(table.defaults, name, "defaults"))
    engine.posted = pairs(name, "posted", text(table.posted, name, "posted"))
    engine.exceptions = pairs(name, "exceptions", text(table.exceptions, name, "exceptions"))
    engine.copy = table[0]
    engine.copy.failed = engine.copy.failed_in = NULL
    engine.table = &engine.copy
    engine.owner = owner
    engine.abi, engine.machine_size = generic.abi, generic.machine_size
    engine.run = run_with_gil if python else run_by_table
    engine.page_mapcount_runs, engine.answer = generic.page_mapcount_runs, generic.answer
    engine.movable, engine.asked = generic.movable, generic.asked
    engine.whole_only = table.quirks & QUIRK_WHOLE_ONLY != 0
    engine.writes_tails = table.needs & NEEDS_TAILS != 0
    engine.scans = table.needs & (NEEDS_SCAN | NEEDS_SCAN_ALWAYS | NEEDS_COUNTER) != 0
    engine.first_come = table.needs & NEEDS_ORDER != 0
    engine.by_number, engine.asks_cpu = table.needs & NEEDS_NUMBERS != 0, table.needs & NEEDS_CPU != 0
    engine.has_slots = table.needs & NEEDS_SLOTS != 0
    engine.dirties_tails = table.needs & (NEEDS_TAILS | NEEDS_SLOTS) != 0
    return engine


def engine_at(address, owner=None, *, python=False) -> Engine:
    """The engine of the scheme whose table (hgm_scheme) is at `address`.

    owner: an object that keeps what is in the table. python: its functions are Python code, so a machine that runs
    keeps the GIL. ImportError: the table is of another HGM_ABI or size. ValueError: something in it is wrong.
    """
    if not address:
        raise ValueError("a scheme's table at address 0")
    return filled(TableEngine.__new__(TableEngine), <const hgm_scheme *><size_t>address, owner, python)


def capsule_address(capsule) -> int:
    """Where the table is that a capsule "hgmcore.scheme.v1" has. ValueError: the capsule has another name."""
    if not PyCapsule_IsValid(capsule, "hgmcore.scheme.v1"):
        raise ValueError("a capsule of another name than hgmcore.scheme.v1")
    return <size_t>PyCapsule_GetPointer(capsule, "hgmcore.scheme.v1")


# -- what hgm.h has as inline functions, for those who cannot include it

cdef void ref_add(hgm_cost *cost, hgm_folio *folio, int32_t by) noexcept nogil:
    hgm_ref_add(cost, folio, by)


cdef int32_t map_add(hgm_cost *cost, hgm_folio *folio, uint64_t page, uint32_t offset, int32_t by) noexcept nogil:
    cdef hgm_page *p = &folio.page[page]
    return hgm_map_add(cost, p, <int32_t *>(<char *>p + offset), by)


cdef int32_t count_of(const hgm_folio *folio, uint64_t page, uint32_t offset) noexcept nogil:
    return (<int32_t *>(<char *>&folio.page[page] + offset))[0]


cdef void ref_settle(hgm_cost *cost, hgm_folio *folio, int32_t by, int32_t now) noexcept nogil:
    if now == 0:
        __atomic_fetch_or(&folio.flags, HGM_FOLIO_FREED, 0)
    hgm_in_range(cost, now, by)


cdef void map_settle(hgm_cost *cost, int32_t by, int32_t now) noexcept nogil:
    hgm_in_range(cost, now, by)


cdef void fail(const hgm_options *options, const char *why) noexcept nogil:
    hgm_fail(options, why)


ADDRESSES = {
    "ref_add": <size_t>ref_add, "map_add": <size_t>map_add, "count": <size_t>count_of, "fail": <size_t>fail,
    "ref_settle": <size_t>ref_settle, "map_settle": <size_t>map_settle,
}
"""Functions in C, by name: void ref_add(hgm_cost *, hgm_folio *, int32_t by); int32_t map_add(hgm_cost *, hgm_folio *,
uint64_t page, uint32_t offset, int32_t by), where the word stands `offset` bytes into the struct page; int32_t
count(const hgm_folio *, uint64_t page, uint32_t offset); void fail(const hgm_options *, const char *why). What ref_add
and map_add do behind their atomic, where the count came to `now`, at most 0: void ref_settle(hgm_cost *, hgm_folio *,
int32_t by, int32_t now), void map_settle(hgm_cost *, int32_t by, int32_t now)."""
