"""Calls of a mix of commands over a population of keys; see generator.pyi.

All handlers are of the project's own transport; no Python code, future or task runs for a call. A `Slot` is one place in
flight and serves one call after another. Times are CLOCK_MONOTONIC in nanoseconds.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.math cimport pow
from libc.stdint cimport int64_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from stateside._speedups.h2 cimport Call, Channel, ClientCall, Handler

from stateside._speedups.h2 import ChannelUnavailable
from stateside._speedups.wire import WireError, check

from os import close

cdef extern from *:
    int __builtin_clzll(unsigned long long) noexcept nogil

cdef extern from "sys/timerfd.h" nogil:
    cdef struct itimerspec:
        timespec it_interval
        timespec it_value
    enum:
        TFD_NONBLOCK
        TFD_CLOEXEC
        TFD_TIMER_ABSTIME
    int timerfd_create(int clock, int flags)
    int timerfd_settime(int fd, int flags, const itimerspec* value, itimerspec* old)

cdef enum:
    STEP_BITS = 10
    STEPS = 1 << STEP_BITS  # in each power of two
    BUCKETS = (64 - STEP_BITS) * STEPS
    PROBLEMS_KEPT = 5
    CANCELLED = 1
    NUMBER_END = 9  # of a bench.Written: a tag and a fixed64
    UNIFORM = 0
    ZIPF = 1
    HOT = 2
    TURN = 3
    KEPT_MESSAGES = 4096  # of each command
    MAX_DIGITS = 20
    NUMBER_SIZE = 24  # more than any 64-bit number in decimal
    MAX_PREFIX = 100  # bytes, so that the length of a key is one byte on the wire

cdef int64_t TICK_NS = 100_000  # between looks at what is due, at least
cdef int64_t LATE_NS = 2_000_000  # a call that begins so long after it was due is late
DISTRIBUTIONS = {"uniform": UNIFORM, "zipf": ZIPF, "hot": HOT, "turn": TURN}


cdef int64_t now_ns() noexcept nogil:
    cdef timespec moment
    clock_gettime(CLOCK_MONOTONIC, &moment)
    return <int64_t>moment.tv_sec * 1_000_000_000 + moment.tv_nsec


# --- times -----------------------------------------------------------------------------------------------------------

cdef class Latencies:
    def __cinit__(self):
        self.counts = <int64_t*>calloc(BUCKETS, sizeof(int64_t))
        if self.counts == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.counts)

    cdef void record(self, int64_t ns) noexcept:
        self.counts[bucket_of(<uint64_t>ns)] += 1
        self.count += 1
        self.total_ns += ns
        if ns > self.max_ns:
            self.max_ns = ns

    def add(self, int64_t ns):
        if ns < 0:
            raise ValueError(f"a time of {ns} ns")
        self.record(ns)

    def clear(self):
        memset(self.counts, 0, BUCKETS * sizeof(int64_t))
        self.count = self.total_ns = self.max_ns = 0

    def merge(self, Latencies other not None):
        cdef int bucket
        for bucket in range(BUCKETS):
            self.counts[bucket] += other.counts[bucket]
        self.count += other.count
        self.total_ns += other.total_ns
        self.max_ns = max(self.max_ns, other.max_ns)

    def quantile_ns(self, double share):
        cdef int64_t wanted = max(<int64_t>(share * self.count + 0.999999), 1)
        cdef int64_t seen = 0
        cdef int bucket
        for bucket in range(BUCKETS):
            seen += self.counts[bucket]
            if seen >= wanted:
                return min(highest_of(bucket), self.max_ns)
        return self.max_ns

    def distribution(self):
        cdef int bucket
        return [(highest_of(bucket), self.counts[bucket]) for bucket in range(BUCKETS) if self.counts[bucket]]


cdef int bucket_of(uint64_t ns) noexcept nogil:
    cdef int shift
    if ns < STEPS:
        return <int>ns
    shift = 63 - STEP_BITS - __builtin_clzll(ns)
    return (shift + 1) * STEPS + <int>((ns >> shift) & (STEPS - 1))


cdef int64_t highest_of(int bucket) noexcept nogil:
    """The highest time of a step: what is reported is never better than what was seen."""
    cdef int shift
    if bucket < STEPS:
        return bucket
    shift = bucket // STEPS - 1
    return ((<int64_t>(STEPS + (bucket & (STEPS - 1)) + 1)) << shift) - 1


# --- keys ------------------------------------------------------------------------------------------------------------

cdef class Keys:
    def __init__(
        self,
        str prefix not None,
        int64_t population,
        str distribution not None="uniform",
        double argument=0.0,
        uint64_t seed=1,
        int digits=1,
    ):
        if population < 1:
            raise ValueError(f"a population of {population} keys")
        if not 1 <= digits <= MAX_DIGITS:
            raise ValueError(f"numbers of {digits} digits: must be from 1 to {MAX_DIGITS}")
        if len(prefix.encode()) > MAX_PREFIX:
            raise ValueError(f"a prefix of more than {MAX_PREFIX} bytes")
        if distribution not in DISTRIBUTIONS:
            raise ValueError(f"distribution {distribution!r}: must be one of {', '.join(DISTRIBUTIONS)}")
        self.prefix = prefix.encode()
        self.population = population
        self.digits = digits
        self.distribution = distribution
        self.kind = DISTRIBUTIONS[distribution]
        self.random_state = seed * 2 + 1
        if self.kind == HOT:
            if not 0 <= argument <= 1:
                raise ValueError(f"a share of {argument}: must be from 0 to 1")
            self.share = argument
        elif self.kind == ZIPF:
            if not 0 < argument < 1:
                raise ValueError(f"an exponent of {argument}: must lie between 0 and 1")
            self._prepare_zipf(argument)

    def _prepare_zipf(self, double theta):
        """Gray et al. 1994, "Quickly generating billion-record synthetic databases"."""
        cdef int64_t rank
        self.theta = theta
        self.zetan = 0
        for rank in range(1, self.population + 1):
            self.zetan += 1 / pow(rank, theta)
        self.second = 1 + pow(0.5, theta)
        self.alpha = 1 / (1 - theta)
        if self.zetan > self.second:
            self.eta = (1 - pow(2.0 / self.population, 1 - theta)) / (1 - self.second / self.zetan)

    def next(self):
        return self.pick()

    cdef int64_t pick(self) noexcept:
        if self.kind == ZIPF:
            return self.zipf()
        if self.kind == TURN:
            self.turn = self.turn + 1 if self.turn < self.population else 1
            return self.turn - 1
        if self.kind == HOT and self.random() < self.share:
            return 0
        return <int64_t>(self.random() * self.population)

    cdef int64_t zipf(self) noexcept:
        cdef double u = self.random()
        cdef double position = u * self.zetan
        if position < 1:
            return 0
        if position < self.second:
            return min(1, self.population - 1)
        return min(<int64_t>(self.population * pow(self.eta * u - self.eta + 1, self.alpha)), self.population - 1)

    cdef double random(self) noexcept:
        """xorshift64*: from 0 to below 1."""
        cdef uint64_t x = self.random_state
        x ^= x >> 12
        x ^= x << 25
        x ^= x >> 27
        self.random_state = x
        return <double>((x * <uint64_t>2685821657736338717) >> 11) * (1.0 / <double>(<uint64_t>1 << 53))


# --- calls -----------------------------------------------------------------------------------------------------------

cdef class Command:
    def __init__(
        self,
        bytes path not None,
        bytes message not None,
        int key_field,
        double weight=1.0,
        bytes expected=None,
        bint echoes=False,
    ):
        if not weight > 0:
            raise ValueError(f"a weight of {weight}")
        self.name = path.decode().lstrip("/")
        self.path = path
        self.rest = message
        self.tag = tag_of(key_field) if key_field else b""
        self.weight = weight
        self.expected = expected
        self.echoes = echoes
        self.latencies = Latencies()
        self.statuses = {}


def tag_of(number):
    """Tag of a string field: a varint."""
    tag, encoded = number << 3 | 2, bytearray()
    while tag > 127:
        encoded.append(tag & 127 | 128)
        tag >>= 7
    encoded.append(tag)
    return bytes(encoded)


cdef class Generator:
    def __init__(
        self,
        loop,
        channels,
        commands,
        Keys keys not None,
        on_done,
        *,
        int64_t in_flight=128,
        double rate=0.0,
        int64_t count=-1,
    ):
        if not channels or not commands or in_flight < 1 or rate < 0:
            raise ValueError("a load needs channels, commands, at least one call in flight, and no negative rate")
        self.loop = loop
        self.channels = list(channels)
        self.commands = list(commands)
        self.keys = keys
        self.on_done = on_done
        self.max_in_flight = in_flight
        self.interval = 1e9 / rate if rate else 0
        self.to_begin = count
        self.only = self.commands[0] if len(self.commands) == 1 else None
        self.total_weight = sum((<Command?>command).weight for command in commands)
        if keys.population <= KEPT_MESSAGES:
            for command in self.commands:
                (<Command>command).messages = [None] * keys.population
        self.window = Latencies()
        self.problems = []
        self.idle = []
        self.timer = -1

    def start(self):
        cdef int64_t number
        cdef Slot slot
        self.started_ns = now_ns()
        for number in range(self.max_in_flight):
            slot = Slot.__new__(Slot)
            slot.generator = self
            slot.channel = <Channel>self.channels[number % len(self.channels)]
            if self.interval:
                self.idle.append(slot)
            else:
                self.go_on(slot)
        if self.interval:
            self.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
            if self.timer < 0:
                raise OSError("timerfd_create failed")
            self.loop.add_reader(self.timer, self._tick)
            self._tick()
        self.check_done()

    def clear(self):
        cdef Command command
        for command in self.commands:
            command.latencies.clear()
            command.completed = command.failed = 0
            command.statuses.clear()
        self.window.clear()
        self.begun = self.completed = self.failed = self.late = 0
        self.problems.clear()

    def stop(self):
        self.stopping = True
        self.check_done()

    def _tick(self):
        """The loop's own timers know milliseconds only; the kernel's wake us when the next call is due."""
        cdef itimerspec when
        cdef int64_t due
        if self.timer < 0:
            return
        # What falls due together leaves over one connection, in one write; the next connection has its turn with the next.
        self.next_channel = self.next_channel + 1 if self.next_channel + 1 < len(self.channels) else 0
        if not self.stopping:
            self.begin_due()
        if self.timer < 0:
            return  # that was the last one
        due = max(self.started_ns + <int64_t>(self.scheduled * self.interval), now_ns() + TICK_NS)
        memset(&when, 0, sizeof(when))
        when.it_value.tv_sec = due // 1_000_000_000
        when.it_value.tv_nsec = due % 1_000_000_000
        timerfd_settime(self.timer, TFD_TIMER_ABSTIME, &when, NULL)

    cdef int begin_due(self) except -1:
        """Open loop: begin what is due as far as there are places."""
        cdef int64_t now = now_ns()
        cdef int64_t due
        cdef Slot slot
        while self.to_begin != 0 and not self.stopping:
            due = self.started_ns + <int64_t>(self.scheduled * self.interval)
            if due > now or not self.idle:
                return 0
            self.scheduled += 1
            if now - due > LATE_NS:
                self.late += 1
            slot = <Slot>self.idle.pop()
            slot.channel = <Channel>self.channels[self.next_channel]
            self.begin(slot, due)
        return 0

    cdef int go_on(self, Slot slot) except -1:
        """A place is free."""
        if self.interval:
            self.idle.append(slot)
            return self.begin_due()
        if self.to_begin != 0 and not self.stopping:
            return self.begin(slot, now_ns())
        return 0

    cdef int begin(self, Slot slot, int64_t due_ns) except -1:
        cdef ClientCall call
        slot.command = self.only if self.only is not None else self.pick()
        slot.due_ns = due_ns
        slot.answers = 0
        slot.wrong = False
        slot.sent = self.message(slot.command)
        try:
            call = slot.channel.open(slot.command.path, slot)
        except ChannelUnavailable as error:
            self.fail(slot.command, 14, f"no call can be opened: {error}")
            self.stopping = True
            return 0
        self.to_begin -= 1
        self.begun += 1
        self.in_flight += 1
        call.send(slot.sent)
        call.half_close()
        return 0

    cdef Command pick(self):
        cdef double place = self.keys.random() * self.total_weight
        cdef Command command
        for command in self.commands:
            place -= command.weight
            if place < 0:
                break
        return command

    cdef bytes message(self, Command command):
        """The message for the next key; those for few keys are kept, as writing one costs more than all else here."""
        cdef int64_t key
        cdef object kept
        if not command.tag:
            return command.rest
        key = self.keys.pick()
        if command.messages is None:
            return self.write(command, key)
        kept = command.messages[key]
        if kept is None:
            kept = command.messages[key] = self.write(command, key)
        return <bytes>kept

    cdef bytes write(self, Command command, int64_t key):
        """The key's field, then all others: their order does not matter."""
        cdef char[NUMBER_SIZE] number
        cdef int digits = snprintf(number, NUMBER_SIZE, b"%0*lld", <int>self.keys.digits, <long long>key)
        cdef Py_ssize_t size, tag, prefix, rest
        cdef bytes message
        cdef char* p
        tag, prefix, rest = len(command.tag), len(self.keys.prefix), len(command.rest)
        size = prefix + digits  # below 128: see `Keys`
        message = PyBytes_FromStringAndSize(NULL, tag + 1 + size + rest)
        p = PyBytes_AS_STRING(message)
        memcpy(p, PyBytes_AS_STRING(command.tag), tag)
        p[tag] = <char>size
        p += tag + 1
        memcpy(p, PyBytes_AS_STRING(self.keys.prefix), prefix)
        memcpy(p + prefix, number, digits)
        memcpy(p + size, PyBytes_AS_STRING(command.rest), rest)
        return message

    cdef int ended(self, Slot slot, int status, str message) except -1:
        cdef Command command = slot.command
        cdef int64_t ns = now_ns() - slot.due_ns
        self.in_flight -= 1
        if status != 0:
            self.fail(command, status, f"status {status}: {message}")
        elif slot.answers != 1:
            self.fail(command, 0, f"{slot.answers} answers in place of one")
        elif slot.wrong:
            self.fail(command, 0, "an answer is not what it has to be")
        else:
            self.completed += 1
            command.completed += 1
            command.latencies.record(ns)
            self.window.record(ns)
        self.go_on(slot)
        return self.check_done() if self.in_flight == 0 else 0

    cdef int check_done(self) except -1:
        cdef object on_done
        if self.in_flight == 0 and (self.stopping or self.to_begin == 0) and self.on_done is not None:
            self.stopping = True
            if self.timer >= 0:
                self.loop.remove_reader(self.timer)
                close(self.timer)
                self.timer = -1
            on_done, self.on_done = self.on_done, None
            on_done()
        return 0

    cdef int fail(self, Command command, int status, str problem) except -1:
        self.failed += 1
        command.failed += 1
        if status:
            command.statuses[status] = command.statuses.get(status, 0) + 1
        problem = f"{command.name}: {problem}"
        if len(self.problems) < PROBLEMS_KEPT and problem not in self.problems:
            self.problems.append(problem)
        return 0


