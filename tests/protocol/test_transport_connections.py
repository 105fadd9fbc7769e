"""Life of connections: capacity, draining, closing, loss, and that nothing is left behind."""

import asyncio
import gc
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from stateside._speedups import h2

from .transport_peers import GrpcioServer, OurClient, OurServer, eventually, meet

ROOT = Path(__file__).parents[2]
# A coroutine that raises while a server, a channel and a call between them are open.
FAILS = """
import asyncio
import uvloop
from stateside._speedups import h2

class Open(h2.Handler):
    def on_open(self, call):
        opened.set()

async def fails():
    global opened, server, channel, call
    opened = asyncio.Event()
    server = h2.Server(asyncio.get_running_loop(), lambda path: Open())
    port = await server.listen_tcp("127.0.0.1", 0)
    channel = await h2.Channel.connect(asyncio.get_running_loop(), "127.0.0.1", port)
    call = channel.open(b"/s/m", h2.Handler())
    call.send(b"x")
    await opened.wait()
    raise ValueError("the reason")

def test_fails():
    uvloop.run(fails())
"""

Run = Callable[[Coroutine[Any, Any, None]], None]
OK, CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNAVAILABLE = 0, 1, 4, 8, 14


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs a coroutine on the loop of this module: uvloop, and the plain one."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        yield lambda body: runner.run(body)


def test_a_graceful_close_finishes_open_calls_and_takes_no_new_ones(run: Run) -> None:
    async def body() -> None:
        server = OurServer()
        await server.start()
        client = OurClient(server.port)
        await client.start()
        changes: list[tuple[bool, bool]] = []
        client.channel.on_change = lambda channel: changes.append((channel.draining, channel.closed))
        call = client.open(b"Chat", [b"before"], half_close=False)
        await eventually(lambda: call.collector.messages)
        closing = asyncio.ensure_future(server.close(5.0))
        await eventually(lambda: client.channel.draining)
        with pytest.raises(h2.ChannelUnavailable, match="draining"):
            client.open(b"Unary", [b""])
        call.call.send(b"after")
        call.call.half_close()
        assert (await call.result()).messages == [b"before", b"after"]
        await asyncio.wait_for(closing, 2)
        await eventually(lambda: client.channel.closed)
        await eventually(lambda: changes[-1] == (True, True))
        assert changes[0] == (True, False)
        with pytest.raises(h2.ChannelUnavailable, match="closed"):
            client.open(b"Unary", [b""])

    run(body())


def test_a_close_without_grace_cancels_open_calls(run: Run) -> None:
    async def body() -> None:
        for client_kind in ("ours", "grpcio"):
            async with meet(client_kind, "ours") as (client, server):
                call = client.open(b"Never", [b""])
                await server.never_called()
                await server.close(0.0)
                assert server.never.cancelled == [CANCELLED]
                assert (await call.result()).status == UNAVAILABLE
                assert server.server.connections == 0

    run(body())


def test_a_grace_that_runs_out_cancels_the_rest(run: Run) -> None:
    async def body() -> None:
        async with meet("ours", "ours") as (client, server):
            call = client.open(b"Never", [b""])
            await eventually(lambda: server.never_opened)
            await asyncio.wait_for(server.close(0.1), 1)
            result = await call.result()
            assert result.status == UNAVAILABLE
            assert not call.call.unprocessed

    run(body())


def test_a_grpcio_server_that_stops_drains_our_channel(run: Run) -> None:
    async def body() -> None:
        async with meet("ours", "grpcio") as (client, server):
            assert (await client.call(b"Unary", [b"x"])).status == OK
            await server.close(0.1)
            await eventually(lambda: client.channel.draining or client.channel.closed)
            with pytest.raises(h2.ChannelUnavailable):
                client.open(b"Unary", [b""])

    run(body())


def test_closing_the_channel_ends_its_calls(run: Run) -> None:
    async def body() -> None:
        async with meet("ours", "ours") as (client, server):
            call = client.open(b"Never", [b""])
            await eventually(lambda: server.never_opened)
            client.channel.close()
            assert client.channel.closed
            result = await call.result()
            assert (result.status, call.call.unprocessed) == (UNAVAILABLE, False)
            await eventually(lambda: server.never.cancelled == [CANCELLED])

    run(body())


def test_the_server_refuses_calls_above_its_limit_politely(run: Run) -> None:
    async def body() -> None:
        for client_kind in ("ours", "grpcio"):
            async with meet(client_kind, "ours", limits=h2.Limits(max_streams=3)) as (client, server):
                calls = [client.open(b"Never", [b""], timeout=0.3) for _ in range(5)]
                statuses = sorted([(await call.result()).status for call in calls])
                assert statuses == [DEADLINE_EXCEEDED] * 3 + [RESOURCE_EXHAUSTED] * 2
                assert server.server.counters["refused_streams"] == 2

    run(body())


