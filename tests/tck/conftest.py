"""The model services of the TCK, served once for all scenarios."""

from collections.abc import Iterator

import pytest

from tests.tck.action_model import ActionTckModel, ActionTwo
from tests.tck.crdt_model import CrdtConfigured, CrdtTckModel, CrdtTwo
from tests.tck.driver import Driver
from tests.tck.model import Configured, TckModel, Two
from tests.tck.value_entity_model import ValueConfigured, ValueTckModel, ValueTwo


@pytest.fixture(scope="session")
def served() -> Iterator[Driver]:
    event_sourced, values, actions = (
        (TckModel, Two, Configured),
        (ValueTckModel, ValueTwo, ValueConfigured),
        (ActionTckModel, ActionTwo),
    )
    driver = Driver(*event_sourced, *values, *actions, CrdtTckModel, CrdtTwo, CrdtConfigured)
    yield driver
    driver.close()


@pytest.fixture
def driver(served: Driver) -> Iterator[Driver]:
    """The served model; no stream of a scenario is left open in it."""
    served.hooks.failures.clear()
    yield served
    assert served.open_streams == 0
