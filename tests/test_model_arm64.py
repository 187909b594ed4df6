"""Random operation sequences on arm64, with its contiguous groups and huge pages of a contiguous size."""
import pytest
from model import SCHEMES
from sequences import EXAMPLES, Comparison, Ground, K, M, operations, run_sequences
from test_model import option_sets

START = """populate F 0 2; populate L 0 1; populate H 0 1; mmap C v F 0 {F3} shared minor;
    mmap A v F 0 {F2} shared minor hgm; mmap A w L 0 {L} shared minor hgm;
    mmap A x H 0 {H} shared minor hgm wp; mmap B v F 0 {F} shared minor hgm wp; mmap B w F 0 {F2} private"""


def ground(geometry, base, files, middle, **places):
    (f, _), (h, pages), (largest, _) = files.values()
    start = START.format(F=f, F2=2 * f, F3=3 * f, H=pages * h, L=largest)
    return Ground(geometry, base, files, middle, start=start, **places)


GROUNDS = [
    ground("arm64-4k", 4 * K, {"F": (2 * M, 3), "H": (64 * K, 4), "L": (32 * M, 1)}, 2 * M,
           parts=[0, 0, 1, 15], pieces=[0, 0, 0, 1, 2, 15, 16, 31, 511],
           lengths=[4 * K, 4 * K, 8 * K, 64 * K, 64 * K, 60 * K, 68 * K, 128 * K, 2 * M - 64 * K,
                    2 * M, 2 * M, 2 * M + 4 * K, 4 * M, 6 * M, 32 * M, 32 * M]),
    ground("arm64-16k", 16 * K, {"F": (2 * M, 3), "H": (2 * M, 1), "L": (32 * M, 1)}, 2 * M,
           parts=[0, 0, 1, 15], pieces=[0, 0, 0, 1, 2, 7, 127],
           lengths=[16 * K, 16 * K, 32 * K, 128 * K, 2 * M - 16 * K,
                    2 * M, 2 * M, 2 * M + 16 * K, 4 * M, 6 * M, 32 * M, 32 * M]),
    ground("arm64-64k", 64 * K, {"F": (2 * M, 3), "H": (2 * M, 1), "L": (512 * M, 1)}, 2 * M,
           parts=[0, 0, 1, 255], pieces=[0, 0, 0, 1, 2, 7, 31],
           lengths=[64 * K, 64 * K, 128 * K, 512 * K, 2 * M - 64 * K,
                    2 * M, 2 * M, 2 * M + 64 * K, 4 * M, 6 * M, 512 * M, 512 * M]),
]


def cases():
    """Each geometry and scheme with one set of options, another for each of them, or with all of them."""
    for i, place in enumerate(GROUNDS):
        chosen = operations(place)
        for j, scheme in enumerate(SCHEMES):
            sets = option_sets(scheme)
            for options in sets if EXAMPLES else [sets[(i * 5 + j) % len(sets)]]:
                name = "-".join(f"{key}={value}" for key, value in options.items()) or "default"
                yield pytest.param(place, chosen, scheme, options, id=f"{place.geometry}-{scheme}-{name}")


@pytest.mark.parametrize("place, chosen, scheme, options", list(cases()))
def test_random_sequences(place, chosen, scheme, options):
    run_sequences(Comparison, chosen, place, scheme, options, examples=4)