def test_the_channel_refuses_calls_above_its_own_limit(run: Run) -> None:
    async def body() -> None:
        async with meet("ours", "ours", client_limits=h2.Limits(max_streams=2)) as (client, _):
            changes: list[int] = []
            client.channel.on_change = lambda channel: changes.append(channel.capacity)
            calls = [client.open(b"Never", [b""]) for _ in range(2)]
            assert (client.channel.active, client.channel.capacity) == (2, 0)
            with pytest.raises(h2.ChannelUnavailable, match="capacity"):
                client.open(b"Unary", [b""])
            calls[0].cancel()
            await eventually(lambda: changes)
            assert changes == [1]
            assert (await client.call(b"Unary", [b""])).status == OK

    run(body())


def test_a_channel_honours_the_limit_of_a_grpcio_server(run: Run) -> None:
    async def body() -> None:
        server = GrpcioServer(settings=[("grpc.max_concurrent_streams", 7)])
        await server.start()
        client = OurClient(server.port)
        await client.start()
        assert client.channel.peer_max_streams == client.channel.capacity == 7
        assert (await client.call(b"Unary", [b""])).status == OK
        assert client.channel.capacity == 7
        await client.close()
        await server.close()

    run(body())


def test_a_call_may_be_opened_from_the_end_of_the_last_one_at_full_capacity(run: Run) -> None:
    class Chain(h2.Handler):
        def __init__(self, channel: h2.Channel) -> None:
            self.channel = channel
            self.ends = 0

        def on_end(self, call: h2.ClientCall, status: int, message: str) -> None:
            self.ends += 1
            if self.ends < 20:
                self.open()

        def open(self) -> None:
            call = self.channel.open(b"/contract.Service/Unary", self)
            call.send(b"x")
            call.half_close()

    async def body() -> None:
        async with meet("ours", "ours", client_limits=h2.Limits(max_streams=1)) as (client, _):
            chain = Chain(client.channel)
            chain.open()
            await eventually(lambda: chain.ends == 20)

    run(body())


def test_connecting_to_nobody_raises(run: Run) -> None:
    async def body() -> None:
        server = OurServer()
        await server.start()
        await server.close()
        with pytest.raises(OSError):
            await OurClient(server.port).start()

    run(body())


def test_unix_sockets_serve_as_well(run: Run, tmp_path_factory: pytest.TempPathFactory) -> None:
    class Tell(h2.Handler):
        unary = True

        def on_request(self, call: h2.ServerCall, message: bytes) -> None:
            call.reply(call.peer.encode())

    async def body() -> None:
        loop = asyncio.get_running_loop()
        path = str(tmp_path_factory.mktemp("unix") / "s")
        server = OurServer()
        server.routes[b"/contract.Service/Tell"] = Tell()
        await server.server.listen_unix(path)
        client = OurClient(0)
        client.channel = await h2.Channel.connect_unix(loop, path)
        assert (await client.call(b"Tell", [b""])).messages == [path.encode()]
        await client.close()
        await server.close()

    run(body())


def ended_program(*arguments: str, seconds: float) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)


def test_a_loop_ends_with_a_server_a_channel_and_a_call_left_open() -> None:
    ended = ended_program("-c", FAILS + "test_fails()", seconds=5)
    assert ended.returncode == 1
    assert ended.stderr.endswith("ValueError: the reason\n")


def test_a_failing_test_that_leaves_them_open_ends_with_its_own_failure(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(FAILS)
    ended = ended_program("-m", "pytest", "-c", "pyproject.toml", str(tmp_path / "test_it.py"), seconds=20)
    assert ended.returncode == 1
    assert "ValueError: the reason" in ended.stdout
    assert "unclosed resource" in ended.stdout


def test_nothing_is_left_behind(run: Run) -> None:
    async def body() -> None:
        gc.collect()
        await eventually(lambda: h2.live_objects() == before, f"{h2.live_objects()} like {before}")

    async def work() -> None:
        async with meet("ours", "ours") as (client, _):
            calls = [client.open(b"Chat", [bytes(1000)] * 300) for _ in range(20)]
            calls += [client.open(b"Never", [b""], timeout=0.05) for _ in range(20)]
            calls += [client.open(b"Count", [b"100 10000"]) for _ in range(10)]
            for call in calls[-5:]:
                call.call.pause()
            for call in calls[:5]:
                call.cancel()
            await asyncio.gather(*(call.result() for call in calls[:-5]))
            await eventually(lambda: client.channel.active == 5)

    gc.collect()
    before = h2.live_objects()
    run(work())
    run(body())
