"""Serialized messages as Python objects: the ground between `protobuf.pxd` and the writers and scanners of `wire`.

Memory is taken from and copied into `bytes` and `str` here, and nowhere else.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t

from stateside._speedups.protobuf cimport MAX_MESSAGE_SIZE, Field, field_size, put_field, put_text, text_size

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    object PySequence_Fast(object sequence, const char* message)
    Py_ssize_t PySequence_Fast_GET_SIZE(object sequence)
    PyObject* PySequence_Fast_GET_ITEM(object sequence, Py_ssize_t index)

cdef struct Text:
    const char* data
    Py_ssize_t size


# --- from memory to Python -------------------------------------------------------------------------------------------

cdef inline bytes content(Field* field):
    return PyBytes_FromStringAndSize(<const char*>field.data, field.size)


cdef inline str decoded(Field* field):
    return PyUnicode_DecodeUTF8(<const char*>field.data, field.size, NULL)


cdef inline bytes merged(bytes before, Field* field):
    """Serialized messages one after another are their merge."""
    return content(field) if before is None else before + content(field)


cdef inline object appended(object items, Field* field):
    if type(items) is not list:
        items = []
    (<list>items).append(content(field))
    return items


# --- from Python to memory -------------------------------------------------------------------------------------------

cdef inline Text utf8(str text) except *:
    """Memory of the text as UTF-8, valid as long as the text."""
    cdef Text found
    if text is None:
        raise TypeError("a text must be str, not None")
    found.data = PyUnicode_AsUTF8AndSize(text, &found.size)
    return found


cdef inline bytes text_field(uint8_t number, str text):
    cdef Text content = utf8(text)
    cdef bytes out = new_message(text_size(content.size))
    return finished(out, put_text(start_of(out), number, content.data, content.size))


cdef inline uint8_t* start_of(bytes data) noexcept:
    return <uint8_t*>PyBytes_AS_STRING(data)


cdef inline bytes new_message(Py_ssize_t size):
    if size > MAX_MESSAGE_SIZE:
        raise ValueError(f"a message of {size} bytes is beyond protobuf's limit of {MAX_MESSAGE_SIZE}")
    return PyBytes_FromStringAndSize(NULL, size)


cdef inline bytes finished(bytes out, uint8_t* p):
    assert p == start_of(out) + len(out), "sizes and fields disagree"
    return out


cdef inline Py_ssize_t optional_size(bytes data) noexcept:
    """Of a sub-message field that is set when there are bytes, even none."""
    return field_size(PyBytes_GET_SIZE(data)) if data is not None else 0


cdef inline uint8_t* put_optional(uint8_t* p, uint8_t number, bytes data) noexcept:
    return put_field(p, number, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)) if data is not None else p


cdef inline object sequence_of_bytes(object items, const char* error):
    """List or tuple of the items, all of them bytes."""
    cdef Py_ssize_t i
    items = PySequence_Fast(items, error)
    for i in range(PySequence_Fast_GET_SIZE(items)):
        if not PyBytes_Check(<object>PySequence_Fast_GET_ITEM(items, i)):
            raise TypeError(error.decode())
    return items


cdef inline Py_ssize_t items_size(object items) noexcept:
    cdef Py_ssize_t size = 0
    cdef Py_ssize_t i
    for i in range(PySequence_Fast_GET_SIZE(items)):
        size += field_size(PyBytes_GET_SIZE(<object>PySequence_Fast_GET_ITEM(items, i)))
    return size


cdef inline uint8_t* put_item(uint8_t* p, uint8_t number, object items, Py_ssize_t i) noexcept:
    cdef PyObject* item = PySequence_Fast_GET_ITEM(items, i)
    return put_field(p, number, PyBytes_AS_STRING(<object>item), PyBytes_GET_SIZE(<object>item))


cdef inline uint8_t* put_items(uint8_t* p, uint8_t number, object items) noexcept:
    cdef Py_ssize_t i
    for i in range(PySequence_Fast_GET_SIZE(items)):
        p = put_item(p, number, items, i)
    return p
