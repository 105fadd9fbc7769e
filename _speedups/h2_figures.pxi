# What is counted of calls, by path and status. A path that nobody serves has no figures of its own, so that nobody can
# make the proxy remember more than there are methods.

cdef enum:
    OTHER_CODE = CODES - 1
    LOGGED_PATH = 200  # bytes of an unknown path
    MAX_LOGGED_METHOD = 1024

CALL_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
cdef bytes GRPC = b"grpc"
cdef tuple CODE_NAMES = (
    b"OK", b"CANCELLED", b"UNKNOWN", b"INVALID_ARGUMENT", b"DEADLINE_EXCEEDED", b"NOT_FOUND", b"ALREADY_EXISTS",
    b"PERMISSION_DENIED", b"RESOURCE_EXHAUSTED", b"FAILED_PRECONDITION", b"ABORTED", b"OUT_OF_RANGE", b"UNIMPLEMENTED",
    b"INTERNAL", b"UNAVAILABLE", b"DATA_LOSS", b"UNAUTHENTICATED", b"OTHER",
)


cdef class CallFigures:
    def __init__(self, bytes path):
        self.path = path
        self.escaped_path = escaped(path, MAX_LOGGED_METHOD)
        self.seconds = Histogram(CALL_SECONDS)

    @property
    def codes(self):
        """Calls by the name of their status, without those that there were none of."""
        return {CODE_NAMES[code].decode(): self.tallies[code] for code in range(CODES) if self.tallies[code]}


cdef bytes path_to_log(ServerCall call, CallFigures figures):
    return figures.escaped_path or escaped(call.path or b"-", LOGGED_PATH)


cdef bytes code_to_log(ServerCall call, int status):
    if status != OTHER_CODE:
        return CODE_NAMES[status if 0 <= status < OTHER_CODE else OTHER_CODE]
    return b"%d" % call.http_refusal
