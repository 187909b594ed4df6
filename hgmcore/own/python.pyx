# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, embedsignature=True
"""A scheme whose reactions are methods of a Python class: what they are given, and the table that calls them.

The reactions below are those of the table (hgm_scheme); each calls one method of the scheme, with the GIL. Leaf,
Subtree and Folio stand for what a reaction is told of while it runs, and for nothing afterwards.
"""
cimport cython
from libc.stdint cimport INT32_MAX, INT32_MIN

from hgmcore.hgm cimport *

from hgmcore.own.callbacks import ABI, SIZE

cdef extern from "hgmcore/scheme.h" nogil:
    enum:
        HGM_NEEDS_SCAN, HGM_NEEDS_COUNTER, HGM_NEEDS_BIT, HGM_NEEDS_SCAN_ALWAYS, HGM_NEEDS_TAILS, HGM_NEEDS_TABLES
        HGM_NEEDS_ZAPS, HGM_NEEDS_ORDER, HGM_NEEDS_NUMBERS, HGM_NEEDS_SPLITS, HGM_NEEDS_CPU, HGM_NEEDS_KILL
        HGM_QUIRK_WHOLE_ONLY, HGM_QUIRK_POISONS_WHOLE, HGM_QUIRK_COLLAPSES_NOTHING, HGM_QUIRK_FORK_CHECK_INVERTED
        HGM_KEEPS, HGM_COUNTS

KEEPS = HGM_KEEPS
COUNTS = HGM_COUNTS

NEEDS = {"scan": HGM_NEEDS_SCAN, "counter": HGM_NEEDS_COUNTER, "bit": HGM_NEEDS_BIT,
         "scan_always": HGM_NEEDS_SCAN_ALWAYS, "tails": HGM_NEEDS_TAILS, "tables": HGM_NEEDS_TABLES,
         "zaps": HGM_NEEDS_ZAPS, "order": HGM_NEEDS_ORDER, "numbers": HGM_NEEDS_NUMBERS, "splits": HGM_NEEDS_SPLITS,
         "cpu": HGM_NEEDS_CPU, "kill": HGM_NEEDS_KILL}
"""What a scheme may need (HGM_NEEDS_* of scheme.h)."""

QUIRKS = {"whole_only": HGM_QUIRK_WHOLE_ONLY, "poisons_whole": HGM_QUIRK_POISONS_WHOLE,
          "collapses_nothing": HGM_QUIRK_COLLAPSES_NOTHING, "fork_check_inverted": HGM_QUIRK_FORK_CHECK_INVERTED}
"""Where a scheme's kernel may behave otherwise (HGM_QUIRK_* of scheme.h)."""

ORIGINS = ("continue", "fault", "fork", "zap", "truncate", "collapse", "migration", "poison")
"""Leaf.origin and Subtree.origin: whose doing it is (enum hgm_origin)."""

cdef enum:
    ALL_BUT_TAILS = 64    # struct pages of a folio that a scheme without the need "tails" may use

HEADS = ALL_BUT_TAILS

# A word of a struct page: where, how wide, and whether an atomic may change it.
cdef struct Word:
    int offset
    int size
    bint counts

cdef str ENTIRE = "_entire_mapcount", LARGE = "_large_mapcount", MAPCOUNT = "_mapcount"
cdef dict OTHERS = {
    "_nr_pages_mapped": (20, 4, True), "_mm_id_mapcount": (32, 4, True), "_mm_id_mapcount[1]": (36, 4, True),
    "_mm_id": (40, 4, False), "_mm_id[1]": (44, 4, False), "_total_mapped_pages": (56, 8, False),
    "private": (8, 8, False), "_refcount": (52, 4, False),
}
WORDS = (ENTIRE, LARGE, MAPCOUNT, *OTHERS)
"""The words of a struct page that a scheme may read; all but _refcount it may change."""

