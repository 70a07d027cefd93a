# Blocks of whole pages, of one size, whose memory goes back to the operating system when they are given back.
#
# A mapping for each block would be simple, but a process may have 65,530 of them and no more, and a block between two
# others cannot be unmapped without making one. The C library's aligned blocks lose a page each. So blocks lie side by
# side in regions of 16 MiB or more: one that is given back loses its memory and keeps its place, until the pool ends.
# Atomic and without a lock, which a fork would have to hold.
from libc.stddef cimport size_t
from libc.stdint cimport uint64_t

cdef extern from "pages.h" nogil:
    void* map "dp_map"(size_t size) noexcept
    void unmap "dp_unmap"(void* memory, size_t size) noexcept
    size_t page "dp_page"() noexcept

cdef enum: MAX_WORDS = 64               # of a region's map of its blocks

cdef struct Region:
    Region* next                        # older ones
    uint64_t free                       # blocks that nobody has or is about to take
    uint64_t taken[MAX_WORDS]           # a bit for each block
    # blocks begin a page after this

cdef struct Blocks:
    size_t size                         # of a block: whole pages
    size_t region                       # of a region: a power of two, and it begins at a multiple of that
    uint64_t each                       # blocks in one
    Region* newest
    Region* hint                        # where there was a free block last

cdef void open_blocks(Blocks* blocks, size_t size) noexcept nogil
cdef void* take_block(Blocks* blocks) noexcept nogil        # zeroed where the system forgets; NULL: no memory
cdef void give_block(Blocks* blocks, void* block) noexcept nogil
cdef void close_blocks(Blocks* blocks) noexcept nogil       # nobody has any
