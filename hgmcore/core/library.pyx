# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""hgmcore as a library: the functions of include/hgmcore/library.h.

`hgmcore export-c` cuts the C of these functions, and of all that they call, out of what Cython makes of this file. In
Python the same functions are behind Machine.ctypes, Machine.cffi and the capsules (hgmcore/doors.py).
"""
from libc.errno cimport EAGAIN, EBUSY, EEXIST, EFAULT, EINVAL, EIO, ENOENT, ENOMEM, ESRCH
from libc.stdint cimport uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid

from hgmcore.core.declare cimport file_declare, machine_begin, machine_end, mapping_declare, process_declare
from hgmcore.core.folio cimport folio_at
from hgmcore.core.lock cimport hgm_enter, hgm_leave
from hgmcore.core.machine cimport Kind, Machine, NO_TABLE
from hgmcore.core.memory cimport region_cut
from hgmcore.core.records cimport record_fits
from hgmcore.core.table cimport entry_index, is_table, table_entries, table_number
from hgmcore.hgm cimport *

cdef extern from "hgmcore/host.h" nogil:
    const int EHWPOISON

cdef inline Machine *core_of(const hgm_machine *m) noexcept nogil:
    return <Machine *>m.core


cdef const char *hgm_strerror(int error) noexcept nogil:
    if error == 0:
        return "no error"
    if error == HGM_E_ABI:
        return "compiled for another HGM_ABI, or structs of another size: compile anew against this hgmcore's headers"
    if error == HGM_E_MEMORY:
        return "the host has no more memory or address space for this machine"
    if error == HGM_E_UNDECLARED:
        return "the number of a file, process, mapping, page or operation that was never declared"
    if error == HGM_E_GEOMETRY:
        return "no machine can have this geometry of page tables"
    if error == HGM_E_OPTION:
        return "an option has a value that it does not know"
    if error == HGM_E_PAGE_SIZE:
        return "the geometry has no pages of this size for a file of this kind"
    if error == HGM_E_FILE_SIZE:
        return "a file of no pages, or of more than a machine can have"
    if error == HGM_E_BUSY:
        return "another thread uses this machine"
    if error == HGM_E_RESERVE:
        return "no machine fits into so little address space"
    if error == HGM_E_NOT_READY:
        return "the machine was not initialised, or that failed"
    error = -error
    if error == EAGAIN:
        return "EAGAIN: try again; some pages could not be had or moved"
    if error == EBUSY:
        return "EBUSY: the page is in use"
    if error == EEXIST:
        return "EEXIST: something is mapped there already"
    if error == EFAULT:
        return "EFAULT: no page is there, or its reference count would overflow"
    if error == EHWPOISON:
        return "EHWPOISON: the page has a memory failure"
    if error == EINVAL:
        return "EINVAL: an argument is not aligned, out of range, or not supported for this memory"
    if error == EIO:
        return "EIO: pages could not be moved"
    if error == ENOENT:
        return "ENOENT: the range is not mapped as the operation needs it"
    if error == ENOMEM:
        return "ENOMEM: not mapped, or no memory for page tables or huge pages"
    if error == ESRCH:
        return "ESRCH: the process has exited"
    return "an error that hgmcore does not have"


# Machines

cdef int hgm_machine_init_abi(hgm_machine *m, uint32_t abi, size_t size, const hgm_engine *engine,
                              const hgm_geometry *geometry, const hgm_options *options, size_t reserve) noexcept nogil:
    cdef Machine *core
    cdef int error
    memset(m, 0, min(size, sizeof(hgm_machine)))    # so that it can be freed
    if abi != HGM_ABI or size != sizeof(hgm_machine):
        return HGM_E_ABI
    if engine is NULL or geometry is NULL:
        return HGM_E_NOT_READY
    if engine.abi != HGM_ABI or engine.size != sizeof(hgm_engine) or engine.core_size != sizeof(Machine):
        return HGM_E_ABI
    core = <Machine *>calloc(1, sizeof(Machine))
    if core is NULL:
        return HGM_E_MEMORY
    error = machine_begin(core, geometry, &engine.options if options is NULL else options, reserve)
    if error:
        machine_end(core)
        free(core)
        return error
    core.context.tails = engine.flags & HGM_ENGINE_DIRTIES != 0
    m.abi = abi
    m.size = <uint32_t>size
    m.core = <hgm_core *>core
    m.engine = engine
    m.owned = True
    return 0


cdef void hgm_machine_free(hgm_machine *m) noexcept nogil:
    if m.core is not NULL and m.owned:
        machine_end(core_of(m))
        free(m.core)
        m.core = NULL
        m.engine = NULL


cdef int hgm_machine_check(const hgm_machine *m, uint32_t abi, size_t size) noexcept nogil:
    return HGM_E_ABI if m.abi != abi or m.size != size or m.abi != HGM_ABI or m.size != sizeof(hgm_machine) else 0


cdef inline int taken(hgm_machine *m) noexcept nogil:
    """0: this thread may go on; or an error."""
    if m.core is NULL or m.engine is NULL:
        return HGM_E_NOT_READY
    return 0 if hgm_enter(&m.busy) else HGM_E_BUSY


cdef int hgm_machine_run_unchecked(hgm_machine *m, const hgm_operation *operations, uint64_t n) noexcept nogil:
    cdef Machine *core = core_of(m)
    core.context.out_of_memory = False
    m.operations += m.engine.run(m.core, operations, n, m.operations)
    return HGM_E_MEMORY if core.context.out_of_memory else 0


cdef int hgm_machine_run(hgm_machine *m, const hgm_operation *operations, uint64_t n) noexcept nogil:
    cdef uint64_t i = 0
    cdef int error = taken(m)
    if error:
        return error
    while i < n and record_fits(core_of(m), &operations[i]):
        i += 1
    error = HGM_E_UNDECLARED if i < n else hgm_machine_run_unchecked(m, operations, n)
    hgm_leave(&m.busy)
    return error


cdef const hgm_result *hgm_machine_results(const hgm_machine *m, uint64_t *n) noexcept nogil:
    if m.core is NULL:
        n[0] = 0
        return NULL
    n[0] = core_of(m).context.nr_results
    return <const hgm_result *>core_of(m).context.results.base


cdef void hgm_machine_clear_results(hgm_machine *m) noexcept nogil:
    if m.core is not NULL:
        region_cut(&core_of(m).context.results, 0, False)
        core_of(m).context.nr_results = 0


cdef const hgm_cost *hgm_machine_cost(const hgm_machine *m) noexcept nogil:
    return NULL if m.core is NULL else &core_of(m).context.cost


cdef const uint64_t *hgm_machine_table(const hgm_machine *m, uint32_t number) noexcept nogil:
    cdef Machine *core = core_of(m)
    if core is NULL or number == NO_TABLE or (
            (<size_t>number + 1) << core.config.geometry.table_shift > core.state.tables.used):
        return NULL
    return table_entries(core, number)


# Declarations

cdef int64_t hgm_file_add(hgm_machine *m, int kind, uint64_t page_size, uint64_t pages) noexcept nogil:
    cdef int64_t number = taken(m)
    if number == 0:
        number = (file_declare(core_of(m), <Kind>kind, page_size, pages) if 0 <= kind <= HGM_ANON
                  else HGM_E_PAGE_SIZE)
        hgm_leave(&m.busy)
    return number


cdef int64_t hgm_process_add(hgm_machine *m) noexcept nogil:
    cdef int64_t number = taken(m)
    if number == 0:
        number = process_declare(core_of(m))
        hgm_leave(&m.busy)
    return number


cdef int64_t hgm_mapping_add(hgm_machine *m, uint32_t process, uint32_t name) noexcept nogil:
    cdef int64_t number = taken(m)
    if number == 0:
        number = mapping_declare(core_of(m), process, name)
        hgm_leave(&m.busy)
    return number


# Operations

cdef inline hgm_operation operation(int op, uint32_t target, uint64_t offset, uint64_t length, uint32_t arg,
                                    int flags) noexcept nogil:
    cdef hgm_operation o
    o.offset = offset
    o.length = length
    o.target = target
    o.arg = <uint16_t>arg
    o.op = <uint8_t>op
    o.flags = <uint8_t>flags
    return o


cdef inline int64_t came_to(hgm_machine *m, const hgm_operation *op, uint64_t asked) noexcept nogil:
    """Run one operation that asks for that many bytes: bytes done, or an error."""
    cdef Machine *core = core_of(m)
    cdef uint64_t before = core.context.nr_results
    cdef const hgm_result *last
    m.engine.run(m.core, op, 1, m.operations)
    m.operations += 1
    if core.context.nr_results == before:
        if not core.context.out_of_memory:
            return <int64_t>asked
    if core.context.out_of_memory:
        core.context.out_of_memory = False
        return HGM_E_MEMORY
    last = <const hgm_result *>core.context.results.base + core.context.nr_results - 1
    if last.index != m.operations - 1:    # of a `fail` that never fired
        return <int64_t>asked
    return -last.error if last.error else <int64_t>last.done


cdef inline int64_t one(hgm_machine *m, const hgm_operation *op, uint64_t asked) noexcept nogil:
    """As came_to(), if the numbers in the record are declared and no other thread is at work."""
    cdef int64_t done
    if m.core is NULL or m.engine is NULL:
        return HGM_E_NOT_READY
    if m.busy:    # no lock, which would take as long as the operation: two threads are seen where they overlap
        return HGM_E_BUSY
    m.busy = True
    done = came_to(m, op, asked) if record_fits(core_of(m), op) else HGM_E_UNDECLARED
    m.busy = False
    return done


cdef inline uint64_t base_page(const hgm_machine *m) noexcept nogil:
    return <uint64_t>1 << core_of(m).config.geometry.base_shift if m.core is not NULL else 0


cdef int hgm_machine_fail(hgm_machine *m, uint64_t n) noexcept nogil:
    cdef hgm_operation op = operation(HGM_OP_FAIL, 0, n, 0, 0, 0)
    cdef int64_t done = one(m, &op, 0)
    return <int>done if done < 0 else 0


cdef int64_t hgm_file_populate(hgm_machine *m, uint32_t file, uint64_t first, uint64_t pages) noexcept nogil:
    cdef hgm_operation op = operation(HGM_OP_POPULATE, file, first, pages, 0, 0)
    cdef bint known = m.core is not NULL and file < core_of(m).state.nr_files
    return one(m, &op, pages << core_of(m).state.files[file].page_shift if known else 0)


cdef int64_t hgm_file_punch(hgm_machine *m, uint32_t file, uint64_t offset, uint64_t length) noexcept nogil:
    cdef hgm_operation op = operation(HGM_OP_PUNCH, file, offset, length, 0, 0)
    return one(m, &op, length)


cdef int64_t hgm_file_truncate(hgm_machine *m, uint32_t file, uint64_t length) noexcept nogil:
    cdef hgm_operation op = operation(HGM_OP_TRUNCATE, file, length, 0, 0, 0)
    return one(m, &op, 0)


cdef int64_t hgm_file_pin(hgm_machine *m, uint32_t file, uint64_t page, uint64_t references) noexcept nogil:
    cdef hgm_operation op = operation(HGM_OP_PIN, file, page, references, 0, 0)
    return one(m, &op, references)


cdef int64_t hgm_file_unpin(hgm_machine *m, uint32_t file, uint64_t page, uint64_t references) noexcept nogil:
    cdef hgm_operation op = operation(HGM_OP_UNPIN, file, page, references, 0, 0)
    return one(m, &op, references)


cdef int64_t hgm_process_fork(hgm_machine *m, uint32_t parent, uint32_t child) noexcept nogil:
    cdef hgm_operation op = operation(HGM_OP_FORK, parent, 0, 0, child, 0)
    return one(m, &op, 0) if child < HGM_NO_ARG else HGM_E_UNDECLARED


cdef int64_t hgm_process_exit(hgm_machine *m, uint32_t process) noexcept nogil:
    cdef hgm_operation op = operation(HGM_OP_EXIT, process, 0, 0, 0, 0)
    return one(m, &op, 0)


cdef int64_t hgm_mapping_mmap(hgm_machine *m, uint32_t mapping, uint32_t file, uint64_t offset, uint64_t length,
                              int flags) noexcept nogil:
    cdef hgm_operation op = operation(HGM_OP_MMAP, mapping, offset, length, file, flags)
    return one(m, &op, length) if file < HGM_NO_ARG else HGM_E_UNDECLARED


cdef int64_t hgm_mapping_register(hgm_machine *m, uint32_t mapping, int flags) noexcept nogil:
    cdef hgm_operation op = operation(HGM_OP_REGISTER, mapping, 0, 0, 0, flags)
    return one(m, &op, 0)


cdef int64_t hgm_mapping_unregister(hgm_machine *m, uint32_t mapping) noexcept nogil:
    cdef hgm_operation op = operation(HGM_OP_UNREGISTER, mapping, 0, 0, 0, 0)
    return one(m, &op, 0)


cdef int64_t hgm_mapping_split(hgm_machine *m, uint32_t mapping, uint64_t offset, uint64_t length) noexcept nogil:
    cdef hgm_operation op = operation(HGM_OP_SPLIT, mapping, offset, length, 0, 0)
    return one(m, &op, length)


cdef int64_t hgm_mapping_continue(hgm_machine *m, uint32_t mapping, uint64_t offset, uint64_t length) noexcept nogil:
    cdef hgm_operation op = operation(HGM_OP_CONTINUE, mapping, offset, length, 0, 0)
    return one(m, &op, length)


cdef int64_t hgm_mapping_touch(hgm_machine *m, uint32_t mapping, uint64_t offset, int flags) noexcept nogil:
    cdef hgm_operation op = operation(HGM_OP_TOUCH, mapping, offset, 0, 0, flags)
    return one(m, &op, base_page(m))


cdef int64_t hgm_mapping_dontneed(hgm_machine *m, uint32_t mapping, uint64_t offset, uint64_t length) noexcept nogil:
    cdef hgm_operation op = operation(HGM_OP_DONTNEED, mapping, offset, length, 0, 0)
    return one(m, &op, length)


cdef int64_t hgm_mapping_collapse(hgm_machine *m, uint32_t mapping, uint64_t offset, uint64_t length) noexcept nogil:
    cdef hgm_operation op = operation(HGM_OP_COLLAPSE, mapping, offset, length, 0, 0)
    return one(m, &op, length)


cdef int64_t hgm_mapping_munmap(hgm_machine *m, uint32_t mapping, uint64_t offset, uint64_t length) noexcept nogil:
    cdef hgm_operation op = operation(HGM_OP_MUNMAP, mapping, offset, length, 0, 0)
    return one(m, &op, length)


cdef int64_t hgm_mapping_mprotect(hgm_machine *m, uint32_t mapping, uint64_t offset, uint64_t length,
                                  int flags) noexcept nogil:
    cdef hgm_operation op = operation(HGM_OP_MPROTECT, mapping, offset, length, 0, flags)
    return one(m, &op, length)


cdef int64_t hgm_mapping_resize(hgm_machine *m, uint32_t mapping, uint64_t length) noexcept nogil:
    cdef hgm_operation op = operation(HGM_OP_MREMAP, mapping, 0, length, HGM_NO_ARG, 0)
    return one(m, &op, length)


cdef int64_t hgm_mapping_move(hgm_machine *m, uint32_t mapping, uint64_t offset, uint64_t length,
                              uint32_t to) noexcept nogil:
    cdef hgm_operation op = operation(HGM_OP_MREMAP, mapping, offset, length, to, 0)
    return one(m, &op, length) if to < HGM_NO_ARG else HGM_E_UNDECLARED


cdef int64_t hgm_mapping_migrate(hgm_machine *m, uint32_t mapping, uint64_t offset, uint64_t length,
                                 int flags) noexcept nogil:
    cdef hgm_operation op = operation(HGM_OP_MIGRATE, mapping, offset, length, 0, flags)
    return one(m, &op, length)


cdef int64_t hgm_mapping_hwpoison(hgm_machine *m, uint32_t mapping, uint64_t offset) noexcept nogil:
    cdef hgm_operation op = operation(HGM_OP_HWPOISON, mapping, offset, 0, 0, 0)
    return one(m, &op, base_page(m))


cdef int64_t hgm_mapping_continue_unchecked(hgm_machine *m, uint32_t mapping, uint64_t offset,
                                            uint64_t length) noexcept nogil:
    cdef hgm_operation op = operation(HGM_OP_CONTINUE, mapping, offset, length, 0, 0)
    return came_to(m, &op, length)


cdef int64_t hgm_mapping_touch_unchecked(hgm_machine *m, uint32_t mapping, uint64_t offset, int flags) noexcept nogil:
    cdef hgm_operation op = operation(HGM_OP_TOUCH, mapping, offset, 0, 0, flags)
    return came_to(m, &op, base_page(m))


cdef int64_t hgm_mapping_dontneed_unchecked(hgm_machine *m, uint32_t mapping, uint64_t offset,
                                            uint64_t length) noexcept nogil:
    cdef hgm_operation op = operation(HGM_OP_DONTNEED, mapping, offset, length, 0, 0)
    return came_to(m, &op, length)


# What is there

cdef uint64_t hgm_mapping_address(const hgm_machine *m, uint32_t mapping) noexcept nogil:
    cdef Machine *core = core_of(m)
    if core is NULL or mapping >= core.state.nr_mappings or core.state.mappings[mapping].nr_vmas == 0:
        return 0
    return core.state.mappings[mapping].address


cdef int hgm_process_walk(const hgm_machine *m, uint32_t process, uint64_t address, uint64_t *entries,
                          int32_t *level) noexcept nogil:
    cdef Machine *core = core_of(m)
    cdef uint32_t table
    cdef int at, i
    if core is NULL:
        return HGM_E_NOT_READY
    if process >= core.state.nr_processes:
        return HGM_E_UNDECLARED
    at = core.config.geometry.levels
    for i in range(at):
        entries[i] = 0
    level[0] = at
    table = core.state.processes[process].root
    while table != NO_TABLE:
        level[0] = at
        entries[at - 1] = table_entries(core, table)[entry_index(core, address, at)]
        if at == 1 or not is_table(entries[at - 1]):
            break
        table = table_number(entries[at - 1])
        at -= 1
    return 0


cdef uint32_t hgm_folio_count(const hgm_machine *m) noexcept nogil:
    return core_of(m).state.nr_folios if m.core is not NULL else 0


cdef const hgm_folio *hgm_folio_get(const hgm_machine *m, uint32_t folio) noexcept nogil:
    return folio_at(core_of(m), folio) if folio < hgm_folio_count(m) else NULL


cdef int64_t hgm_folio_find(const hgm_machine *m, uint32_t file, uint64_t page) noexcept nogil:
    """The number of the folio at a place in a file's page cache (a huge page; of shmem, a base page), or -ENOENT."""
    cdef Machine *core = core_of(m)
    if core is NULL or file >= core.state.nr_files or page >= core.state.files[file].nr_cache:
        return HGM_E_UNDECLARED
    return <int64_t>core.state.files[file].cache[page] - 1 if core.state.files[file].cache[page] else -ENOENT


