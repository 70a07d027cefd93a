"""Pool and BufferPool in the harness's hands: nogil threads take and give their items as if they were records.

An object is a Cell, whose memory is the ledger's: so the harness counts by itself what there is, and its threads write
into it and compare it like a record. It counts as destroyed when on_drop is told of it: without a GIL, Python may end an object
only when the thread that has made it runs Python code again. A thread that takes an item has a reference to it, kept in the
item's own memory, before the part that counts as the record.

Every so many objects that a pool drops, on_drop acquires and releases one more: so finalizers call back by the thousand.
"""
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from deferpool._platform cimport add64, load64
from stress._ledger cimport Ledger, system_release
from stress._designs cimport Baseline, Face

from functools import partial
from threading import local

from deferpool import BufferPool, Pool

cdef enum:
    BEFORE = 64                         # bytes of an item before its record
    CELL = 128                          # of the record: more than any that is asked for
    EACH = 8                            # of the objects that are dropped: on_drop calls back

SCALE = 256                             # bytes of a buffer for each byte of a record


cdef inline PyObject** keeper(void* record) noexcept nogil:
    return <PyObject**>(<char*>record - BEFORE)


# ---- objects ----------------------------------------------------------------------------------------------------

cdef uint64_t cells                     # that there are in this process

def living_cells():
    return load64(&cells)


cdef class Cell:
    """An object with memory of the ledger's. MemoryError when that refuses it."""
    cdef Ledger ledger
    cdef char* block
    cdef public size_t size

    def __cinit__(self, Ledger ledger not None):
        self.ledger = ledger
        self.block = <char*>ledger.allocator.alloc(ledger.allocator.arg, BEFORE + CELL)
        if self.block == NULL:
            raise MemoryError("refused")

        add64(&cells, 1)

    def __dealloc__(self):
        if self.block != NULL:
            add64(&cells, <uint64_t>-1)
            system_release(self.block)

    @property
    def address(self):
        return <size_t>(self.block + BEFORE)


def _wipe(Cell cell):
    """What a reset is for."""
    memset(cell.block, 0, BEFORE + CELL)


cdef class Objects(Face):
    """A Pool of cells."""
    cdef uint64_t dropped
    cdef bint over
    cdef uint64_t back[2]               # calls that came back, by finalizers: done, and refused

    def __init__(self, Ledger ledger not None, *, cap, limit, sched):
        self.ledger = ledger
        self.pool = Pool(partial(Cell, ledger), reset=_wipe, on_drop=self.on_drop, cap=cap, limit=limit, sched=sched,
                         allocator=ledger.capsule())
        self.open((112,), take_object, give_object)

    def on_drop(self, cell):
        add64(&self.ledger.counts.destroyed, 1)
        if add64(&self.dropped, 1) % EACH == 0 and not (self.over or self.pool.closed):
            try:
                self.pool.release(self.pool.acquire())
                add64(&self.back[0], 1)
            except MemoryError:
                add64(&self.back[1], 1)

    def called_back(self):
        """How often a finalizer has taken an object and given it back, and was refused that. None does so any more."""
        self.over = True
        return load64(&self.back[0]), load64(&self.back[1])

    def new(self, size):
        cell = self.pool.acquire()
        cell.size = size
        return cell

    def free(self, cell):
        self.pool.release(cell)


cdef void* take_object(void* self, uint32_t thread, size_t size) noexcept nogil:
    cdef char* block = NULL
    with gil:
        try:
            cell = <Cell>(<Objects>self).pool.acquire()
            Py_INCREF(cell)
            block = (<Cell>cell).block
            (<PyObject**>block)[0] = <PyObject*>cell
        except MemoryError:
            return NULL
        except BaseException as error:
            (<Face>self).failed_with(error)
            return NULL
    return block + BEFORE


cdef void give_object(void* self, uint32_t thread, void* record) noexcept nogil:
    with gil:
        cell = <object>keeper(record)[0]
        try:
            (<Objects>self).pool.release(cell)
        except BaseException as error:
            (<Face>self).failed_with(error)
        Py_DECREF(cell)


# ---- buffers ----------------------------------------------------------------------------------------------------

cdef class Buffers(Face):
    """A BufferPool that zeroes, over memory of the ledger's."""

    def __init__(self, sizes, Ledger ledger not None, *, cap, limit, sched):
        self.ledger = ledger
        self.pool = BufferPool([SCALE * size for size in sizes], cap=cap, limit=limit, zero=True, sched=sched,
                               allocator=ledger.capsule(), debug=False)
        self.open(tuple(sizes), take_buffer, give_buffer)

    def called_back(self):
        return 0, 0


cdef void* take_buffer(void* self, uint32_t thread, size_t size) noexcept nogil:
    cdef unsigned char[::1] view
    cdef char* block = NULL
    with gil:
        try:
            buffer = (<Buffers>self).pool.get(SCALE * size)
            view = buffer
            block = <char*>&view[0]
            view = None
            Py_INCREF(buffer)
            (<PyObject**>block)[0] = <PyObject*>buffer
        except MemoryError:
            return NULL
        except BaseException as error:
            (<Face>self).failed_with(error)
            return NULL
    return block + BEFORE


cdef void give_buffer(void* self, uint32_t thread, void* record) noexcept nogil:
    with gil:
        buffer = <object>keeper(record)[0]
        try:
            buffer.release()
        except BaseException as error:
            (<Face>self).failed_with(error)
        Py_DECREF(buffer)


# ---- what threads do without a pool ---------------------------------------------------------------------------------

cdef uint64_t in_lists(void* self) noexcept nogil:
    return load64(&(<LocalLists>self).cached)


cdef class LocalLists(Baseline):
    """Objects in lists of threading.local: taken on one thread and given back on another, they grow for ever."""
    cdef uint64_t cached
    cdef object here

    def __init__(self, Ledger ledger not None):
        self.ledger = ledger
        self.here = local()
        self.design.cached = in_lists
        self.design.self = <void*>self

    def new(self, size):
        try:
            cell = self.here.cells.pop()
            add64(&self.cached, <uint64_t>-1)
        except (AttributeError, IndexError):
            cell = Cell(self.ledger)
        cell.size = size
        return cell

    def free(self, cell):
        _wipe(cell)
        try:
            self.here.cells.append(cell)
        except AttributeError:
            self.here.cells = [cell]
        add64(&self.cached, 1)
