"""Scheme pmd_pud_mapcount: entries of each level have their own count, in every geometry."""

import pytest

NAME = "pmd_pud_mapcount"


def state(replay, text, **options):
    """(PMD entries, PUD entries, all entries, references of leaves, page_mapcount) of the only folio."""
    (folio,) = replay(f"{text}\nobserve\n", NAME, **options).observations[-1]["folios"]
    ((_, _, average),) = folio["page_mapcount"]
    words = folio["state"]
    return words["pmd"], words["pud"], words["large"], folio["refcount"] - 1, average


@pytest.mark.parametrize("steps, expected", [
    ("continue A v 0 4K", (0, 0, 1, 1, 1)),
    ("continue A v 0 2M", (1, 0, 1, 1, 1)),
    ("continue A v 0 2M; continue A v 2M 4K", (1, 0, 2, 2, 1)),
    ("touch B w 0", (0, 1, 1, 1, 1)),
    ("touch B w 0; continue A v 0 512M", (256, 1, 257, 257, 2)),         # 1.5 on average
    ("touch B w 0; continue A v 0 510M", (255, 1, 256, 256, 1)),
    ("touch B w 0; continue A v 0 4M; dontneed A v 0 2M", (1, 1, 2, 2, 1)),
    ("continue A v 0 4M; collapse A v 0 1G", (0, 1, 1, 1, 1)),
    ("touch B w 0; continue A v 0 4K; exit B", (0, 0, 1, 1, 1)),
])
def test_a_page_of_1g(replay, steps, expected):
    start = "file F 1G 1\npopulate F 0 1\nmmap A v F 0 1G shared minor hgm\nmmap B w F 0 1G shared\n"
    assert state(replay, start + steps.replace("; ", "\n")) == expected


@pytest.mark.parametrize("piece, expected", [
    ("64K", (0, 0, 16, 1, 1)), ("2M", (1, 0, 1, 1, 1)), ("32M", (16, 0, 16, 1, 1)), ("1G", (0, 1, 1, 1, 1))])
def test_contiguous_groups_count_as_their_entries(replay, piece, expected):
    text = "file F 1G 1\npopulate F 0 1\nmmap A v F 0 1G shared minor hgm\n"
    assert state(replay, f"{text}continue A v 0 {piece}", geometry="arm64-4k") == expected
