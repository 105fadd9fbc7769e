"""The pool of connections to the user function: a peer's MAX_CONCURRENT_STREAMS is honoured, connections are opened
before anybody has to give up a stream, and only when there may be no more of them the pool is crowded."""

import asyncio
from collections.abc import Awaitable, Callable

import uvloop

from stateside._speedups.h2 import Channel, ClientCall, Handler, Limits, Server, ServerCall
from stateside.proto.status import Status
from stateside.proxy.config import Settings
from stateside.proxy.userfunction import UserFunction

STREAMS_PER_CONNECTION = 10
Scenario = Callable[[UserFunction, Server, asyncio.Queue[int]], Awaitable[None]]


class Borrower(Handler):
    """Asks for one stream, and keeps it."""

    def __init__(self, pool: UserFunction) -> None:
        self.pool = pool
        self.channel: Channel | None = None
        self.served = asyncio.Event()
        self.was_crowded = False
        self.refused: tuple[Status, str] | None = None

    def on_stream(self, stream: ClientCall) -> None:
        self.was_crowded = self.pool.crowded
        self.served.set()

    def on_no_stream(self, status: Status, reason: str) -> None:
        self.refused = (status, reason)


class Peer(Handler):
    """A user function that keeps every stream open until it is half-closed."""

    def on_half_close(self, call: ServerCall) -> None:
        call.finish()


def with_pool(scenario: Scenario, max_connections: int) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = Server(loop, lambda path: Peer(), limits=Limits(announced_streams=STREAMS_PER_CONNECTION))
        port = await server.listen_tcp("127.0.0.1", 0)
        settings = Settings(user_function_port=port, user_function_max_connections=max_connections)
        room_wanted: asyncio.Queue[int] = asyncio.Queue()

        def make_room(wanted: int) -> int:
            room_wanted.put_nowait(wanted)
            return 0

        pool = UserFunction(settings, make_room)
        try:
            await asyncio.wait_for(scenario(pool, server, room_wanted), 10)
        finally:
            await pool.close()
            await server.close()

    uvloop.run(run())


def ask(pool: UserFunction, count: int) -> list[Borrower]:
    borrowers = [Borrower(pool) for _ in range(count)]
    for borrower in borrowers:
        pool.request(b"/peer", borrower)
    return borrowers


def test_connections_are_opened_as_long_as_they_may_and_nobody_has_to_make_room() -> None:
    async def scenario(pool: UserFunction, server: Server, room_wanted: asyncio.Queue[int]) -> None:
        borrowers = ask(pool, 50)
        assert len(pool.waiting) == 50
        await asyncio.gather(*(borrower.served.wait() for borrower in borrowers))
        assert not any(borrower.was_crowded for borrower in borrowers)
        assert (pool.connections, pool.streams, room_wanted.qsize()) == (5, 50, 0)

    with_pool(scenario, max_connections=100)


def test_when_there_may_be_no_more_connections_the_pool_is_crowded_and_asks_for_room() -> None:
    async def scenario(pool: UserFunction, server: Server, room_wanted: asyncio.Queue[int]) -> None:
        borrowers = ask(pool, 25)
        assert await room_wanted.get() == 5
        assert pool.crowded
        assert (pool.connections, pool.streams, len(pool.waiting)) == (2, 20, 5)
        assert [borrower.served.is_set() for borrower in borrowers] == [True] * 20 + [False] * 5

    with_pool(scenario, max_connections=2)


def test_a_refused_further_connection_makes_the_pool_crowded() -> None:
    async def scenario(pool: UserFunction, server: Server, room_wanted: asyncio.Queue[int]) -> None:
        borrowers = ask(pool, STREAMS_PER_CONNECTION)
        await asyncio.gather(*(borrower.served.wait() for borrower in borrowers))
        server.stop_accepting()
        (late,) = ask(pool, 1)
        assert not pool.crowded
        assert await room_wanted.get() == 1
        assert pool.crowded
        assert (late.served.is_set(), late.refused) == (False, None)

    with_pool(scenario, max_connections=100)
