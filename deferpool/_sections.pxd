# What Cython code sees of sections.h, under shorter names. Nothing is decided here.
from libc.stddef cimport size_t
from libc.stdint cimport intptr_t, uint32_t, uint64_t

cdef extern from "sections.h" nogil:
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
