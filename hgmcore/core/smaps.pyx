# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What smaps and pagemap say of leaves, from map counts that are given: a scheme's, and the recount's beside them.

It knows of no machine: leaves, counts and rules come in as arrays.
"""
from hgmcore.hgm cimport int64_t

import numpy as np

SHARE = np.dtype([("mapping", "i8"), ("levels", "i8", 4), ("private", "i8"), ("true_shared", "i8"), ("pss", "f8"),
                  ("true_pss", "f8")])
"""dtype of what one mapping has of one huge page: base pages by level of their leaves (1: PTE), private ones and truly
shared ones by smaps; its share of their bytes by the scheme's counts and by the recount."""

PART = np.dtype([("mapping", "i8"), ("first", "i8"), ("last", "i8"), ("private", "i8")])
"""dtype of base pages [first, last) of a mapping that pagemap gives one answer about: exclusively mapped (1) or not."""

cdef struct Share:
    int64_t mapping
    int64_t levels[4]
    int64_t private
    int64_t true_shared
    double pss
    double true_pss

cdef struct Part:
    int64_t mapping
    int64_t first
    int64_t last
    int64_t private

cdef enum:
    SHARED_AT = 2    # smaps: a page counts as shared from this map count on (Linux fs/proc/task_mmu.c)


cdef inline int64_t run_at(const int64_t[:, ::1] runs, int64_t low, int64_t high, int64_t at) noexcept nogil:
    """The number of the run among [low, high) that ends behind position `at`; `high`: none does."""
    cdef int64_t middle
    while low < high:
        middle = (low + high) // 2
        if runs[middle, 1] <= at:
            low = middle + 1
        else:
            high = middle
    return low


cdef inline int64_t part_add(Part *parts, int64_t n, int64_t begin, int64_t mapping, int64_t first, int64_t last,
                             bint private) noexcept nogil:
    """Append a part to the `n` that there are, or make the last, if it is not before `begin`, longer."""
    cdef Part *one = &parts[n - 1]
    if n > begin and one.mapping == mapping and one.last == first and one.private == private:
        one.last = last
        return n
    one = &parts[n]
    one.mapping = mapping
    one.first = first
    one.last = last
    one.private = private
    return n + 1


