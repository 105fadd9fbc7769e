"""grpc.health.v1: Check and Watch, by readiness of the proxy."""

from typing import Any

import pytest

from stateside.proto import health as messages
from stateside.proto.status import Status
from stateside.proxy.health import Health
from stateside.proxy.readiness import Readiness

SERVING, NOT_SERVING, UNKNOWN = 1, 2, 3


class FakeCall:
    """A call that notes what it was told. `full` = its client does not read."""

    def __init__(self) -> None:
        self.full = False
        self.told: list[Any] = []

    def send(self, message: bytes) -> bool:
        self.told.append(messages.HealthCheckResponse.FromString(message).status)
        return not self.full

    def reply(self, message: bytes) -> None:
        self.told.append(messages.HealthCheckResponse.FromString(message).status)

    def fail(self, status: int, message: str) -> None:
        self.told.append((status, message))

    finish = fail


@pytest.fixture
def readiness() -> Readiness:
    return Readiness({"discovery": "the user function was not discovered yet"})


@pytest.fixture
def health(readiness: Readiness) -> Health:
    made = Health(readiness, max_watchers=3)
    made.set_services(["shop.Cart"])
    return made


def call_of(health: Health, method: str, service: str = "") -> Any:
    call = FakeCall()
    request = messages.HealthCheckRequest(service=service).SerializeToString()
    handler: Any = health.handlers()[f"/grpc.health.v1.Health/{method}".encode()]
    assert handler.unary
    handler.on_request(call, request)
    return call


@pytest.mark.parametrize("service", ["", "shop.Cart"])
def test_check_follows_readiness(health: Health, readiness: Readiness, service: str) -> None:
    assert call_of(health, "Check", service).told == [NOT_SERVING]
    readiness.clear("discovery")
    assert call_of(health, "Check", service).told == [SERVING]
    readiness.block("stop", "the proxy is stopping")
    assert call_of(health, "Check", service).told == [NOT_SERVING]


def test_check_of_an_unknown_service_is_not_found(health: Health) -> None:
    [(status, message)] = call_of(health, "Check", "shop.Nope").told
    assert status == Status.NOT_FOUND
    assert "shop.Nope" in message


def test_watch_tells_the_state_now_and_then_only_changes(health: Health, readiness: Readiness) -> None:
    call = call_of(health, "Watch", "shop.Cart")
    readiness.block("discovery", "still not")
    readiness.clear("discovery")
    readiness.clear("discovery")
    readiness.block("stop", "the proxy is stopping")
    assert call.told == [NOT_SERVING, SERVING, NOT_SERVING]


def test_watch_of_an_unknown_service_goes_on_until_it_is_known(health: Health, readiness: Readiness) -> None:
    call = call_of(health, "Watch", "shop.Stock")
    readiness.clear("discovery")
    health.set_services(["shop.Cart", "shop.Stock"])
    assert call.told == [UNKNOWN, SERVING]


def test_a_watcher_that_does_not_read_is_told_only_the_latest_state(health: Health, readiness: Readiness) -> None:
    call = call_of(health, "Watch")
    call.full = True
    readiness.clear("discovery")
    for _ in range(5):
        readiness.block("stop", "?")
        readiness.clear("stop")
    readiness.block("stop", "?")
    assert call.told == [NOT_SERVING, SERVING]
    health.drained(call)
    assert call.told == [NOT_SERVING, SERVING, NOT_SERVING]


def test_watchers_are_bounded_and_those_who_leave_make_room(health: Health) -> None:
    calls = [call_of(health, "Watch") for _ in range(4)]
    assert calls[3].told[0][0] == Status.RESOURCE_EXHAUSTED
    health.handlers()[b"/grpc.health.v1.Health/Watch"].on_cancel(calls[0], Status.CANCELLED)
    assert call_of(health, "Watch").told == [NOT_SERVING]


def test_a_watcher_that_left_is_told_nothing(health: Health, readiness: Readiness) -> None:
    call = call_of(health, "Watch")
    health.forget(call)
    readiness.clear("discovery")
    health.drained(call)
    assert call.told == [NOT_SERVING]


def test_closing_ends_all_watches(health: Health, readiness: Readiness) -> None:
    call = call_of(health, "Watch")
    health.close()
    readiness.clear("discovery")
    assert [each if isinstance(each, int) else each[0] for each in call.told] == [NOT_SERVING, Status.UNAVAILABLE]


@pytest.mark.parametrize("method", ["Check", "Watch"])
def test_a_message_that_is_no_request_fails_the_call(health: Health, method: str) -> None:
    call: Any = FakeCall()
    health.handlers()[f"/grpc.health.v1.Health/{method}".encode()].on_request(call, b"\xff")
    assert call.told[0][0] == Status.INVALID_ARGUMENT
