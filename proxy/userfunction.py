"""The connections to the user function: who gets a stream, when another connection is opened, and who waits.

Every active entity holds one stream for as long as it is active, so thousands of streams are normal; every call of an
action holds one until it is over. A peer's
MAX_CONCURRENT_STREAMS is honoured and followed as it changes. Further connections are opened before anybody has to
wait; when there may be no more of them, those who wait are served in order as idle entities give their streams up.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Protocol

from stateside._speedups.h2 import Channel, ChannelUnavailable, ClientCall, Handler, Limits
from stateside.proto.status import Status
from stateside.proxy import logs
from stateside.proxy.config import Settings

UNLIMITED = 2**31 - 1  # announced by peers that mean "as many as you like"

log = logs.get(__name__)


class Borrower(Protocol):
    """Who asks for a stream and holds it: it is the transport's handler of that stream."""

    channel: Channel | None

    def on_stream(self, stream: ClientCall) -> None: ...

    def on_no_stream(self, status: Status, reason: str) -> None: ...


def channel_limits(settings: Settings) -> Limits:
    """Bounds of a connection to the user function. No keepalive: many gRPC servers take PINGs without calls for abuse
    and close the connection, which would look like a user function that restarts."""
    return Limits(
        max_message_size=settings.max_inbound_message_size,
        max_streams=UNLIMITED,
        send_high_water=settings.relay_buffer,
        send_low_water=settings.relay_buffer // 4,
    )


async def connect(settings: Settings, tls: ssl.SSLContext | None = None) -> Channel:
    """A new connection to the user function. Raises OSError when there is none to be had, also when TLS fails."""
    loop = asyncio.get_running_loop()
    limits = channel_limits(settings)
    async with asyncio.timeout(settings.connect_timeout):
        if settings.user_function_socket:
            return await Channel.connect_unix(loop, settings.user_function_socket, limits=limits)
        host, name = settings.user_function_host, settings.user_function_tls_server_name
        return await Channel.connect(
            loop,
            host,
            settings.user_function_port,
            limits=limits,
            ssl=tls,
            server_hostname=(name or host) if tls is not None else None,
        )


def timeout_until(deadline: float) -> float:
    """Seconds from now; a moment if it is over, for 0 would mean that there is none."""
    return max(deadline - asyncio.get_running_loop().time(), 0.001)


class UserFunction:
    """The pool. Bounds: `user_function_max_connections`, `user_function_streams_per_connection` (unless the peer
    clearly allows more), `user_function_max_waiting`."""

    def __init__(self, settings: Settings, make_room: Callable[[int], int], tls: ssl.SSLContext | None = None) -> None:
        """`make_room(n)` passivates up to n idle entities, because as many wait."""
        self._settings = settings
        self._tls = tls
        self._make_room = make_room
        self._channels: list[Channel] = []
        self._roomy: list[Channel] = []  # candidates with room; checked when used
        self.waiting: dict[Borrower, tuple[bytes, float]] = {}
        self._connecting: asyncio.Task[None] | None = None
        self._refused = False  # the last attempt at a further connection failed
        self._closed = False
        self.streams = 0
        self.refused = 0  # because too many wait

    @property
    def crowded(self) -> bool:
        """Some wait for a stream, and only those who hold one can help: there may or can be no further connection."""
        most = self._settings.user_function_max_connections
        return bool(self.waiting) and (self._refused or len(self._channels) >= most)

    @property
    def connections(self) -> int:
        return len(self._channels)

    def request(self, path: bytes, borrower: Borrower, deadline: float = 0.0) -> None:
        """Ask for a stream: `on_stream` follows, possibly at once, or `on_no_stream`, later. Its `deadline` is in loop
        time; 0.0 = none."""
        if not self.waiting and self._open(path, borrower, deadline):
            return
        if len(self.waiting) >= self._settings.user_function_max_waiting:
            limit = f"{len(self.waiting)} others (user_function_max_waiting) wait for a stream to the user function"
            self.refused += 1
            # Not at once: the command that asks is not yet among those that wait for an answer.
            asyncio.get_running_loop().call_soon(borrower.on_no_stream, Status.RESOURCE_EXHAUSTED, limit)
            return
        self.waiting[borrower] = (path, deadline)
        self._grow()

    def withdraw(self, borrower: Borrower) -> None:
        """Waits no longer."""
        self.waiting.pop(borrower, None)

    def release(self, borrower: Borrower) -> None:
        """The borrower's stream has ended."""
        channel, borrower.channel = borrower.channel, None
        self.streams -= 1
        if not self.waiting and self._roomy and self._roomy[-1] is channel:
            return  # known to have room, and looked at when used
        if channel is not None and not channel.closed and not channel.draining:
            self._has_room(channel)

    async def close(self) -> None:
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        for channel in self._channels:
            channel.close()

    def _open(self, path: bytes, borrower: Borrower, deadline: float) -> bool:
        roomy = self._roomy
        while roomy:
            channel = roomy[-1]
            if self._room(channel) > 0:
                try:
                    assert isinstance(borrower, Handler)
                    stream = channel.open(path, borrower, timeout=timeout_until(deadline) if deadline else 0.0)
                except ChannelUnavailable:
                    pass
                else:
                    borrower.channel = channel
                    self.streams += 1
                    borrower.on_stream(stream)
                    return True
            roomy.pop()
        return False

    def _room(self, channel: Channel) -> int:
        allowed = channel.peer_max_streams
        if allowed >= UNLIMITED:  # announced nothing in particular: be modest
            return min(channel.capacity, self._settings.user_function_streams_per_connection - channel.active)
        return channel.capacity

    def _has_room(self, channel: Channel) -> None:
        if self._room(channel) > 0:
            if not self._roomy or self._roomy[-1] is not channel:
                if channel in self._roomy:
                    self._roomy.remove(channel)
                self._roomy.append(channel)
            if self.waiting:
                asyncio.get_running_loop().call_soon(self._serve)

    def _serve(self) -> None:
        """Give streams to those who wait, in order."""
        while self.waiting:
            borrower, (path, deadline) = next(iter(self.waiting.items()))
            del self.waiting[borrower]
            if not self._open(path, borrower, deadline):
                self.waiting = {borrower: (path, deadline)} | self.waiting
                self._grow()
                return

    def _grow(self) -> None:
        if self._connecting is not None or self._closed:
            return
        if len(self._channels) < self._settings.user_function_max_connections:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
        else:
            self._make_room(len(self.waiting))

    async def _connect(self) -> None:
        try:
            channel = await connect(self._settings, self._tls)
        except (OSError, TimeoutError) as error:
            self._connecting = None
            self._refuse(error)
        else:
            self._connecting = None
            self._refused = False
            channel.on_change = self._on_change
            self._channels.append(channel)
            self._has_room(channel)

    def _refuse(self, error: Exception) -> None:
        """No connection: tell those who wait, unless streams of other connections will come free for them."""
        self._refused = bool(self._channels)
        if self._refused:
            self._make_room(len(self.waiting))
            return
        waiting, self.waiting = self.waiting, {}
        for borrower in waiting:
            borrower.on_no_stream(Status.UNAVAILABLE, f"the user function is not available: {error or 'no answer'}")

    def _on_change(self, channel: Channel) -> None:
        if channel.closed or channel.draining:
            if channel in self._channels:
                self._channels.remove(channel)
            if channel in self._roomy:
                self._roomy.remove(channel)
            if self.waiting:
                self._grow()
        else:
            self._has_room(channel)
