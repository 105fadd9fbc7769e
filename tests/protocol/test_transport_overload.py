"""Calls beyond what the server can take are refused politely, those under way go on; and all of them are counted."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from stateside._speedups import h2
from stateside._speedups.accesslog import AccessLog

from .transport_peers import SERVICE, OurClient, OurServer, eventually

Run = Callable[[Coroutine[Any, Any, None]], None]
OK, CANCELLED, RESOURCE_EXHAUSTED, UNIMPLEMENTED = 0, 1, 8, 12


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield lambda body: runner.run(body)


@asynccontextmanager
async def served(**limits: Any) -> AsyncIterator[tuple[OurServer, OurClient]]:
    server = OurServer(h2.Limits(**limits))
    await server.start()
    client = OurClient(server.port)
    await client.start()
    yield server, client
    await client.close()
    await server.close()


async def waiting(server: OurServer, client: OurClient, count: int) -> list[Any]:
    """So many calls that are never answered."""
    before = server.never.opened
    calls = [client.open(b"Never", [b""]) for _ in range(count)]
    await server.never_called(before + count)
    return calls


async def leave(server: OurServer, *calls: Any) -> None:
    streams = server.server.streams
    for call in calls:
        call.cancel()
        await call.result()
    await eventually(lambda: server.server.streams == streams - len(calls))


def of(server: OurServer, method: bytes) -> h2.CallFigures:
    (found,) = (each for each in server.server.figures if each.path == SERVICE + method)
    return found


# --- too many --------------------------------------------------------------------------------------------------------


def test_calls_above_the_bound_are_refused_until_a_tenth_has_gone(run: Run) -> None:
    async def body() -> None:
        async with served() as (server, client):
            server.server.max_calls = 20
            calls = await waiting(server, client, 20)
            refused = await client.call(b"Unary", [b"x"])
            assert refused.status == RESOURCE_EXHAUSTED
            assert refused.text == "the proxy is overloaded (max_calls_in_flight); try again later"
            await leave(server, calls.pop())
            assert (await client.call(b"Unary", [b"x"])).status == RESOURCE_EXHAUSTED
            await leave(server, calls.pop(), calls.pop())
            assert (await client.call(b"Unary", [b"x"])).messages == [b"x"]
            assert server.server.shed == {"max_calls_in_flight": 2}
            assert of(server, b"Never").codes == {"CANCELLED": 3}
            await leave(server, *calls)

    run(body())


def test_the_bound_holds_over_all_connections_and_counts_calls_that_came_another_way(run: Run) -> None:
    async def body() -> None:
        async with served() as (server, client):
            server.server.max_calls = 4
            server.server.other_calls = 2
            other = OurClient(server.port)
            await other.start()
            calls = [*await waiting(server, client, 1), *await waiting(server, other, 1)]
            assert (await client.call(b"Unary", [b"x"])).status == RESOURCE_EXHAUSTED
            assert server.server.refusal() == "max_calls_in_flight"
            server.server.other_calls = 0
            assert server.server.refusal() is None
            assert (await other.call(b"Unary", [b"x"])).status == OK
            await leave(server, *calls)
            await other.close()

    run(body())


def test_a_call_that_is_counted_already_is_not_refused_because_of_itself(run: Run) -> None:
    async def body() -> None:
        async with served() as (server, client):
            server.server.max_calls = 1
            (call,) = await waiting(server, client, 1)
            assert server.server.refusal(1) is None
            assert server.server.refusal() == "max_calls_in_flight"
            await leave(server, call)

    run(body())


def test_no_bound_means_any_number(run: Run) -> None:
    async def body() -> None:
        async with served() as (server, client):
            assert server.server.max_calls == 0
            await leave(server, *await waiting(server, client, 200))
            assert server.server.shed == {}

    run(body())


def test_shedding_refuses_new_calls_and_leaves_those_under_way(run: Run) -> None:
    async def body() -> None:
        async with served() as (server, client):
            under_way = client.open(b"Chat", [b"before"], half_close=False)
            await under_way.first_message()
            server.server.shedding = "max_loop_lag"
            refused = await client.call(b"Unary", [b"x"])
            assert (refused.status, refused.messages) == (RESOURCE_EXHAUSTED, [])
            assert "max_loop_lag" in refused.text
            under_way.call.send(b"after")
            under_way.call.half_close()
            result = await under_way.result()
            assert (result.status, result.messages) == (OK, [b"before", b"after"])
            server.server.shedding = None
            assert (await client.call(b"Unary", [b"x"])).status == OK
            assert server.server.shed == {"max_loop_lag": 1}

    run(body())


def test_essential_calls_are_taken_however_loaded_the_server_is(run: Run) -> None:
    class Essential(h2.Handler):
        unary = True
        essential = True

        def on_request(self, call: h2.ServerCall, message: bytes) -> None:
            call.reply(message)

    async def body() -> None:
        loop = asyncio.get_running_loop()
        server = h2.Server(loop, {SERVICE + b"Check": Essential()}.get)
        client = OurClient(await server.listen_tcp("127.0.0.1", 0))
        await client.start()
        server.shedding = "max_memory"
        assert (await client.call(b"Check", [b"?"])).messages == [b"?"]
        assert server.shed == {}
        await client.close()
        await server.close()

    run(body())


# --- figures ---------------------------------------------------------------------------------------------------------


def test_calls_are_counted_by_path_and_status_with_their_times_and_bytes(run: Run) -> None:
    async def body() -> None:
        async with served() as (server, client):
            for _ in range(3):
                await client.call(b"Unary", [b"12345"])
            figures = of(server, b"Unary")
            assert figures.codes == {"OK": 3}
            assert (figures.bytes_in, figures.bytes_out) == (30, 30)  # with the prefix of each
            assert figures.seconds.count == 3
            assert 0 < figures.seconds.sum < 5
            (call,) = await waiting(server, client, 1)
            await leave(server, call)
            assert of(server, b"Never").codes == {"CANCELLED": 1}

    run(body())


def test_unknown_paths_are_counted_together(run: Run) -> None:
    async def body() -> None:
        async with served() as (server, client):
            for number in range(50):
                assert (await client.call(b"Nobody%d" % number, [b""])).status == UNIMPLEMENTED
            (others,) = (each for each in server.server.figures if not each.path)
            assert others.codes == {"UNIMPLEMENTED": 50}
            assert len(server.server.figures) == 1

    run(body())


def test_figures_survive_a_new_routing_table(run: Run) -> None:
    async def body() -> None:
        async with served() as (server, client):
            await client.call(b"Unary", [b"x"])
            server.server.forget()
            await client.call(b"Unary", [b"x"])
            assert of(server, b"Unary").codes == {"OK": 2}

    run(body())


# --- the access log --------------------------------------------------------------------------------------------------


def test_every_call_has_its_line(run: Run) -> None:
    async def body() -> None:
        async with served() as (server, client):
            log = server.server.access_log = AccessLog(json=True, keys=False, most=1 << 20)
            await client.call(b"Unary", [b"12345"])
            await client.call(b'No"body\\', [b""])
            server.server.shedding = "max_memory"
            await client.call(b"Unary", [b""])
            server.server.access_log = None
            await client.call(b"Unary", [b""])
            lines = written(log)
            assert [(line["method"], line["status"]) for line in lines] == [
                ("/contract.Service/Unary", "OK"),
                ('/contract.Service/No"body\\', "UNIMPLEMENTED"),
                ("/contract.Service/Unary", "RESOURCE_EXHAUSTED"),
            ]
            first = lines[0]
            assert (first["protocol"], first["bytes_in"], first["bytes_out"]) == ("grpc", 10, 10)
            assert first["peer"].startswith("127.0.0.1:")
            assert 0 < first["seconds"] < 5

    run(body())


def written(log: AccessLog) -> list[dict[str, Any]]:
    reader, writer = os.pipe()
    assert log.drain(writer) == 0
    os.close(writer)
    with open(reader) as file:
        return [json.loads(line) for line in file]
