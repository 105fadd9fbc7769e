"""What is done with every request over HTTP, whatever it asks for: counted by method and status, written to the access
log, and refused while the proxy is overloaded. Calls of gRPC have the same from the transport.

`WebCalls.route` stands between the connections and the route that answers; a `_Tap` stands between an answer that comes
later and its connection.
"""

from __future__ import annotations

from http import HTTPStatus
from time import monotonic
from typing import TYPE_CHECKING

from stateside._speedups.h2 import CALL_SECONDS
from stateside.proxy.exchange import Carrier, Later, Request, Response, Route, Tunnel, text
from stateside.proxy.observations import Histogram

if TYPE_CHECKING:
    from stateside._speedups.h2 import Server

CLIENT_GONE = 499  # it did not wait for its answer; the code that proxies have for this
RETRY_AFTER_SECONDS = "1"
PROBE = "k-network-probe"  # of Knative, which asks for health


class WebFigures:
    """What was counted of one method, or of all requests that reached none."""

    __slots__ = ("bytes_in", "bytes_out", "codes", "seconds")

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self.seconds = Histogram(CALL_SECONDS)
        self.bytes_in = 0
        self.bytes_out = 0


class WebCalls:
    """All requests. `figures` are by protocol and path of the method that a request was routed to; an empty path: to
    none."""

    def __init__(self, route: Route) -> None:
        self.server: Server | None = None  # which exists only after us
        self.figures: dict[tuple[str, str], WebFigures] = {}
        self._route = route

    def route(self, request: Request) -> Response | Later:
        begun = monotonic()
        answer = self._refusal(request) or self._route(request)
        if isinstance(answer, Response):
            self.over(request, begun, str(int(answer.status)), len(answer.body), None)
            return answer
        answer.tap = _Tap(self, request, begun, answer)
        return answer

    def _refusal(self, request: Request) -> Response | None:
        if self.server is None or PROBE in request.headers:
            return None
        reason = self.server.refusal(request.version == "2")  # where the request itself is one of the transport's calls
        if reason is None:
            return None
        line = f"the proxy is overloaded ({reason}); try again later"
        return text(HTTPStatus.SERVICE_UNAVAILABLE, line, (("retry-after", RETRY_AFTER_SECONDS),))

    def begun(self, request: Request) -> None:
        """It waits for its answer, and is one of the calls under way."""
        if self.server is not None and request.version != "2":
            self.server.other_calls += 1

    def ended(self, request: Request) -> None:
        if self.server is not None and request.version != "2":
            self.server.other_calls -= 1

    def over(self, request: Request, begun: float, code: str, size: int, note: str | None) -> None:
        """The request has its whole answer, or will have none."""
        seconds = monotonic() - begun
        protocol = request.protocol or f"http/{request.version}"
        figures = self.figures.get((protocol, request.routed))
        if figures is None:
            figures = self.figures[protocol, request.routed] = WebFigures()
        figures.codes[code] = figures.codes.get(code, 0) + 1
        figures.seconds.observe(seconds)
        figures.bytes_in += len(request.body)
        figures.bytes_out += size
        if self.server is not None and self.server.access_log is not None:
            self.server.access_log.write(
                protocol,
                request.routed or request.path,
                code,
                seconds,
                request.peer,
                len(request.body),
                size,
                note,
            )


class _Tap:
    """Passes an answer on to its connection, and sees its size, its status and its end."""

    __slots__ = ("_begun", "_calls", "_carrier", "_is_over", "_later", "_request", "_size", "_status")

    _carrier: Carrier

    def __init__(self, calls: WebCalls, request: Request, begun: float, later: Later) -> None:
        self._calls = calls
        self._request = request
        self._begun = begun
        self._later = later
        self._is_over = False
        self._size = 0
        self._status = 0
        calls.begun(request)

    def put_before(self, carrier: Carrier) -> None:
        self._carrier = carrier

    def over(self) -> None:
        """Nobody listens any more. The headers of an answer to HEAD are all of it."""
        is_whole = self._request.method == "HEAD" and self._status
        self._tally(self._status if is_whole else CLIENT_GONE)

    # --- as the carrier

    def answer(self, response: Response) -> None:
        self._size += len(response.body)
        self._tally(response.status)
        self._carrier.answer(response)

    def begin(self, head: Response) -> None:
        self._status = head.status
        self._size += len(head.body)
        self._carrier.begin(head)

    def write(self, data: bytes) -> bool:
        self._size += len(data)
        return self._carrier.write(data)

    def end(self, complete: bool) -> None:
        self._tally(self._status if complete else HTTPStatus.INTERNAL_SERVER_ERROR)
        self._carrier.end(complete)

    def hold(self, held: bool) -> None:
        if isinstance(self._carrier, Tunnel):
            self._carrier.hold(held)

    def _tally(self, status: int) -> None:
        if not self._is_over:
            self._is_over = True
            self._calls.ended(self._request)
            note = getattr(self._later, "note", None)
            code = self._later.code or str(int(status))
            self._calls.over(self._request, self._begun, code, self._size, note)
