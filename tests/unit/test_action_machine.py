"""The machine of action calls where a black box cannot look: what crosses what on the way, and in which order.

Connections, streams, timers and clients are fakes that do what the test says; all else is the proxy's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from tck import action_pb2 as model

from stateside._speedups.h2 import ServerCall
from stateside.proto import action
from stateside.proto.status import Status
from stateside.proxy.action import ActionMethod, Actions
from stateside.proxy.activation import MAX_REFUSALS
from stateside.proxy.config import Settings
from stateside.proxy.effects import StandIn
from stateside.proxy.metrics import ActionMetrics
from stateside.proxy.router import Router
from stateside.proxy.spec import validate

from ..integration.action_function import (
    MODEL,
    TWO,
    actions_spec,
    command,
    effect_two,
    failure,
    forward_two,
    message,
    no_reply,
    opening,
    plain,
    reply,
    request,
    say,
)

ASKED = request([say("x")])


class Client:
    """A ServerCall as far as the machine sees it."""

    def __init__(self) -> None:
        self.context: Any = None
        self.headers: list[tuple[bytes, bytes]] = []
        self.deadline = 0.0
        self.ended = self.paused = False
        self.flowing = True
        self.texts: list[str] = []
        self.status: Status | None = None
        self.details = ""

    def start(self, headers: Any = ()) -> None: ...

    def send(self, data: bytes) -> bool:
        assert not self.ended
        self.texts.append(model.Response.FromString(data).message)
        return self.flowing

    def reply(self, data: bytes, headers: Any = ()) -> None:
        self.send(data)
        self.finish()

    def finish(self, status: int = 0, details: str = "", trailers: Any = ()) -> None:
        assert not self.ended, "the client was told twice"
        self.ended, self.status, self.details = True, Status(status), details

    fail = finish

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False


class Stream:
    """A ClientCall: what the machine sent, and how it stands."""

    def __init__(self, borrower: Any) -> None:
        self.borrower = borrower
        self.sent: list[Any] = []
        self.half_closed = self.cancelled = self.paused = self.unprocessed = False

    def send(self, data: bytes) -> bool:
        self.sent.append(action.ActionCommand.FromString(data))
        return True

    def half_close(self) -> None:
        self.half_closed = True

    def cancel(self) -> None:
        self.cancelled = True

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def says(self, answer: Any) -> None:
        assert not self.paused, "nothing is delivered while paused"
        self.borrower.on_message(self, answer.SerializeToString())

    def ends(self, status: Status = Status.OK, details: str = "", unprocessed: bool = False) -> None:
        self.unprocessed = unprocessed
        self.borrower.on_end(self, status, details)


class UserFunction:
    """The pool; `free` tells whether it has streams."""

    def __init__(self) -> None:
        self.free = True
        self.asked: list[Any] = []  # waiting for a stream
        self.streams: list[Stream] = []
        self.held = 0

    def request(self, path: bytes, borrower: Any, deadline: float = 0.0) -> None:
        self.asked.append(borrower)
        if self.free:
            self.give()

    def give(self) -> None:
        borrower = self.asked.pop(0)
        self.streams.append(Stream(borrower))
        self.held += 1
        borrower.on_stream(self.streams[-1])

    def withdraw(self, borrower: Any) -> None:
        if borrower in self.asked:
            self.asked.remove(borrower)

    def release(self, borrower: Any) -> None:
        self.held -= 1


class Timers:
    """Time stands still until the test moves it."""

    def __init__(self) -> None:
        self.callbacks: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def watch(self, target: Any, due: float) -> None: ...

    def soon(self, callback: Callable[..., Any], *args: Any) -> None:
        self.callbacks.append((callback, args))

    def later(self, delay: float, callback: Callable[..., Any], *args: Any) -> None:
        self.soon(callback, *args)

    def turn(self) -> None:
        callbacks, self.callbacks = self.callbacks, []
        for callback, args in callbacks:
            callback(*args)


class Machine:
    """The TCK's actions with their fakes."""

    def __init__(self) -> None:
        self.settings = Settings()
        self.user_function, self.timers = UserFunction(), Timers()
        self.metrics = {name: ActionMetrics(name) for name in (MODEL, TWO)}
        self.reports: list[str] = []
        self.router = Router(self.settings, self.timers, self._actions, self.reports.append)  # type: ignore[arg-type]

        async def start() -> None:
            self.router.update(validate(actions_spec(with_entities=False), self.settings))

        uvloop.run(start())

    def _actions(self, model: Any, router: Router) -> Actions:
        return Actions(
            model,
            self.settings,
            user_function=self.user_function,  # type: ignore[arg-type]
            timers=self.timers,  # type: ignore[arg-type]
            metrics=self.metrics[model.service_name],
            router=router,
        )

    def method(self, name: str) -> ActionMethod:
        found = self.router.method(MODEL, name)
        assert isinstance(found, ActionMethod)
        return found

    @property
    def stream(self) -> Stream:
        return self.user_function.streams[-1]

    def ask(self, name: str) -> Client:
        client = Client()
        self.method(name).on_request(client, ASKED.SerializeToString())  # type: ignore[arg-type]
        return client

    def open(self, name: str) -> Client:
        client = Client()
        self.method(name).on_open(client)  # type: ignore[arg-type]
        return client

    def streaming(self) -> tuple[Client, Stream]:
        client = self.ask("ProcessStreamedOut")
        return client, self.stream

    def cancel(self, client: Client, name: str) -> None:
        client.ended = True
        self.method(name).on_cancel(client, Status.CANCELLED)  # type: ignore[arg-type]

    def is_at_rest(self) -> bool:
        calls_open = sum(metrics.active_calls for metrics in self.metrics.values())
        return not (calls_open or self.user_function.held or self.user_function.asked or self.router.pending_effects)


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_a_stand_in_offers_what_a_client_s_call_does() -> None:
    unused = {"handler", "path", "queued_bytes", "trailers", "send_framed"}
    offered = {name for name in dir(ServerCall) if not name.startswith("_")} - unused
    stand_in = StandIn(None, Actions, (), lambda *_: None)  # type: ignore[arg-type]
    assert {name for name in offered if not hasattr(stand_in, name)} == set()


