"""Model scenarios of the TCK for event sourced entities, every message compared for full equality.

Notation in names: the numbers are those of the scenarios. `Entity` plays the proxy for one entity instance.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from stateside.proto import cloudstate, eventsourced, pack
from tests.protos.tck.eventsourced_pb2 import Effect, Emit, Fail, Forward, Persisted, Request, RequestAction, Response
from tests.tck.driver import Driver, EntityStream

MODEL = "cloudstate.tck.model.EventSourcedTckModel"
TWO = "cloudstate.tck.model.EventSourcedTwo"
FRESH = itertools.count(1)


def emit(value: str) -> RequestAction:
    return RequestAction(emit=Emit(value=value))


def emits(values: str) -> list[RequestAction]:
    return [emit(value) for value in values]


def forward(entity_id: str) -> RequestAction:
    return RequestAction(forward=Forward(id=entity_id))


def effect(entity_id: str, synchronous: bool = False) -> RequestAction:
    return RequestAction(effect=Effect(id=entity_id, synchronous=synchronous))


def fail(message: str) -> RequestAction:
    return RequestAction(fail=Fail(message=message))


class Entity:
    """One instance of the model on its stream. Command ids start at 1 on each stream."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.entity_id = f"entity-{next(FRESH)}"
        self.stream: EntityStream
        self.last_id = 0

    def init(self, snapshot: tuple[int, str] | None = None) -> Entity:
        self.stream = self.driver.open()
        self.last_id = 0
        self.stream.init(MODEL, self.entity_id, snapshot and (snapshot[0], Persisted(value=snapshot[1])))
        return self

    def replay(self, first: int, values: str) -> Entity:
        for sequence, value in enumerate(values, first):
            self.stream.event(sequence, Persisted(value=value))
        return self

    def process(self, *actions: RequestAction) -> Any:
        """Send a command; the message that answers it."""
        self.last_id += 1
        self.stream.command(self.entity_id, self.last_id, "Process", Request(id=self.entity_id, actions=actions))
        return self.stream.next()

    def passivate(self) -> None:
        self.stream.passivate()

    # --- what is expected --------------------------------------------------------------------------------------------

    def reply(self, message: str, events: str = "", snapshot: str = "", effects: Sequence[Any] = ()) -> Any:
        out = self._reply(events, snapshot, effects)
        out.reply.client_action.reply.payload.CopyFrom(pack(Response(message=message)))
        return out

    def forwarded(self, target: str, events: str = "", snapshot: str = "", effects: Sequence[Any] = ()) -> Any:
        out = self._reply(events, snapshot, effects)
        call = out.reply.client_action.forward
        call.service_name, call.command_name = TWO, "Call"
        call.payload.CopyFrom(pack(Request(id=target)))
        return out

    def failed(self, description: str, restart: bool = False) -> Any:
        out = self._reply("", "", ())
        refused = out.reply.client_action.failure
        refused.command_id, refused.description, refused.restart = self.last_id, description, restart
        return out

    def _reply(self, events: str, snapshot: str, effects: Sequence[Any]) -> Any:
        out = eventsourced.EventSourcedStreamOut()
        out.reply.command_id = self.last_id
        out.reply.events.extend(pack(Persisted(value=value)) for value in events)
        out.reply.side_effects.extend(effects)
        if snapshot:
            out.reply.snapshot.CopyFrom(pack(Persisted(value=snapshot)))
        return out


def side_effect(target: str, synchronous: bool = False) -> Any:
    call = cloudstate.SideEffect(service_name=TWO, command_name="Call", synchronous=synchronous)
    call.payload.CopyFrom(pack(Request(id=target)))
    return call


@pytest.fixture
def entity(driver: Driver) -> Iterator[Entity]:
    """A fresh entity with an open stream, passivated after the scenario."""
    entity = Entity(driver).init()
    yield entity
    entity.passivate()


@pytest.fixture
def reopened(driver: Driver) -> Iterator[Callable[..., Entity]]:
    """Opens an entity that has a past."""
    opened: list[Entity] = []

    def open_with(snapshot: tuple[int, str] | None = None) -> Entity:
        opened.append(Entity(driver).init(snapshot))
        return opened[-1]

    yield open_with
    for entity in opened:
        entity.passivate()


def test_01_discovery(driver: Driver) -> None:
    spec = driver.discover()
    entities = {entity.service_name: entity for entity in spec.entities}
    assert entities[MODEL].entity_type == entities[TWO].entity_type == "cloudstate.eventsourced.EventSourced"
    assert entities[MODEL].persistence_id == "event-sourced-tck-model"
    configured = entities["cloudstate.tck.model.EventSourcedConfigured"]
    assert configured.persistence_id == "event-sourced-configured"
    assert configured.passivation_strategy.timeout.timeout == 100
    info = spec.service_info
    assert (info.protocol_major_version, info.protocol_minor_version) == (0, 2)


def test_02_initial_state(entity: Entity) -> None:
    assert entity.process() == entity.reply("")


def test_03_single_event(entity: Entity) -> None:
    assert entity.process(emit("A")) == entity.reply("A", events="A")
    assert entity.process() == entity.reply("A")


def test_04_multiple_events(entity: Entity) -> None:
    assert entity.process(*emits("ABC")) == entity.reply("ABC", events="ABC")
    assert entity.process() == entity.reply("ABC")