cdef Word word_of(name) except *:
    cdef Word w
    w.size = 4
    w.counts = True
    if name is ENTIRE:
        w.offset = 24
    elif name is LARGE:
        w.offset = 16
    elif name is MAPCOUNT:
        w.offset = 48
    elif name in OTHERS:
        w.offset, w.size, w.counts = OTHERS[name]
    elif name in WORDS:    # the same text in another object
        return word_of(ENTIRE if name == ENTIRE else LARGE if name == LARGE else MAPCOUNT)
    else:
        raise ValueError(f"struct page has no word {name!r} for a scheme (it has: {', '.join(WORDS)})")
    return w


cdef hgm_page *page_of(const hgm_options *options, hgm_folio *folio, page) except NULL:
    """A struct page of a folio, by number. IndexError: the folio has none, or the scheme may not use it."""
    cdef uint64_t n = folio.nr_pages
    if not 0 <= page < n:
        raise IndexError(f"struct page {page} of a folio of {n} base pages")
    if page >= ALL_BUT_TAILS and not options.scheme.needs & HGM_NEEDS_TAILS:
        raise IndexError(f"struct page {page}: a scheme that counts behind page {ALL_BUT_TAILS - 1} needs \"tails\"")
    return &folio.page[<uint64_t>page]


cdef int32_t by_of(by) except? -1:
    cdef int64_t n = by
    if not INT32_MIN <= n <= INT32_MAX:
        raise OverflowError(f"{by} is more than a count of 32 bits can change by")
    return <int32_t>n


cdef int map_add(hgm_cost *cost, const hgm_options *options, hgm_folio *folio, name, page, int32_t by) except? -1:
    cdef Word w = word_of(name)
    cdef hgm_page *p = page_of(options, folio, page)
    if cost is NULL:
        raise TypeError("no count may change here: answers only read")
    if not w.counts:
        raise ValueError(f"{name} is no count that an atomic changes: store()")
    return hgm_map_add(cost, p, <int32_t *>(<char *>p + w.offset), by)


cdef object load(const hgm_options *options, hgm_folio *folio, name, page):
    cdef Word w = word_of(name)
    cdef hgm_page *p = page_of(options, folio, page)
    if w.size == 8:
        return (<int64_t *>(<char *>p + w.offset))[0]
    return (<uint32_t *>(<char *>p + w.offset))[0] if name in ("_mm_id", "_mm_id[1]") else (
        <int32_t *>(<char *>p + w.offset))[0]


cdef int store(hgm_cost *cost, const hgm_options *options, hgm_folio *folio, name, value, page) except -1:
    cdef Word w = word_of(name)
    cdef hgm_page *p = page_of(options, folio, page)
    if cost is NULL:
        raise TypeError("no word may change here: answers only read")
    if name == "_refcount":
        raise ValueError("_refcount changes by ref_add() alone")
    if w.size == 8:
        (<int64_t *>(<char *>p + w.offset))[0] = value
    elif not w.counts:
        (<uint32_t *>(<char *>p + w.offset))[0] = value
    else:
        (<int32_t *>(<char *>p + w.offset))[0] = value
    return 0


cdef object gone():
    return ReferenceError("leaves, subtrees and folios stand for something only while the reaction that got them runs")


