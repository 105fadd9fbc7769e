"""The notation in which the CRDT scenarios of the TCK are written: actions, deltas and states as short functions, and
`Played`, which plays the proxy for one entity instance and compares every message for full equality.

Deltas are compared without regard to the order of their elements and entries, which the protocol leaves open.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from stateside.proto import cloudstate, crdt, pack, protobuf
from tests.protos.tck import crdt_pb2 as tck
from tests.tck.driver import CrdtStream, Driver

MODEL = "cloudstate.tck.model.crdt.CrdtTckModel"
TWO = "cloudstate.tck.model.crdt.CrdtTwo"
CONFIGURED = "cloudstate.tck.model.crdt.CrdtConfigured"
FRESH = itertools.count(1)
LOCAL, MAJORITY, ALL = 0, 1, 2
CLOCKS = {"DEFAULT": 0, "REVERSE": 1, "CUSTOM": 2, "AUTO_INC": 3}

PN, OS, LW, FL, GC, GS = "PNCounter-1", "ORSet-1", "LWWRegister-1", "Flag-1", "GCounter-1", "GSet-1"


# --- actions ---------------------------------------------------------------------------------------------------------


def act(update: tck.Update, consistency: int = LOCAL) -> tck.RequestAction:
    update.write_consistency = consistency  # type: ignore[assignment]
    return tck.RequestAction(update=update)


def inc(by: int) -> tck.Update:
    return tck.Update(gcounter=tck.GCounterUpdate(increment=by))


def change(by: int) -> tck.Update:
    return tck.Update(pncounter=tck.PNCounterUpdate(change=by))


def g_add(element: str) -> tck.Update:
    return tck.Update(gset=tck.GSetUpdate(add=element))


def edit(word: str) -> tck.Update:
    """`+a` adds to an ORSet, `-a` removes, `clear` clears."""
    if word == "clear":
        return tck.Update(orset=tck.ORSetUpdate(clear=True))
    if word[0] == "+":
        return tck.Update(orset=tck.ORSetUpdate(add=word[1:]))
    return tck.Update(orset=tck.ORSetUpdate(remove=word[1:]))


def put(value: str, clock: str | None = None, custom: int = 0) -> tck.Update:
    update = tck.LWWRegisterUpdate(value=value)
    if clock is not None:
        update.clock.clockType = CLOCKS[clock]  # type: ignore[assignment]
        update.clock.customClockValue = custom
    return tck.Update(lwwregister=update)


def enable() -> tck.Update:
    return tck.Update(flag=tck.FlagUpdate())


def vote_as(yes: bool) -> tck.Update:
    return tck.Update(vote=tck.VoteUpdate(self_vote=yes))


def m_add(key: str) -> tck.Update:
    return tck.Update(ormap=tck.ORMapUpdate(add=key))


def m_update(key: str, update: tck.Update) -> tck.Update:
    return tck.Update(ormap=tck.ORMapUpdate(update=tck.ORMapEntryUpdate(key=key, update=update)))


def m_remove(key: str) -> tck.Update:
    return tck.Update(ormap=tck.ORMapUpdate(remove=key))


def m_clear() -> tck.Update:
    return tck.Update(ormap=tck.ORMapUpdate(clear=True))


DELETE = tck.RequestAction(delete=tck.Delete())


def forward(target: str) -> tck.RequestAction:
    return tck.RequestAction(forward=tck.Forward(id=target))


def effect(target: str, synchronous: bool = False) -> tck.RequestAction:
    return tck.RequestAction(effect=tck.Effect(id=target, synchronous=synchronous))


def fail(message: str) -> tck.RequestAction:
    return tck.RequestAction(fail=tck.Fail(message=message))


# --- deltas ----------------------------------------------------------------------------------------------------------


def text(value: str) -> Any:
    """A string as an element: Any of p.cloudstate.io/string."""
    data = value.encode()
    return protobuf.Any(type_url="p.cloudstate.io/string", value=bytes([0x0A, len(data)]) + data if data else b"")


def texts(values: Iterable[str]) -> list[Any]:
    return [text(value) for value in values]


def d_gc(increment: int) -> Any:
    return crdt.CrdtDelta(gcounter=crdt.GCounterDelta(increment=increment))


def d_pn(by: int) -> Any:
    return crdt.CrdtDelta(pncounter=crdt.PNCounterDelta(change=by))


def d_gs(*added: str) -> Any:
    return crdt.CrdtDelta(gset=crdt.GSetDelta(added=texts(added)))


def d_os(*words: str) -> Any:
    """`+a`, `-a` and `clear`, as of `edit`."""
    return crdt.CrdtDelta(
        orset=crdt.ORSetDelta(
            cleared="clear" in words,
            removed=texts(word[1:] for word in words if word[0] == "-"),
            added=texts(word[1:] for word in words if word[0] == "+"),
        )
    )


def d_lw(value: str, clock: str = "DEFAULT", custom: int = 0) -> Any:
    return crdt.CrdtDelta(
        lwwregister=crdt.LWWRegisterDelta(value=text(value), clock=CLOCKS[clock], custom_clock_value=custom)
    )


def d_fl(value: bool) -> Any:
    return crdt.CrdtDelta(flag=crdt.FlagDelta(value=value))


def d_vote(self_vote: bool, votes_for: int = 0, total: int = 0) -> Any:
    return crdt.CrdtDelta(vote=crdt.VoteDelta(self_vote=self_vote, votes_for=votes_for, total_voters=total))


Entries = Mapping[str, Any]


def d_map(
    *, cleared: bool = False, removed: Iterable[str] = (), updated: Entries | None = None, added: Entries | None = None
) -> Any:
    return crdt.CrdtDelta(
        ormap=crdt.ORMapDelta(
            cleared=cleared, removed=texts(removed), updated=_entries(updated or {}), added=_entries(added or {})
        )
    )


def _entries(deltas: Entries) -> list[Any]:
    return [crdt.ORMapEntryDelta(key=text(key), delta=delta) for key, delta in deltas.items()]


def ordered(delta: Any) -> Any:
    """The delta with everything repeated in order."""
    which = delta.WhichOneof("delta")
    member = getattr(delta, which or "gcounter")
    for name in ("removed", "added", "updated"):
        items = list(getattr(member, name, ()))
        if items:
            for item in items:
                if name == "updated" or (which == "ormap" and name == "added"):
                    ordered(item.delta)
            items.sort(key=lambda item: item.SerializeToString(deterministic=True))
            del getattr(member, name)[:]
            getattr(member, name).extend(items)
    return delta


# --- states ----------------------------------------------------------------------------------------------------------


def s_gc(value: int) -> tck.State:
    return tck.State(gcounter=tck.GCounterValue(value=value))


def s_pn(value: int) -> tck.State:
    return tck.State(pncounter=tck.PNCounterValue(value=value))


def s_gs(*elements: str) -> tck.State:
    return tck.State(gset=tck.GSetValue(elements=elements))


def s_os(*elements: str) -> tck.State:
    return tck.State(orset=tck.ORSetValue(elements=elements))


def s_lw(value: str) -> tck.State:
    return tck.State(lwwregister=tck.LWWRegisterValue(value=value))


def s_fl(value: bool) -> tck.State:
    return tck.State(flag=tck.FlagValue(value=value))


def s_vote(self_vote: bool, votes_for: int, total: int) -> tck.State:
    return tck.State(vote=tck.VoteValue(self_vote=self_vote, votes_for=votes_for, total_voters=total))


def s_map(entries: Mapping[str, tck.State] | None = None) -> tck.State:
    listed = [tck.ORMapEntryValue(key=key, value=state) for key, state in sorted((entries or {}).items())]
    return tck.State(ormap=tck.ORMapValue(entries=listed))


# --- the proxy -------------------------------------------------------------------------------------------------------

DELETED = object()


def side_effect(target: str, synchronous: bool = False) -> Any:
    call = cloudstate.SideEffect(service_name=TWO, command_name="Call", synchronous=synchronous)
    call.payload.CopyFrom(pack(tck.Request(id=target)))
    return call


def response(state: tck.State) -> Any:
    action = cloudstate.ClientAction()
    action.reply.payload.CopyFrom(pack(tck.Response(state=state)))
    return action


def forwarded(target: str) -> Any:
    action = cloudstate.ClientAction()
    action.forward.service_name, action.forward.command_name = TWO, "Call"
    action.forward.payload.CopyFrom(pack(tck.Request(id=target)))
    return action


def failed(command_id: int, description: str) -> Any:
    action = cloudstate.ClientAction()
    action.failure.command_id, action.failure.description = command_id, description
    return action


def state_action(delta: Any, consistency: int = LOCAL) -> Any:
    """An update with `delta`, a deletion for DELETED, nothing for None."""
    if delta is None:
        return None
    if delta is DELETED:
        return crdt.CrdtStateAction(delete=crdt.CrdtDelete(), write_consistency=consistency)
    return crdt.CrdtStateAction(update=ordered(delta), write_consistency=consistency)


def without_order(out: Any) -> Any:
    """A CrdtStreamOut with its delta in order."""
    member = getattr(out, out.WhichOneof("message"))
    if "state_action" in type(member).DESCRIPTOR.fields_by_name and member.state_action.HasField("update"):
        ordered(member.state_action.update)
    return out


class Played:
    """One instance of the model on its stream. Commands are called with the id that the scenario gives them."""

    def __init__(self, driver: Driver, kind: str) -> None:
        self.driver = driver
        self.entity_id = f"{kind}-{next(FRESH)}"
        self.stream: CrdtStream

    def init(self, delta: Any = None) -> Played:
        self.stream = self.driver.open_crdt()
        self.stream.init(MODEL, self.entity_id, delta)
        return self

    def delta(self, *deltas: Any) -> Played:
        for delta in deltas:
            self.stream.delta(delta)
        return self

    def send(self, command_id: int, *actions: tck.RequestAction | tck.Update) -> Played:
        listed = [act(action) if isinstance(action, tck.Update) else action for action in actions]
        self.stream.command(self.entity_id, command_id, "Process", tck.Request(id=self.entity_id, actions=listed))
        return self

    def expect(
        self,
        command_id: int,
        action: Any = None,
        delta: Any = None,
        *,
        effects: Iterable[Any] = (),
        consistency: int = LOCAL,
        streamed: bool = False,
    ) -> Played:
        """The reply to a command. action: a State, or a client action."""
        reply = crdt.CrdtReply(
            command_id=command_id,
            client_action=response(action) if isinstance(action, tck.State) else action,
            side_effects=effects,
            state_action=state_action(delta, consistency),
            streamed=streamed,
        )
        assert without_order(self.stream.next()) == crdt.CrdtStreamOut(reply=reply)
        return self

    def command(
        self, command_id: int, actions: Iterable[tck.RequestAction | tck.Update], state: Any, delta: Any = None
    ) -> Played:
        """`cN[actions]→state|delta` of the scenarios."""
        return self.send(command_id, *actions).expect(command_id, state, delta)

    def stream_to(self, command_id: int, **options: Any) -> Played:
        """A streamed command."""
        request = tck.StreamedRequest(id=self.entity_id, **options)
        self.stream.command(self.entity_id, command_id, "ProcessStreamed", request, streamed=True)
        return self

    def message(self, command_id: int, state: tck.State, *, effects: Iterable[Any] = (), end: bool = False) -> Played:
        """A message for the client of a streamed command."""
        streamed = crdt.CrdtStreamedMessage(
            command_id=command_id, client_action=response(state), side_effects=effects, end_stream=end
        )
        assert self.stream.next() == crdt.CrdtStreamOut(streamed_message=streamed)
        return self

    def cancel(self, command_id: int, delta: Any = None) -> Played:
        """The client of a streamed command goes; what that changes."""
        self.stream.cancel(self.entity_id, command_id)
        answer = crdt.CrdtStreamCancelledResponse(command_id=command_id, state_action=state_action(delta))
        assert without_order(self.stream.next()) == crdt.CrdtStreamOut(stream_cancelled_response=answer)
        return self

    def passivate(self) -> Played:
        self.stream.passivate()
        return self

    def deleted_elsewhere(self) -> None:
        """CrdtDelete, and then the end of the input stream."""
        self.stream.delete()
        self.stream.passivate()
