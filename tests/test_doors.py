"""Doors of a machine: capsules, ctypes, cffi, Cython and C extensions; each refuses another HGM_ABI by name."""

import ctypes
import gc
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import hgmcore as hgm
from hgmcore import doors
from hgmcore.core import library
from hgmcore.core.core import Engine

EXAMPLES = Path(__file__).parent.parent / "examples"
ROOT = str(Path(hgm.__file__).parent.parent)
ABI, MACHINE_SIZE, ENGINE_SIZE = library.layout()


def machine(scheme="mm_id"):
    m = hgm.Machine(scheme)
    file = m.file("F", "2M", 2, populate=True)
    m.process("A").mmap(file, name="v", minor=True, hgm=True)
    return m


def pointer(capsule, name):
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return get(capsule, name)


def python(folder, *arguments, status=0):
    """A Python program outside the tree; what it prints."""
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=folder, capture_output=True, text=True,
                          env={**os.environ, "CFLAGS": "-O0", "PYTHONPATH": os.pathsep.join([ROOT, str(folder)])})
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr


def copied(name, tmp_path_factory):
    folder = tmp_path_factory.mktemp(name) / name
    shutil.copytree(EXAMPLES / name, folder)
    return folder


@pytest.fixture(scope="module")
def simulator(tmp_path_factory):
    pytest.importorskip("Cython")
    folder = copied("cython_simulator", tmp_path_factory)
    python(folder, "setup.py", "-q", "build_ext", "--inplace")
    return folder


@pytest.fixture(scope="module")
def extension(tmp_path_factory):
    folder = copied("c_extension", tmp_path_factory)
    python(folder, "setup.py", "-q", "build_ext", "--inplace")
    return folder


# -- consumers

def test_a_simulator_in_cython(simulator):
    assert python(simulator, "run.py") == 2 * "mapped 998 again 2 map-count atomics 2994\n"


def test_an_extension_in_c(extension):
    assert python(extension, "run.py") == "zapped 8 leaves gone 8\n"


def test_a_script_with_ctypes(tmp_path):
    assert python(tmp_path, EXAMPLES / "ctypes_script/run.py") == (
        "4096\n4096\nEEXIST: something is mapped there already\nmapcount 2 operations 5\n")


def test_a_script_with_ctypes_and_the_c_library(tmp_path):
    pytest.importorskip("Cython")
    python(tmp_path, "-m", "hgmcore", "export-c", "hgm", "--schemes", "head_per_leaf")
    subprocess.run(["make", "-s", "-C", tmp_path / "hgm", "CFLAGS=-O1"], check=True)
    assert python(tmp_path, EXAMPLES / "ctypes_script/run.py", tmp_path / "hgm/libhgm.so") == (
        "init: compiled for another HGM_ABI, or structs of another size: compile anew against this hgmcore's headers\n"
        "init: no error\n4096\n4096\nEEXIST: something is mapped there already\noperations 5\n")


def test_a_script_with_cffi(tmp_path):
    pytest.importorskip("cffi")
    assert python(tmp_path, EXAMPLES / "cffi_script/run.py") == (
        "no error\nmm_id mapcount 512 atomics 1536\n"
        "the number of a file, process, mapping, page or operation that was never declared\n")


def test_a_loop_with_numba(tmp_path):
    pytest.importorskip("numba")
    assert python(tmp_path, EXAMPLES / "numba_loop/run.py") == "(1000, 334)\nleaves 1000 refusals 334\n"


# -- what a door is

def test_capsules_carry_version_and_size():
    m = machine()
    for capsule, name, size in [(m.capsule, b"hgmcore.machine.v1", MACHINE_SIZE),
                                (m.engine.capsule, b"hgmcore.engine.v1", ENGINE_SIZE)]:
        assert list((ctypes.c_uint32 * 2).from_address(pointer(capsule, name))) == [ABI, size]
        with pytest.raises(ValueError, match="incorrect name"):
            pointer(capsule, b"hgmcore.scheme.v1")


