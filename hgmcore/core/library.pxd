# cython: language_level=3
"""The functions of include/hgmcore/library.h; hgmcore/library.pxd is their public name."""
from hgmcore.hgm cimport *

cdef hgm_machine *machine_for(object machine, uint32_t abi, size_t size) except NULL

cdef inline hgm_machine *machine_of(object machine) except NULL:
    """The machine behind an hgmcore.Machine or its capsule, of which the caller keeps a reference.

    ImportError, which names both: the caller was compiled for another HGM_ABI. TypeError: it is neither.
    """
    return machine_for(machine, HGM_ABI, sizeof(hgm_machine))

cdef const char *hgm_strerror(int error) noexcept nogil

cdef int hgm_machine_init_abi(hgm_machine *m, uint32_t abi, size_t size, const hgm_engine *engine,
                              const hgm_geometry *geometry, const hgm_options *options, size_t reserve) noexcept nogil
cdef void hgm_machine_free(hgm_machine *m) noexcept nogil
cdef int hgm_machine_check(const hgm_machine *m, uint32_t abi, size_t size) noexcept nogil
cdef int hgm_machine_run(hgm_machine *m, const hgm_operation *operations, uint64_t n) noexcept nogil
cdef int hgm_machine_run_unchecked(hgm_machine *m, const hgm_operation *operations, uint64_t n) noexcept nogil
cdef const hgm_result *hgm_machine_results(const hgm_machine *m, uint64_t *n) noexcept nogil
cdef void hgm_machine_clear_results(hgm_machine *m) noexcept nogil
cdef const hgm_cost *hgm_machine_cost(const hgm_machine *m) noexcept nogil
cdef int hgm_machine_fail(hgm_machine *m, uint64_t n) noexcept nogil
cdef const uint64_t *hgm_machine_table(const hgm_machine *m, uint32_t number) noexcept nogil

cdef int64_t hgm_file_add(hgm_machine *m, int kind, uint64_t page_size, uint64_t pages) noexcept nogil
cdef int64_t hgm_process_add(hgm_machine *m) noexcept nogil
cdef int64_t hgm_mapping_add(hgm_machine *m, uint32_t process, uint32_t name) noexcept nogil

cdef int64_t hgm_file_populate(hgm_machine *m, uint32_t file, uint64_t first, uint64_t pages) noexcept nogil
cdef int64_t hgm_file_punch(hgm_machine *m, uint32_t file, uint64_t offset, uint64_t length) noexcept nogil
cdef int64_t hgm_file_truncate(hgm_machine *m, uint32_t file, uint64_t length) noexcept nogil
cdef int64_t hgm_file_pin(hgm_machine *m, uint32_t file, uint64_t page, uint64_t references) noexcept nogil
cdef int64_t hgm_file_unpin(hgm_machine *m, uint32_t file, uint64_t page, uint64_t references) noexcept nogil
cdef int64_t hgm_process_fork(hgm_machine *m, uint32_t parent, uint32_t child) noexcept nogil
cdef int64_t hgm_process_exit(hgm_machine *m, uint32_t process) noexcept nogil
cdef int64_t hgm_mapping_mmap(hgm_machine *m, uint32_t mapping, uint32_t file, uint64_t offset, uint64_t length,
                              int flags) noexcept nogil
cdef int64_t hgm_mapping_register(hgm_machine *m, uint32_t mapping, int flags) noexcept nogil
cdef int64_t hgm_mapping_unregister(hgm_machine *m, uint32_t mapping) noexcept nogil
cdef int64_t hgm_mapping_split(hgm_machine *m, uint32_t mapping, uint64_t offset, uint64_t length) noexcept nogil
cdef int64_t hgm_mapping_continue(hgm_machine *m, uint32_t mapping, uint64_t offset, uint64_t length) noexcept nogil
cdef int64_t hgm_mapping_touch(hgm_machine *m, uint32_t mapping, uint64_t offset, int flags) noexcept nogil
cdef int64_t hgm_mapping_dontneed(hgm_machine *m, uint32_t mapping, uint64_t offset, uint64_t length) noexcept nogil
cdef int64_t hgm_mapping_collapse(hgm_machine *m, uint32_t mapping, uint64_t offset, uint64_t length) noexcept nogil
cdef int64_t hgm_mapping_munmap(hgm_machine *m, uint32_t mapping, uint64_t offset, uint64_t length) noexcept nogil
cdef int64_t hgm_mapping_mprotect(hgm_machine *m, uint32_t mapping, uint64_t offset, uint64_t length,
                                  int flags) noexcept nogil
cdef int64_t hgm_mapping_resize(hgm_machine *m, uint32_t mapping, uint64_t length) noexcept nogil
cdef int64_t hgm_mapping_move(hgm_machine *m, uint32_t mapping, uint64_t offset, uint64_t length,
                              uint32_t to) noexcept nogil
cdef int64_t hgm_mapping_migrate(hgm_machine *m, uint32_t mapping, uint64_t offset, uint64_t length,
                                 int flags) noexcept nogil
cdef int64_t hgm_mapping_hwpoison(hgm_machine *m, uint32_t mapping, uint64_t offset) noexcept nogil
cdef int64_t hgm_mapping_continue_unchecked(hgm_machine *m, uint32_t mapping, uint64_t offset,
                                            uint64_t length) noexcept nogil
cdef int64_t hgm_mapping_touch_unchecked(hgm_machine *m, uint32_t mapping, uint64_t offset, int flags) noexcept nogil
cdef int64_t hgm_mapping_dontneed_unchecked(hgm_machine *m, uint32_t mapping, uint64_t offset,
                                            uint64_t length) noexcept nogil

cdef uint64_t hgm_mapping_address(const hgm_machine *m, uint32_t mapping) noexcept nogil
cdef int hgm_process_walk(const hgm_machine *m, uint32_t process, uint64_t address, uint64_t *entries,
                          int32_t *level) noexcept nogil
cdef uint32_t hgm_folio_count(const hgm_machine *m) noexcept nogil
cdef const hgm_folio *hgm_folio_get(const hgm_machine *m, uint32_t folio) noexcept nogil
cdef int64_t hgm_folio_find(const hgm_machine *m, uint32_t file, uint64_t page) noexcept nogil
cdef int hgm_folio_answer(const hgm_machine *m, uint32_t folio, hgm_answer *answer) noexcept nogil
cdef int hgm_folio_movable(const hgm_machine *m, uint32_t folio, int table_shared) noexcept nogil
cdef int64_t hgm_folio_mapcounts(const hgm_machine *m, uint32_t folio, long long *runs) noexcept nogil
