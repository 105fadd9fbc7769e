"""CRDT entities in the test kit, which plays the proxy and all other nodes.

votes = TestKit(Presence).crdt("alice")
monitor = votes.monitor(User(name="alice"))
votes.members(votes_for=1, others=2)
assert monitor.replies == [OnlineStatus(online=False), OnlineStatus(online=True)]
monitor.cancel()
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from google.protobuf.message import Message

from stateside._speedups import wire
from stateside.proto import crdt as protocol

from . import crdt_deltas
from .crdt_entity import WriteConsistency
from .crdt_map import ORMap, new_crdt
from .crdt_model import CrdtType
from .crdt_stream import CrdtStream
from .crdt_values import Vote
from .crdt_views import MapView
from .crdts import Changes, Crdt, encoded
from .entity_stream import EntityStream
from .metadata import Metadata
from .testkit import Result, TestEntity


class TestStream:
    """The client of a streamed command."""

    __test__ = False

    def __init__(self, entity: TestCrdt, command_id: int, method: Any) -> None:
        self.command_id = command_id
        self.method = method
        self.results: list[Result] = []
        """Everything that came so far, the reply first."""
        self.streamed = False
        """More may come."""
        self._entity = entity

    @property
    def replies(self) -> list[Any]:
        """The messages that the client got so far."""
        return [result.reply for result in self.results if result.reply is not None]

    def cancel(self) -> Result:
        """Let the client go; what the entity did about it. Raises RuntimeError if the stream has ended."""
        if not self.streamed:
            raise RuntimeError(f"{self.method.name}: there is no stream to cancel, it has ended")
        self.streamed = False
        return self._entity._cancel(self)


class TestCrdt(TestEntity):
    """One CRDT entity instance in the kit. Commands are methods; streamed ones return a `TestStream`.

    As a proxy does, the kit keeps a replica, which survives the passivation of the instance.
    """

    __test__ = False

    _type: CrdtType

    def __init__(self, *arguments: Any) -> None:
        TestEntity.__init__(self, *arguments)
        self._replica: bytes | None = None
        self._written = False
        self._streams: dict[int, TestStream] = {}
        self._replies: dict[int, Any] = {}
        self._cancelled: Any = None

    @property
    def state(self) -> Any:
        """The CRDT, as handlers take it; None if nothing was written yet. For looking at."""
        return self._crdt_stream()._shown

    def call(self, method: str, message: Message) -> Any:
        """Send a command; the `Result`, or the `TestStream` of a streamed command.

        Raises the exception of the handler, if there was one. The entity goes on.
        """
        if self._kit.method(method).server_streaming:
            return self._start(method, message)
        return TestEntity.call(self, method, message)

    def elsewhere(self, change: Callable[[Any], object]) -> None:
        """Another node changes the CRDT: `entity.elsewhere(lambda counter: counter.increment(5))`.

        It votes for itself; where all nodes count, see `members`.
        """
        shown, crdt = self._copy()
        change(shown)
        taken = crdt._take()
        if taken is not None:
            delta = protocol.CrdtDelta.FromString(taken)
            _count_votes(delta, crdt, self._crdt_stream().crdt)
            self._told(delta.SerializeToString())

    def members(self, *, votes_for: int, others: int) -> None:
        """There are `others` nodes beside this one, of which `votes_for` vote yes. For entities that are a Vote."""
        vote = self._crdt_stream().crdt
        mine = isinstance(vote, Vote) and vote.vote
        self._told(crdt_deltas.vote(mine, votes_for + mine, others + 1))

    def delete_elsewhere(self) -> None:
        """Another node deletes the entity."""
        self._crdt_stream().receive(wire.write_crdt_delete())

    # --- the proxy's part ------------------------------------------------------------------------------------------

    def _crdt_stream(self) -> CrdtStream:
        stream = self._open()
        assert isinstance(stream, CrdtStream)
        return stream

    def _stored(self) -> Iterable[bytes]:
        yield wire.write_crdt_init(self._type.service_name, self.entity_id, self._replica)

    def _scan(self, message: bytes) -> Any:
        return wire.scan_crdt_out(message)

    def _open(self) -> EntityStream:
        if self._stream is None:
            self._streams.clear()
        return TestEntity._open(self)

    def _start(self, name: str, message: Message) -> TestStream:
        method = self._kit.method(name, message)
        stream = self._open()
        self._last_command_id += 1
        opened = TestStream(self, self._last_command_id, method)
        self._streams[opened.command_id] = opened
        stream.receive(self._command(method, message, streamed=True))
        self._drain()
        reply = self._replies.pop(opened.command_id)
        opened.streamed = reply.streamed
        opened.results.insert(0, self._read(reply, method))
        return opened

    def _cancel(self, stream: TestStream) -> Result:
        del self._streams[stream.command_id]
        self._crdt_stream().receive(wire.write_stream_cancelled(self.entity_id.encode(), stream.command_id))
        self._drain()
        return self._read(self._cancelled, stream.method)

    def _told(self, delta: bytes) -> None:
        """The proxy learns of a change on another node."""
        self._written = True
        self._open().receive(wire.write_crdt_delta(delta))
        self._drain()

    def _result(self, method: str) -> Result:
        self._drain()
        return self._read(self._replies.pop(self._last_command_id), self._kit.method(method))

    def _drain(self) -> None:
        """Take everything that the entity sent."""
        while self._call.sent:
            out = self._scan(self._call.sent.popleft())
            if out.kind == wire.KIND_FAILURE:
                if out.command_id == 0:
                    self._stream = None
                self._raise(out)
            if out.kind == wire.KIND_STREAMED_MESSAGE:
                stream = self._streams[out.command_id]
                stream.results.append(self._read(out, stream.method))
                stream.streamed = not out.end_stream
            elif out.kind == wire.KIND_CANCELLED_RESPONSE:
                self._cancelled = out
            else:
                self._replies[out.command_id] = out
        self._save()
        error = self._kit.take_error()
        if error is not None:
            raise error

    def _read(self, out: Any, method: Any) -> Result:
        delta = None
        if out.state_action == wire.STATE_UPDATE:
            delta = protocol.CrdtDelta.FromString(out.update)
            self._written = True
            self._save()
        replied = out.action == wire.ACTION_REPLY
        return Result(
            reply=self._kit.reply(method, out.type_url, out.payload) if replied else None,
            forward=self._kit.forward(out.forward),
            failure=out.description if out.action == wire.ACTION_FAILURE else None,
            effects=[self._kit.effect(effect) for effect in out.side_effects],
            metadata=Metadata.parse(out.metadata),
            delta=delta,
            deleted=out.state_action == wire.STATE_DELETE,
            write_consistency=WriteConsistency(out.write_consistency),
            ended=out.end_stream,
        )

    # --- the replica ---------------------------------------------------------------------------------------------

    def _save(self) -> None:
        """What was written is in the replica."""
        crdt = self._stream.crdt if isinstance(self._stream, CrdtStream) else None
        if crdt is not None and self._written:
            self._replica = crdt._whole()

    def _copy(self) -> tuple[Any, Crdt]:
        """The CRDT on another node that knows what is known here, as handlers take it and as it is."""
        if self._replica is None:
            if self._type.initial is None:
                raise TypeError(f"{self._type.label} declares no type of its CRDT, and there is none yet")
            shown: Any = self._type.initial()
            crdt: Crdt = shown.ormap if isinstance(shown, MapView) else shown
            crdt._join(Changes(self._type.codec))
            return shown, crdt
        delta = protocol.CrdtDelta.FromString(self._replica)
        crdt = new_crdt(delta)
        crdt._join(Changes(self._type.codec))
        crdt._apply(delta)
        _forget_own_votes(crdt)
        return self._type.shown(crdt), crdt


def _forget_own_votes(crdt: Crdt) -> None:
    """The votes of this node are not those of the other."""
    if isinstance(crdt, Vote):
        crdt._self = crdt._sent = False
    elif isinstance(crdt, ORMap):
        for entry in crdt._entries.values():
            _forget_own_votes(entry)


def _count_votes(delta: Any, other: Crdt, here: Crdt | None) -> None:
    """Turn a delta of another node, which says how that node votes, into what a proxy tells this one."""
    if isinstance(other, Vote):
        delta.vote.self_vote = isinstance(here, Vote) and here.vote
        delta.vote.votes_for, delta.vote.total_voters = other.votes_for, max(other.total, 2)
    elif isinstance(other, ORMap):
        entries = here._entries if isinstance(here, ORMap) else {}
        for change in [*delta.ormap.updated, *delta.ormap.added]:
            (name,) = encoded([change.key])
            _count_votes(change.delta, other._entries[name], entries.get(name))
