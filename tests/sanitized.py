"""A short pass of the core under the sanitizers, with gcc alone: faults of memory and arithmetic, and data races.

    python tests/sanitized.py                     40 s on two idle CPUs
    python tests/sanitized.py --inputs 20000 --scheme subtree

The installed package is copied, and in the copies the core and one scheme's engine are compiled anew: with
AddressSanitizer and UndefinedBehaviorSanitizer, under which fuzz.py feeds traces and calls of the API; and with
ThreadSanitizer, under which native threads fill the same folio. Exit status 1 where something was found.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension

import hgmcore
from hgmcore.schemes import NAMES

CORE = ["core.calls", "core.core", "core.machine", "core.records", "core.snapshot", "core.truth", "core.view"]
TESTS = Path(__file__).parent
COMPILER = shlex.split(os.environ.get("CC", "gcc"))

PASSES = {
    "address,undefined": (
        CORE, ["libasan.so", "libubsan.so"],
        {"ASAN_OPTIONS": "detect_leaks=0:exitcode=66", "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"}),
    "thread": (["core.machine", "core.view"], ["libtsan.so"], {"TSAN_OPTIONS": "exitcode=66"}),
}
"""Sanitizers: what is compiled beside the engine, the libraries that must be there first, and their settings."""


def commands(inputs, scheme):
    """What runs under each pass."""
    fuzz = [sys.executable, str(TESTS / "fuzz.py"), "--inputs", str(inputs), "--seconds", "120",
            "--only", "text", "--only", "api"]
    threads = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS / "test_threads.py"),
               "-k", f"{scheme} and (owners or random_traces or fill_the_same)"]
    return {"address,undefined": [fuzz], "thread": [threads]}


def compiled(package, modules, sanitizers):
    """Compile some modules of the package in place."""
    root = package.parent
    made = cythonize([Extension(f"hgmcore.{name}", [str(package / f"{name.replace('.', '/')}.pyx")])
                      for name in modules], include_path=[str(root)], build_dir=str(root / "c"), quiet=True,
                     compiler_directives={"language_level": 3})
    suffix = sysconfig.get_config_var("EXT_SUFFIX")

    def one(extension):
        target = root / Path(*extension.name.split(".")).with_suffix(suffix)
        flags = ["-O1" if ".schemes." in extension.name else "-O0", "-g1", "-w", "-shared", "-fPIC",
                 f"-fsanitize={sanitizers}", f"-I{sysconfig.get_paths()['include']}", f"-I{package / 'include'}"]
        target.unlink(missing_ok=True)
        subprocess.run([*COMPILER, *flags, *extension.sources, "-o", str(target)], check=True)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(one, made))


def library(name):
    """The path of a sanitizer's library."""
    return subprocess.run([*COMPILER, f"-print-file-name={name}"], check=True, capture_output=True,
                          text=True).stdout.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=300, help="of each target of fuzz.py")
    parser.add_argument("--scheme", choices=NAMES, default="mm_id", metavar="NAME",
                        help="whose engine is compiled; mm_id writes each struct page, and has a lock and slots")
    parser.add_argument("--only", choices=PASSES, help="one pass")
    parser.add_argument("--keep", metavar="DIRECTORY", help="build here, and keep it")
    given = parser.parse_args()
    failed = []
    with tempfile.TemporaryDirectory() as temporary:
        for sanitizers, (modules, libraries, settings) in PASSES.items():
            if given.only not in (None, sanitizers):
                continue
            root = Path(given.keep or temporary) / sanitizers.replace(",", "-")
            shutil.copytree(Path(hgmcore.__file__).parent, root / "hgmcore", dirs_exist_ok=True,
                            ignore=shutil.ignore_patterns("__pycache__"))
            compiled(root / "hgmcore", [*modules, f"schemes.{given.scheme}"], sanitizers)
            settings = {**os.environ, **settings, "LD_PRELOAD": " ".join(map(library, libraries)),
                        "PYTHONPATH": str(root), "HGMCORE_FUZZ_SCHEME": given.scheme}
            for command in commands(given.inputs, given.scheme)[sanitizers]:
                status = subprocess.run(command, env=settings, cwd=root, check=False).returncode
                print(f"{sanitizers}: {'nothing found' if status == 0 else f'exit status {status}'}", flush=True)
                failed += [sanitizers] * (status != 0)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