def said_of(leaves, counts, true, folios, double page):
    """What smaps and pagemap say of runs of leaves: (shares, bounds, parts, bounds), arrays of SHARE and PART.

    leaves: dict of int64 arrays with a value for each run, in the order of folio, mapping and address: folio and
    mapping (numbers), page (first base page in the mapping), first (base page in the folio), length (in base pages),
    size (of a leaf), level, shared (by a table that several processes use). counts, true: (runs, bounds) of base pages'
    map counts, those of folio i are runs[bounds[i]:bounds[i + 1]]; of a folio without any, nobody counts. folios: dict
    of int64 arrays with a value for each folio: hugetlb; by_count, whether a page is shared by its count or, all of the
    folio alike, by maybe_shared. page: bytes of a base page. Rows of folio i are [bounds[i], bounds[i + 1]) of the
    arrays.
    """
    cdef const int64_t[::1] folio = leaves["folio"], mapping = leaves["mapping"], in_mapping = leaves["page"]
    cdef const int64_t[::1] first = leaves["first"], lengths = leaves["length"], sizes = leaves["size"]
    cdef const int64_t[::1] level = leaves["level"], table_shared = leaves["shared"]
    cdef const int64_t[::1] hugetlb = folios["hugetlb"], by_count = folios["by_count"], maybe = folios["maybe_shared"]
    cdef const int64_t[:, ::1] said = counts[0], truth = true[0]
    cdef const int64_t[::1] said_bounds = counts[1], true_bounds = true[1]
    cdef int64_t n = folio.shape[0], nr_folios = hugetlb.shape[0], room, i, at, f, run, run_end, low, high, stop
    cdef int64_t nr_shares = 0, nr_parts = 0, part_begin = 0, done = 0, span
    cdef bint whole, private, smaps
    cdef Share *share = NULL
    # a run of leaves has at most a part for each leaf or for each run of counts in it
    pieces = leaves["length"] // np.maximum(leaves["size"], 1)
    of_counts = np.diff(counts[1])[leaves["folio"]] + 1
    room = int(np.where(leaves["size"] > 1, np.maximum(pieces, of_counts), np.minimum(pieces, of_counts)).sum())
    shares, parts = np.zeros(n, SHARE), np.empty(room, PART)
    share_bounds, part_bounds = np.zeros(nr_folios + 1, np.int64), np.zeros(nr_folios + 1, np.int64)
    cdef int64_t[::1] share_bound = share_bounds, part_bound = part_bounds
    cdef unsigned char[::1] share_bytes = shares.view(np.uint8), part_bytes = parts.view(np.uint8)
    cdef Share *all_shares = <Share *>&share_bytes[0] if n else NULL
    cdef Part *all_parts = <Part *>&part_bytes[0] if room else NULL
    with nogil:
        for i in range(n):
            f = folio[i]
            if share is NULL or f != folio[i - 1] or mapping[i] != mapping[i - 1]:
                while done < f:
                    done += 1
                    share_bound[done] = nr_shares
                    part_bound[done] = nr_parts
                share = &all_shares[nr_shares]
                share.mapping = mapping[i]
                nr_shares += 1
                part_begin = nr_parts
            low = first[i]
            high = low + lengths[i]
            share.levels[level[i] & 3] += high - low
            if table_shared[i]:
                share.true_shared += high - low
            run_end = true_bounds[f + 1]
            run = run_at(truth, true_bounds[f], run_end, low)
            while run < run_end and truth[run, 0] < high:
                span = min(high, truth[run, 1]) - max(low, truth[run, 0])
                if truth[run, 2] > 0:
                    share.true_pss += <double>span * (page / <double>truth[run, 2])
                if truth[run, 2] >= SHARED_AT and not table_shared[i]:
                    share.true_shared += span
                run += 1
            run_end = said_bounds[f + 1]
            run = run_at(said, said_bounds[f], run_end, low)
            at = run
            while at < run_end and said[at, 0] < high:    # one whose count is lost belongs to one mapping
                span = min(high, said[at, 1]) - max(low, said[at, 0])
                share.pss += <double>span * (page / <double>max(said[at, 2], <int64_t>1))
                at += 1
            whole = sizes[i] > 1    # goes by its first base page; smaps does so with hugetlb alone
            smaps = not whole or hugetlb[f]
            if not by_count[f] or table_shared[i] or run == run_end:
                private = not table_shared[i] and (by_count[f] or not maybe[f])
                share.private += high - low if private else 0
                nr_parts = part_add(all_parts, nr_parts, part_begin, mapping[i], in_mapping[i],
                                    in_mapping[i] + high - low, private)
                continue
            at = run
            while low < high:
                stop = min(low + sizes[i], high) if whole else min(said[at, 1], high)
                private = said[at, 2] < SHARED_AT
                nr_parts = part_add(all_parts, nr_parts, part_begin, mapping[i], in_mapping[i] + low - first[i],
                                    in_mapping[i] + stop - first[i], private)
                share.private += stop - low if private and smaps else 0
                low = stop
                while at + 1 < run_end and said[at, 1] <= low:
                    at += 1
            if not smaps:
                low = first[i]
                while run < run_end and said[run, 0] < high:
                    if said[run, 2] < SHARED_AT:
                        share.private += min(high, said[run, 1]) - max(low, said[run, 0])
                    run += 1
        while done < nr_folios:
            done += 1
            share_bound[done] = nr_shares
            part_bound[done] = nr_parts
    return shares[:nr_shares].copy(), share_bounds, parts[:nr_parts].copy(), part_bounds