def test_a_good_end_behind_an_open_item_comes_after_it(machine: Machine) -> None:
    client, stream = machine.streaming()
    stream.says(reply("one", effect_two("slow", synchronous=True)))
    effect = machine.stream
    assert stream.paused
    stream.ends()
    assert (client.texts, client.ended) == ([], False)
    effect.says(reply())
    effect.ends()
    machine.timers.turn()
    assert (client.texts, client.status) == (["one"], Status.OK)
    assert machine.is_at_rest()


def test_a_bad_end_behind_an_open_item_comes_after_it(machine: Machine) -> None:
    client, stream = machine.streaming()
    stream.says(forward_two("other"))
    target = machine.stream
    stream.ends(Status.NOT_FOUND, "gone")
    target.says(reply("forwarded"))
    target.ends()
    assert (client.texts, client.status, client.details) == (["forwarded"], Status.NOT_FOUND, "gone")
    assert machine.is_at_rest()


def test_items_that_bring_asynchronous_effects_alone_do_not_stop_the_stream(machine: Machine) -> None:
    client, stream = machine.streaming()
    stream.says(reply("one", effect_two("a"), effect_two("b")))
    assert not stream.paused
    stream.says(no_reply(effect_two("c")))
    stream.says(reply("two"))
    stream.ends()
    assert (client.texts, client.status) == (["one", "two"], Status.OK)
    for effect in machine.user_function.streams[1:]:
        effect.ends(Status.INTERNAL)
    assert machine.router.failed_effects == 3
    assert machine.is_at_rest()


def test_a_slow_client_pauses_the_stream_until_it_has_drained(machine: Machine) -> None:
    client, stream = machine.streaming()
    client.flowing = False
    stream.says(reply("one"))
    assert stream.paused
    client.flowing = True
    machine.method("ProcessStreamedOut").on_drain(client)  # type: ignore[arg-type]
    assert not stream.paused


def test_a_client_that_drains_while_an_item_is_open_does_not_let_the_next_one_through(machine: Machine) -> None:
    client, stream = machine.streaming()
    client.flowing = False
    stream.says(reply("one", effect_two("a")))
    machine.method("ProcessStreamedOut").on_drain(client)  # type: ignore[arg-type]
    stream.says(reply("two", effect_two("slow", synchronous=True)))
    machine.method("ProcessStreamedOut").on_drain(client)  # type: ignore[arg-type]
    assert stream.paused
    machine.stream.says(reply())
    machine.stream.ends()
    machine.timers.turn()
    assert client.texts == ["one", "two"]
    assert stream.paused, "the client is full again"


def test_a_drain_during_a_forwarded_item_reaches_its_target(machine: Machine) -> None:
    client, stream = machine.streaming()
    target = action.ActionResponse(forward=command_forward("ProcessStreamedOut"))
    stream.says(target)
    forwarded = machine.stream
    client.flowing = False
    forwarded.says(reply("A"))
    assert forwarded.paused
    machine.method("ProcessStreamedOut").on_drain(client)  # type: ignore[arg-type]
    assert not forwarded.paused and stream.paused


def command_forward(name: str) -> Any:
    sent = command(name, ASKED)
    return {"service_name": MODEL, "command_name": name, "payload": sent.payload}


