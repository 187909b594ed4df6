"""Random operation sequences on x86-64: the reference model, hgmcore.Machine and hgmcore.replay agree.

With HGMCORE_EXAMPLES (see sequences.py) all sets of options are tried with each scheme.
"""
from dataclasses import replace

import pytest
from model import SCHEMES, Model
from sequences import EXAMPLES, Comparison, G, Ground, K, M, operations, run_sequences

OTHER_WAY = {"yes": "no", "no": "yes"}
X86_64 = Ground(
    "x86-64", 4 * K, {"F": (2 * M, 3), "H": (2 * M, 1), "L": (G, 1)}, 2 * M, parts=[0, 0, 1, 511],
    pieces=[0, 0, 0, 1, 2, 7, 8, 510, 511],
    lengths=[4 * K, 4 * K, 8 * K, 32 * K, 2 * M - 4 * K, 2 * M, 2 * M, 2 * M + 4 * K, 4 * M, 6 * M, G, G],
    start="""populate F 0 2; populate L 0 1; mmap C v F 0 6M shared minor; mmap A v F 0 4M shared minor hgm;
        mmap A w L 0 1G shared minor hgm; mmap B v F 0 2M shared minor hgm wp; mmap B w F 0 4M private""")
# One page of the page cache that shared and private mappings crowd on
CROWD = replace(
    X86_64, files={"F": (2 * M, 1)}, parts=[0], lengths=[4 * K, 8 * K, 32 * K, 2 * M - 4 * K, 2 * M, 2 * M],
    start="""populate F 0 1; mmap A v F 0 2M shared minor hgm wp; mmap B v F 0 2M shared; mmap B p F 0 2M private;
        mmap C p F 0 2M private minor""")
FIVE_LEVELS = replace(X86_64, geometry="x86-64-5level")
OPERATIONS = operations(X86_64)


def option_sets(scheme):
    usual = Model(scheme).options
    first, zap = ({name: OTHER_WAY[usual[name]]} for name in ("lookup_first", "zap_frees_tables"))
    return [{}, {"cache_refs": "folio", "era": "6.15", "transient": "counted", **first, **zap},
            {"batch": "yes"}, {"batch": "6.9"}, {"policy": "base_only"}, {"model": "posted"}, first,
            {"rmap_aware": "yes", **zap}, {"overflow_check": "after", "era": "6.3"},
            {"policy": "base_only", "batch": "yes", **first}, {"overflow_check": "try", "era": "6.3"},
            {"overflow_check": "half", "batch": "yes"}, {"overflow_check": "after", "model": "posted"}]


def cases(first, step):
    """Each scheme with its defaults, and with two other sets of options, or with all of them."""
    for number, scheme in enumerate(SCHEMES):
        usual, *others = option_sets(scheme)
        rest = others[:first] + others[first + 1:]
        chosen = others if EXAMPLES else [others[first], rest[number * step % len(rest)]]
        for options in [usual, *chosen]:
            name = "-".join(f"{key}={value}" for key, value in options.items()) or "default"
            yield pytest.param(scheme, options, id=f"{scheme}-{name}")


@pytest.mark.parametrize("scheme, options", list(cases(0, 1)))
def test_random_sequences(scheme, options):
    run_sequences(Comparison, OPERATIONS, X86_64, scheme, options)


@pytest.mark.parametrize("scheme, options", list(cases(5, 3)))
def test_all_on_one_page(scheme, options):
    run_sequences(Comparison, operations(CROWD), CROWD, scheme, options)


@pytest.mark.parametrize("scheme", ["head_per_leaf", "nr_pages_mapped", "logical_scan", "subtree"])
def test_five_levels_count_as_four(scheme):
    run_sequences(Comparison, OPERATIONS, FIVE_LEVELS, scheme, {})
