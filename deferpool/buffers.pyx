"""BufferPool: writable memory in whole pages, for reads, receives and arrays; what is kept is bounded in bytes.

A Buffer has no header: its handle says whose it is and of which class. In a pool that zeroes, a buffer is zeroed when it
is given back, and new memory is zeroed memory; so all that no caller has is zero, and a get writes nothing.
"""
from operator import index

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t
from libc.string cimport memset

from deferpool._block cimport Block, close_handles, disown, free_handles, new_block, open_handles, own, refuse, take
from deferpool._cpython cimport (
    METH_FASTCALL, METH_NOARGS, METH_O, PyMethodDef, PyTypeObject, add_method, destructor, free_object,
    name_arguments, shown,
)
from deferpool._face cimport (
    ItemPool, checked_allocator, checked_cap, checked_debug, checked_limit, shared_pools,
)
from deferpool._handles cimport Handles
from deferpool._pages cimport Blocks, close_blocks, give_block, map, open_blocks, page, take_block, unmap
from deferpool._platform cimport add64, load64
from deferpool._pool cimport (
    MAX_CLASSES, Allocator, Bytes, FaceOps, Pool, get, place_of, put, terms_of, weigh,
)
from deferpool._sched cimport Sched, default_sched

cdef extern from "sharing.h":
    void sharing_note(PyObject* pool, uint64_t* sharing, uint64_t* all) noexcept

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX
    bint PyLong_CheckExact(object)
    Py_ssize_t PyLong_AsSsize_t(object) except? -1

cdef enum:
    LARGE = 0xffffffff                  # in place of a class's place: past the last class
    USUAL_CAP = 32                      # of a class, unless its items are too large for that many

LOCAL_BYTES = 64 * 2**20                # that all local caches of a pool may hold, unless told otherwise
CENTRAL_BYTES = 64 * 2**20              # and its central pool
LARGEST_CLASS = 64 * 2**20


# ---- where memory comes from ----------------------------------------------------------------------------------

# All of a pool that is not the engine's and that is looked at without the GIL.
cdef struct Memory:
    Pool* pool
    bint zero, debug
    uint32_t classes
    uint64_t sizes[MAX_CLASSES]
    uint32_t places[MAX_CLASSES]
    Blocks blocks[MAX_CLASSES]
    Allocator allocator                 # alloc is NULL: the blocks are ours
    uint64_t large                      # bytes out past the last class


cdef void* make_block(void* face, uint32_t cls) noexcept nogil:
    cdef Memory* memory = <Memory*>face
    if memory.allocator.alloc != NULL:
        return memory.allocator.alloc(memory.allocator.arg, memory.sizes[cls])
    return take_block(&memory.blocks[cls])


cdef void drop_block(void* face, void* item, uint32_t cls) noexcept nogil:
    cdef Memory* memory = <Memory*>face
    if memory.allocator.alloc != NULL:
        memory.allocator.release(memory.allocator.arg, item)
    else:
        give_block(&memory.blocks[cls], item)


cdef void close_memory(void* face) noexcept nogil:
    cdef Memory* memory = <Memory*>face
    cdef uint32_t cls
    for cls in range(memory.classes):
        close_blocks(&memory.blocks[cls])


cdef inline uint64_t held_for(const Memory* memory, uint64_t size) noexcept nogil:
    """Bytes of a block past the last class."""
    return size if memory.allocator.alloc != NULL else (size + page() - 1) & ~<uint64_t>(page() - 1)


cdef void* new_large(Memory* memory, uint64_t size) noexcept nogil:
    cdef uint64_t held = held_for(memory, size)
    cdef void* block
    if memory.allocator.alloc != NULL:
        block = memory.allocator.alloc(memory.allocator.arg, held)
    else:
        block = map(held)
    if block != NULL:
        add64(&memory.large, held)
        add64(&memory.pool.bypass_gets, 1)
    return block


cdef void drop_large(Memory* memory, void* block, uint64_t size) noexcept nogil:
    cdef uint64_t held = held_for(memory, size)
    add64(&memory.large, 0 - held)
    add64(&memory.pool.bypass_puts, 1)
    if memory.allocator.alloc != NULL:
        memory.allocator.release(memory.allocator.arg, block)
    else:
        unmap(block, held)


# ---- arguments ------------------------------------------------------------------------------------------------