def test_05_snapshots(entity: Entity) -> None:
    for state in ("A", "AB", "ABC", "ABCD"):
        assert entity.process(emit(state[-1])) == entity.reply(state, events=state[-1])
    assert entity.process(emit("E")) == entity.reply("ABCDE", events="E", snapshot="ABCDE")
    assert entity.process(*emits("FGH")) == entity.reply("ABCDEFGH", events="FGH")
    assert entity.process(*emits("IJ")) == entity.reply("ABCDEFGHIJ", events="IJ", snapshot="ABCDEFGHIJ")
    assert entity.process(emit("K")) == entity.reply("ABCDEFGHIJK", events="K")
    assert entity.process() == entity.reply("ABCDEFGHIJK")


def test_06_initial_snapshot(reopened: Callable[..., Entity]) -> None:
    entity = reopened((5, "ABCDE"))
    assert entity.process() == entity.reply("ABCDE")


def test_07_initial_snapshot_and_events(reopened: Callable[..., Entity]) -> None:
    entity = reopened((5, "ABCDE")).replay(6, "FG")
    assert entity.process() == entity.reply("ABCDEFG")


def test_08_rehydration_after_passivation(entity: Entity) -> None:
    assert entity.process(*emits("ABC")) == entity.reply("ABC", events="ABC")
    assert entity.process(*emits("DE")) == entity.reply("ABCDE", events="DE", snapshot="ABCDE")
    assert entity.process(emit("F")) == entity.reply("ABCDEF", events="F")
    assert entity.process(emit("G")) == entity.reply("ABCDEFG", events="G")
    entity.passivate()
    entity.init((5, "ABCDE")).replay(6, "FG")
    assert entity.process() == entity.reply("ABCDEFG")


def test_09_forward(entity: Entity) -> None:
    assert entity.process(*emits("ABC")) == entity.reply("ABC", events="ABC")
    assert entity.process(forward("X")) == entity.forwarded("X")
    assert entity.process() == entity.reply("ABC")


def test_10_forward_with_an_event(entity: Entity) -> None:
    assert entity.process(emit("A"), forward("X")) == entity.forwarded("X", events="A")


def test_11_forward_with_events_and_snapshot(entity: Entity) -> None:
    assert entity.process(*emits("ABC")) == entity.reply("ABC", events="ABC")
    expected = {"events": "DE", "snapshot": "ABCDE"}
    assert entity.process(*emits("DE"), forward("X")) == entity.forwarded("X", **expected)


def test_12_side_effect(entity: Entity) -> None:
    assert entity.process(*emits("ABC")) == entity.reply("ABC", events="ABC")
    assert entity.process(effect("X")) == entity.reply("ABC", effects=[side_effect("X")])
    assert entity.process() == entity.reply("ABC")


def test_13_synchronous_side_effect(entity: Entity) -> None:
    assert entity.process(effect("X", synchronous=True)) == entity.reply("", effects=[side_effect("X", True)])


def test_14_side_effect_and_forward(entity: Entity) -> None:
    assert entity.process(effect("X"), forward("Y")) == entity.forwarded("Y", effects=[side_effect("X")])


def test_15_side_effects_in_order(entity: Entity) -> None:
    effects = [side_effect(target) for target in "123"]
    assert entity.process(*map(effect, "123")) == entity.reply("", effects=effects)


def test_16_events_side_effects_and_snapshot(entity: Entity) -> None:
    effects = [side_effect(target) for target in "123"]
    expected = entity.reply("ABCDE", events="ABCDE", snapshot="ABCDE", effects=effects)
    expected.reply.command_id = 1
    assert entity.process(*emits("ABCDE"), *map(effect, "123")) == expected


def test_17_failure(entity: Entity) -> None:
    assert entity.process(fail("expected failure")) == entity.failed("expected failure")


def test_18_failure_keeps_the_state(entity: Entity) -> None:
    assert entity.process(emit("A")) == entity.reply("A", events="A")
    assert entity.process(fail("expected failure")) == entity.failed("expected failure")
    assert entity.process() == entity.reply("A")


def test_19_failure_after_events_restarts_the_entity(entity: Entity) -> None:
    assert entity.process(*emits("ABC")) == entity.reply("ABC", events="ABC")
    assert entity.process(emit("4"), emit("5"), fail("failure 1")) == entity.failed("failure 1", restart=True)
    entity.passivate()
    entity.init().replay(1, "ABC")
    assert entity.process(emit("D")) == entity.reply("ABCD", events="D")
    assert entity.process(emit("6"), fail("failure 2"), emit("7")) == entity.failed("failure 2", restart=True)
    entity.passivate()
    entity.init().replay(1, "ABCD")
    assert entity.process(emit("E")) == entity.reply("ABCDE", events="E", snapshot="ABCDE")


def test_20_failure_drops_side_effects(entity: Entity) -> None:
    assert entity.process(effect("X"), fail("expected failure")) == entity.failed("expected failure")


def test_the_other_services_answer_in_the_same_process(driver: Driver) -> None:
    for service in (TWO, "cloudstate.tck.model.EventSourcedConfigured"):
        stream = driver.open().init(service, "x").command("x", 1, "Call", Request(id="x"))
        assert stream.next().reply.client_action.reply.payload == pack(Response())
        stream.passivate()
