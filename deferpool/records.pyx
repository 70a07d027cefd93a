"""RecordPool: raw memory in size classes, for Cython code without the GIL; and a Python face to learn it with.

Each record has 16 bytes before it that say whose it is and in which state, so that a double free and a record
of another pool are found where they happen. A record is zeroed when it is given back, and new memory is zeroed
memory, so a record is always zeroed when it is handed out, and a cached one refers to nothing.
"""
import re
from operator import index

cimport cython
from cpython.number cimport PyNumber_Index
from cpython.object cimport PyObject
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from deferpool._block cimport Block, close_handles, disown, free_handles, new_block, open_handles, own, refuse, take
from deferpool._cpython cimport METH_O, PyMethodDef, PyTypeObject, add_method, destructor, free_object, name_arguments, shown
from deferpool._face cimport ItemPool, checked_allocator, checked_debug, checked_name
from deferpool._platform cimport add64, cas64, die, load64, plain_alloc, plain_release
from deferpool._pool cimport Allocator, FaceOps, get, place_of
from deferpool._sched cimport Sched

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX

ABI = 1

cdef class abi_1:
    """Only its name is used: see records.pxd."""

def __getattr__(name):
    found = re.fullmatch(r"abi_(\d+)", name)
    if found:
        raise ImportError(f"this module was compiled against ABI {found[1]} of deferpool.records, but ABI {ABI} "
                          "is installed: compile it again")
    raise AttributeError(f"module 'deferpool.records' has no attribute {name!r}")


# ---- records past the last class, and records that are not what they should be --------------------------------

cdef void* new_large(RecordPool pool, size_t size) noexcept nogil:
    """Past what one look-up finds: still of a class, or past the last one."""
    cdef Layout* layout = &pool.layout
    cdef Header* header
    cdef uint32_t cls
    for cls in range(layout.classes):
        if size <= <size_t>layout.units[cls] * 16:
            header = <Header*>get(&pool.pool, place_of(&pool.pool, cls))
            if header == NULL:
                return NULL
            header.mark = layout.token + LIVE
            return header + 1
    if size > <size_t>PY_SSIZE_T_MAX - sizeof(Header):
        return NULL
    header = <Header*>layout.allocator.alloc(layout.allocator.arg, sizeof(Header) + size)
    if header == NULL:
        return NULL
    header.mark = layout.token + BYPASSED
    header.shape = size
    add64(&pool.pool.bypass_gets, 1)
    return header + 1


cdef void free_unusual(RecordPool pool, void* record) noexcept nogil:
    """One past the last class; or one that must not be given back, and that ends the process."""
    cdef Header* header = <Header*>record - 1
    cdef uint64_t state = header.mark - pool.layout.token
    if state == BYPASSED:
        add64(&pool.pool.bypass_puts, 1)
        release(&pool.layout, header, header.shape)
    elif state == CACHED or state == DROPPED:
        die(b"double free", record, <void*>pool)
    else:
        die(b"free of a record of another pool, or of no pool", record, <void*>pool)


# ---- what the engine asks of this face --------------------------------------------------------------------------

cdef void* make_record(void* face, uint32_t cls) noexcept nogil:
    cdef Layout* layout = <Layout*>face
    cdef Header* header = <Header*>layout.allocator.alloc(layout.allocator.arg,
                                                          sizeof(Header) + <size_t>layout.units[cls] * 16)
    if header != NULL:
        header.shape = layout.shape[cls]
    return header


cdef void drop_record(void* face, void* item, uint32_t cls) noexcept nogil:
    cdef Layout* layout = <Layout*>face
    release(layout, <Header*>item, <size_t>layout.units[cls] * 16)


cdef void release(Layout* layout, Header* header, size_t size) noexcept nogil:
    """To the allocator; in debug mode by way of the quarantine, which keeps the mark readable for a while."""
    cdef Quarantine* q = &layout.quarantine
    cdef uint64_t leaving = <uint64_t><size_t>header
    cdef uint64_t* place
    header.mark = layout.token + DROPPED
    if q.size and size <= QUARANTINED_UP_TO:
        memset(header + 1, 0xDF, size)
        place = &q.ring[add64(&q.at, 1) % q.size]
        while True:
            leaving = load64(place)
            if cas64(place, leaving, <uint64_t><size_t>header):
                break
    if leaving:
        layout.allocator.release(layout.allocator.arg, <void*><size_t>leaving)