def _checked_classes(classes):
    try:
        classes = tuple(classes)
    except TypeError:
        raise TypeError(f"classes must be a sequence of sizes in bytes, not {type(classes).__name__}") from None
    sizes = []
    for size in classes:
        try:
            size = index(size)
        except TypeError:
            raise TypeError(f"a class size must be an integer, not {type(size).__name__}") from None
        if not 1 <= size <= LARGEST_CLASS:
            raise ValueError(f"a class size must be from 1 to {LARGEST_CLASS} bytes, not {shown(size)}")
        sizes.append((size + page() - 1) // page() * page())
    if not 1 <= len(sizes) <= MAX_CLASSES:
        raise ValueError(f"there must be 1 to {MAX_CLASSES} classes, not {len(sizes)}")
    if sorted(set(sizes)) != sizes:
        raise ValueError(f"classes must grow, in steps of {page()} bytes: {classes}")
    return tuple(sizes)


def _derived_caps(sizes, procs):
    """A cap for each class, so that all local caches on so many Ps hold no more than LOCAL_BYTES.

    From the smallest on, each class may have an equal part of what is left; what it does not need, larger ones have.
    """
    caps = []
    left = LOCAL_BYTES // procs
    for i, size in enumerate(sizes):
        part = left // (len(sizes) - i)
        caps.append(min(USUAL_CAP, part // size // 2 * 2))
        left -= caps[-1] * size
    return tuple(caps)


# ---- the pool ---------------------------------------------------------------------------------------------------

_DEFAULT = object()

@cython.final
@cython.no_gc_clear
cdef class BufferPool(ItemPool):
    """A bounded pool of page-aligned, writable buffers in size classes.

    `get(n)` gives a `Buffer` of n bytes, whose memory comes back on `release()`, at the end of its `with` block, or with
    its last reference. What a buffer holds at first is what its memory held last, unless `zero` is set: never send or
    store more of it than you have written.

    Parameters:
        classes: bytes of each class, growing; each is rounded up to whole pages. At most 32 classes of at most 64 MiB.
            Larger requests bypass the caches both ways and are counted.
        cap: most buffers in one local cache (of one class on one P): even, 2 to 32,766. Default: for each class as
            many as fit, at most 32, so that all local caches together hold at most 64 MiB with the number of Ps that the
            Sched has when the pool is made. On many Ps that may be none for large classes, which the central pool serves
            then. The caps stay when procresize changes the number of Ps, and what they come to grows and shrinks with
            it: `stats()["bound_bytes"]` says what holds now.
        limit: most buffers in the central pool, all classes together; None for no limit.
        limit_bytes: most bytes in the central pool, all classes together; None for no limit. Default: 64 MiB. Give
            `limit` or `limit_bytes`, not both.
        zero: whether every byte of a new buffer is 0. Each is written when the buffer comes back, of a class or smaller.
        sched: the Sched whose Ps to use. Default: the runtime's.
        debug: fills what comes back with 0xDF, so that what relies on stale content shows. `zero` comes first. Default:
            what DEFERPOOL_DEBUG says (1: on).
        allocator: a capsule named "deferpool.Allocator" around a struct Allocator (_pool.pxd) whose memory is zeroed;
            buffers are aligned as it aligns. Default: pages of the operating system.

    Raises ValueError or TypeError for bad arguments, MemoryError. Thread-safe.

    Memory of buffers that are dropped (by `clear()`, by a full collection, past the limit) goes back to the operating
    system at once; the address space stays with the pool as long as it lives. A class takes that in regions of 16 MiB, or of
    eight of its buffers where these are more, and twice as much for the moment in which it takes one: where a process may
    have little (ulimit -v), MemoryError comes sooner than from malloc.
    """
    cdef Memory memory
    cdef Handles handles
    cdef readonly tuple classes
    cdef bint in_bytes                  # what the limit counts

    def __cinit__(self, classes=(4096, 16384, 65536, 262144, 1048576), *, cap=None, limit=_DEFAULT,
                  limit_bytes=_DEFAULT, bint zero=False, Sched sched=None, debug=None, allocator=None):
        cdef uint32_t caps[MAX_CLASSES]
        cdef uint64_t weights[MAX_CLASSES]
        cdef uint64_t bound
        cdef uint32_t i
        self.pool.ops = FaceOps(make=make_block, drop=drop_block, close=close_memory, face=&self.memory)
        self.classes = _checked_classes(classes)
        self.memory.pool = &self.pool
        self.memory.zero = zero
        self.memory.debug = checked_debug(debug)
        if limit is not _DEFAULT and limit_bytes is not _DEFAULT:
            raise ValueError("give limit or limit_bytes, not both")
        self.in_bytes = limit is _DEFAULT
        if not self.in_bytes:
            bound = checked_limit("limit", limit)
        elif limit_bytes is _DEFAULT:
            bound = CENTRAL_BYTES
        else:
            bound = checked_limit("limit_bytes", limit_bytes)
        if sched is None:
            sched = default_sched()
        if cap is None:
            all_caps = _derived_caps(self.classes, sched.procs)
        else:
            all_caps = (checked_cap(cap),) * len(self.classes)
        if allocator is not None:
            self.memory.allocator = checked_allocator(allocator)[0]
            self.allocator_owner = allocator
        for i in range(<uint32_t>len(self.classes)):
            self.memory.sizes[i] = self.classes[i]
            open_blocks(&self.memory.blocks[i], self.memory.sizes[i])
            caps[i] = all_caps[i]
            weights[i] = self.memory.sizes[i] if self.in_bytes else 1
        self.memory.classes = <uint32_t>len(self.classes)
        open_handles(&self.handles, self)
        self.open_weighted(sched, self.memory.classes, caps, weights, bound, self.memory.allocator.alloc_meta,
                           self.memory.allocator.release_meta, self.memory.allocator.arg)
        for i in range(self.memory.classes):
            self.memory.places[i] = place_of(&self.pool, i)
        self.ready()

    def __del__(self):
        self.stay_known()
        close_handles(&self.handles, self)

    def __dealloc__(self):
        free_handles(&self.handles)

    @property
    def zero(self):
        """Whether every byte of a new buffer is 0."""
        return bool(self.memory.zero)

    @property
    def debug(self):
        """Whether what comes back is filled with 0xDF."""
        return bool(self.memory.debug)

    @property
    def caps(self):
        """For each class: most buffers in one of its local caches. 0: the central pool serves it alone."""
        cdef uint32_t i
        caps = []                       # no comprehension: Cython's drops an item twice when there is no memory for it
        for i in range(self.memory.classes):
            caps.append(terms_of(&self.pool, i).cap)
        return tuple(caps)

    @property
    def limit(self):
        """Most buffers in the central pool, all classes together; None when they are not limited by number."""
        return None if self.in_bytes or self.pool.central.limit == UINT64_MAX else self.pool.central.limit

    @property
    def limit_bytes(self):
        """Most bytes in the central pool, all classes together; None when they are not limited in bytes."""
        return self.pool.central.limit if self.in_bytes and self.pool.central.limit != UINT64_MAX else None

    def _bound(self, procs):
        if self.pool.central.limit == UINT64_MAX:
            return None
        return procs * self._local_bound() + self.pool.central.limit // (self.classes[0] if self.in_bytes else 1)

    def stats(self):
        """The pool's figures: a dict. Never blocks or slows anybody, and so is no snapshot.

        The keys of every pool's stats, in buffers (`bound` is then what the limit comes to when all are of the smallest
        class), and in bytes, whole blocks: `cached_bytes` (local and central together), `central_bytes`, `live_bytes`
        (out with callers) and `bound_bytes` (most that can be cached; None without a limit). Thread-safe.
        """
        cdef Bytes weight
        cdef uint64_t local = 0
        cdef uint32_t i
        figures = ItemPool.stats(self)
        procs = self.owner.counted()
        bound = None
        weigh(&self.pool, self.memory.sizes, &weight)
        central = weight.central
        if self.pool.central.limit != UINT64_MAX:
            most = self.pool.central.limit * (1 if self.in_bytes else self.classes[-1])
            for i in range(self.memory.classes):
                local += terms_of(&self.pool, i).cap * self.memory.sizes[i]
            bound = procs * local + most
            central = min(central, most)        # what moves from stripe to stripe meanwhile is met twice
        figures["cached_bytes"] = weight.local + central
        figures["central_bytes"] = central
        figures["live_bytes"] = weight.out + load64(&self.memory.large)
        figures["bound_bytes"] = bound
        return figures

    def __repr__(self):
        limit = f"limit {self.limit}" if not self.in_bytes else f"limit_bytes {self.limit_bytes}"
        return f"<deferpool.BufferPool: {len(self.classes)} classes, caps {self.caps}, {limit}>"


cdef Py_ssize_t length_of(n) except -1:
    cdef Py_ssize_t length
    if not PyLong_CheckExact(n):
        try:
            n = index(n)
        except TypeError:
            raise TypeError(f"the length of a buffer must be an integer, not {type(n).__name__}") from None
    try:
        length = PyLong_AsSsize_t(n)
    except OverflowError:
        length = -1
    if length >= 0:
        return length
    if n < 0:
        raise ValueError(f"the length of a buffer must not be negative: {shown(n)}")
    raise MemoryError(f"no memory for a buffer of {shown(n)} bytes")


cdef object get_buffer(BufferPool pool, n):
    cdef size_t length = length_of(n)
    cdef Buffer buffer = <Buffer>new_block(<PyTypeObject*>Buffer)
    cdef Memory* memory = &pool.memory
    cdef void* block
    cdef uint32_t i
    sharing_note(<PyObject*>pool, pool.sharing, &shared_pools)
    for i in range(memory.classes):
        if length <= memory.sizes[i]:
            buffer.place = memory.places[i]
            block = get(&pool.pool, buffer.place)
            break
    else:
        buffer.place = <uint32_t>LARGE
        block = new_large(memory, length) if length <= <size_t>PY_SSIZE_T_MAX - page() else NULL
    if block == NULL:
        raise MemoryError(f"no memory for a buffer of {n} bytes")
    buffer.home = memory
    own(buffer, pool, &pool.handles, block, length)
    return buffer


cdef PyMethodDef get_definition = PyMethodDef(ml_name=b"get", ml_meth=<void*>get_buffer, ml_flags=METH_O,
                                              ml_doc=b"""get($self, n, /)
--

A `Buffer` of n bytes, of the smallest class that fits, page-aligned.

It holds what its memory held last, or zeros in a pool with `zero`.

Raises ValueError for a negative n, TypeError for one that is no integer, MemoryError. Thread-safe.""")


# ---- buffers ----------------------------------------------------------------------------------------------------

@cython.final
cdef class Buffer(Block):
    """n writable bytes of a `BufferPool`: BufferPool.get makes it.

    It speaks the buffer protocol: `memoryview(buffer)`, `file.readinto(buffer)`, `sock.recv_into(buffer)`,
    `numpy.frombuffer(buffer)`. Its memory goes back to the pool on `release()`, at the end of a `with` block, or with its
    last reference (a view is one). `len()` is n, also afterwards. Of two threads that release it at once, one gets
    the ValueError of a second release.
    """
    cdef Memory* home                   # its pool's
    cdef uint32_t place                 # of its class; or LARGE

    def __init__(self):
        raise TypeError("buffers are made by BufferPool.get")

    def __len__(self):
        return self.size


cdef inline void give(Buffer buffer) noexcept nogil:
    """Its memory, which nobody else has any more, back to the pool."""
    cdef Memory* home = buffer.home     # and not by way of the pool, whose reference count all threads share
    if buffer.place == <uint32_t>LARGE:
        drop_large(home, buffer.memory, buffer.size)
        return
    if home.zero:
        memset(buffer.memory, 0, buffer.size)
    elif home.debug:
        memset(buffer.memory, 0xDF, buffer.size)
    put(home.pool, buffer.memory, buffer.place)


cdef void end_buffer(Buffer buffer) noexcept:
    """The last reference is gone: the type's tp_dealloc."""
    if buffer.state:
        give(buffer)
    disown(buffer)
    free_object(<void*>buffer)


cdef object release_buffer(Buffer buffer, PyObject* unused):
    cdef uint64_t views = take(buffer)
    if views:
        refuse(buffer, views, b"released")
    give(buffer)


cdef object enter_buffer(Buffer buffer, PyObject* unused):
    if load64(&buffer.state) == 0:
        raise ValueError(f"{buffer!r} is free")
    return buffer


cdef object exit_buffer(Buffer buffer, PyObject** exception, Py_ssize_t count):
    cdef uint64_t views = take(buffer)
    if views == 0:
        give(buffer)
    elif views > 1:                     # one that was released inside is no error here
        refuse(buffer, views, b"released")


cdef PyMethodDef release_definition = PyMethodDef(ml_name=b"release", ml_meth=<void*>release_buffer, ml_flags=METH_NOARGS,
                                                  ml_doc=b"""release($self, /)
--

Gives the memory back to the pool.

Raises BufferError while a view of it exists, ValueError when it was released before; nothing has changed then.
Thread-safe.""")

cdef PyMethodDef enter_definition = PyMethodDef(ml_name=b"__enter__", ml_meth=<void*>enter_buffer, ml_flags=METH_NOARGS,
                                                ml_doc=b"""__enter__($self, /)
--

The buffer itself. Raises ValueError when it was released before.""")

cdef PyMethodDef exit_definition = PyMethodDef(ml_name=b"__exit__", ml_meth=<void*>exit_buffer, ml_flags=METH_FASTCALL,
                                               ml_doc=b"""__exit__($self, /, *exception)
--

Releases the buffer, unless that was done inside. Raises BufferError while a view of it exists: it can be released
later.""")

name_arguments(<PyTypeObject*>BufferPool)
(<PyTypeObject*>Buffer).tp_dealloc = <destructor>end_buffer
add_method(<PyTypeObject*>BufferPool, &get_definition)
add_method(<PyTypeObject*>Buffer, &release_definition)
add_method(<PyTypeObject*>Buffer, &enter_definition)
add_method(<PyTypeObject*>Buffer, &exit_definition)