@cython.final
@cython.freelist(8)
@cython.no_gc
cdef class Folio:
    """One huge page, as a scheme sees it: its struct pages and what it is.

    nr_pages: base pages. anon: of anonymous memory. poisoned: one of its base pages failed. cached: in a page cache.
    pfn: the frame of its first base page; tells folios apart. mapcounts of base pages: word("_mapcount", page).
    """
    cdef hgm_folio *at
    cdef hgm_cost *cost    # NULL: only to be read
    cdef const hgm_options *options_

    def __init__(self):
        raise TypeError("folios come from the machine")

    cdef hgm_folio *there(self) except NULL:
        """What it stands for. ReferenceError: its reaction is over."""
        if self.at is NULL:
            raise gone()
        return self.at

    @property
    def nr_pages(self) -> int:
        return self.there().nr_pages

    @property
    def pfn(self) -> int:
        return self.there().pfn

    @property
    def anon(self) -> bool:
        return self.there().flags & HGM_FOLIO_ANON != 0

    @property
    def cached(self) -> bool:
        return self.there().flags & HGM_FOLIO_CACHED != 0

    @property
    def poisoned(self) -> bool:
        return self.there().flags & HGM_FOLIO_POISONED != 0

    @property
    def options(self) -> Options:
        """The options of the replay."""
        self.there()
        return options_of(self.options_)

    def word(self, name, page=1) -> int:
        """A word of the folio's struct page `page`: one of WORDS. "private" is 64 bits that nothing else uses."""
        self.there()
        return load(self.options_, self.at, name, page)

    def map_add(self, name, by, page=1) -> int:
        """Change a map-count word by `by`, by an atomic that is counted; returns the new value."""
        self.there()
        return map_add(self.cost, self.options_, self.at, name, page, by_of(by))

    def ref_add(self, by) -> None:
        """Change the reference count by `by`, by an atomic that is counted."""
        self.there()
        if self.cost is NULL:
            raise TypeError("no count may change here: answers only read")
        hgm_ref_add(self.cost, self.at, by_of(by))

    def store(self, name, value, page=1) -> None:
        """Write a word plainly, which counts as no atomic: "private" above all, which is the scheme's own."""
        self.there()
        store(self.cost, self.options_, self.at, name, value, page)

    @property
    def double_map(self) -> bool:
        """PageDoubleMap, a flag of struct page 1; may be set."""
        return self.there().nr_pages > 1 and self.at.page[1].flags & HGM_PAGE_DOUBLE_MAP != 0

    @double_map.setter
    def double_map(self, value):
        self.there()
        if self.cost is NULL:
            raise TypeError("no flag may change here: answers only read")
        if value:
            hgm_page_flags_set(page_of(self.options_, self.at, 1), HGM_PAGE_DOUBLE_MAP)
        else:
            hgm_page_flags_clear(page_of(self.options_, self.at, 1), HGM_PAGE_DOUBLE_MAP)


cdef Folio folio_of(hgm_folio *at, hgm_cost *cost, const hgm_options *options):
    cdef Folio folio = Folio.__new__(Folio)
    folio.at, folio.cost, folio.options_ = at, cost, options
    return folio


@cython.final
@cython.freelist(8)
cdef class Leaf:
    """A leaf that becomes present or goes away, or a run of `count` of them (hgm_leaf of hgm.h).

    first: its first base page within the folio. nr_pages: base pages of one leaf. count: leaves, 1 but with option
    `batch`. process, mapping: numbers from 0. origin: of ORIGINS. whole: it stands at the hstate level. covers: the
    operation covers the whole huge page. hstate_none: the hstate-level entry was none before. first_leaf: no other leaf
    in its subtree (needs "scan", "counter" or "bit").
    """
    cdef const hgm_leaf *at
    cdef hgm_cost *cost
    cdef const hgm_options *options_
    cdef Folio folio_

    def __init__(self):
        raise TypeError("leaves come from the machine")

    cdef const hgm_leaf *there(self) except NULL:
        """What it stands for. ReferenceError: its reaction is over."""
        if self.at is NULL:
            raise gone()
        return self.at

    @property
    def folio(self) -> Folio:
        """The folio that it is a leaf of."""
        self.there()
        if self.folio_ is None:
            self.folio_ = folio_of(self.at.folio, self.cost, self.options_)
        return self.folio_

    @property
    def options(self) -> Options:
        """The options of the replay."""
        self.there()
        return options_of(self.options_)

    def ref_add(self, by) -> None:
        """Change the folio's reference count by `by` for each leaf of the run, by one atomic."""
        cdef int32_t n
        self.there()
        n = by_of(by)
        hgm_ref_add(self.cost, self.at.folio, n * <int32_t>self.at.count)

    def map_add(self, name, by, page=1) -> int:
        """Change a map-count word by `by` for each leaf of the run, by one atomic; returns the new value."""
        self.there()
        return map_add(self.cost, self.options_, self.at.folio, name, page, by_of(by) * <int32_t>self.at.count)

    def pages_add(self, int by) -> int:
        """Change the _mapcount of each base page by `by`, 1 or -1, an atomic each; returns how many left or reached 0.

        ValueError: without the need "tails".
        """
        cdef uint64_t i, n = 0
        cdef hgm_page *page
        self.there()
        if not self.options_.scheme.needs & HGM_NEEDS_TAILS:
            raise ValueError("pages_add() counts on every struct page: the scheme needs \"tails\"")
        page = self.at.folio.page
        for i in range(self.at.first, self.at.first + self.at.nr_pages * self.at.count):
            if hgm_map_add(self.cost, &page[i], &page[i]._mapcount, by) == (by > 0):
                n += 1
        return n

    @property
    def first(self) -> int:
        return self.there().first

    @property
    def nr_pages(self) -> int:
        return self.there().nr_pages

    @property
    def count(self) -> int:
        return self.there().count

    @property
    def process(self) -> int:
        return self.there().process

    @property
    def mapping(self) -> int:
        return self.there().mapping

    @property
    def cpu(self) -> int:
        """The CPU that runs the operation; with the need "cpu", else 0."""
        return self.there().cpu

    @property
    def origin(self) -> str:
        self.there()
        return ORIGINS[self.at.origin]

    @property
    def whole(self) -> bool:
        return self.there().whole != 0

    @property
    def covers(self) -> bool:
        return self.there().covers != 0

    @property
    def hstate_none(self) -> bool:
        return self.there().hstate_none != 0

    @property
    def first_leaf(self) -> bool:
        return self.there().first_leaf != 0

    def __repr__(self):
        if self.at is NULL:
            return "<Leaf, gone>"
        return (f"<Leaf: {self.count} of {self.nr_pages} base pages from {self.first} on, by {self.origin}, "
                f"process {self.process}, folio at frame {self.at.folio.pfn}>")