cdef class Slot(Handler):
    """One place in flight."""

    cpdef object on_message(self, object any_call, bytes message):
        cdef Call call = <Call>any_call
        cdef Command command = self.command
        self.answers += 1
        if command.echoes:
            self.wrong |= message != self.sent
        elif command.expected is not None:
            self.wrong |= message != command.expected
        else:
            try:
                check(message)
            except WireError:
                self.wrong = True

    cpdef object on_end(self, object any_call, int status, str message):
        cdef ClientCall call = <ClientCall>any_call
        self.generator.ended(self, status, message)


# --- streams ---------------------------------------------------------------------------------------------------------

cdef class StreamReader:
    def __init__(self, bytes path not None, bytes message not None, object on_done):
        self.path = path
        self.message = message
        self.on_done = on_done
        self.problems = []
        self.readings = []

    def start(self, list channels not None, int in_flight):
        cdef int i
        cdef Channel channel
        cdef Reading reading
        self.in_flight = in_flight * len(channels)
        for i in range(in_flight):
            for channel in channels:
                reading = Reading.__new__(Reading)
                reading.reader = self
                reading.call = channel.open(self.path, reading)
                reading.call.send(self.message)
                reading.call.half_close()
                self.readings.append(reading)

    def clear(self):
        self.completed = 0

    def stop(self):
        cdef Reading reading
        self.stopping = True
        for reading in self.readings:
            reading.call.cancel()

    cdef int ended(self, str problem) except -1:
        if problem:
            self.failed += 1
            if len(self.problems) < PROBLEMS_KEPT:
                self.problems.append(f"{self.path.decode()}: {problem}")
        self.in_flight -= 1
        if self.in_flight == 0:
            self.on_done()
        return 0


cdef class Reading(Handler):
    """One stream."""

    cpdef object on_message(self, object any_call, bytes message):
        cdef Call call = <Call>any_call
        cdef uint64_t number = 0
        self.received += 1
        if PyBytes_GET_SIZE(message) > NUMBER_END:
            memcpy(&number, PyBytes_AS_STRING(message) + NUMBER_END - 8, 8)  # little-endian, as it was written
        if number == self.received:
            self.reader.completed += 1
        else:
            self.wrong = True

    cpdef object on_end(self, object any_call, int status, str message):
        cdef ClientCall call = <ClientCall>any_call
        if self.wrong:
            self.reader.ended("messages are missing or not in order")
        elif status != CANCELLED or not self.reader.stopping:
            self.reader.ended(f"ended with status {status}: {message}")
        else:
            self.reader.ended("")
