"""Event sourced entities: what they do besides the common life of an instance (activation.py; spec core 4).

An instance begins with the latest snapshot and the events behind it, read page by page and paced by the stream's flow
control. A reply may carry events and a snapshot: they are appended in one step before the client hears of anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cython.cimports.stateside._speedups.clock import monotonic
from cython.cimports.stateside._speedups.wire import ACTION_FAILURE, StreamOut, scan_event_sourced_out

from stateside._speedups.wire import WireError, frame_events, write_init
from stateside.proxy.activation import Activation, Entities, State

if TYPE_CHECKING:
    from stateside._speedups.h2 import Call, ClientCall
    from stateside.journal.contract import Head, JournalError, Page
    from stateside.proxy.activation import Reply


class EventSourced(Activation):
    """One instance. `last_sequence` is the number of its last event."""

    __slots__ = ()

    # --- replay ------------------------------------------------------------------------------------------------------

    def _begin(self, head: Head, stream: ClientCall) -> None:
        entities = self.entities
        if head.snapshot is not None:
            entities.metrics.loaded_snapshots += 1
            entities.metrics.loaded_snapshot_bytes += len(head.snapshot)
        self.last_sequence = head.snapshot_sequence
        stream.send(write_init(entities.model.service_name, self.key, head.snapshot_sequence, head.snapshot))
        entities.metrics.replayed_events.observe(head.last_sequence - head.snapshot_sequence)
        if head.last_sequence > head.snapshot_sequence:
            self._read_on()
        else:
            self._recovered()

    def _read_on(self) -> None:
        entities = self.entities
        entities.journal.read(self.log_id, self.last_sequence + 1, entities.settings.replay_page_size, self)

    def on_page(self, page: Page | None, error: JournalError | None) -> None:
        if self.state != State.REPLAYING or self.stream is None:
            return
        if page is None:
            self._recovery_failed(error)
            return
        if page.first_sequence != self.last_sequence + 1:
            return  # asked for by an earlier life, or twice
        frames = frame_events(page.first_sequence, page.events)
        self.touched = monotonic()
        self.last_sequence += len(page.events)
        metrics = self.entities.metrics
        metrics.loaded_events += len(page.events)
        metrics.loaded_event_bytes += sum(map(len, page.events))
        flowing = self.stream.send_framed(frames)
        if not page.more:
            self._recovered()
        elif flowing:
            # Through the loop, not by recursion: a long log must neither deepen the stack nor keep the loop.
            self.entities.timers.soon(self._replay_more, self.stream)

    def _replay_more(self, stream: ClientCall) -> None:
        if self.state == State.REPLAYING and self.stream is stream:
            self._read_on()

    def on_drain(self, call: Call) -> None:
        if self.state == State.REPLAYING and call is self.stream:
            self._read_on()

    # --- replies -----------------------------------------------------------------------------------------------------

    def on_message(self, call: Call, message: bytes) -> None:
        try:
            reply = scan_event_sourced_out(message)
            if not self._expected(call, reply):
                return
        except WireError as error:
            self._malformed(call, error)
            return
        self.answered = now = monotonic()
        self.entities.metrics.command_processing_time.observe(now - self.sent)
        if reply.action == ACTION_FAILURE:
            self._failed(reply, now, changes="events" if reply.events else "", restart=reply.restart)
        elif reply.events:
            self._store(reply, now)
            self.entities.journal.append(self.log_id, self.last_sequence + 1, reply.events, reply.snapshot, self)
        else:
            if reply.snapshot is not None:
                self._report("sent a snapshot without events; it was ignored")
            self._answer(reply, now)

    def _stored(self, reply: Reply) -> None:
        assert isinstance(reply, StreamOut)
        self.last_sequence += len(reply.events)
        metrics = self.entities.metrics
        metrics.persisted_events += len(reply.events)
        metrics.persisted_event_bytes += sum(map(len, reply.events))
        if reply.snapshot is not None:
            metrics.persisted_snapshots += 1
            metrics.persisted_snapshot_bytes += len(reply.snapshot)


class EventSourcedEntities(Entities):
    """All instances of one event sourced service."""

    stream_path = b"/cloudstate.eventsourced.EventSourced/handle"
    command_member = 3  # EventSourcedStreamIn.command
    noun = "entity"
    instance = EventSourced