cdef inline int folio_known(const hgm_machine *m, uint32_t folio) noexcept nogil:
    if m.core is NULL or m.engine is NULL:
        return HGM_E_NOT_READY
    return 0 if folio < core_of(m).state.nr_folios else HGM_E_UNDECLARED


cdef int hgm_folio_answer(const hgm_machine *m, uint32_t folio, hgm_answer *answer) noexcept nogil:
    cdef int error = folio_known(m, folio)
    if not error:
        m.engine.answer(&core_of(m).config.options, folio_at(core_of(m), folio), answer)
    return error


cdef int hgm_folio_movable(const hgm_machine *m, uint32_t folio, int table_shared) noexcept nogil:
    cdef int error = folio_known(m, folio)
    return error if error else m.engine.movable(&core_of(m).config.options, folio_at(core_of(m), folio), table_shared)


cdef int64_t hgm_folio_mapcounts(const hgm_machine *m, uint32_t folio, long long *runs) noexcept nogil:
    cdef int error = folio_known(m, folio)
    return error if error else <int64_t>m.engine.page_mapcount_runs(m.core, folio_at(core_of(m), folio), runs)


# Doors of Python

cdef hgm_machine *machine_for(object machine, uint32_t abi, size_t size) except NULL:
    """The machine behind a Machine or its capsule, for a caller that was compiled with that HGM_ABI and that struct."""
    cdef hgm_machine *m
    capsule = getattr(machine, "capsule", machine)
    if not PyCapsule_IsValid(capsule, "hgmcore.machine.v1"):
        raise TypeError(f"a {type(machine).__name__} is no Machine, nor a capsule 'hgmcore.machine.v1'")
    m = <hgm_machine *>PyCapsule_GetPointer(capsule, "hgmcore.machine.v1")
    if hgm_machine_check(m, abi, size):
        raise ImportError(f"the caller was compiled for HGM_ABI {abi}, hgm_machine of {size} bytes; this hgmcore has "
                          f"HGM_ABI {m.abi}, hgm_machine of {m.size} bytes: compile the caller anew")
    return m


