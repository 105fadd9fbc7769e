"""Model scenarios of the TCK for value entities, every message compared for full equality.

Numbers in names are those of the scenarios. `Value` plays the proxy for one entity instance.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from stateside.proto import cloudstate, pack, valueentity
from tests.protos.tck.valueentity_pb2 import (
    Delete,
    Effect,
    Fail,
    Forward,
    Persisted,
    Request,
    RequestAction,
    Response,
    Update,
)
from tests.tck.driver import Driver, ValueStream

MODEL = "cloudstate.tck.model.valueentity.ValueEntityTckModel"
TWO = "cloudstate.tck.model.valueentity.ValueEntityTwo"
CONFIGURED = "cloudstate.tck.model.valueentity.ValueEntityConfigured"
FRESH = itertools.count(1)
DELETED = object()


def update(value: str) -> RequestAction:
    return RequestAction(update=Update(value=value))


def updates(values: str) -> list[RequestAction]:
    return [update(value) for value in values]


def delete() -> RequestAction:
    return RequestAction(delete=Delete())


def forward(entity_id: str) -> RequestAction:
    return RequestAction(forward=Forward(id=entity_id))


def effect(entity_id: str, synchronous: bool = False) -> RequestAction:
    return RequestAction(effect=Effect(id=entity_id, synchronous=synchronous))


def fail(message: str) -> RequestAction:
    return RequestAction(fail=Fail(message=message))


def side_effect(target: str, synchronous: bool = False) -> Any:
    call = cloudstate.SideEffect(service_name=TWO, command_name="Call", synchronous=synchronous)
    call.payload.CopyFrom(pack(Request(id=target)))
    return call


class Value:
    """One instance of the model on its stream. Command ids start at 1 on each stream."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.entity_id = f"value-{next(FRESH)}"
        self.stream: ValueStream
        self.last_id = 0

    def init(self, stored: str | None = None) -> Value:
        self.last_id = 0
        self.stream = self.driver.open_value()
        self.stream.init(MODEL, self.entity_id, None if stored is None else Persisted(value=stored))
        return self

    def process(self, *actions: RequestAction) -> Any:
        """Send a command; the message that answers it."""
        self.last_id += 1
        self.stream.command(self.entity_id, self.last_id, "Process", Request(id=self.entity_id, actions=actions))
        return self.stream.next()

    def passivate(self) -> None:
        self.stream.passivate()

    # --- what is expected --------------------------------------------------------------------------------------------

    def reply(self, message: str = "", stored: Any = None, effects: Sequence[Any] = ()) -> Any:
        out = self._reply(stored, effects)
        out.reply.client_action.reply.payload.CopyFrom(pack(Response(message=message)))
        return out

    def forwarded(self, target: str, stored: Any = None, effects: Sequence[Any] = ()) -> Any:
        out = self._reply(stored, effects)
        call = out.reply.client_action.forward
        call.service_name, call.command_name = TWO, "Call"
        call.payload.CopyFrom(pack(Request(id=target)))
        return out

    def failed(self, description: str) -> Any:
        out = self._reply(None, ())
        refused = out.reply.client_action.failure
        refused.command_id, refused.description = self.last_id, description
        return out

    def _reply(self, stored: Any, effects: Sequence[Any]) -> Any:
        out = valueentity.ValueEntityStreamOut()
        out.reply.command_id = self.last_id
        out.reply.side_effects.extend(effects)
        if stored is DELETED:
            out.reply.state_action.delete.SetInParent()
        elif stored is not None:
            out.reply.state_action.update.value.CopyFrom(pack(Persisted(value=stored)))
        return out


@pytest.fixture
def entity(driver: Driver) -> Iterator[Value]:
    """A fresh entity with an open stream, passivated after the scenario."""
    entity = Value(driver).init()
    yield entity
    entity.passivate()


def test_01_discovery(driver: Driver) -> None:
    entities = {entity.service_name: entity for entity in driver.discover().entities}
    assert {entities[name].entity_type for name in (MODEL, TWO, CONFIGURED)} == {"cloudstate.valueentity.ValueEntity"}
    assert entities[MODEL].persistence_id == "value-entity-tck-model"
    assert entities[TWO].persistence_id == "value-entity-tck-model-two"
    assert entities[CONFIGURED].persistence_id == "value-entity-configured"
    assert entities[CONFIGURED].passivation_strategy.timeout.timeout == 100


