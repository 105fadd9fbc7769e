"""Value entities: what they do besides the common life of an instance (activation.py; spec core 5).

An instance begins with its stored value, if there is one. A reply may replace or delete it: that is stored before the
client hears of anything. The journal numbers the states of an entity, so a second writer is noticed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cython.cimports.stateside._speedups.clock import monotonic
from cython.cimports.stateside._speedups.wire import (
    ACTION_FAILURE,
    STATE_INVALID,
    STATE_NONE,
    ValueOut,
    scan_value_out,
)

from stateside._speedups.wire import WireError, write_value_init
from stateside.proxy.activation import Activation, Entities

if TYPE_CHECKING:
    from stateside._speedups.h2 import Call, ClientCall
    from stateside.journal.contract import Head
    from stateside.proxy.activation import Reply


class Value(Activation):
    """One instance. `last_sequence` is the number of its present state."""

    __slots__ = ()

    def _begin(self, head: Head, stream: ClientCall) -> None:
        self.last_sequence = head.last_sequence
        stream.send(write_value_init(self.entities.model.service_name, self.key, head.snapshot))
        self._recovered()

    def on_message(self, call: Call, message: bytes) -> None:
        try:
            reply = scan_value_out(message)
            if not self._expected(call, reply):
                return
        except WireError as error:
            self._malformed(call, error)
            return
        self.answered = now = monotonic()
        self.entities.metrics.command_processing_time.observe(now - self.sent)
        if reply.action == ACTION_FAILURE:
            self._failed(reply, now, changes="a state action" if reply.state_action else "", restart=False)
        elif reply.state_action == STATE_NONE:
            self._answer(reply, now)
        elif reply.state_action == STATE_INVALID:
            self._violation("reply", "sent a state action that is neither an update with a value nor a delete")
        else:
            self._store(reply, now)
            self.entities.journal.put(self.log_id, self.last_sequence + 1, reply.value, self)

    def _stored(self, reply: Reply) -> None:
        assert isinstance(reply, ValueOut)
        self.last_sequence += 1
        metrics = self.entities.metrics
        metrics.persisted_values += 1
        metrics.persisted_value_bytes += len(reply.value or b"")


class ValueEntities(Entities):
    """All instances of one value entity service."""

    stream_path = b"/cloudstate.valueentity.ValueEntity/handle"
    command_member = 2  # ValueEntityStreamIn.command
    noun = "Value entity"
    unknown_message = "failure"  # the reference's word for it
    instance = Value
