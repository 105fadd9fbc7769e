# What all connections of one event loop share: the read buffer, the buffer in which a write is put together, the list of
# connections that have something to write, and the timer wheel of deadlines and connection checks.

cdef enum:
    INPUT_SIZE = 256 * 1024
    OUT_ROOM = 256 * 1024
    OUT_RESERVE = 80 * 1024  # left free for frames that nghttp2 hands over whole
cdef double TICK = 0.01  # seconds of one wheel slot

contexts = weakref.WeakValueDictionary()  # id of the loop -> LoopContext; a context holds its loop, so ids stay true


cdef LoopContext context_of(object loop):
    cdef LoopContext context = contexts.get(id(loop))
    if context is None:
        context = LoopContext(loop)
        contexts[id(loop)] = context
    return context


cdef class LoopContext:
    def __cinit__(self, loop):
        cdef int i
        self.loop = loop
        self.call_soon = loop.call_soon
        self.run_bound = self.run
        self.alarm_bound = self.on_alarm
        self.dirty = []
        self.later_calls = []
        self.later_connections = []
        self.input = <uint8_t *>PyMem_RawMalloc(INPUT_SIZE)
        self.out = <uint8_t *>PyMem_RawMalloc(OUT_ROOM)
        if self.input is NULL or self.out is NULL:
            raise MemoryError
        self.input_view = PyMemoryView_FromMemory(<char *>self.input, INPUT_SIZE, PyBUF_WRITE)
        for i in range(WHEEL_SLOTS):
            self.slots[i].before = self.slots[i].after = &self.slots[i]
        self.now = loop.time()

    def __dealloc__(self):
        PyMem_RawFree(self.input)
        PyMem_RawFree(self.out)

    cdef double refresh(self) noexcept:
        self.now = self.loop.time()
        return self.now

    # --- once a turn ---

    cdef void schedule(self) noexcept:
        if not self.scheduled:
            self.scheduled = True
            self.call_soon(self.run_bound)

    def run(self):
        """What was put off in this turn, then one write for each connection that has something to say."""
        cdef Call call
        cdef Connection connection
        self.scheduled = False
        if self.later_calls:
            calls, self.later_calls = self.later_calls, []
            for call in calls:
                call.in_later = False
                call.do_later()
        if self.later_connections:
            connections, self.later_connections = self.later_connections, []
            for connection in connections:
                connection.in_later = False
                connection.do_later()
        self.flush_all()

    cdef void flush_all(self) noexcept:
        cdef Connection connection
        if not self.dirty:
            return
        connections, self.dirty = self.dirty, []
        for connection in connections:
            connection.dirty = False
            connection.flush()

    # --- timer wheel: a slot for each tick of 10 ms, a later round stays in its slot until its time ---

    cdef void arm(self, Timer *timer, double when) noexcept:
        cdef int64_t tick = <int64_t>ceil(when / TICK)
        cdef Timer *head
        if timer.after is not NULL:
            self.disarm(timer)
        if self.armed == 0:
            self.wheel_tick = <int64_t>floor(self.now / TICK)
        if tick <= self.wheel_tick:
            tick = self.wheel_tick + 1
        head = &self.slots[tick % WHEEL_SLOTS]
        timer.when = when
        timer.before = head.before
        timer.after = head
        head.before.after = timer
        head.before = timer
        self.armed += 1
        if self.alarm is None or tick * TICK < self.alarm_at:
            self.set_alarm(tick)

    cdef void disarm(self, Timer *timer) noexcept:
        if timer.after is NULL:
            return
        timer.before.after = timer.after
        timer.after.before = timer.before
        timer.before = timer.after = NULL
        self.armed -= 1

    cdef void set_alarm(self, int64_t tick) noexcept:
        if self.alarm is not None:
            self.alarm.cancel()
        self.alarm_at = tick * TICK
        self.alarm = self.loop.call_at(self.alarm_at, self.alarm_bound)

    def on_alarm(self):
        cdef int64_t tick, now_tick
        self.alarm = None
        # Loops round their clock to milliseconds, so the alarm may come a little early.
        now_tick = <int64_t>floor((self.refresh() + 0.001) / TICK)
        tick = self.wheel_tick + 1
        if now_tick - tick >= WHEEL_SLOTS:
            tick = now_tick - WHEEL_SLOTS + 1
        while tick <= now_tick:
            self.wheel_tick = tick
            self.fire_slot(tick % WHEEL_SLOTS)
            tick += 1
        self.set_next_alarm()

    cdef void set_next_alarm(self) noexcept:
        cdef int64_t tick
        if self.armed == 0:
            return
        for tick in range(self.wheel_tick + 1, self.wheel_tick + 1 + WHEEL_SLOTS):
            if self.slots[tick % WHEEL_SLOTS].after is not &self.slots[tick % WHEEL_SLOTS]:
                if self.alarm is None or tick * TICK < self.alarm_at:
                    self.set_alarm(tick)
                return

    cdef void fire_slot(self, int64_t slot) noexcept:
        # The due ones are moved to a list of their own, from which what they call may still take others away.
        cdef Timer *head = &self.slots[slot]
        cdef Timer *timer = head.after
        cdef Timer *following
        cdef Timer due
        due.before = due.after = &due
        while timer is not head:
            following = timer.after
            if timer.when <= self.now + 0.001:
                timer.before.after = timer.after
                timer.after.before = timer.before
                timer.before = due.before
                timer.after = &due
                due.before.after = timer
                due.before = timer
            timer = following
        while due.after is not &due:
            timer = due.after
            self.disarm(timer)
            fire(timer)


cdef void fire(Timer *timer) noexcept:
    if timer.of_call:
        (<Call>timer.owner).expire()
    else:
        (<Connection>timer.owner).check()
