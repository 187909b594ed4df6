"""The core as C sources: they need libc alone, count what the Python package counts, and compile without Linux."""

import ctypes
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import hgmcore as hgm
from hgmcore import cli, export_c

pytest.importorskip("Cython")
SCHEMES = ["head_per_leaf", "mm_id"]
GUEST = Path(__file__).parent.parent / "examples/c_program/guest.c"


def run(*command, **environment):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                          env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What export-c writes, and what make makes of it."""
    folder = tmp_path_factory.mktemp("c") / "hgm"
    assert cli.run(["export-c", str(folder), "--schemes", ",".join(SCHEMES)]) == 0
    run("make", "-C", folder, "CFLAGS=-O1 -Wall -Wextra -Werror -Wno-unused-parameter")
    return folder


@pytest.fixture(scope="module")
def guest(folder):
    run("cc", "-Wall", "-Wextra", "-Werror", f"-I{folder}/include", GUEST, folder / "libhgm.a", "-o", folder / "guest")
    return folder / "guest"


def test_a_program_runs(guest):
    assert run(guest, "head_per_leaf") == (
        "again: EEXIST: something is mapped there already\nmapcount 3, walk ends at level 1, atomics 6\n")
    assert run(guest, "mm_id").endswith("mapcount 3, walk ends at level 1, atomics 12\n")
    done = subprocess.run([guest, "nobody"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "no scheme 'nobody' in this library\n")


def test_it_needs_libc_alone(folder, guest):
    assert set(re.findall(r"NEEDED +(\S+)", run("objdump", "-p", folder / "libhgm.so"))) <= {"libc.so.6"}
    text = (folder / "scheme_mm_id.c").read_text() + (folder / "library.c").read_text()
    assert not re.search(r"Py[A-Z_]|__pyx|CYTHON", text)


def test_c_plus_plus_takes_the_headers(folder, tmp_path):
    if not shutil.which("g++"):
        pytest.skip("no g++")
    program = tmp_path / "a.cc"
    program.write_text('#include "hgmcore.h"\nint main() { hgm_machine m; int error = hgm_machine_init(&m, '
                       "&hgm_engine_mm_id, &hgm_geometry_arm64_64k, nullptr, 1 << 26); hgm_machine_free(&m); "
                       "return error; }\n")
    run("g++", f"-I{folder}/include", program, folder / "libhgm.a", "-o", tmp_path / "a")
    run(tmp_path / "a")


class Machine(ctypes.Structure):
    _fields_ = [("abi", ctypes.c_uint32), ("size", ctypes.c_uint32), ("core", ctypes.c_void_p),
                ("engine", ctypes.c_void_p), ("operations", ctypes.c_uint64), ("busy", ctypes.c_uint32),
                ("owned", ctypes.c_uint32)]


@pytest.fixture(scope="module")
def lib(folder):
    from hgmcore.doors import _ctype, functions

    lib = ctypes.CDLL(str(folder / "libhgm.so"))
    for name, result, arguments in functions():
        function = getattr(lib, name)
        function.restype = _ctype(result)
        function.argtypes = [_ctype(re.sub(r"\w+$", "", one)) for one in arguments]
    for name in "hgm_engine_find", "hgm_geometry_find":
        getattr(lib, name).restype = ctypes.c_void_p
    return lib


@pytest.fixture
def machine(lib):
    made = []

    def make(scheme="mm_id", geometry="x86-64", abi=hgm.Machine("mm_id").ctypes.abi, options=None, reserve=1 << 28):
        m = Machine()
        ctypes.memset(ctypes.byref(m), 0xff, ctypes.sizeof(m))    # what stood there before means nothing
        made.append(m)
        return m, lib.hgm_machine_init_abi(ctypes.byref(m), abi, ctypes.sizeof(m), lib.hgm_engine_find(scheme.encode()),
                                           lib.hgm_geometry_find(geometry.encode()), options, reserve)
    yield make
    for m in made:
        lib.hgm_machine_free(ctypes.byref(m))
        lib.hgm_machine_free(ctypes.byref(m))    # twice is as good as once


def text(lib, error):
    return lib.hgm_strerror(error).decode()


def test_what_init_leaves_can_be_freed(lib, machine):
    for given, reason in [({"abi": 1}, "compiled for another HGM_ABI"), ({"scheme": "nobody"}, "not initialised"),
                          ({"geometry": "vax"}, "not initialised"), ({"reserve": 4096}, "so little address space"),
                          ({"options": ctypes.create_string_buffer(64)}, "an option has a value")]:
        m, error = machine(**given)
        assert error < 0 and reason in text(lib, error), given
        assert m.core is None
        assert "not initialised" in text(lib, lib.hgm_process_add(ctypes.byref(m)))
        assert "not initialised" in text(lib, lib.hgm_mapping_continue(ctypes.byref(m), 0, 0, 4096))
        assert lib.hgm_mapping_address(ctypes.byref(m), 0) == 0 and lib.hgm_folio_count(ctypes.byref(m)) == 0


def test_wrong_numbers_are_refused(lib, machine):
    m, error = machine()
    assert error == 0
    at = ctypes.byref(m)
    undeclared = "the number of a file, process, mapping, page or operation that was never declared"
    assert text(lib, lib.hgm_mapping_add(at, 0, 0)) == undeclared
    assert "no pages of this size" in text(lib, lib.hgm_file_add(at, 0, 12345, 1))
    assert "no pages of this size" in text(lib, lib.hgm_file_add(at, 7, 2 << 20, 1))
    assert "a file of no pages" in text(lib, lib.hgm_file_add(at, 0, 2 << 20, 0))
    file, process = lib.hgm_file_add(at, 0, 2 << 20, 2), lib.hgm_process_add(at)
    mapping = lib.hgm_mapping_add(at, process, 0)
    assert (file, process, mapping) == (0, 0, 0)
    for number in (lib.hgm_mapping_mmap(at, mapping, 1, 0, 2 << 20, 9), lib.hgm_file_populate(at, 0, 2, 1),
                   lib.hgm_file_populate(at, 9, 0, 1), lib.hgm_process_fork(at, 0, 70000),
                   lib.hgm_mapping_move(at, 0, 0, 4096, 70000), lib.hgm_mapping_mmap(at, mapping, 65536, 0, 2 << 20, 9),
                   lib.hgm_folio_find(at, 0, 2), lib.hgm_folio_movable(at, 0, 0)):
        assert text(lib, number) == undeclared
    m.busy = 1
    assert text(lib, lib.hgm_file_populate(at, 0, 0, 1)) == "another thread uses this machine"
    assert text(lib, lib.hgm_process_add(at)) == "another thread uses this machine"
    m.busy = 0
    assert lib.hgm_file_populate(at, 0, 0, 2) == 4 << 20


@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_counts_what_python_counts(lib, machine, scheme):
    m, error = machine(scheme)
    at = ctypes.byref(m)
    there = hgm.Machine(scheme)
    a = there.process("A")
    file = there.file("F", "2M", 2)
    assert error == 0
    assert (lib.hgm_process_add(at), lib.hgm_process_add(at), lib.hgm_file_add(at, 0, 2 << 20, 2)) == (0, 1, 0)
    v = a.mmap(file, name="v", minor=True, hgm=True)
    for process in 0, 1:
        assert lib.hgm_mapping_add(at, process, 0) == process
    flags = 1 | 2 | 8
    assert lib.hgm_mapping_mmap(at, 0, 0, 0, 4 << 20, flags) == 4 << 20
    file.populate()
    assert lib.hgm_file_populate(at, 0, 0, 2) == 4 << 20
    for offset in range(0, 1 << 20, 8192):
        assert v.uffd_continue(offset, "4K") == lib.hgm_mapping_continue(at, 0, offset, 4096) == 4096
    a.fork("B")
    assert lib.hgm_process_fork(at, 0, 1) == 0
    assert v.dontneed(0, "64K") == lib.hgm_mapping_dontneed(at, 0, 0, 65536)
    with pytest.raises(hgm.OperationError) as refused:
        v.uffd_continue(0, 12345)
    assert lib.hgm_mapping_continue(at, 0, 0, 12345) == -refused.value.errno
    costs = ctypes.cast(lib.hgm_machine_cost(at), ctypes.POINTER(ctypes.c_uint64))
    counted = there.cost()
    assert (costs[0], costs[1], costs[4]) == (counted["atomics"]["ref"], counted["atomics"]["map"],
                                              counted["leaf_installs"])
    n = ctypes.c_uint64()
    lib.hgm_machine_results(at, ctypes.byref(n))
    assert n.value == len(there.results()) == 1
    lib.hgm_machine_clear_results(at)
    lib.hgm_machine_results(at, ctypes.byref(n))
    assert n.value == 0


def test_a_failed_allocation_is_told_once(lib, machine):
    m, _ = machine("head_per_leaf")
    at = ctypes.byref(m)
    lib.hgm_file_add(at, 0, 1 << 30, 1), lib.hgm_mapping_add(at, lib.hgm_process_add(at), 0)
    lib.hgm_file_populate(at, 0, 0, 1)
    lib.hgm_mapping_mmap(at, 0, 0, 0, 1 << 30, 1 | 2 | 8)
    assert lib.hgm_machine_fail(at, 1) == 0
    assert text(lib, lib.hgm_mapping_continue(at, 0, 0, 4096)).startswith("ENOMEM")
    assert lib.hgm_machine_fail(at, 9) == 0    # fewer are made: the operation succeeds
    assert lib.hgm_mapping_continue(at, 0, 0, 4096) == 4096


def test_errors_have_one_text_each():
    codes = [value for name, value in hgm.Machine("mm_id").ctypes.lib.__dict__.items() if name.startswith("HGM_E_")]
    from hgmcore.core.library import strerror

    texts = [strerror(code) for code in [0, *codes, *(-number for number in (2, 3, 5, 11, 12, 14, 16, 17, 22, 133))]]
    assert len(set(texts)) == len(texts) and "an error that hgmcore does not have" not in texts
    assert strerror(-9999) == strerror(5) == "an error that hgmcore does not have"


# -- other systems

MACOS = """\
#ifndef MACOS_MMAN
#define MACOS_MMAN
#include <stddef.h>
#include <sys/types.h>
#define PROT_READ 1
#define PROT_WRITE 2
#define MAP_PRIVATE 2
#define MAP_FIXED 16
#define MAP_ANON 0x{anon:x}
#define MAP_FAILED ((void *)-1)
void *mmap(void *, size_t, int, int, int, off_t);
int munmap(void *, size_t);
int madvise(void *, size_t, int);
int mincore(void *, size_t, char *);
#endif
"""


def test_it_compiles_and_runs_without_what_only_linux_has(folder, tmp_path):
    (tmp_path / "sys").mkdir()
    (tmp_path / "sys/mman.h").write_text(MACOS.format(anon=0x20))
    copy = tmp_path / "hgm"
    shutil.copytree(folder, copy)
    run("make", "-C", copy, "clean")
    run("make", "-C", copy, f"CPPFLAGS=-U__linux__ -Ulinux -I{tmp_path}", "CFLAGS=-O1 -Wall -Werror")
    run("cc", f"-I{copy}/include", GUEST, copy / "libhgm.a", "-o", tmp_path / "guest")
    assert "mapcount 3" in run(tmp_path / "guest")


@pytest.mark.skipif(not (shutil.which("aarch64-linux-gnu-gcc") and shutil.which("qemu-aarch64")),
                    reason="no aarch64-linux-gnu-gcc or no qemu-aarch64")
def test_it_runs_on_aarch64(folder, guest, tmp_path):
    copy = tmp_path / "hgm"
    shutil.copytree(folder, copy)
    run("make", "-C", copy, "clean")
    run("make", "-C", copy, "libhgm.a", "CC=aarch64-linux-gnu-gcc", "AR=aarch64-linux-gnu-ar",
        "CFLAGS=-O1 -Wall -Werror")
    run("aarch64-linux-gnu-gcc", "-static", f"-I{copy}/include", GUEST, copy / "libhgm.a", "-o", tmp_path / "guest")
    for scheme in SCHEMES:
        assert run("qemu-aarch64", tmp_path / "guest", scheme) == run(guest, scheme)


@pytest.mark.skipif(not shutil.which("musl-gcc"), reason="no musl-gcc")
def test_it_runs_with_another_libc(folder, guest, tmp_path):
    copy = tmp_path / "hgm"
    shutil.copytree(folder, copy)
    run("make", "-C", copy, "clean")
    run("make", "-C", copy, "libhgm.a", "CC=musl-gcc", "CFLAGS=-O1 -Wall -Werror")
    run("musl-gcc", "-static", f"-I{copy}/include", GUEST, copy / "libhgm.a", "-o", tmp_path / "guest")
    assert run(tmp_path / "guest", "mm_id") == run(guest, "mm_id")


# -- what cannot be

def test_refusals(tmp_path, capsys, monkeypatch):
    assert cli.run(["export-c", str(tmp_path), "--schemes", "nobody"]) == 2
    (tmp_path / "file").touch()
    assert cli.run(["export-c", str(tmp_path / "file"), "--schemes", "mm_id"]) == 2
    assert "Not a directory" in capsys.readouterr().err
    with pytest.raises(ValueError, match="this version of Cython writes it otherwise"):
        export_c.plain("/* Early includes */\n#ifdef _OPENMP\n" + "".join(
            f"/* #### Code section: {name} ### */\n" for name in (
                "type_declarations", "module_declarations", "global_var", "string_decls", "module_code")), {"f"}, False)
    monkeypatch.setitem(__import__("sys").modules, "Cython.Compiler", None)
    assert cli.run(["export-c", str(tmp_path), "--schemes", "mm_id"]) == 2
    assert capsys.readouterr().err == (
        "hgmcore: error: export-c translates the core with Cython: pip install 'Cython>=3.1'\n")