@cython.final
@cython.freelist(8)
cdef class Subtree:
    """The page tables below one hstate-level entry (hgm_subtree of hgm.h).

    removed: leaves that this operation removed. process, mapping, origin, covers: as of a leaf. whole: no tables: one
    leaf maps the huge page. tables_stay: its tables are left behind. empty: no leaf is left (needs "scan" or "counter"
    where `covers` is false). counted: its bit is set (needs "bit").
    """
    cdef const hgm_subtree *at
    cdef hgm_cost *cost
    cdef const hgm_options *options_
    cdef Folio folio_

    def __init__(self):
        raise TypeError("subtrees come from the machine")

    cdef const hgm_subtree *there(self) except NULL:
        """What it stands for. ReferenceError: its reaction is over."""
        if self.at is NULL:
            raise gone()
        return self.at

    @property
    def folio(self):
        """The folio whose leaves it has or had; None: the page cache had no page when it was made."""
        self.there()
        if self.folio_ is None and self.at.folio is not NULL:
            self.folio_ = folio_of(self.at.folio, self.cost, self.options_)
        return self.folio_

    @property
    def options(self) -> Options:
        """The options of the replay."""
        self.there()
        return options_of(self.options_)

    @property
    def removed(self) -> int:
        return self.there().removed

    @property
    def process(self) -> int:
        return self.there().process

    @property
    def mapping(self) -> int:
        return self.there().mapping

    @property
    def cpu(self) -> int:
        """The CPU that runs the operation; with the need "cpu", else 0."""
        return self.there().cpu

    @property
    def origin(self) -> str:
        self.there()
        return ORIGINS[self.at.origin]

    @property
    def covers(self) -> bool:
        return self.there().covers != 0

    @property
    def whole(self) -> bool:
        return self.there().whole != 0

    @property
    def tables_stay(self) -> bool:
        return self.there().tables_stay != 0

    @property
    def empty(self) -> bool:
        return self.there().empty != 0

    @property
    def counted(self) -> bool:
        return self.there().counted != 0


@cython.final
cdef class Options:
    """Options of a replay that a reaction may ask for."""
    cdef readonly int era
    """602, 603 or 615."""
    cdef readonly bint lookup_first, rmap_aware, posted, cache_refs_folio
    cdef readonly str batch
    """no, 6.9 or 6.12."""