def test_what_comes_after_a_cancel_is_not_heard(machine: Machine) -> None:
    client, stream = machine.streaming()
    machine.cancel(client, "ProcessStreamedOut")
    assert stream.cancelled
    stream.says(reply("late", effect_two("late")))
    stream.says(failure("late"))
    stream.ends(Status.CANCELLED)
    assert client.texts == []
    assert len(machine.user_function.streams) == 1
    assert machine.metrics[MODEL].cancelled_calls == 1
    assert machine.is_at_rest()


def test_a_cancel_during_a_forwarded_item_cancels_both_and_during_an_effect_not_the_effect(machine: Machine) -> None:
    client, stream = machine.streaming()
    stream.says(forward_two("other"))
    target = machine.stream
    machine.cancel(client, "ProcessStreamedOut")
    assert stream.cancelled and target.cancelled
    client, stream = machine.streaming()
    stream.says(reply("one", effect_two("slow", synchronous=True), effect_two("next")))
    effect = machine.stream
    machine.cancel(client, "ProcessStreamedOut")
    assert stream.cancelled and not effect.cancelled
    effect.ends(Status.INTERNAL)
    machine.timers.turn()
    following = machine.stream
    assert following.sent == [command("Call", model.OtherRequest(id="next"), TWO)]
    following.says(reply())
    following.ends()
    assert client.texts == []


def test_a_call_that_waits_for_a_stream_holds_its_client_back(machine: Machine) -> None:
    machine.user_function.free = False
    client = machine.open("ProcessStreamed")
    assert client.paused
    machine.user_function.give()
    assert not client.paused
    assert machine.stream.sent == [opening("ProcessStreamed")]


def test_a_half_close_while_waiting_is_passed_on_with_the_opening(machine: Machine) -> None:
    machine.user_function.free = False
    client = machine.open("ProcessStreamedIn")
    machine.method("ProcessStreamedIn").on_half_close(client)  # type: ignore[arg-type]
    machine.user_function.give()
    assert machine.stream.sent == [opening("ProcessStreamedIn")]
    assert machine.stream.half_closed


def test_a_cancel_while_waiting_gives_the_place_up(machine: Machine) -> None:
    machine.user_function.free = False
    client = machine.ask("ProcessUnary")
    machine.cancel(client, "ProcessUnary")
    assert machine.is_at_rest()


def test_a_refused_stream_is_asked_for_again_with_all_that_was_said(machine: Machine) -> None:
    client = machine.open("ProcessStreamed")
    machine.stream.ends(Status.UNAVAILABLE, "refused", unprocessed=True)
    assert client.paused and not client.ended
    machine.method("ProcessStreamed").on_half_close(client)  # type: ignore[arg-type]
    machine.timers.turn()
    assert machine.stream.sent == [opening("ProcessStreamed")]
    assert machine.stream.half_closed
    machine.stream.says(reply("at last"))
    machine.stream.ends()
    assert (client.texts, client.status) == (["at last"], Status.OK)
    assert machine.is_at_rest()


def test_a_call_of_which_more_was_said_is_not_begun_anew(machine: Machine) -> None:
    client = machine.open("ProcessStreamed")
    machine.method("ProcessStreamed").on_message(client, ASKED.SerializeToString())  # type: ignore[arg-type]
    assert list(map(plain, machine.stream.sent)) == [opening("ProcessStreamed"), message(ASKED)]
    machine.stream.ends(Status.UNAVAILABLE, "refused", unprocessed=True)
    assert (client.status, client.details) == (Status.UNAVAILABLE, "refused")
    assert machine.is_at_rest()


def test_a_stream_refused_for_ever_is_unavailable_in_the_end(machine: Machine) -> None:
    client = machine.ask("ProcessUnary")
    for _ in range(MAX_REFUSALS):
        machine.stream.ends(Status.UNAVAILABLE, "refused", unprocessed=True)
        assert not client.ended
        machine.timers.turn()
    machine.stream.ends(Status.UNAVAILABLE, "refused", unprocessed=True)
    assert client.status == Status.UNAVAILABLE
    assert len(machine.user_function.streams) == MAX_REFUSALS + 1
    assert machine.is_at_rest()


def test_a_client_that_went_away_meanwhile_is_not_asked_for_again(machine: Machine) -> None:
    client = machine.ask("ProcessUnary")
    machine.stream.ends(Status.UNAVAILABLE, "refused", unprocessed=True)
    machine.cancel(client, "ProcessUnary")
    machine.timers.turn()
    assert len(machine.user_function.streams) == 1
    assert machine.is_at_rest()


def test_a_status_without_a_name_is_passed_on_and_of_an_effect_only_logged(machine: Machine) -> None:
    client, stream = machine.streaming()
    stream.says(reply("one", effect_two("odd", synchronous=True)))
    machine.stream.borrower.on_end(machine.stream, 99, "odd")
    machine.timers.turn()
    assert (client.texts, machine.router.failed_effects) == (["one"], 1)
