"""Numbers of the Linux interface that recordings hold, as x86 and most architectures have them."""

PROT_READ, PROT_WRITE, PROT_EXEC = 0x1, 0x2, 0x4

MAP_SHARED, MAP_PRIVATE, MAP_SHARED_VALIDATE = 0x1, 0x2, 0x3
MAP_ANONYMOUS, MAP_DENYWRITE, MAP_LOCKED, MAP_POPULATE = 0x20, 0x800, 0x2000, 0x8000
MAP_STACK, MAP_HUGETLB = 0x20000, 0x40000
MFD_HUGETLB = 0x4
SHM_HUGETLB, SHM_RDONLY = 0o4000, 0o10000
HUGE_SHIFT, HUGE_MASK = 26, 0x3f  # where flags of mmap, memfd_create and shmget have log2 of a page size

FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 0x1, 0x2

CLONE_VM, CLONE_THREAD = 0x100, 0x10000

MADVISE = {4: "DONTNEED", 8: "FREE", 9: "REMOVE", 10: "DONTFORK", 11: "DOFORK", 12: "MERGEABLE",
           13: "UNMERGEABLE", 14: "HUGEPAGE", 15: "NOHUGEPAGE", 16: "DONTDUMP", 17: "DODUMP", 18: "WIPEONFORK",
           20: "COLD", 21: "PAGEOUT", 22: "POPULATE_READ", 23: "POPULATE_WRITE", 24: "DONTNEED_LOCKED",
           25: "COLLAPSE", 26: "SPLIT", 100: "HWPOISON"}
"""Names without MADV_; SPLIT is of the HGM series, no kernel that was released has it."""

UFFDIO = {0: "REGISTER", 1: "UNREGISTER", 2: "WAKE", 3: "COPY", 4: "ZEROPAGE", 5: "MOVE", 6: "WRITEPROTECT",
          7: "CONTINUE", 8: "POISON", 0x3f: "API"}
UFFDIO_REGISTER_MODE_MISSING, UFFDIO_REGISTER_MODE_WP, UFFDIO_REGISTER_MODE_MINOR = 1, 2, 4

PF_WRITE = 0x2  # of the error code of a page fault

KERNEL = 1 << 56  # no address of a process is as high

MAX_ERRNO = 4095  # results of calls from -MAX_ERRNO to -1 are errors
