"""hgmcore from cffi: types and functions of hgm.h and library.h are declared in the door's FFI."""
import hgmcore as hgm

machine = hgm.Machine("mm_id")
file = machine.file("F", "2M", 1, populate=True)
machine.process("A").mmap(file, name="v", minor=True, hgm=True)
door = machine.cffi
ffi, lib, m = door.ffi, door.lib, door.state

records = ffi.new("hgm_operation[512]")
for i, record in enumerate(records):
    record.op, record.offset, record.length = lib.HGM_OP_CONTINUE, 4096 * i, 4096
print(ffi.string(lib.hgm_strerror(lib.hgm_machine_run(m, records, len(records)))).decode())
answer = ffi.new("hgm_answer *")
lib.hgm_folio_answer(m, 0, answer)
print(ffi.string(m.engine.name).decode(), "mapcount", answer.mapcount, "atomics", lib.hgm_machine_cost(m).map)
print(ffi.string(lib.hgm_strerror(lib.hgm_mapping_continue(m, 7, 0, 4096))).decode())
