# What Cython code sees of platform.h, under shorter names. Nothing is decided here.
from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

cdef extern from "platform.h" nogil:
    # compiler
    bint likely "DP_LIKELY"(bint) noexcept

    # atomics: 32-bit acquire and release, 64-bit relaxed (its compare-and-swap: acquire and release)
    uint32_t load32 "dp_load32"(const uint32_t*) noexcept
    void store32 "dp_store32"(uint32_t*, uint32_t) noexcept
    bint cas32 "dp_cas32"(uint32_t*, uint32_t, uint32_t) noexcept
    uint64_t load64 "dp_load64"(const uint64_t*) noexcept
    void store64 "dp_store64"(uint64_t*, uint64_t) noexcept
    uint64_t add64 "dp_add64"(uint64_t*, uint64_t) noexcept
    bint cas64 "dp_cas64"(uint64_t*, uint64_t, uint64_t) noexcept
    void count "dp_count"(uint64_t*, uint64_t) noexcept

    # waiting and locking
    void wait "dp_wait"(uint32_t*) noexcept
    void lock "dp_lock"(uint32_t*) noexcept
    void unlock "dp_unlock"(uint32_t*) noexcept

    # memory
    ctypedef void* (*alloc_fn "dp_alloc_fn")(void*, size_t) noexcept nogil
    ctypedef void (*release_fn "dp_release_fn")(void*, void*) noexcept nogil
    void* plain_alloc "dp_plain_alloc"(void*, size_t) noexcept
    void plain_release "dp_plain_release"(void*, void*) noexcept
    void* line_alloc "dp_line_alloc"(alloc_fn, void*, size_t) noexcept
    void line_free "dp_line_free"(release_fn, void*, void*) noexcept
    void zero16 "dp_zero16"(void*, size_t) noexcept
    void die "dp_die"(const char*, const void*, const void*) noexcept
    const size_t LINE "DP_LINE"
