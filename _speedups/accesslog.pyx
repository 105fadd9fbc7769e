"""The lines of the access log, put together in C on the loop's thread and written by another (contract: accesslog.pyi).

A call costs the loop the bytes of its line in a buffer, nothing else. `drain` exchanges the buffer for an empty one and
writes it without the GIL, so that a terminal or a disk that is slow never holds the loop. A buffer that is full takes
no more lines until it is exchanged: those are counted, not kept.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy
from posix.stat cimport S_ISFIFO, fstat, struct_stat
from posix.unistd cimport write
from stateside._speedups.clock cimport monotonic, wall

import time

cdef extern from "<poll.h>" nogil:
    cdef struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *fds, unsigned long count, int timeout)
    int POLLOUT

cdef extern from "<limits.h>" nogil:
    enum:
        PIPE_BUF

cdef enum:
    FIRST_ROOM = 64 * 1024
    FIXED_SIZE = 640  # of a line: names, punctuation and numbers
    MAX_PEER = 128
    MAX_METHOD = 1200  # bytes; who escapes it cuts it before, so that no escape is cut
    MAX_KEY = 512  # bytes of an entity key; what is longer is cut
    STALL_MS = 1000

cdef char *HEX = b"0123456789abcdef"


cdef class AccessLog:
    def __init__(self, *, bint json, bint keys, Py_ssize_t most):
        if most < 4096:
            raise ValueError(f"most is {most}: a buffer of at least 4096 bytes is needed")
        self.is_json = json
        self.wants_keys = keys
        self.most = most
        self.stamped = -1
        self.offset = wall() - monotonic()

    def __dealloc__(self):
        free(self.filling.data)
        free(self.draining.data)

    def write(
        self, str protocol not None, str method not None, str status not None, double seconds, str peer not None,
        int64_t bytes_in, int64_t bytes_out, str key=None,
    ):
        self.line(
            monotonic(), seconds, peer, escaped(protocol.encode(), 32), escaped(method.encode("utf-8", "replace"), MAX_METHOD // 6),
            escaped(status.encode(), 32), bytes_in, bytes_out, key,
        )

    def drain(self, int file):
        """Write what has gathered; an errno if that failed, and then it is lost. For one thread at a time."""
        cdef Buffer taken
        cdef int error
        if self.in_drain:
            raise RuntimeError("the access log is being drained already")
        self.in_drain = True
        self.offset = wall() - monotonic()  # the wall clock is read here only, not for each line
        taken = self.filling
        self.filling = self.draining
        self.filling.size = self.filling.lines = 0
        with nogil:
            error = write_all(file, taken.data, taken.size)
        if error:
            self.dropped += taken.lines
            self.lines -= taken.lines
        self.draining = taken
        self.in_drain = False
        return error

    cdef void line(
        self, double now, double seconds, str peer, bytes protocol, bytes method, bytes status,
        int64_t bytes_in, int64_t bytes_out, str key
    ) noexcept:
        cdef double began = now + self.offset - seconds
        cdef int64_t second = <int64_t>began
        cdef char *at
        cdef bint json = self.is_json
        cdef Py_ssize_t method_size = min(PyBytes_GET_SIZE(method), <Py_ssize_t>MAX_METHOD)
        if not reserve(&self.filling, FIXED_SIZE + MAX_PEER + method_size + (6 * MAX_KEY if key is not None else 0), self.most):
            self.dropped += 1
            return
        if second != self.stamped:
            self.stamp_second(second)
        at = self.filling.data + self.filling.size
        at = put(at, b'{"time":"', 9) if json else at
        at = put(at, self.stamp, STAMP_SIZE)
        at = put_fixed(at, <int64_t>((began - <double>second) * 1e6), 6)
        at = put(at, b'Z","peer":"', 11) if json else put(at, b"Z ", 2)
        at = put_text(at, peer, MAX_PEER)
        at = put(at, b'","protocol":"', 14) if json else put(at, b" ", 1)
        at = put(at, PyBytes_AS_STRING(protocol), PyBytes_GET_SIZE(protocol))
        at = put(at, b'","method":"', 12) if json else put(at, b" ", 1)
        at = put(at, PyBytes_AS_STRING(method), method_size)
        at = put(at, b'","status":"', 12) if json else put(at, b" ", 1)
        at = put(at, PyBytes_AS_STRING(status), PyBytes_GET_SIZE(status))
        at = put(at, b'","seconds":', 12) if json else put(at, b" ", 1)
        at = put_seconds(at, seconds)
        at = put(at, b',"bytes_in":', 12) if json else put(at, b" ", 1)
        at = put_number(at, bytes_in)
        at = put(at, b',"bytes_out":', 13) if json else put(at, b" ", 1)
        at = put_number(at, bytes_out)
        if key is not None:
            at = put(at, b',"key":"', 8) if json else put(at, b" ", 1)
            at = put_escaped(at, key)
            at = put(at, b'"', 1) if json else at
        at = put(at, b"}\n", 2) if json else put(at, b"\n", 1)
        self.filling.size = at - self.filling.data
        self.filling.lines += 1
        self.lines += 1

    cdef void stamp_second(self, int64_t second) noexcept:
        cdef bytes text
        try:
            text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second)).encode()
            memcpy(self.stamp, PyBytes_AS_STRING(text), STAMP_SIZE)
            self.stamped = second
        except BaseException:
            memcpy(self.stamp, b"0000-00-00T00:00:00.", STAMP_SIZE)


cdef bytes escaped(bytes text, Py_ssize_t most):
    """Fit to stand in a line: printable ASCII, without blanks, quotes and backslashes."""
    cdef bytes room = PyBytes_FromStringAndSize(NULL, 6 * min(most, PyBytes_GET_SIZE(text)))
    cdef char *first = PyBytes_AS_STRING(room)
    cdef char *at = first
    cdef Py_ssize_t i
    for i in range(min(most, PyBytes_GET_SIZE(text))):
        at = put_byte(at, PyBytes_AS_STRING(text)[i], True)
    return room[:at - first]


cdef bint reserve(Buffer *buffer, Py_ssize_t size, Py_ssize_t most) noexcept:
    cdef Py_ssize_t room
    cdef char *grown
    if buffer.size + size <= buffer.room:
        return True
    if buffer.size + size > most:
        return False
    room = min(max(2 * buffer.room, buffer.size + size, <Py_ssize_t>FIRST_ROOM), most)
    grown = <char *>realloc(buffer.data, room)
    if grown is NULL:
        return False
    buffer.data = grown
    buffer.room = room
    return True


cdef inline char *put(char *at, const char *text, Py_ssize_t size) noexcept:
    memcpy(at, text, size)
    return at + size


cdef inline char *put_fixed(char *at, int64_t number, int digits) noexcept:
    cdef int i
    for i in range(digits - 1, -1, -1):
        at[i] = <char>(48 + number % 10)
        number //= 10
    return at + digits


cdef inline char *put_number(char *at, int64_t number) noexcept:
    cdef int digits = 1
    cdef int64_t rest = number
    while rest >= 10:
        rest //= 10
        digits += 1
    return put_fixed(at, number, digits)


cdef inline char *put_seconds(char *at, double seconds) noexcept:
    cdef int64_t micros = <int64_t>(seconds * 1e6 + 0.5) if seconds > 0.0 else 0
    at = put_number(at, micros // 1_000_000)
    at = put(at, b".", 1)
    return put_fixed(at, micros % 1_000_000, 6)


cdef inline char *put_text(char *at, str text, Py_ssize_t most) noexcept:
    """A text that is known to need no escaping."""
    cdef Py_ssize_t size
    cdef const char *data
    try:
        data = PyUnicode_AsUTF8AndSize(text, &size)
    except BaseException:
        return put(at, b"-", 1)
    return put(at, data, min(size, most))


cdef char *put_escaped(char *at, str text) noexcept:
    cdef Py_ssize_t size, i
    cdef const char *data
    try:
        data = PyUnicode_AsUTF8AndSize(text, &size)
    except BaseException:  # half a surrogate pair
        return put(at, b"?", 1)
    if size > MAX_KEY:
        size = MAX_KEY
        while size > 0 and (<unsigned char>data[size] & 0xC0) == 0x80:  # not in the middle of a character
            size -= 1
    for i in range(size):
        at = put_byte(at, data[i], False)
    return at


cdef inline char *put_byte(char *at, char byte, bint ascii_only) noexcept:
    cdef unsigned char value = <unsigned char>byte
    if value <= 0x20 or value == 0x22 or value == 0x5C or value == 0x7F or (ascii_only and value > 0x7F):
        at = put(at, b"\\u00", 4)
        at[0] = HEX[value >> 4]
        at[1] = HEX[value & 15]
        return at + 2
    at[0] = byte
    return at + 1


cdef int write_all(int file, const char *data, Py_ssize_t size) noexcept nogil:
    """0, or an errno. A file that is appended to takes all at once; a pipe as much as PIPE_BUF, and of that it gets whole
    lines, because other workers write to it, too."""
    cdef Py_ssize_t written
    cdef pollfd wanted
    cdef bint is_pipe = is_fifo(file)
    while size > 0:
        written = write(file, data, lines_within(data, size, PIPE_BUF) if is_pipe else size)
        if written >= 0:
            data += written
            size -= written
        elif errno == EAGAIN:  # somebody made the terminal non-blocking
            wanted.fd = file
            wanted.events = <short>POLLOUT
            poll(&wanted, 1, STALL_MS)
        elif errno != EINTR:
            return errno
    return 0


cdef bint is_fifo(int file) noexcept nogil:
    cdef struct_stat status
    return fstat(file, &status) == 0 and S_ISFIFO(status.st_mode)


cdef Py_ssize_t lines_within(const char *data, Py_ssize_t size, Py_ssize_t most) noexcept nogil:
    """Bytes of the whole lines at the beginning that fit; `most` if not even one does."""
    cdef Py_ssize_t end = most
    if size <= most:
        return size
    while end > 0 and data[end - 1] != b"\n":
        end -= 1
    return end if end > 0 else most
