"""Takes and gives back records without the GIL, rightly and wrongly. Each function is the body of a Python thread."""
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from deferpool._pool cimport Pool
from deferpool._sections cimport Front
from deferpool.records cimport (
    BYPASSED, CACHED, DROPPED, LIVE, NO_PLACE, PLACES, SMALL, Header, Layout, RecordPool,
)

cdef extern from *:
    """
    #include <sys/wait.h>
    #include <unistd.h>
    /* waits; the exit code of a child that ended well, else -1 */
    static int ending_of(pid_t child)
    {
        int status = 0;
        return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }
    """
    int fork() noexcept nogil
    unsigned alarm(unsigned seconds) noexcept nogil
    void _exit(int status) noexcept nogil
    int ending_of(int child) noexcept nogil

cdef enum: WINDOW = 40                  # records that a thread holds at a time

cdef struct Faults:
    uint64_t missing, unaligned, unclean, overwritten


cdef inline uint8_t* take(RecordPool pool, size_t size, uint8_t stamp, Faults* faults) noexcept nogil:
    cdef uint8_t* record = <uint8_t*>pool.new(size)
    cdef size_t i
    if record == NULL:
        faults.missing += 1
        return NULL
    faults.unaligned += <size_t>record % 16 != 0
    for i in range(size):
        faults.unclean += record[i] != 0
    memset(record, stamp, size)
    return record


cdef inline void give(RecordPool pool, uint8_t* record, size_t size, uint8_t stamp, Faults* faults) noexcept nogil:
    cdef size_t i
    if record != NULL:
        for i in range(size):
            faults.overwritten += record[i] != stamp
    pool.free(record)                   # NULL is let through


cdef uint64_t work(RecordPool pool, uint64_t rounds, uint8_t stamp, Faults* faults) noexcept nogil:
    """Takes WINDOW records of all sizes and gives them back, oldest first; how many in all."""
    cdef uint8_t* held[WINDOW]
    cdef size_t sizes[WINDOW]
    cdef uint64_t turn, seed = stamp * <uint64_t>2654435761 + 1
    cdef int i
    for turn in range(rounds):
        for i in range(WINDOW):
            seed = seed * <uint64_t>6364136223846793005 + <uint64_t>1442695040888963407
            sizes[i] = (seed >> 33) % 100           # the largest bypass the default classes
            held[i] = take(pool, sizes[i], stamp, faults)
        for i in range(WINDOW):
            give(pool, held[i], sizes[i], stamp, faults)
    return rounds * WINDOW


def run(RecordPool pool not None, uint64_t rounds, uint8_t stamp):
    """How many records were taken and given back, and the faults seen."""
    cdef Faults faults = Faults(0, 0, 0, 0)
    cdef uint64_t done
    with nogil:
        done = work(pool, rounds, stamp, &faults)
    return done, faults


def fork_amid(RecordPool pool not None, int forks):
    """Forks from C, where no hook of Python's runs; how many children ended well, one after the other."""
    cdef Faults faults
    cdef int child, good = 0
    with nogil:
        while good < forks:
            child = fork()
            if child == 0:
                alarm(20)                       # ends one that hangs
                faults = Faults(0, 0, 0, 0)
                work(pool, 50, 255, &faults)
                _exit(1 if faults.missing or faults.unaligned or faults.unclean or faults.overwritten else 0)
            if ending_of(child) != 0:
                break
            good += 1
    return good


def new_is_null(RecordPool pool not None, size_t size):
    cdef void* record
    with nogil:
        record = pool.new(size)
        pool.free(record)
    return record == NULL


# ---- what aborts ------------------------------------------------------------------------------------------------

def free_twice(RecordPool pool not None, size_t size, int others):
    """Gives one record back, then so many others, and then the first one again."""
    cdef void* first
    cdef void* held[100]
    cdef int i
    with nogil:
        first = pool.new(size)
        for i in range(others):
            held[i] = pool.new(size)
        pool.free(first)
        for i in range(others):
            pool.free(held[i])
        pool.free(first)


def free_elsewhere(RecordPool pool not None, RecordPool other not None, size_t size):
    with nogil:
        other.free(pool.new(size))


def free_of_no_pool(RecordPool pool not None):
    cdef char* memory = <char*>malloc(128)
    with nogil:
        memset(memory, 0, 128)
        pool.free(memory + 64)
    free(memory)


# ---- what the inlined code relies on ----------------------------------------------------------------------------

def layout():
    """Sizes and places that are baked into this module."""
    cdef Front* front = NULL
    cdef Layout* shape = NULL
    cdef Header* header = NULL
    cdef Pool* pool = NULL
    return {
        "Front": [<size_t>&front.area, <size_t>&front.number, <size_t>&front.open, <size_t>&front.cap,
                  <size_t>&front.sched, <size_t>&front.caches],
        "Pool": [<size_t>&pool.front, <size_t>&pool.stride, <size_t>&pool.classes, sizeof(Pool)],
        "Header": [<size_t>&header.mark, <size_t>&header.shape, sizeof(Header)],
        "Layout": [<size_t>&shape.token, <size_t>&shape.place, sizeof(Layout)],
        "marks": [LIVE, BYPASSED, CACHED, DROPPED],
        "places": [PLACES, SMALL, NO_PLACE],
    }
