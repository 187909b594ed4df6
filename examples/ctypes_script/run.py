"""hgmcore from ctypes: the machine of a Python process, and, given a libhgm.so of `export-c`, one without hgmcore.

    python run.py                      # by Machine.ctypes
    python run.py DIRECTORY/libhgm.so  # by the C library alone
"""
import ctypes
import sys


def inside():
    import hgmcore as hgm

    machine = hgm.Machine("head_per_leaf")
    file = machine.file("F", "1G", 1, populate=True)
    machine.process("A").mmap(file, name="v", minor=True, hgm=True)
    door = machine.ctypes
    for offset in 0, 4096, 4096:
        done = door.lib.hgm_mapping_continue(door.state, 0, offset, 4096)
        print(done if done >= 0 else door.lib.hgm_strerror(done).decode())
    print("mapcount", machine.observe()["folios"][0]["mapcount"], "operations", machine.operations)


class Machine(ctypes.Structure):
    """hgm_machine of library.h."""

    _fields_ = [("abi", ctypes.c_uint32), ("size", ctypes.c_uint32), ("core", ctypes.c_void_p),
                ("engine", ctypes.c_void_p), ("operations", ctypes.c_uint64), ("busy", ctypes.c_uint32),
                ("owned", ctypes.c_uint32)]


def alone(path):
    lib = ctypes.CDLL(path)
    u32, u64, i64, pointer = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int64, ctypes.c_void_p
    lib.hgm_strerror.restype = ctypes.c_char_p
    lib.hgm_engine_find.restype = lib.hgm_geometry_find.restype = pointer
    lib.hgm_machine_init_abi.argtypes = [pointer, u32, ctypes.c_size_t, pointer, pointer, pointer, ctypes.c_size_t]
    lib.hgm_file_add.argtypes, lib.hgm_file_add.restype = [pointer, ctypes.c_int, u64, u64], i64
    lib.hgm_file_populate.argtypes, lib.hgm_file_populate.restype = [pointer, u32, u64, u64], i64
    lib.hgm_mapping_mmap.argtypes = [pointer, u32, u32, u64, u64, ctypes.c_int]
    lib.hgm_mapping_continue.argtypes, lib.hgm_mapping_continue.restype = [pointer, u32, u64, u64], i64
    engine = lib.hgm_engine_find(b"head_per_leaf")
    abi = ctypes.cast(engine, ctypes.POINTER(u32))[0]    # a program that was compiled has HGM_ABI here
    machine = Machine()
    for given in abi - 1, abi:
        error = lib.hgm_machine_init_abi(ctypes.byref(machine), given, ctypes.sizeof(machine), engine,
                                         lib.hgm_geometry_find(b"x86-64"), None, 0)
        print("init:", lib.hgm_strerror(error).decode())
    file = lib.hgm_file_add(ctypes.byref(machine), 0, 1 << 30, 1)
    mapping = lib.hgm_mapping_add(ctypes.byref(machine), lib.hgm_process_add(ctypes.byref(machine)), 0)
    lib.hgm_file_populate(ctypes.byref(machine), file, 0, 1)
    lib.hgm_mapping_mmap(ctypes.byref(machine), mapping, file, 0, 1 << 30, 1 | 2 | 8)    # shared, minor, hgm
    for offset in 0, 4096, 4096:
        done = lib.hgm_mapping_continue(ctypes.byref(machine), mapping, offset, 4096)
        print(done if done >= 0 else lib.hgm_strerror(done).decode())
    print("operations", machine.operations)
    lib.hgm_machine_free(ctypes.byref(machine))


if len(sys.argv) > 1:
    alone(sys.argv[1])
else:
    inside()
