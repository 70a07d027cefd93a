"""Blocks of whole pages: see _pages.pxd for why they are made so."""
from libc.stddef cimport size_t
from libc.stdint cimport UINT64_MAX, uint64_t

from deferpool._platform cimport cas64, load64

cdef extern from "pages.h" nogil:
    void* map_aligned "dp_map_aligned"(size_t size) noexcept
    void forget "dp_forget"(void* memory, size_t size) noexcept
    void small_pages "dp_small_pages"(void* memory, size_t size) noexcept
    void* seen "dp_seen"(void** place) noexcept
    void show "dp_show"(void** place, void* pointer) noexcept
    unsigned lowest_bit "dp_lowest_bit"(uint64_t word) noexcept

cdef enum:
    LEAST_REGION = 16777216             # bytes
    LEAST_BLOCKS = 8                    # in a region, less what its head takes


cdef void open_blocks(Blocks* blocks, size_t size) noexcept nogil:
    blocks.size = size
    blocks.region = LEAST_REGION
    while blocks.region < LEAST_BLOCKS * size:
        blocks.region *= 2
    blocks.each = min((blocks.region - page()) // size, <size_t>MAX_WORDS * 64)
    blocks.newest = NULL
    blocks.hint = NULL


cdef inline char* first_of(const Region* region) noexcept nogil:
    return <char*>region + page()


cdef Region* new_region(Blocks* blocks) noexcept nogil:
    """One more, of which the caller has claimed a block; NULL when there is no memory."""
    cdef Region* region = <Region*>map_aligned(blocks.region)
    if region == NULL:
        return NULL
    small_pages(region, blocks.region)
    region.free = blocks.each - 1
    while True:
        region.next = <Region*>seen(<void**>&blocks.newest)
        if cas64(<uint64_t*>&blocks.newest, <uint64_t><size_t>region.next, <uint64_t><size_t>region):
            return region


cdef bint claim(Region* region) noexcept nogil:
    """A block of it, whichever. False when there is none."""
    cdef uint64_t free
    while True:
        free = load64(&region.free)
        if free == 0:
            return False
        if cas64(&region.free, free, free - 1):
            return True


cdef void* claimed(Blocks* blocks, Region* region) noexcept nogil:
    """The block that was claimed. There is one: a bit is cleared before its block counts as free."""
    cdef uint64_t words = (blocks.each + 63) // 64, i = 0, bit, word
    while True:
        word = load64(&region.taken[i])
        if word == UINT64_MAX:
            i = (i + 1) % words
            continue
        bit = lowest_bit(~word)
        if i * 64 + bit >= blocks.each:
            i = 0
        elif cas64(&region.taken[i], word, word | <uint64_t>1 << bit):
            return first_of(region) + (i * 64 + bit) * blocks.size


cdef Region* search(Region* first, Region* last) noexcept nogil:
    """Claims a block of one of the regions from the first to the one before the last."""
    while first != last:
        if claim(first):
            return first
        first = first.next
    return NULL


cdef void* take_block(Blocks* blocks) noexcept nogil:
    cdef Region* hint = <Region*>seen(<void**>&blocks.hint)
    cdef Region* region = search(hint, NULL)
    if region == NULL:
        region = search(<Region*>seen(<void**>&blocks.newest), hint)
    if region == NULL:
        region = new_region(blocks)
        if region == NULL:
            return NULL
    if region != hint:
        show(<void**>&blocks.hint, region)
    return claimed(blocks, region)


cdef void give_block(Blocks* blocks, void* block) noexcept nogil:
    cdef Region* region = <Region*>(<size_t>block & ~(blocks.region - 1))
    cdef uint64_t i = (<char*>block - first_of(region)) // blocks.size, word
    forget(block, blocks.size)
    while True:
        word = load64(&region.taken[i // 64])
        if cas64(&region.taken[i // 64], word, word & ~(<uint64_t>1 << i % 64)):
            break
    while True:
        word = load64(&region.free)
        if cas64(&region.free, word, word + 1):
            return


cdef void close_blocks(Blocks* blocks) noexcept nogil:
    cdef Region* region
    while blocks.newest != NULL:
        region = blocks.newest
        blocks.newest = region.next
        unmap(region, blocks.region)
