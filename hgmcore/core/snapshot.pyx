# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, embedsignature=True
"""Snapshots of a core's machine as Python objects; what they hold is in snapshot.pxd."""
from hgmcore.core.core cimport Core


cdef class Snapshot:
    """What a core's machine is at this moment. RuntimeError: another thread runs it. MemoryError: no room."""
    def __cinit__(self, Core core):
        cdef bint fits
        snapshot_init(&self.copy)
        core.idle()
        with nogil:
            fits = snapshot_take(&core.m, &self.copy)
        if not fits:
            raise MemoryError("no memory for a snapshot")

    def __dealloc__(self):
        snapshot_free(&self.copy)

    def restore(self, Core core, bint keep=False):
        """Make the core, which has the geometry and options of the one that was copied, what that one was.

        keep: keep the host's memory that it has, so that what runs next asks the system for none.

        RuntimeError: another thread runs it. MemoryError: its address space is too small (it is as before), or the host
        has no room (it is unusable).
        """
        cdef bint fits
        core.idle()
        if not snapshot_fits(&core.m, &self.copy):
            raise MemoryError(f"the machine's reservation of {core.reserved} bytes of address space is too small for "
                              "the snapshot")
        with nogil:
            fits = snapshot_restore(&core.m, &self.copy, keep)
        if not fits:
            raise MemoryError("no memory to put a snapshot back")

    @property
    def nbytes(self) -> int:
        """Bytes that the snapshot takes."""
        return self.copy.room + self.copy.max_stretches * sizeof(self.copy.stretches[0])
