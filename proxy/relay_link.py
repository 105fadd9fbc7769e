"""The way of commands to one other worker: a connection that is made again and again, and those that wait for it.

On the way of a command this file stands between `Entities.activate`, which found that the entity is another worker's,
and that worker's relay socket. `Passage` (compiled) passes calls on and answers back; here is what happens when it
cannot. While the other worker is away commands wait, in order and bounded by `relay_queue`, until it is back, their
client gives up, or `relay_timeout` is over. A command that the other worker surely never saw is sent again; of one that
it may have seen nobody knows the outcome, so it fails.

    take -> sent ------------------------------> answered
              | connection lost, never seen        ^    connection lost otherwise -> UNAVAILABLE
              v                                    |
            waits (client leaves: forgotten) -> sent again
              queue full -> RESOURCE_EXHAUSTED    relay_timeout -> UNAVAILABLE
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from stateside._speedups.h2 import Channel, Limits, Passage, ServerCall
from stateside.proto.status import Status
from stateside.proxy import logs
from stateside.proxy.grpc_web import GrpcWebCall
from stateside.proxy.relay_way import HEARS, headers_of

if TYPE_CHECKING:
    from stateside._speedups.h2 import PassedCall
    from stateside.proxy.activation import EntityMethod
    from stateside.proxy.config import Settings
    from stateside.proxy.effects import Client
    from stateside.proxy.metrics import Refusals

MAX_TRIES = 5  # of a command that the other worker never saw
BACKOFF_S = (0.01, 0.2)
AGAIN_S = 0.01  # before a command is sent again over a connection that refused it
RETIRED_CHECK_S = 0.1  # whether a connection that takes no more calls has got all its answers
# Between workers. What is sent was admitted at the main port; a slow client holds one stream window, never the others.
MAX_STREAMS = 100_000
STREAM_WINDOW = 64 << 10
CONNECTION_WINDOW = 1 << 30
HEADER_BYTES = 256 << 10
HEADERS = 1000
RESETS = 1_000_000  # clients cancel as they like

log = logs.get(__name__)


def limits(settings: Settings) -> Limits:
    """Bounds of a connection between two workers. A worker that leaves a PING unanswered is gone, as its supervisor
    has it."""
    return Limits(
        max_message_size=max(settings.max_request_size, settings.max_inbound_message_size),
        max_header_bytes=HEADER_BYTES,
        max_header_count=HEADERS,
        max_streams=MAX_STREAMS,
        stream_window=STREAM_WINDOW,
        connection_window=CONNECTION_WINDOW,
        reset_burst=RESETS,
        reset_rate=RESETS,
        header_timeout=0.0,
        keepalive_interval=settings.worker_timeout / 2,
        keepalive_timeout=settings.worker_timeout,
    )


class Link:
    """To one worker. `waiting` are those that are not sent. `away` and `broken` count commands that failed because the
    worker did not come back in time, or went away with them."""

    def __init__(self, name: str, path: str, settings: Settings, refusals: Refusals) -> None:
        """name: of the worker, as operators know it. path: of its relay socket."""
        self.name = name
        self.passage = Passage(self)
        self.waiting: dict[PassedCall, None] = {}
        self.away = 0
        self.broken = 0
        self._path = path
        self._limits = limits(settings)
        self._bound = settings.relay_queue
        self._timeout = settings.relay_timeout
        self._refusals = refusals
        self._loop = asyncio.get_running_loop()
        self._lost = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def is_up(self) -> bool:
        return self.passage.channel is not None

    def command(self, client: Client, method: EntityMethod, message: bytes) -> None:
        """A command for an entity of the other worker. Its client hears from us, whatever becomes of it."""
        model = method.model
        if type(client) is ServerCall and client.context is None:  # as a client sent it
            self.passage.take(client, model.path, message, model.server_streaming)
            return
        headers = headers_of(client, method)
        if isinstance(client, GrpcWebCall):
            client.handler = HEARS
        self.passage.take(client, model.path, message, model.server_streaming, headers)

    # --- the connection ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._keeping = self._loop.create_task(self._keep())

    async def close(self, grace: float) -> None:
        """Send nothing more, and wait so long for what is under way."""
        self._is_closed = True
        channel, self.passage.channel = self.passage.channel, None
        if self._keeping is not None:
            self._keeping.cancel()
        for passed in list(self.waiting):
            self._withdraw(passed)
            passed.fail(Status.UNAVAILABLE, "the proxy is stopping")
        end = self._loop.time() + grace
        while channel is not None:
            if not channel.active or self._loop.time() >= end:
                channel.close()
                return
            await asyncio.sleep(RETIRED_CHECK_S / 10)

    async def _keep(self) -> None:
        """Connect, as often as it takes."""
        shortest, longest = BACKOFF_S
        delay = shortest
        while True:
            try:
                channel = await Channel.connect_unix(self._loop, self._path, limits=self._limits)
            except (OSError, TimeoutError):
                await asyncio.sleep(delay)
                delay = min(2 * delay, longest)
            else:
                delay = shortest
                self.on_up(channel)
                await self._lost.wait()

    def on_up(self, channel: Channel) -> None:
        """The other worker is there."""
        log.info("connected to a worker", worker=self.name)
        self._lost.clear()
        self.passage.channel = channel
        channel.on_change = self._on_change
        self._serve()

    def _on_change(self, channel: Channel) -> None:
        if channel is not self.passage.channel:
            return
        if not channel.closed and not channel.draining:
            self._serve()
            return
        log.warning("a worker is away", worker=self.name)
        self.passage.channel = None
        self._retire(channel)
        self._lost.set()

    def _retire(self, channel: Channel) -> None:
        """It takes no more calls, but those under way may end well."""
        if channel.active and not channel.closed:
            self._loop.call_later(RETIRED_CHECK_S, self._retire, channel)
        else:
            channel.close()

    # --- those that wait ---------------------------------------------------------------------------------------------

    def on_waiting(self, passed: PassedCall) -> None:
        if self._is_closed:
            passed.fail(Status.UNAVAILABLE, "the proxy is stopping")
        elif len(self.waiting) >= self._bound:
            self._refusals.count("relay_queue")
            text = f"{self._bound} commands (relay_queue) already wait for {self.name}, which owns the entity"
            passed.fail(Status.RESOURCE_EXHAUSTED, text)
        else:
            passed.since = self._loop.time()
            self.waiting[passed] = None
            self.passage.holding = True
            if self._timer is None:
                self._timer = self._loop.call_later(self._timeout, self._on_time)

    def on_withdrawn(self, passed: PassedCall) -> None:
        self._withdraw(passed)

    def on_broken(self, passed: PassedCall, unprocessed: bool) -> None:
        if not unprocessed:
            self.broken += 1
            text = f"{self.name} went away while it had the command: whether it was done is not known"
            passed.fail(Status.UNAVAILABLE, text)
        elif passed.tries >= MAX_TRIES:
            self.away += 1
            passed.fail(Status.UNAVAILABLE, f"{self.name}, which owns the entity, did not take the command")
        else:
            self.on_waiting(passed)
            self._loop.call_later(AGAIN_S, self._serve)

    def _withdraw(self, passed: PassedCall) -> None:
        self.waiting.pop(passed, None)
        self.passage.holding = bool(self.waiting)

    def _serve(self) -> None:
        """Send those that wait, in order."""
        for passed in list(self.waiting):
            if not self.passage.pass_on(passed):
                return
            del self.waiting[passed]
        self.passage.holding = False

    def _on_time(self) -> None:
        """Whoever has waited for too long has no answer to hope for."""
        self._timer = None
        due = self._loop.time() - self._timeout
        text = f"{self.name}, which owns the entity, did not come back within relay_timeout ({self._timeout:g} s)"
        for passed in list(self.waiting):
            if passed.since > due:
                self._timer = self._loop.call_at(passed.since + self._timeout, self._on_time)
                return
            self._withdraw(passed)
            self.away += 1
            passed.fail(Status.UNAVAILABLE, text)
