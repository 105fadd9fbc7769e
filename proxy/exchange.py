"""A request over HTTP and its answer, whatever version of HTTP carries them.

A route is a plain function from a whole `Request` to its answer: a `Response` that is there, or a `Later`, which is
answered when whoever it asked has answered, at once or piece by piece. HTTP/1.1 (http1.py) and HTTP/2 (http2.py, the
transport) carry both alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol, TypeAlias, runtime_checkable
from urllib.parse import parse_qs

PLAIN_TEXT = "text/plain; charset=utf-8"


@dataclass(slots=True)
class Request:
    """A request. Header names are in lower case; of repeated headers the last one counts, `fields` has them all.
    `body` is empty where the service does not keep bodies. `routed`: the path of the method that it reached, written by
    the route for metrics and access log; `protocol`: what it speaks above HTTP, if that has a name."""

    method: str = ""
    target: bytes = b""
    path: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    version: str = "1.1"
    peer: str = ""
    routed: str = ""
    protocol: str = ""

    def query(self, name: str) -> list[str]:
        """All values of a query parameter."""
        text = self.target.partition(b"?")[2].decode("latin-1")
        return parse_qs(text, max_num_fields=1000).get(name, [])


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. `headers` are further ones, beside type and length; an empty type is not sent."""

    status: HTTPStatus
    body: bytes = b""
    content_type: str = PLAIN_TEXT
    headers: tuple[tuple[str, str], ...] = ()


def text(status: HTTPStatus, line: str = "", headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """A line for people."""
    return Response(status, f"{line or status.phrase}\n".encode(), headers=headers)


class Carrier(Protocol):
    """The connection's side of a `Later`: one request that waits for its answer."""

    def answer(self, response: Response) -> None: ...

    def begin(self, head: Response) -> None: ...

    def write(self, data: bytes) -> bool: ...

    def end(self, complete: bool) -> None: ...


class Tap(Carrier, Protocol):
    """Sees an answer pass, on its way to the connection; `over` when nothing more will."""

    def put_before(self, carrier: Carrier) -> None: ...

    def over(self) -> None: ...


class Later:
    """An answer that is still to come. Either `answer` is called once, or `begin`, then `write` any number of times,
    then `end`; at any time, even before the route returns. After `on_gone` all of them are ignored.

    Subclasses override `on_gone` and `on_drain`.
    """

    __slots__ = ("_carrier", "_early", "tap")

    def __init__(self) -> None:
        self.tap: Tap | None = None
        self._carrier: Carrier | None = None
        self._early: list[Callable[[Carrier], object]] = []

    def answer(self, response: Response) -> None:
        """The whole answer."""
        if self._carrier is not None:
            self._carrier.answer(response)
        else:
            self._early.append(lambda carrier: carrier.answer(response))

    def begin(self, head: Response) -> None:
        """Status, type and headers of an answer that comes in pieces; its body is the first piece and may be
        empty."""
        self._do(lambda carrier: carrier.begin(head))

    def write(self, data: bytes) -> bool:
        """A further piece, sent without delay. False: the client does not keep up; stop until `on_drain`."""
        if self._carrier is not None:
            return self._carrier.write(data)
        self._early.append(lambda carrier: carrier.write(data))
        return True

    def end(self, complete: bool = True) -> None:
        """The last piece was written. Not `complete`: so that the client sees that it was cut off (HTTP/1.1:
        connection closed without the last chunk; HTTP/2: reset with INTERNAL_ERROR)."""
        self._do(lambda carrier: carrier.end(complete))

    def attach(self, carrier: Carrier) -> None:
        """For the connection: who carries the answer. What was said before is said to it now."""
        if self.tap is not None:
            self.tap.put_before(carrier)
            carrier = self.tap
        self._carrier = carrier
        early, self._early = self._early, []
        for each in early:
            each(carrier)

    def detach(self) -> None:
        """For the connection: nobody is left to be answered, or all was said."""
        if self.tap is not None:
            self.tap.over()
        self._carrier = _NOBODY
        self._early.clear()

    @property
    def code(self) -> str:
        """What the protocol above HTTP calls the outcome, for figures and logs; empty: the status says it."""
        return ""

    def on_drain(self) -> None:
        """The client has caught up after `write` had answered False."""

    def on_gone(self) -> None:
        """The client went away before the answer was complete."""

    def _do(self, what: Callable[[Carrier], object]) -> None:
        if self._carrier is None:
            self._early.append(what)
        else:
            what(self._carrier)


class Upgrade(Later):
    """An answer with which a connection of HTTP/1.1 goes over to another protocol: `begin` with status 101, before the
    route returns; then `write` is that protocol's bytes, and `end` closes the connection.

    Subclasses override `on_data` too.
    """

    __slots__ = ()

    def hold(self, held: bool) -> None:
        """Whether the client is to be read no further for the moment."""
        if isinstance(self._carrier, Tunnel):
            self._carrier.hold(held)

    def on_data(self, data: bytes) -> None:
        """Bytes of the client."""


@runtime_checkable
class Tunnel(Carrier, Protocol):
    """The connection's side of an `Upgrade`."""

    def hold(self, held: bool) -> None: ...


class _Nobody:
    """Where the client was."""

    def answer(self, response: Response) -> None: ...

    def begin(self, head: Response) -> None: ...

    def write(self, data: bytes) -> bool:
        return True

    def end(self, complete: bool) -> None: ...


_NOBODY: Carrier = _Nobody()

Route: TypeAlias = Callable[[Request], Response | Later]