cdef Options options_of(const hgm_options *options):
    cdef Options found = Options.__new__(Options)
    found.era, found.lookup_first, found.rmap_aware = options.era, options.lookup_first, options.rmap_aware
    found.posted, found.cache_refs_folio = options.posted, options.cache_refs_folio
    found.batch = ("no", "6.9", "6.12")[options.batch]
    return found


# -- the table

@cython.final
cdef class Reactions:
    """A scheme's methods, and the table that calls them. Engines keep it."""
    cdef hgm_scheme table
    cdef object leaf_install, leaf_remove, table_add, table_free, subtree_zapped, kill, page_mapcount, answer_folio
    cdef object error
    cdef tuple texts
    cdef readonly object scheme

    def __cinit__(self, scheme, dict texts, needs, quirks):
        """texts: those of hgm_scheme, by name. needs, quirks: numbers."""
        cdef hgm_scheme *t = &self.table
        self.scheme = scheme
        self.texts = tuple(texts[key].encode() for key in ("name", "explanation", "state", "defaults", "posted",
                                                           "exceptions"))
        t.name, t.explanation, t.state, t.defaults, t.posted, t.exceptions = self.texts
        t.abi, t.size, t.needs, t.quirks = ABI, SIZE, needs, quirks
        t.user = <void *>self
        t.leaf_install, t.leaf_remove = on_leaf_install, on_leaf_remove
        t.table_add, t.table_free, t.subtree_zapped = on_table_add, on_table_free, on_subtree_zapped
        t.kill = on_kill
        t.page_mapcount, t.answer_folio = on_page_mapcount, on_answer_folio
        self.leaf_install, self.leaf_remove = scheme.leaf_install, scheme.leaf_remove
        self.table_add, self.table_free = scheme.table_add, scheme.table_free
        self.subtree_zapped, self.kill = scheme.subtree_zapped, scheme.kill
        self.page_mapcount, self.answer_folio = scheme.page_mapcount, scheme.answer_folio

    @property
    def address(self) -> int:
        """Where the table is."""
        return <size_t>&self.table

    def raised(self):
        """The exception that a method raised since this was asked last, or None."""
        error, self.error = self.error, None
        return error

    cdef void fail(self, const hgm_options *options, error):
        if self.error is None:
            self.error = error
        hgm_fail(options, b"it raised")


cdef Reactions of(const hgm_options *options):
    return <Reactions>options.scheme.user


cdef Leaf leaf_of(hgm_cost *cost, const hgm_options *options, const hgm_leaf *at):
    cdef Leaf leaf = Leaf.__new__(Leaf)
    leaf.at, leaf.cost, leaf.options_ = at, cost, options
    return leaf


cdef void leaf_ends(Leaf leaf):
    leaf.at = NULL
    if leaf.folio_ is not None:
        leaf.folio_.at = NULL


cdef Subtree subtree_of(hgm_cost *cost, const hgm_options *options, const hgm_subtree *at):
    cdef Subtree subtree = Subtree.__new__(Subtree)
    subtree.at, subtree.cost, subtree.options_ = at, cost, options
    return subtree


cdef void subtree_ends(Subtree subtree):
    subtree.at = NULL
    if subtree.folio_ is not None:
        subtree.folio_.at = NULL


cdef int bits(answer, int most) except -1:
    """A method's answer as the number that the table's function gives. TypeError, ValueError: it is none."""
    if answer is None or answer is False:
        return 0
    if not isinstance(answer, int):
        raise TypeError(f"answered {answer!r}, no number")
    if not 0 <= answer <= most:
        raise ValueError(f"answered {answer!r}, which is not from 0 to {most}")
    return answer


cdef int on_leaf_install(hgm_cost *cost, const hgm_options *options, const hgm_leaf *at) noexcept with gil:
    cdef Reactions reactions = of(options)
    cdef Leaf leaf = leaf_of(cost, options, at)
    try:
        return bits(reactions.leaf_install(leaf), HGM_KEEPS | HGM_COUNTS)
    except BaseException as error:
        reactions.fail(options, error)
        return 0
    finally:
        leaf_ends(leaf)