def addresses():
    """Where the functions of library.h are in this process: a dict from their names."""
    return {
        "hgm_strerror": <uintptr_t>&hgm_strerror,
        "hgm_machine_init_abi": <uintptr_t>&hgm_machine_init_abi,
        "hgm_machine_free": <uintptr_t>&hgm_machine_free,
        "hgm_machine_check": <uintptr_t>&hgm_machine_check,
        "hgm_machine_run": <uintptr_t>&hgm_machine_run,
        "hgm_machine_run_unchecked": <uintptr_t>&hgm_machine_run_unchecked,
        "hgm_machine_results": <uintptr_t>&hgm_machine_results,
        "hgm_machine_clear_results": <uintptr_t>&hgm_machine_clear_results,
        "hgm_machine_cost": <uintptr_t>&hgm_machine_cost,
        "hgm_machine_fail": <uintptr_t>&hgm_machine_fail,
        "hgm_machine_table": <uintptr_t>&hgm_machine_table,
        "hgm_file_add": <uintptr_t>&hgm_file_add,
        "hgm_process_add": <uintptr_t>&hgm_process_add,
        "hgm_mapping_add": <uintptr_t>&hgm_mapping_add,
        "hgm_file_populate": <uintptr_t>&hgm_file_populate,
        "hgm_file_punch": <uintptr_t>&hgm_file_punch,
        "hgm_file_truncate": <uintptr_t>&hgm_file_truncate,
        "hgm_file_pin": <uintptr_t>&hgm_file_pin,
        "hgm_file_unpin": <uintptr_t>&hgm_file_unpin,
        "hgm_process_fork": <uintptr_t>&hgm_process_fork,
        "hgm_process_exit": <uintptr_t>&hgm_process_exit,
        "hgm_mapping_mmap": <uintptr_t>&hgm_mapping_mmap,
        "hgm_mapping_register": <uintptr_t>&hgm_mapping_register,
        "hgm_mapping_unregister": <uintptr_t>&hgm_mapping_unregister,
        "hgm_mapping_split": <uintptr_t>&hgm_mapping_split,
        "hgm_mapping_continue": <uintptr_t>&hgm_mapping_continue,
        "hgm_mapping_touch": <uintptr_t>&hgm_mapping_touch,
        "hgm_mapping_dontneed": <uintptr_t>&hgm_mapping_dontneed,
        "hgm_mapping_collapse": <uintptr_t>&hgm_mapping_collapse,
        "hgm_mapping_munmap": <uintptr_t>&hgm_mapping_munmap,
        "hgm_mapping_mprotect": <uintptr_t>&hgm_mapping_mprotect,
        "hgm_mapping_resize": <uintptr_t>&hgm_mapping_resize,
        "hgm_mapping_move": <uintptr_t>&hgm_mapping_move,
        "hgm_mapping_migrate": <uintptr_t>&hgm_mapping_migrate,
        "hgm_mapping_hwpoison": <uintptr_t>&hgm_mapping_hwpoison,
        "hgm_mapping_continue_unchecked": <uintptr_t>&hgm_mapping_continue_unchecked,
        "hgm_mapping_touch_unchecked": <uintptr_t>&hgm_mapping_touch_unchecked,
        "hgm_mapping_dontneed_unchecked": <uintptr_t>&hgm_mapping_dontneed_unchecked,
        "hgm_mapping_address": <uintptr_t>&hgm_mapping_address,
        "hgm_process_walk": <uintptr_t>&hgm_process_walk,
        "hgm_folio_count": <uintptr_t>&hgm_folio_count,
        "hgm_folio_get": <uintptr_t>&hgm_folio_get,
        "hgm_folio_find": <uintptr_t>&hgm_folio_find,
        "hgm_folio_answer": <uintptr_t>&hgm_folio_answer,
        "hgm_folio_movable": <uintptr_t>&hgm_folio_movable,
        "hgm_folio_mapcounts": <uintptr_t>&hgm_folio_mapcounts,
    }


def layout():
    """(HGM_ABI, sizeof(hgm_machine), sizeof(hgm_engine)) of this hgmcore."""
    return HGM_ABI, sizeof(hgm_machine), sizeof(hgm_engine)


def strerror(int error) -> str:
    """The text of an error of library.h, or of a refusal: 0 or below."""
    return hgm_strerror(error).decode()
