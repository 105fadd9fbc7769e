"""The link to another worker: in whatever order that worker comes and goes, clients leave and time passes, each command
is answered once, or forgotten when its client is."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import uvloop

from stateside._speedups.h2 import Call, Handler, Server, ServerCall, live_objects
from stateside.proto.status import Status
from stateside.proxy.config import Settings
from stateside.proxy.observations import Refusals
from stateside.proxy.relay_link import MAX_TRIES, Link

from ..helpers.nodes import until

PATH = b"/pkg.Service/Method"
NAME = "worker-1"


class Model:
    path = PATH
    server_streaming = False


class Method:
    """As much of an EntityMethod as a link looks at."""

    name = "pkg.Service.Method"
    output_type_url = "type"
    model = Model()


class Client:
    """What a caller offers; keeps what it gets."""

    def __init__(self, deadline: float = 0.0) -> None:
        self.deadline = deadline
        self.context: Any = None
        self.answers: list[Any] = []
        self.messages: list[bytes] = []
        self.headers: Sequence[tuple[bytes, bytes]] = ()
        self.trailers: Sequence[tuple[bytes, bytes]] = ()
        self.takes = True

    def start(self, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self.headers = headers

    def send(self, message: bytes) -> bool:
        self.messages.append(message)
        return self.takes

    def reply(self, message: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self.headers = headers
        self.answers.append(message)

    def finish(self, status: int = 0, message: str = "", trailers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self.trailers = trailers
        self.answers.append((Status(status), message))

    def cancel(self) -> None:
        if self.context is not None:
            self.context.on_client_cancel(Status.CANCELLED)

    @property
    def status(self) -> Status:
        ((status, _),) = self.answers
        return status

    @property
    def text(self) -> str:
        ((_, text),) = self.answers
        return str(text)


class Owner(Handler):
    """The other worker: answers at once, or keeps calls."""

    def __init__(self) -> None:
        self.unary = True
        self.wants_metadata = True
        self.keeps = False
        self.calls: list[ServerCall] = []
        self.cancelled: list[int] = []
        self.server: Server | None = None

    def on_request(self, call: ServerCall, message: bytes) -> None:
        self.calls.append(call)
        if not self.keeps:
            call.reply(message)

    def on_cancel(self, call: ServerCall, status: int) -> None:
        self.cancelled.append(status)


class Stage:
    """A link, and the worker behind it, which comes and goes."""

    def __init__(self, path: Path, settings: dict[str, str]) -> None:
        self.path = path / "relay.sock"
        self.refusals = Refusals()
        self.settings = Settings(**settings)  # type: ignore[arg-type]
        self.owner = Owner()
        self.link = Link(NAME, str(self.path), self.settings, self.refusals)

    async def up(self) -> None:
        self.owner.server = Server(asyncio.get_running_loop(), lambda path: self.owner)
        await self.owner.server.listen_unix(str(self.path))
        await until(lambda: self.link.is_up, "the link is up")

    async def down(self) -> None:
        """As if killed: connections drop."""
        server, self.owner.server = self.owner.server, None
        if server is not None:
            await server.close()
            await until(lambda: not self.link.is_up, "the link is down")

    def take(self, client: Client | None = None, message: bytes = b"command") -> Client:
        client = client or Client()
        self.link.command(client, Method(), message)  # type: ignore[arg-type]
        return client


Scenario = Callable[[Stage], Awaitable[None]]


def play(path: Path, scenario: Scenario, **settings: Any) -> None:
    async def run() -> None:
        gc.collect()  # what earlier tests left is not ours
        before = live_objects()["calls"]
        stage = Stage(path, settings)
        stage.link.start()
        try:
            await asyncio.wait_for(scenario(stage), 10)
        finally:
            await stage.link.close(0.0)
            await stage.down()
        assert not stage.link.waiting
        stage.owner.calls.clear()
        await until(lambda: live_objects()["calls"] == before, "no call is left")

    uvloop.run(run())


async def answered(client: Client) -> None:
    await until(lambda: bool(client.answers), "an answer")


# --- orders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("events", list(permutations(("take", "take", "up", "cancel", "down"))), ids="-".join)
def test_whatever_the_order_each_command_is_answered_once_or_forgotten(tmp_path: Path, events: tuple[str, ...]) -> None:
    """The owner keeps what it gets while all of that happens, and answers what is left at the end."""

    async def scenario(stage: Stage) -> None:
        stage.owner.keeps = True
        clients: list[Client] = []
        cancelled: list[Client] = []
        for event in events:
            if event == "take":
                up = stage.link.is_up
                clients.append(stage.take())
                if up:
                    await until(lambda: len(stage.owner.calls) >= len(clients) - len(cancelled), "the owner has it")
            elif event == "cancel":
                for client in clients[:1]:
                    if not client.answers:
                        client.cancel()
                        cancelled.append(client)
            else:
                await getattr(stage, event)()
        stage.owner.keeps = False
        if not stage.link.is_up:
            await stage.up()
        for call in stage.owner.calls:
            call.reply(b"late")
        for client in clients:
            if client not in cancelled:
                await answered(client)
        assert [len(client.answers) for client in clients] == [client not in cancelled for client in clients]
        for client in clients:
            assert client.context is None

    play(tmp_path, scenario)


def test_commands_wait_in_order_until_the_worker_is_there(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        clients = [stage.take(message=b"%d" % number) for number in range(100)]
        assert len(stage.link.waiting) == 100
        stage.owner.keeps = True
        await stage.up()
        await until(lambda: len(stage.owner.calls) == 100, "all commands came")
        for number, call in enumerate(stage.owner.calls):
            call.reply(b"%d" % number)
        for number, client in enumerate(clients):
            await answered(client)
            assert client.answers == [b"%d" % number]

    play(tmp_path, scenario)


def test_a_command_that_the_worker_had_when_it_went_away_has_an_unknown_outcome(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.up()
        stage.owner.keeps = True
        client = stage.take()
        await until(lambda: bool(stage.owner.calls), "the owner has it")
        await stage.down()
        await answered(client)
        assert client.status == Status.UNAVAILABLE
        assert client.text == f"{NAME} went away while it had the command: whether it was done is not known"
        assert stage.link.broken == 1
        stage.owner.keeps = False
        await stage.up()
        again = stage.take()
        await answered(again)
        assert again.answers == [b"command"]

    play(tmp_path, scenario)


def test_a_command_that_the_worker_surely_never_saw_is_sent_again_but_not_for_ever(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        client = stage.take()
        (passed,) = stage.link.waiting
        await stage.up()
        await answered(client)
        assert passed.tries == 1
        stage.owner.keeps = True
        client = stage.take()
        passed = client.context
        stage.link.on_broken(passed, True)
        assert passed in stage.link.waiting and not client.answers
        await until(lambda: len(stage.owner.calls) == 3, "it was sent again")
        assert passed.tries == 2
        for _ in range(MAX_TRIES - 2):
            stage.link.on_broken(passed, True)
            await until(lambda: not stage.link.waiting, "it was sent again")
        stage.link.on_broken(passed, True)
        assert client.status == Status.UNAVAILABLE and stage.link.away == 1

    play(tmp_path, scenario)


# --- time and bounds -------------------------------------------------------------------------------------------------


def test_a_worker_that_does_not_come_back_in_time_is_named(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        first = stage.take()
        await asyncio.sleep(0.05)
        second = stage.take()
        await answered(first)
        assert first.status == Status.UNAVAILABLE
        assert first.text == f"{NAME}, which owns the entity, did not come back within relay_timeout (0.1 s)"
        assert not second.answers, "it has waited for half as long"
        await answered(second)
        assert stage.link.away == 2
        await stage.up()
        third = stage.take()
        await answered(third)
        assert third.answers == [b"command"]

    play(tmp_path, scenario, relay_timeout=0.1)


def test_a_full_queue_refuses_by_its_name(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        waiting = [stage.take(), stage.take()]
        refused = stage.take()
        assert refused.status == Status.RESOURCE_EXHAUSTED
        assert refused.text == f"2 commands (relay_queue) already wait for {NAME}, which owns the entity"
        assert stage.refusals.counts == {"relay_queue": 1}
        waiting[0].cancel()
        assert not stage.take().answers, "there is room again"
        await stage.up()
        await answered(waiting[1])

    play(tmp_path, scenario, relay_queue=2)


def test_nobody_waits_any_more_when_the_proxy_stops(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        waiting = stage.take()
        await stage.link.close(0.0)
        assert (waiting.status, waiting.text) == (Status.UNAVAILABLE, "the proxy is stopping")
        assert stage.take().status == Status.UNAVAILABLE

    play(tmp_path, scenario)


def test_what_is_under_way_when_the_proxy_stops_is_waited_for(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.up()
        stage.owner.keeps = True
        client = stage.take()
        await until(lambda: bool(stage.owner.calls), "the owner has it")
        closing = asyncio.create_task(stage.link.close(5.0))
        await asyncio.sleep(0.05)
        assert not closing.done()
        stage.owner.calls[0].reply(b"in time")
        await closing
        assert client.answers == [b"in time"]
        stage.owner.server, server = None, stage.owner.server
        assert server is not None
        await server.close()

    play(tmp_path, scenario)


def test_a_worker_that_drains_answers_what_it_has_and_gets_nothing_more(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.up()
        stage.owner.keeps = True
        client = stage.take()
        await until(lambda: bool(stage.owner.calls), "the owner has it")
        server = stage.owner.server
        assert server is not None
        draining = asyncio.create_task(server.close(5.0))
        await until(lambda: not stage.link.is_up, "the link knows")
        later = stage.take()
        assert len(stage.link.waiting) == 1
        stage.owner.calls[0].reply(b"the last one")
        await answered(client)
        assert client.answers == [b"the last one"]
        await draining
        stage.owner.keeps = False
        await stage.up()
        await answered(later)

    play(tmp_path, scenario)


# --- what passes -----------------------------------------------------------------------------------------------------


def test_headers_status_message_and_trailers_come_back_as_they_are(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.up()
        stage.owner.keeps = True
        replied, failed, both = stage.take(), stage.take(), stage.take()
        await until(lambda: len(stage.owner.calls) == 3, "the owner has them")
        one, two, three = stage.owner.calls
        one.reply(b"answer", [(b"x-one", b"1")])
        two.finish(Status.ABORTED, "käse %", [(b"x-two", b"2")])
        three.start([(b"x-three", b"3")])
        three.send(b"answer")
        three.finish(Status.OK, "", [(b"x-four", b"4")])
        for client in (replied, failed, both):
            await answered(client)
        assert (replied.answers, list(replied.headers)) == ([b"answer"], [(b"x-one", b"1")])
        assert failed.answers == [(Status.ABORTED, "käse %")]
        assert list(failed.trailers) == [(b"x-two", b"2")]
        assert (both.messages, both.answers) == ([b"answer"], [(Status.OK, "")])
        assert (list(both.headers), list(both.trailers)) == ([(b"x-three", b"3")], [(b"x-four", b"4")])

    play(tmp_path, scenario)


def test_an_unavailable_that_the_worker_says_is_an_answer(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.up()
        stage.owner.keeps = True
        client = stage.take()
        await until(lambda: bool(stage.owner.calls), "the owner has it")
        stage.owner.calls[0].fail(Status.UNAVAILABLE, "the user function is not available")
        await answered(client)
        assert client.text == "the user function is not available"
        assert (stage.link.broken, stage.link.away) == (0, 0)

    play(tmp_path, scenario)


def test_what_is_left_of_the_deadline_goes_along(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.up()
        stage.owner.keeps = True
        now = asyncio.get_running_loop().time()
        stage.take(Client(deadline=now + 100.0))
        stage.take()
        late = stage.take(Client(deadline=now - 1.0))
        await until(lambda: len(stage.owner.cancelled) == 1, "one was over at once")
        await answered(late)
        assert late.status == Status.DEADLINE_EXCEEDED
        assert 99.0 < stage.owner.calls[0].deadline - now < 101.0
        assert stage.owner.calls[1].deadline == 0.0

    play(tmp_path, scenario)


def test_a_client_that_leaves_is_told_to_the_worker(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.up()
        stage.owner.keeps = True
        client = stage.take()
        await until(lambda: bool(stage.owner.calls), "the owner has it")
        client.cancel()
        await until(lambda: stage.owner.cancelled == [Status.CANCELLED], "the owner knows")
        assert not client.answers and client.context is None

    play(tmp_path, scenario)


class Streams(Owner):
    def __init__(self) -> None:
        super().__init__()
        self.unary = False
        self.blocked: list[Call] = []

    def on_message(self, call: Call, message: bytes) -> None:
        self.calls.append(call)  # type: ignore[arg-type]


def test_a_slow_client_stops_the_worker_and_a_faster_one_lets_it_go_on(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.owner = Streams()
        await stage.up()
        client = Client()
        client.takes = False
        stage.link.passage.take(client, PATH, b"", True)
        await until(lambda: bool(stage.owner.calls), "the owner has it")
        call = stage.owner.calls[0]
        message = b"x" * 10_000
        sent = 0
        while call.send(message):
            sent += 1
            await asyncio.sleep(0)
            assert sent < 1000, "nothing stops the worker"
        assert len(client.messages) < 20
        before = len(client.messages)
        await asyncio.sleep(0.02)
        assert len(client.messages) == before
        client.takes = True
        client.context.on_client_drain()
        await until(lambda: len(client.messages) == sent + 1, "all messages came")
        call.finish()
        await answered(client)
        assert client.status == Status.OK

    play(tmp_path, scenario)