cdef void on_leaf_remove(hgm_cost *cost, const hgm_options *options, const hgm_leaf *at) noexcept with gil:
    cdef Reactions reactions = of(options)
    cdef Leaf leaf = leaf_of(cost, options, at)
    try:
        reactions.leaf_remove(leaf)
    except BaseException as error:
        reactions.fail(options, error)
    finally:
        leaf_ends(leaf)


cdef int on_table_add(hgm_cost *cost, const hgm_options *options, const hgm_subtree *at) noexcept with gil:
    cdef Reactions reactions = of(options)
    cdef Subtree subtree = subtree_of(cost, options, at)
    try:
        return bits(reactions.table_add(subtree), 1)
    except BaseException as error:
        reactions.fail(options, error)
        return 0
    finally:
        subtree_ends(subtree)


cdef void on_table_free(hgm_cost *cost, const hgm_options *options, const hgm_subtree *at) noexcept with gil:
    cdef Reactions reactions = of(options)
    cdef Subtree subtree = subtree_of(cost, options, at)
    try:
        reactions.table_free(subtree)
    except BaseException as error:
        reactions.fail(options, error)
    finally:
        subtree_ends(subtree)


cdef int on_subtree_zapped(hgm_cost *cost, const hgm_options *options, const hgm_subtree *at) noexcept with gil:
    cdef Reactions reactions = of(options)
    cdef Subtree subtree = subtree_of(cost, options, at)
    try:
        return bits(reactions.subtree_zapped(subtree), 1)
    except BaseException as error:
        reactions.fail(options, error)
        return 0
    finally:
        subtree_ends(subtree)


cdef void on_kill(hgm_cost *cost, const hgm_options *options, hgm_folio *at) noexcept with gil:
    cdef Reactions reactions = of(options)
    cdef Folio folio = folio_of(at, cost, options)
    try:
        reactions.kill(folio)
    except BaseException as error:
        reactions.fail(options, error)
    finally:
        folio.at = NULL


cdef int64_t on_page_mapcount(const hgm_options *options, const hgm_folio *at, uint64_t page) noexcept with gil:
    cdef Reactions reactions = of(options)
    cdef Folio folio = folio_of(<hgm_folio *>at, NULL, options)
    try:
        count = reactions.page_mapcount(folio, page)
        if not isinstance(count, int):
            raise TypeError(f"answered {count!r}, no number")
        return count
    except BaseException as error:
        reactions.fail(options, error)
        return 0
    finally:
        folio.at = NULL


ANSWERS = ("mapcount", "refs", "sharers", "nr_file_mapped", "mapped", "maybe_shared")
"""What answer_folio() may answer (hgm_answer of hgm.h)."""

cdef void on_answer_folio(const hgm_options *options, const hgm_folio *at, hgm_answer *out) noexcept with gil:
    cdef Reactions reactions = of(options)
    cdef Folio folio = folio_of(<hgm_folio *>at, NULL, options)
    try:
        given = reactions.answer_folio(folio)
        if isinstance(given, int):
            given = {"mapcount": given}
        if not isinstance(given, dict):
            raise TypeError(f"answered {given!r}, no number and no dict")
        for name, value in given.items():
            if name not in ANSWERS:
                raise ValueError(f"answered {name!r}, which is none of {', '.join(ANSWERS)}")
            if not isinstance(value, int):
                raise TypeError(f"answered {name}: {value!r}, no number")
        out.mapcount = given["mapcount"]
        out.refs, out.sharers = given.get("refs", -1), given.get("sharers", -1)
        out.nr_file_mapped, out.maybe_shared = given.get("nr_file_mapped", -1), given.get("maybe_shared", -1)
        out.mapped = given.get("mapped", out.mapcount > 0)
    except BaseException as error:
        reactions.fail(options, error)
    finally:
        folio.at = NULL
