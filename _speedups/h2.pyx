"""gRPC over HTTP/2 on nghttp2, as server and as client (contract and documentation: h2.pyi).

One compiled module in parts, from the bottom up:

    h2_memory.pxi   allocator for nghttp2, static header arrays, header and status encoding
    h2_loop.pxi     what the connections of one event loop share: buffers, flushing, timer wheel
    h2_call.pxi     Call: send queue, message framing, pausing
    h2_server_call.pxi, h2_client_call.pxi
                    ServerCall and ClientCall
    h2_web_call.pxi WebCall: a request that is not gRPC's
    h2_session.pxi  Connection: nghttp2's callbacks, reading, writing, keepalive
    h2_figures.pxi  what is counted of calls, and the refusal of calls that would be too many
    h2_server.pxi   ServerConnection, Server
    h2_client.pxi   ClientConnection, Channel
    h2_passage.pxi  Passage: calls that are passed on to another server
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.math cimport ceil, floor
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset
from stateside._speedups.accesslog cimport AccessLog, escaped
from stateside._speedups.clock cimport monotonic
from stateside._speedups.histogram cimport Histogram
from stateside._speedups.nghttp2 cimport *

import asyncio
import logging
import ssl as ssl_module
import weakref
import zlib

cdef extern from "Python.h":
    int _PyBytes_Resize(PyObject **bytes, Py_ssize_t newsize) except -1
    enum:
        PyBUF_WRITE

log = logging.getLogger("stateside.h2")

cdef Py_ssize_t live_calls = 0
cdef Py_ssize_t live_connections = 0
cdef Py_ssize_t live_queues = 0


class ChannelUnavailable(Exception):
    """The channel is closed, draining, or has no capacity for one more call."""


def live_objects():
    return {"calls": live_calls, "connections": live_connections, "queues": live_queues}


cdef class Handler:
    def __cinit__(self, *args, **kwargs):
        # A Python subclass may set these as class attributes, which would only hide the C fields.
        self.unary = getattr(type(self), "unary", None) is True
        self.wants_headers = getattr(type(self), "wants_headers", None) is True
        self.wants_metadata = getattr(type(self), "wants_metadata", None) is True
        self.essential = getattr(type(self), "essential", None) is True

    cpdef object on_request(self, ServerCall call, bytes message):
        return None

    cpdef object on_metadata(self, ServerCall call):
        return None

    cpdef object on_open(self, ServerCall call):
        return None

    cpdef object on_headers(self, ClientCall call):
        return None

    cpdef object on_message(self, Call call, bytes message):
        return None

    cpdef object on_half_close(self, ServerCall call):
        return None

    cpdef object on_drain(self, Call call):
        return None

    cpdef object on_cancel(self, ServerCall call, int status):
        return None

    cpdef object on_end(self, ClientCall call, int status, str message):
        return None

    cpdef object on_web(self, WebCall call, bytes body):
        return None

    cpdef object on_gone(self, WebCall call):
        return None


cdef class Limits:
    def __init__(
        self,
        *,
        Py_ssize_t max_message_size=12 * 1024 * 1024,
        int max_header_bytes=16 * 1024,
        int max_header_count=128,
        int max_streams=10_000,
        int announced_streams=0,
        int max_connections=10_000,
        int stream_window=256 * 1024,
        int connection_window=16 * 1024 * 1024,
        Py_ssize_t send_high_water=64 * 1024,
        Py_ssize_t send_low_water=16 * 1024,
        int reset_burst=10_000,
        int reset_rate=1_000,
        int max_outbound_acks=1_000,
        double header_timeout=10.0,
        double idle_timeout=0.0,
        double keepalive_interval=0.0,
        double keepalive_timeout=20.0,
    ):
        require_at_least("max_message_size", max_message_size, 0)
        require_at_least("max_header_bytes", max_header_bytes, 1)
        require_at_least("max_header_count", max_header_count, 1)
        require_at_least("max_streams", max_streams, 1)
        require_at_least("announced_streams", announced_streams, 0)
        require_at_least("max_connections", max_connections, 1)
        require_at_least("stream_window", stream_window, 1)
        require_at_least("connection_window", connection_window, 65_535)
        require_at_least("send_low_water", send_low_water, 0)
        require_at_least("send_high_water", send_high_water, send_low_water)
        require_at_least("reset_burst", reset_burst, 1)
        require_at_least("reset_rate", reset_rate, 0)
        require_at_least("max_outbound_acks", max_outbound_acks, 1)
        for name, seconds in (
            ("header_timeout", header_timeout),
            ("idle_timeout", idle_timeout),
            ("keepalive_interval", keepalive_interval),
            ("keepalive_timeout", keepalive_timeout),
        ):
            if not 0.0 <= seconds < 1e9:
                raise ValueError(f"{name} is {seconds}: must be a number of seconds, not negative")
        self.max_message_size = max_message_size
        self.max_header_bytes = max_header_bytes
        self.max_header_count = max_header_count
        self.max_streams = max_streams
        self.announced_streams = announced_streams or 2 * <uint32_t>max_streams + ANNOUNCED_ABOVE
        self.max_connections = max_connections
        self.stream_window = stream_window
        self.connection_window = connection_window
        self.send_high_water = send_high_water
        self.send_low_water = send_low_water
        self.reset_burst = reset_burst
        self.reset_rate = reset_rate
        self.max_outbound_acks = max_outbound_acks
        self.header_timeout = header_timeout
        self.idle_timeout = idle_timeout
        self.keepalive_interval = keepalive_interval
        self.keepalive_timeout = keepalive_timeout


cdef int require_at_least(str name, Py_ssize_t value, Py_ssize_t least) except -1:
    if value < least:
        raise ValueError(f"{name} is {value}: must be at least {least}")
    return 0


include "h2_memory.pxi"
include "h2_loop.pxi"
include "h2_call.pxi"
include "h2_server_call.pxi"
include "h2_web_call.pxi"
include "h2_client_call.pxi"
include "h2_session.pxi"
include "h2_figures.pxi"
include "h2_server.pxi"
include "h2_client.pxi"
include "h2_passage.pxi"
