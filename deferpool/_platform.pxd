# What Cython code sees of platform.h, under shorter names. Nothing is decided here.
from libc.stddef cimport size_t
from libc.stdint cimport intptr_t, uint32_t, uint64_t

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

    # Ps and local caches
    const uint32_t MAX_PROCS "DP_MAX_PROCS"
    const uint32_t MAX_CAP "DP_MAX_CAP"
    const uint32_t FREE "DP_FREE"
    const uint32_t HELD "DP_HELD"
    const uint32_t RETIRED "DP_RETIRED"
    ctypedef struct P "dp_P":
        uint32_t holder
    ctypedef struct SchedState "dp_sched":
        intptr_t area
        intptr_t number
        uint32_t portable
        uint32_t procs
        P* ps
        uint64_t hints
        uint64_t restarts
    ctypedef struct Front "dp_front":
        intptr_t area
        intptr_t number
        uint32_t open
        uint32_t cap
        SchedState* sched
        char** caches
    ctypedef struct Cache "dp_cache":
        uint64_t word
    uint32_t count_of "dp_count_of"(uint64_t word, uint32_t cap) noexcept
    uint64_t word_of_empty "dp_word_of_empty"(uint32_t cap) noexcept
    void** slots_of "dp_slots"(Cache*, uint32_t cap) noexcept
    void** newest_of "dp_newest"(Cache*) noexcept
    uint64_t pops_of "DP_POPS"(uint64_t) noexcept
    const uint64_t ONE_POP "DP_ONE_POP"

    # sections
    const int DONE "DP_DONE"
    const int UNFIT "DP_UNFIT"
    const int NO_P "DP_NO_P"
    int section_pop "dp_section_pop"(Front*, size_t, void**) noexcept
    int section_push "dp_section_push"(Front*, size_t, void*) noexcept
    int section_popn "dp_section_popn"(Front*, size_t, uint64_t, void**) noexcept
    int section_pushn "dp_section_pushn"(Front*, size_t, uint64_t, void**) noexcept
    bint set_number_base "dp_set_number_base"(uint32_t) noexcept
    uint32_t number_hint "dp_number_hint"(SchedState*) noexcept

    # the kernel, for the engine's own modules
    void find_no_area "dp_find_no_area"(intptr_t*, intptr_t*) noexcept
    bint find_sections "dp_find_sections"(intptr_t*, intptr_t*, bint*) noexcept
    int barrier "dp_barrier"() noexcept
    int barrier_register "dp_barrier_register"() noexcept
    int atfork "dp_atfork"(void (*)() noexcept nogil, void (*)() noexcept nogil, void (*)() noexcept nogil) noexcept
