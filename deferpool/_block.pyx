"""Block: one piece of a pool's memory, as Python holds it. Base of Record and Buffer.

One word says whether it has memory and how many views of it there are, so a release and a new view can never both win,
whichever threads they come from.
"""
from cpython.object cimport PyObject
from libc.stdint cimport UINT64_MAX, uint64_t

from deferpool._cpython cimport DECREF, XDECREF
from deferpool._handles cimport SHARDED, SHARDS, Handles, Shard, add, close
from deferpool._platform cimport cas64, line_alloc, line_free, load64, plain_alloc, plain_release

cdef extern from "Python.h":
    """
    #if defined(Py_GIL_DISABLED)
    #define dp_referent PyWeakref_GetRef
    #define dp_is_cleared(weak) (_Py_atomic_load_ptr(&((PyWeakReference *)(weak))->wr_object) == Py_None)
    #else
    #define dp_referent(weak, found) (*(found) = NULL, 0)
    #define dp_is_cleared(weak) 0
    #endif
    """
    int referent "dp_referent"(PyObject* weak, PyObject** found) except -1
    bint is_cleared "dp_is_cleared"(PyObject* weak) noexcept
    int PyBUF_FORMAT, PyBUF_ND, PyBUF_STRIDES
    PyObject* PyWeakref_NewRef(object, PyObject*) except NULL


# ---- a pool's handles -----------------------------------------------------------------------------------------

cdef int open_handles(Handles* handles, pool) except -1:
    if SHARDED:
        handles.shards = <Shard*>line_alloc(plain_alloc, NULL, SHARDS * sizeof(Shard))
        if handles.shards == NULL:
            raise MemoryError("no memory for a pool")
        handles.weak = PyWeakref_NewRef(pool, NULL)
    return 0


cdef void close_handles(Handles* handles, pool) noexcept:
    close(handles, <PyObject*>pool)


cdef void free_handles(Handles* handles) noexcept:
    line_free(plain_release, NULL, handles.shards)
    XDECREF(handles.weak)


# ---- a block ----------------------------------------------------------------------------------------------------

cdef class Block:
    """Memory of a pool, as Python holds it: a `Record` or a `Buffer`."""

    def __init__(self):
        raise TypeError("a Block is made by its pool")

    @property
    def pool(self):
        """The pool that it is of."""
        cdef PyObject* found = NULL
        if self.owner == NULL:
            return None
        if not self.counted:
            return <object>self.owner
        while found == NULL:            # its finalizer may be about to take a reference for the handles
            if is_cleared(self.handles.weak):       # by the collector, before that; or it was about to once
                return <object>self.owner
            referent(self.handles.weak, &found)
        result = <object>found
        DECREF(found)
        return result

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        cdef uint64_t state
        while True:
            state = load64(&self.state)
            if state == 0:
                raise ValueError(f"{self!r} is free")
            if cas64(&self.state, state, state + 1):
                break
        self.shape = self.size
        buffer.buf = self.memory
        buffer.obj = self
        buffer.len = self.size
        buffer.itemsize = 1
        buffer.readonly = 0
        buffer.ndim = 1
        buffer.format = <char*>"B" if flags & PyBUF_FORMAT else NULL
        buffer.shape = &self.shape if flags & PyBUF_ND else NULL
        buffer.strides = &buffer.itemsize if (flags & PyBUF_STRIDES) == PyBUF_STRIDES else NULL
        buffer.suboffsets = NULL
        buffer.internal = NULL

    def __releasebuffer__(self, Py_buffer* buffer):
        add(&self.state, UINT64_MAX)

    def __reduce__(self):
        raise TypeError(f"a {type(self).__name__} is the one handle of its memory: it can be neither copied nor pickled")

    @property
    def address(self):
        """Where its bytes are; None once it is free."""
        return <size_t>self.memory if load64(&self.state) else None

    def __repr__(self):
        address = self.address          # once: another thread may release it meanwhile
        where = "free" if address is None else f"at {address:#x}"
        return f"<deferpool.{type(self).__name__}: {self.size} bytes, {where}>"


cdef int refuse(Block block, uint64_t views, const char* what) except -1:
    """Raises what `take` has found: the memory is gone, or must stay for now."""
    if views == 1:
        raise ValueError(f"double free: {block!r} is free already")
    raise BufferError(f"{block!r} cannot be {what.decode()} while a memoryview of it exists")
