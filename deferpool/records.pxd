# The pool of raw records, for Cython authors:
#
#     from deferpool.records cimport RecordPool
#     cdef void* record = pool.new(64)      # nogil; zeroed, 16-byte aligned; NULL when there is no memory
#     pool.free(record)                     # nogil
#
# Both are inlined into the module that cimports this. Keep a reference to the pool as long as any of its
# records is out. free aborts the process on a double free and on a record of another pool.
cimport cython
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from deferpool._platform cimport alloc_fn, likely, release_fn, zero16
from deferpool._pool cimport ItemPool, get, put

# The layout that the inlined code relies on, platform.h included, has this number. Cython imports every class
# of this file into each module that cimports it, this one first; where the installed library has another
# number, that ends in an ImportError which names both. A change of layout renames the class here and in
# records.pyx.
cdef class abi_1:
    pass

cdef enum:
    MAX_CLASSES = 32
    # what `mark` is above the pool's own number, in the states of a record; below them its class, while live
    BYPASSED = 64
    CACHED = 128
    QUARANTINED = 192

# 16 bytes before each record.
cdef struct Header:
    uint64_t mark                       # token of the pool + state + class
    size_t size                         # asked for, of a record past the last class; else not used

# Where records come from. A pool of a harness or of a debugger may bring its own.
cdef struct Allocator:
    void* (*alloc)(void* arg, size_t size) noexcept nogil       # zeroed, 16-byte aligned, or NULL
    void (*release)(void* arg, void* memory) noexcept nogil
    void* (*alloc_meta)(void* arg, size_t size) noexcept nogil  # for batches and caches; may be NULL: calloc
    void (*release_meta)(void* arg, void* memory) noexcept nogil
    void* arg

# The last dropped records, debug only. Atomic and without a lock, which a fork would have to hold.
cdef struct Quarantine:
    uint64_t size, at
    uint64_t* ring                      # addresses

# All of a pool that is not the engine's and that code without the GIL looks at.
cdef struct Layout:
    uint64_t token                      # a multiple of 256, of this pool alone while the process lives
    uint64_t classes
    size_t largest                      # bytes in the last class
    uint8_t* class_of                   # by size in units of 16 bytes, rounded up
    uint32_t units[MAX_CLASSES]         # of 16 bytes, by class
    Allocator allocator
    Quarantine quarantine

cdef void* new_bypassed(RecordPool pool, size_t size) noexcept nogil
cdef void free_unusual(RecordPool pool, void* record) noexcept nogil


@cython.final
cdef class RecordPool(ItemPool):
    cdef Layout layout
    cdef readonly tuple sizes
    cdef readonly bint debug

    cdef inline void* new(self, size_t size) noexcept nogil:
        """A zeroed record of at least size bytes; NULL when there is no memory."""
        cdef Header* header
        cdef uint32_t cls
        if not likely(size <= self.layout.largest):
            return new_bypassed(self, size)
        cls = self.layout.class_of[(size + 15) // 16]
        header = <Header*>get(&self.pool, cls)
        if not likely(header != NULL):
            return NULL
        header.mark = self.layout.token + cls
        return header + 1

    cdef inline void free(self, void* record) noexcept nogil:
        """Gives a record back; its bytes are zeroed. NULL is let through, as C's free does."""
        cdef Header* header = <Header*>record - 1
        cdef uint64_t cls
        if not likely(record != NULL):
            return
        cls = header.mark - self.layout.token
        if not likely(cls < self.layout.classes):
            free_unusual(self, record)
            return
        header.mark += CACHED
        zero16(record, self.layout.units[cls])
        put(&self.pool, header, <uint32_t>cls)