def test_02_initial_state(entity: Value) -> None:
    assert entity.process() == entity.reply("")


def test_03_update(entity: Value) -> None:
    assert entity.process(update("A")) == entity.reply("A", stored="A")
    assert entity.process() == entity.reply("A")


def test_04_delete(entity: Value) -> None:
    assert entity.process(update("A")) == entity.reply("A", stored="A")
    assert entity.process(delete()) == entity.reply("", stored=DELETED)
    assert entity.process() == entity.reply("")


def test_05_the_last_of_several_updates_counts(entity: Value) -> None:
    assert entity.process(*updates("ABC")) == entity.reply("C", stored="C")
    assert entity.process() == entity.reply("C")


def test_06_a_delete_after_updates_counts(entity: Value) -> None:
    assert entity.process(*updates("AB"), delete()) == entity.reply("", stored=DELETED)
    assert entity.process() == entity.reply("")


def test_07_an_update_after_a_delete_counts(entity: Value) -> None:
    assert entity.process(update("A"), delete(), update("B")) == entity.reply("B", stored="B")
    assert entity.process() == entity.reply("B")


def test_08_the_value_comes_back_after_passivation(entity: Value) -> None:
    for value in "ABCD":
        assert entity.process(update(value)) == entity.reply(value, stored=value)
    entity.passivate()
    entity.init("D")
    assert entity.process() == entity.reply("D")
    assert entity.process(update("E")) == entity.reply("E", stored="E")
    assert entity.process() == entity.reply("E")


def test_09_side_effects_in_order(entity: Value) -> None:
    effects = [side_effect(target) for target in "123"]
    assert entity.process(effect("1"), effect("2"), effect("3")) == entity.reply("", effects=effects)


def test_10_a_side_effect_changes_nothing(entity: Value) -> None:
    entity.process(update("X"))
    assert entity.process(effect("other")) == entity.reply("X", effects=[side_effect("other")])
    assert entity.process() == entity.reply("X")


def test_11_updates_with_side_effects(entity: Value) -> None:
    actions = [*updates("ABCDE"), effect("1"), effect("2"), effect("3")]
    effects = [side_effect(target) for target in "123"]
    assert entity.process(*actions) == entity.reply("E", stored="E", effects=effects)


def test_12_a_synchronous_side_effect(entity: Value) -> None:
    assert entity.process(effect("other", True)) == entity.reply("", effects=[side_effect("other", True)])


def test_13_forward(entity: Value) -> None:
    entity.process(update("X"))
    assert entity.process(forward("other")) == entity.forwarded("other")
    assert entity.process() == entity.reply("X")


def test_14_update_and_forward(entity: Value) -> None:
    assert entity.process(update("A"), forward("other")) == entity.forwarded("other", stored="A")
    assert entity.process() == entity.reply("A")


def test_15_side_effect_and_forward(entity: Value) -> None:
    expected = entity.process(effect("a"), forward("b"))
    assert expected == entity.forwarded("b", effects=[side_effect("a")])


def test_16_failure(entity: Value) -> None:
    assert entity.process(fail("expected failure")) == entity.failed("expected failure")


def test_17_a_failure_rolls_the_value_back(entity: Value) -> None:
    entity.process(update("A"))
    assert entity.process(update("B"), fail("expected failure")) == entity.failed("expected failure")
    assert entity.process() == entity.reply("A")
    assert entity.process(delete(), fail("expected failure")) == entity.failed("expected failure")
    assert entity.process() == entity.reply("A")


def test_18_a_failure_drops_side_effects(entity: Value) -> None:
    assert entity.process(effect("X"), fail("expected failure")) == entity.failed("expected failure")


def test_the_other_services_answer_in_the_same_process(driver: Driver) -> None:
    for service in (TWO, CONFIGURED):
        stream = driver.open_value().init(service, "x").command("x", 1, "Call", Request(id="x"))
        assert stream.next().reply.client_action.reply.payload == pack(Response())
        stream.passivate()
