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
from libc.stdint cimport uint32_t, uint64_t

from deferpool._face cimport ItemPool
from deferpool._handles cimport Handles
from deferpool._platform cimport likely, zero16
from deferpool._pool cimport MAX_CLASSES, Allocator, get, put

# The layout that the inlined code relies on, sections.h included, has this number. Cython imports every class
# of this file into each module that cimports it, this one first; where the installed library has another
# number, that ends in an ImportError which names both. A change of layout renames the class here and in
# records.pyx.
cdef class abi_1:
    pass

cdef enum:
    SMALL = 1024                        # bytes; the class of a record up to this is looked up in one step
    # `mark` is the pool's token plus the state of the record
    LIVE = 0
    BYPASSED = 64                       # live, and past the last class
    CACHED = 128
    DROPPED = 192                       # given back to the allocator; still readable in debug mode
    PLACES = 65                         # SMALL / 16 + 1
    QUARANTINED_UP_TO = 16384           # bytes
    NO_PLACE = 0x7fffffff               # past the last class

# 16 bytes before each record. All but `mark` is written when the record is made, and stays.
cdef struct Header:
    uint64_t mark
    uint64_t shape                      # its class's place, and in the upper half where its last 16 bytes begin;
                                        # past the last class: the bytes asked for

# The last dropped records, debug only. Atomic and without a lock, which a fork would have to hold.
cdef struct Quarantine:
    uint64_t size, at
    uint64_t* ring                      # addresses

# All of a pool that is not the engine's and that code without the GIL looks at.
cdef struct Layout:
    uint64_t token                      # a multiple of 256, of this pool alone while the process lives
    uint32_t place[PLACES]              # by size in units of 16 bytes, rounded up
    uint32_t classes
    uint32_t units[MAX_CLASSES]         # of 16 bytes, by class
    uint64_t shape[MAX_CLASSES]         # of a record, by class
    Allocator allocator
    Quarantine quarantine

cdef void* new_large(RecordPool pool, size_t size) noexcept nogil
cdef void free_unusual(RecordPool pool, void* record) noexcept nogil


@cython.final
cdef class RecordPool(ItemPool):
    cdef Layout layout
    cdef readonly tuple sizes
    cdef readonly bint debug
    cdef Handles handles                # that Python has of its records

    cdef inline void* new(self, size_t size) noexcept nogil:
        """A zeroed record of at least size bytes; NULL when there is no memory."""
        cdef Header* header
        cdef uint32_t at
        if not likely(size <= SMALL):
            return new_large(self, size)
        at = self.layout.place[(size + 15) >> 4]
        if not likely(at != <uint32_t>NO_PLACE):
            return new_large(self, size)
        header = <Header*>get(&self.pool, at)
        if not likely(header != NULL):
            return NULL
        header.mark = self.layout.token
        return header + 1

    cdef inline void free(self, void* record) noexcept nogil:
        """Gives a record back; its bytes are zeroed. NULL is let through, as C's free does."""
        cdef Header* header
        cdef uint64_t token = self.layout.token, shape
        if not likely(record != NULL):
            return
        header = <Header*>record - 1
        if not likely(header.mark == token):
            free_unusual(self, record)
            return
        header.mark = token + CACHED
        shape = header.shape
        zero16(record, shape >> 32)
        put(&self.pool, header, <uint32_t>shape)