cdef void close_records(void* face) noexcept nogil:
    cdef Layout* layout = <Layout*>face
    cdef uint64_t i
    for i in range(layout.quarantine.size):
        if layout.quarantine.ring[i]:
            layout.allocator.release(layout.allocator.arg, <void*><size_t>layout.quarantine.ring[i])
    free(layout.quarantine.ring)


# ---- the pool ---------------------------------------------------------------------------------------------------

cdef uint64_t tokens = 0

cdef uint64_t new_token() noexcept nogil:
    """Never given twice, and odd enough that other memory hardly looks like a mark."""
    return (<uint64_t>0xDEF0 << 48) + ((add64(&tokens, 1) + 1) << 8)


def _checked_sizes(sizes):
    sizes = tuple(sizes)
    rounded = []
    for size in sizes:
        size = index(size)
        if not 1 <= size <= 2**20:
            raise ValueError(f"a class size must be from 1 to {2**20} bytes, not {shown(size)}")
        rounded.append((size + 15) // 16 * 16)
    if not 1 <= len(rounded) <= MAX_CLASSES:
        raise ValueError(f"there must be 1 to {MAX_CLASSES} sizes, not {len(rounded)}")
    if sorted(set(rounded)) != rounded:
        raise ValueError(f"sizes must grow from class to class, in steps of 16 bytes: {sizes}")
    return tuple(rounded)


_DEFAULT = object()

@cython.no_gc_clear
cdef class RecordPool(ItemPool):
    """A bounded pool of raw, zeroed, 16-byte aligned records in size classes.

    Made for Cython code without the GIL (`from deferpool.records cimport RecordPool`), where new and free cost a
    few nanoseconds; from Python each record is a `Record` handle, for learning and tests. Not for Python objects,
    and not for memory that must be wiped of secrets before the operating system sees it.

    Parameters:
        sizes: bytes of each class, growing; each is rounded up to a multiple of 16. At most 32 classes of at most
            1 MiB. Larger requests bypass the caches both ways and are counted.
        cap: most records in one local cache (of one class on one P): even, 2 to 32,766.
        limit: most records in the central pool, all classes together; None for no limit. Default: 1,024 a class.
        sched: the Sched whose Ps to use. Default: the runtime's.
        debug: keeps the last 4,096 records of at most 16 KiB that were dropped, filled with 0xDF, so that a
            later double free of one is still found. Default: what DEFERPOOL_DEBUG says (1: on).
        allocator: a capsule named "deferpool.Allocator" around a struct Allocator (records.pxd). Default: the C
            library's.
        name: for stats().
        clear_on_gc: whether full garbage collections clear the central pool (where its Sched wants that at all).

    Raises ValueError or TypeError for bad arguments, MemoryError. Thread-safe.

    From Cython, `new` returns NULL when there is no memory, and `free` of a record that is cached already, or not
    of this pool, writes a line to stderr and aborts the process. Not seen: two threads that free one record at the
    same moment, and a record that has gone back to the allocator since (debug mode sees the latter for a while).
    The pool must outlive its records.
    """

    def __cinit__(self, sizes=(16, 32, 48, 64, 80), *, cap=32, limit=_DEFAULT, Sched sched=None, debug=None,
                  allocator=None, name=None, bint clear_on_gc=True):
        cdef Allocator* given
        cdef uint32_t unit, cls
        self.pool.ops = FaceOps(make=make_record, drop=drop_record, close=close_records, face=&self.layout)
        self.name = checked_name(name)
        self.clear_on_gc = clear_on_gc
        self.sizes = _checked_sizes(sizes)
        if limit is _DEFAULT:
            limit = 1024 * len(self.sizes)
        self.layout.token = new_token()
        self.layout.classes = <uint32_t>len(self.sizes)
        for cls, size in enumerate(self.sizes):
            self.layout.units[cls] = size // 16
        if allocator is None:
            self.layout.allocator = Allocator(alloc=plain_alloc, release=plain_release, alloc_meta=NULL,
                                              release_meta=NULL, arg=NULL)
        else:
            self.layout.allocator = checked_allocator(allocator)[0]
            self.allocator_owner = allocator
        self.debug = checked_debug(debug)
        if self.debug:
            self.layout.quarantine.ring = <uint64_t*>calloc(4096, sizeof(uint64_t))
            if self.layout.quarantine.ring == NULL:
                raise MemoryError("no memory for the quarantine")
            self.layout.quarantine.size = 4096
        open_handles(&self.handles, self)
        self.open(sched, self.layout.classes, cap, limit, self.layout.allocator.alloc_meta,
                  self.layout.allocator.release_meta, self.layout.allocator.arg)
        for cls in range(self.layout.classes):
            self.layout.shape[cls] = (<uint64_t>(self.layout.units[cls] - 1) << 36) + place_of(&self.pool, cls)
        cls = 0
        for unit in range(<uint32_t>PLACES):
            while cls < self.layout.classes and unit > self.layout.units[cls]:
                cls += 1
            self.layout.place[unit] = place_of(&self.pool, cls) if cls < self.layout.classes else <uint32_t>NO_PLACE
        self.ready()

    def __del__(self):
        self.stay_known()
        close_handles(&self.handles, self)

    def __dealloc__(self):
        free_handles(&self.handles)

    def __repr__(self):
        return f"<deferpool.RecordPool: {len(self.sizes)} classes, cap {self.cap}, limit {self.limit}>"


cdef object new_record(RecordPool pool, size):
    cdef size_t bytes_
    cdef void* memory
    size = PyNumber_Index(size)
    if size < 0:
        raise ValueError(f"size must not be negative: {shown(size)}")
    if size > PY_SSIZE_T_MAX:
        raise MemoryError(f"no memory for a record of {shown(size)} bytes")
    bytes_ = size
    memory = pool.new(bytes_)
    if memory == NULL:
        raise MemoryError(f"no memory for a record of {size} bytes")
    return handle(pool, memory, bytes_)


cdef object free_record(RecordPool pool, thing):
    cdef Record record
    cdef uint64_t views
    if type(thing) is not Record:
        raise TypeError(f"expected deferpool.records.Record, got {type(thing).__name__}")
    record = <Record>thing
    if record.owner != <PyObject*>pool:
        raise ValueError(f"{record!r} is a record of another pool")
    views = take(record)
    if views:
        refuse(record, views, b"freed")
    pool.free(record.memory)


cdef PyMethodDef new_definition = PyMethodDef(ml_name=b"new", ml_meth=<void*>new_record, ml_flags=METH_O, ml_doc=b"""new($self, size, /)
--

A `Record` of at least size bytes, zeroed.

Raises ValueError for a negative size, TypeError for one that is no integer, MemoryError. Thread-safe.""")

cdef PyMethodDef free_definition = PyMethodDef(ml_name=b"free", ml_meth=<void*>free_record, ml_flags=METH_O, ml_doc=b"""free($self, record, /)
--

Gives a record back and makes its handle useless.

Raises ValueError for a record that is already free or of another pool, BufferError while a memoryview of it exists, TypeError
for anything that is no Record; nothing has changed then. Thread-safe.""")


@cython.final
cdef class Record(Block):
    """A record that Python holds: RecordPool.new makes it, RecordPool.free ends it.

    It speaks the buffer protocol (writable bytes). One that is dropped without being freed goes back to its pool.
    Of two threads that free it at once, one gets the ValueError of a double free.
    """

    def __init__(self):
        raise TypeError("records are made by RecordPool.new")


cdef void end_record(Record record) noexcept:
    """The last reference is gone: the type's tp_dealloc."""
    if record.state:
        (<RecordPool>record.owner).free(record.memory)
    disown(record)
    free_object(<void*>record)


cdef Record handle(RecordPool pool, void* memory, size_t size):
    cdef Record record
    try:
        record = <Record>new_block(<PyTypeObject*>Record)
    except MemoryError:
        pool.free(memory)
        raise
    own(record, pool, &pool.handles, memory, size)
    return record


name_arguments(<PyTypeObject*>RecordPool)
(<PyTypeObject*>Record).tp_dealloc = <destructor>end_record
# Cython's new and free and Python's share their names; the class statement cannot say that, so it is said here.
add_method(<PyTypeObject*>RecordPool, &new_definition)
add_method(<PyTypeObject*>RecordPool, &free_definition)
