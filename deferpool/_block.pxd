# Block: one piece of a pool's memory, as Python holds it. Base of Record and Buffer.
#
# It keeps its pool, gives its memory to one caller only, and not while a view of it exists. Where that goes, only the
# class above knows: it takes and gives back in its own release and in its own tp_dealloc.
from cpython.object cimport PyObject
from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

from deferpool._cpython cimport PyTypeObject, new_object
from deferpool._handles cimport Handles, begin, end
from deferpool._platform cimport cas64, load32, load64
from deferpool._face cimport ItemPool
from deferpool._sections cimport SchedState, number_hint

cdef extern from "Python.h":
    """
    #if defined(Py_GIL_DISABLED)
    #define dp_thread_hash() ((uint32_t)(_Py_ThreadId() * 0x9E3779B97F4A7C15u >> 32))
    #else
    #define dp_thread_hash() 0u
    #endif
    """
    uint32_t thread_hash "dp_thread_hash"() noexcept

cdef class Block:
    cdef PyObject* owner                # its pool, an ItemPool; NULL: it never had memory
    cdef Handles* handles               # of the pool
    cdef bint counted                   # among the handles that own it together; or this one has a reference
    cdef readonly size_t size
    cdef void* memory
    cdef uint64_t state                 # 0: it has no memory; else the views of it, plus one
    cdef Py_ssize_t shape

# For a pool: room for its handles, its finalizer, its end.
cdef int open_handles(Handles* handles, pool) except -1
cdef void close_handles(Handles* handles, pool) noexcept
cdef void free_handles(Handles* handles) noexcept

cdef int refuse(Block block, uint64_t views, const char* what) except -1

cdef inline uint64_t take(Block block) noexcept nogil:
    """0: its memory is the caller's now, and nobody else's. Else why not: 1 when it is gone, more when there are views."""
    cdef uint64_t state
    while not cas64(&block.state, 1, 0):
        state = load64(&block.state)
        if state != 1:
            return state + (state == 0)
    return 0


cdef inline uint32_t shard_here(SchedState* sched) noexcept:
    """Of handles: one for each P, where its number is to be had."""
    return number_hint(sched) if not load32(&sched.portable) else thread_hash()


cdef inline void own(Block block, ItemPool pool, Handles* handles, void* memory, size_t size) noexcept:
    """For a new block, which nobody else knows yet."""
    block.counted = begin(handles, <PyObject*>pool, shard_here(pool.pool.front.sched))
    block.owner = <PyObject*>pool
    block.handles = handles
    block.size = size
    block.memory = memory
    block.state = 1


cdef inline Block new_block(PyTypeObject* kind):
    """One without memory. MemoryError."""
    cdef Block block = <Block>new_object(kind)
    block.owner = NULL
    block.state = 0
    return block


cdef inline void disown(Block block) noexcept:
    """The last thing that a block does: its pool may end with it."""
    if block.owner != NULL:
        end(block.handles, block.owner, shard_here((<ItemPool>block.owner).pool.front.sched), block.counted)
