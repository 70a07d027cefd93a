# frames.h: which function is running.
from cpython.object cimport PyObject

cdef extern from "frames.h":
    ctypedef struct PyThreadState:
        pass
    PyThreadState* this_thread "PyThreadState_GET"() noexcept
    ctypedef struct Frame "dp_frame":
        pass
    Frame* frame_now "dp_frame_now"() noexcept
    Frame* frame_of_thread "dp_frame_of_thread"(PyThreadState*) noexcept
    Frame* frame_of_generator "dp_frame_of_generator"(PyObject* generator) noexcept
    Frame* frame_below "dp_frame_below"(const Frame*) noexcept
    PyObject* code_at "dp_frame_code"(const Frame*) noexcept
    PyObject* generator_in "dp_generator_in"(const Frame*) noexcept
    PyObject* first_local "dp_first_local"(PyObject* generator) noexcept
    PyObject* name_of_code "dp_name_of_code"(PyObject* code) noexcept
    bint frame_is_of "dp_frame_is_of"(const Frame*, PyObject* function) noexcept
    PyObject* code_of_line "dp_line_code"(PyObject* traceback) noexcept
    PyObject* lines_after "dp_lines_after"(PyObject* traceback) noexcept