def test_a_capsule_keeps_its_machine():
    m = machine()
    capsule, door = m.capsule, m.ctypes
    del m
    gc.collect()
    assert door.lib.hgm_mapping_continue(pointer(capsule, b"hgmcore.machine.v1"), 0, 0, 4096) == 4096


def test_all_doors_are_of_one_machine():
    m = machine()
    by_ctypes = m.ctypes
    assert by_ctypes.lib.hgm_mapping_continue(by_ctypes.state, 0, 0, 4096) == 4096
    before = m.operations
    assert by_ctypes.lib.hgm_mapping_continue(by_ctypes.state, 0, 0, 4096) == -17
    assert m.operations == before + 1
    assert [tuple(row) for row in m.results()] == [(before, 0, 17, 0)]
    if_cffi = pytest.importorskip("cffi")
    assert if_cffi
    by_cffi = m.cffi
    assert by_cffi.state_address == by_ctypes.state_address
    assert by_cffi.state.operations == m.operations == by_cffi.state.operations
    assert (by_cffi.abi, by_cffi.state.abi, by_cffi.state.engine.core_size) == (ABI, ABI, m.cffi.state.engine.core_size)


def test_the_doors_have_every_function_of_the_header():
    header = re.sub(r"/\*.*?\*/", "", (doors.HEADERS / "library.h").read_text(), flags=re.S)
    named = set(re.findall(r"\b(hgm_(?:machine|file|process|mapping|folio|strerror)\w*)\(", header))
    names = {name for name, _, _ in doors.functions()}
    assert names == set(library.addresses()) == named - {"hgm_machine_init"}    # which is inline
    assert names <= set(vars(machine().ctypes.lib))


def test_an_engine_comes_back_out_of_its_capsule():
    engine = hgm.schemes.load("mm_id")
    again = Engine.from_capsule(engine.capsule, engine.explanation, engine.state, engine.exceptions)
    assert again is not engine
    for name in "name", "explanation", "state", "exceptions", "whole_only", "writes_tails", "scans", "first_come":
        assert getattr(again, name) == getattr(engine, name), name
    one, other = hgm.Machine(engine), hgm.Machine(again)
    for m in one, other:
        file = m.file("F", "2M", 1, populate=True)
        m.process("A").mmap(file, minor=True, hgm=True).uffd_continue(0, "64K")
    assert one.cost() == other.cost()


# -- refusals

ABOUT = rf"HGM_ABI {ABI - 100}\b.*HGM_ABI {ABI}\b.*compile .* anew"


def older(capsule, name):
    """Make what a capsule has look as if it was compiled before the last change of a layout."""
    ctypes.c_uint32.from_address(pointer(capsule, name)).value = ABI - 100


def test_another_abi_is_refused_by_engine_capsule():
    made = Engine.from_capsule(hgm.schemes.load("mm_id").capsule)
    older(made.capsule, b"hgmcore.engine.v1")
    with pytest.raises(ImportError, match=ABOUT):
        Engine.from_capsule(made.capsule)
    with pytest.raises(TypeError, match="a PyCapsule is no capsule 'hgmcore.engine.v1'"):
        Engine.from_capsule(machine().capsule)
    with pytest.raises(TypeError, match="an empty Engine"):
        Engine().capsule


def test_another_abi_is_refused_by_the_c_functions():
    m = machine()
    lib = m.ctypes.lib
    other = (ctypes.c_char * MACHINE_SIZE)()
    engine = ctypes.c_void_p(pointer(m.engine.capsule, b"hgmcore.engine.v1"))
    for abi, size in (ABI - 100, MACHINE_SIZE), (ABI, MACHINE_SIZE - 8):
        error = lib.hgm_machine_init_abi(ctypes.byref(other), abi, size, engine, engine, None, 0)
        assert error == lib.HGM_E_ABI and b"HGM_ABI" in lib.hgm_strerror(error)
        assert lib.hgm_machine_check(m.ctypes.state, abi, size) == lib.HGM_E_ABI
        lib.hgm_machine_free(ctypes.byref(other))
    made = Engine.from_capsule(m.engine.capsule)
    older(made.capsule, b"hgmcore.engine.v1")
    assert lib.hgm_machine_init_abi(ctypes.byref(other), ABI, MACHINE_SIZE, pointer(made.capsule, b"hgmcore.engine.v1"),
                                    engine, None, 0) == lib.HGM_E_ABI


