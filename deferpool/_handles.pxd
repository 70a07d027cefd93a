# How handles keep their pool.
#
# Where threads run at once, a reference that every handle takes and gives is one word that all CPUs fight for. There
# the handles of a pool are counted in shards, one for each P or so, and own one reference together: it is taken when the
# last other one goes, and given back with the last handle. From then on, should somebody have the pool again, each new
# handle has a reference of its own. With the GIL each has one from the start.
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t

from deferpool._cpython cimport DECREF, INCREF
from deferpool._platform cimport cas64, load64

cdef extern from *:
    """
    #if defined(Py_GIL_DISABLED)
    #define DP_SHARDED 1
    #else
    #define DP_SHARDED 0
    #endif
    """
    const bint SHARDED "DP_SHARDED"

cdef enum: SHARDS = 32

cdef struct Shard:
    uint64_t count                      # handles begun here less those ended here; or CLOSED and some
    char line[56]

cdef struct Handles:
    Shard* shards                       # NULL: each handle has a reference
    uint64_t left                       # once they are closed: handles that own the common reference
    PyObject* weak                      # a weak reference to the pool, where there are shards


# Far from any count, as a signed number.
cdef inline bint is_closed(uint64_t count) noexcept:
    return <int64_t>count < -(<int64_t>1 << 61)


cdef inline uint64_t add(uint64_t* word, uint64_t n) noexcept:
    """What it is then."""
    cdef uint64_t before = load64(word)
    while not cas64(word, before, before + n):
        before = load64(word)
    return before + n


cdef inline bint begin(Handles* handles, PyObject* pool, uint32_t shard) noexcept:
    """One more handle. True: it is counted; False: it has a reference of its own."""
    cdef uint64_t* count
    cdef uint64_t before
    if SHARDED and handles.shards != NULL:
        count = &handles.shards[shard % SHARDS].count
        while True:
            before = load64(count)
            if is_closed(before):
                break
            if cas64(count, before, before + 1):
                return True
    INCREF(pool)
    return False


cdef inline void end(Handles* handles, PyObject* pool, uint32_t shard, bint counted) noexcept:
    """One handle less. The pool may end with it, and is not to be touched any more."""
    cdef uint64_t* count
    cdef uint64_t before
    if counted:
        count = &handles.shards[shard % SHARDS].count
        while True:
            before = load64(count)
            if is_closed(before):
                if add(&handles.left, <uint64_t>-1):
                    return
                break
            if cas64(count, before, before - 1):
                return
    DECREF(pool)


cdef inline void close(Handles* handles, PyObject* pool) noexcept:
    """For the pool's finalizer: no reference is left but those of handles, which take a common one."""
    cdef uint64_t closed = <uint64_t>3 << 62, before, total = 0
    cdef uint32_t i
    if handles.shards == NULL:
        return
    INCREF(pool)
    for i in range(<uint32_t>SHARDS):
        while True:
            before = load64(&handles.shards[i].count)
            if i == 0 and is_closed(before):    # it was called by hand
                DECREF(pool)
                return
            if cas64(&handles.shards[i].count, before, closed):
                break
        total += before
    if add(&handles.left, total) == 0:  # it was below 0 for those that ended meanwhile
        DECREF(pool)