def test_another_abi_is_refused_by_cffi(monkeypatch):
    pytest.importorskip("cffi")
    monkeypatch.setattr(doors, "declarations", lambda: "typedef struct { uint32_t abi, size; } hgm_machine;")
    doors._cffi.cache_clear()
    with pytest.raises(ImportError, match=f"hgm_machine has 8 bytes .*{MACHINE_SIZE} where .* HGM_ABI {ABI}: install"):
        machine().cffi
    doors._cffi.cache_clear()


def with_older_headers(folder, tmp_path):
    """A copy of an example's sources, and a package whose headers are of an older HGM_ABI."""
    shutil.copytree(folder, tmp_path / "old", ignore=shutil.ignore_patterns("*.so", "build", "pager.c"))
    headers = tmp_path / "include"
    shutil.copytree(hgm.get_include(), headers)
    text = (headers / "hgmcore/hgm.h").read_text()
    number = re.search(r"#define HGM_ABI \((\d+) ", text)[1]
    text = text.replace(f"({number} + HGM_NR_OPS)", f"({int(number) - 100} + HGM_NR_OPS)")
    (headers / "hgmcore/hgm.h").write_text(text)
    setup = tmp_path / "old/setup.py"
    setup.write_text(setup.read_text().replace("hgmcore.get_include()", repr(str(headers))))
    python(tmp_path / "old", "setup.py", "-q", "build_ext", "--inplace")
    return tmp_path / "old"


@pytest.mark.parametrize("name", ["simulator", "extension"])
def test_another_abi_is_refused_by_compiled_callers(name, request, tmp_path):
    folder = with_older_headers(request.getfixturevalue(name), tmp_path)
    assert re.search(r"ImportError: .*" + ABOUT, python(folder, "run.py", status=1))


def test_compiled_callers_refuse_what_is_no_machine(simulator, extension, monkeypatch):
    for folder in simulator, extension:
        monkeypatch.syspath_prepend(folder)
    import pager
    import tracer

    with pytest.raises(TypeError, match="a str is no Machine, nor a capsule 'hgmcore.machine.v1'"):
        pager.serve("machine", 1, 1)
    with pytest.raises(ValueError, match="incorrect name"):
        tracer.zap_each(hgm.schemes.load("mm_id").capsule, 0, 1)
    with pytest.raises(RuntimeError, match="that was never declared"):
        pager.serve(hgm.Machine("mm_id").capsule, 1, 1)


def test_a_second_thread_is_refused_by_every_door():
    m = machine()
    door = m.ctypes
    busy = ctypes.c_uint32.from_address(door.state_address + 32)
    busy.value = 1
    assert door.lib.hgm_mapping_continue(door.state, 0, 0, 4096) == door.lib.HGM_E_BUSY
    for call in lambda: m.process("B"), lambda: m.fail(1), lambda: m.snapshot(), lambda: m.file("G"):
        with pytest.raises(RuntimeError, match="another thread uses this machine"):
            call()
    busy.value = 0
    assert door.lib.hgm_mapping_continue(door.state, 0, 0, 4096) == 4096


def test_machines_of_several_threads_have_nothing_in_common():
    machines = [machine() for _ in range(4)]

    def work(m):
        door = m.ctypes
        for offset in range(0, 2 << 20, 4096):
            door.lib.hgm_mapping_continue(door.state, 0, offset, 4096)

    threads = [threading.Thread(target=work, args=[m]) for m in machines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(m.cost()["leaf_installs"] == 512 for m in machines)
