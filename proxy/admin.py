"""The admin port and the metrics port: /alive, /ready, /metrics, /log-level, /drain and /peers/leave over HTTP/1.1.

Liveness never depends on user code or on a store. Readiness answers 503 with the reasons, one a line, or as JSON. What
changes something is for whoever is on this machine, and not for a page that happens to be open in a browser there.
One worker of several answers on a Unix socket only, to its supervisor (supervisor_admin.py), which has the ports then.
"""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from http import HTTPStatus

from stateside.proxy import logs
from stateside.proxy.config import Settings
from stateside.proxy.exchange import Later, Request, Response, Route, text
from stateside.proxy.http1 import Bounds, Service
from stateside.proxy.metrics import CONTENT_TYPE, Metrics
from stateside.proxy.place import ALONE, Place
from stateside.proxy.readiness import Readiness
from stateside.proxy.values import Addresses

JSON = "application/json"
DRAIN = "drain"
DRAINING = "draining: POST /drain was asked for; DELETE /drain takes it back"
MAX_BODY_BYTES = 1024
LOOPBACK = ("127.", "[::1]:", "[::ffff:127.")

Answer = Callable[[Request], Response | Later]

log = logs.get(__name__)


class AdminPorts(ABC):
    """Both ports. `admin_port` and `metrics_port` are the bound ones after `start` (0: not open)."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._services: list[Service] = []
        self._servers: list[asyncio.Server] = []
        self.admin_port = 0
        self.metrics_port = 0

    @abstractmethod
    def answers(self) -> Mapping[str, Mapping[str, Answer]]:
        """Of the admin port, by path and verb."""

    @abstractmethod
    def scrape(self, request: Request) -> Response | Later:
        """/metrics."""

    async def start(self) -> None:
        """Bind. Raises OSError naming the setting to change."""
        settings = self._settings
        admin = (settings.admin_interface, settings.admin_port)
        metrics = (settings.metrics_host, settings.metrics_port)
        try:
            self.admin_port = await self._listen(self.route, *admin, "admin_port")
            if settings.metrics_enabled and (metrics != admin or not settings.metrics_port):
                self.metrics_port = await self._listen(self._route_metrics, *metrics, "metrics_port")
        except OSError:
            await self.close()
            raise

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for service in self._services:
            service.close()
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()
        self._services.clear()

    async def _listen(self, route: Route, interface: str, port: int, key: str) -> int:
        service = self._service(route)
        try:
            server = await service.loop.create_server(service.connect, interface, port)
        except OSError as error:
            raise OSError(error.errno, f"{key} = {port}: cannot listen on {interface}: {error.strerror}") from error
        self._servers.append(server)
        bound: int = server.sockets[0].getsockname()[1]
        return bound

    async def listen_unix(self, path: str) -> None:
        """Serve what the admin port would, on a socket that only this user's processes reach. Raises OSError."""
        service = self._service(self._route_trusted)
        self._servers.append(await service.loop.create_unix_server(service.connect, path))

    def _service(self, route: Route) -> Service:
        bounds = Bounds(max_body_bytes=MAX_BODY_BYTES, keep_bodies=True)
        self._services.append(Service(route, asyncio.get_running_loop(), bounds))
        return self._services[-1]

    def route(self, request: Request) -> Response | Later:
        """The admin port's answer."""
        return _answer(request, self.answers().get(request.path), _may_change(request))

    def _route_trusted(self, request: Request) -> Response | Later:
        return _answer(request, self.answers().get(request.path), True)

    def _route_metrics(self, request: Request) -> Response | Later:
        return _answer(request, {"GET": self.scrape} if request.path in ("/", "/metrics") else None, False)


class AdminServer(AdminPorts):
    """Of one process that serves."""

    def __init__(self, settings: Settings, readiness: Readiness, metrics: Metrics, place: Place = ALONE) -> None:
        super().__init__(settings)
        self._readiness = readiness
        self._metrics = metrics
        self._place = place
        self.leave: Callable[[str], None] | None = None  # a peer has left for good; None: nothing is replicated

    async def start(self) -> None:
        """Bind. Raises OSError naming the setting to change."""
        if self._place.is_alone:
            await super().start()
        else:
            await self.listen_unix(self._place.admin_socket(self._place.name))

    def answers(self) -> Mapping[str, Mapping[str, Answer]]:
        """Of the admin port, by path and verb."""
        return {
            "/alive": {"GET": self._alive},
            "/ready": {"GET": self._ready},
            "/metrics": {"GET": self.scrape},
            "/log-level": {"GET": self._log_level, "PUT": self._set_log_level},
            "/peers/leave": {"POST": self._leave},
            "/drain": {"GET": self._draining, "POST": self._drain, "DELETE": self._undrain},
        }

    def _alive(self, request: Request) -> Response:
        return text(HTTPStatus.OK)

    def _ready(self, request: Request) -> Response:
        return readiness_answer(request, self._readiness.by_part)

    def _log_level(self, request: Request) -> Response:
        return text(HTTPStatus.OK, logs.level())

    def _set_log_level(self, request: Request) -> Response:
        wanted, refusal = wanted_level(request)
        if refusal is not None:
            return refusal
        logs.set_level(wanted)
        log.warning("log level changed", level=wanted)
        return text(HTTPStatus.OK, wanted)

    def _draining(self, request: Request) -> Response:
        return text(HTTPStatus.OK, "draining" if DRAIN in self._readiness.by_part else "serving")

    def _drain(self, request: Request) -> Response:
        """Not ready from now on, but still serving whoever comes."""
        log.warning("draining: not ready, until it is taken back or the proxy stops")
        self._readiness.block(DRAIN, DRAINING)
        return text(HTTPStatus.OK, "draining")

    def _undrain(self, request: Request) -> Response:
        log.warning("not draining any more")
        self._readiness.clear(DRAIN)
        return text(HTTPStatus.OK, "serving")

    def _leave(self, request: Request) -> Response:
        names = request.query("name")
        if self.leave is None:
            return text(HTTPStatus.CONFLICT, "nothing is replicated by this proxy")
        if len(names) != 1 or not Addresses().fits(names[0]):
            return text(HTTPStatus.BAD_REQUEST, "name must be host:port, as in `peers`")
        self.leave(names[0])
        return text(HTTPStatus.OK, f"{names[0]} has left")

    def scrape(self, request: Request) -> Response:
        """/metrics."""
        return exposition(request, self._metrics.render(request.query("name[]")))


def readiness_answer(request: Request, reasons: Mapping[str, str]) -> Response:
    """For people one reason a line, for machines by the part that gives it."""
    status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
    if _wants_json(request):
        body = {"ready": not reasons, "reasons": dict(reasons)}
        return Response(status, json.dumps(body).encode() + b"\n", JSON)
    return text(status, "\n".join(reasons.values()))


def wanted_level(request: Request) -> tuple[str, Response | None]:
    """The log level that is asked for, or why there is no such."""
    wanted = request.body.decode("utf-8", "replace").strip().strip('"').lower()
    if wanted in logs.LEVELS:
        return wanted, None
    allowed = ", ".join(logs.LEVELS)
    return "", text(HTTPStatus.BAD_REQUEST, f"log level {wanted[:40]!r}: must be one of {allowed}, as the body")


def exposition(request: Request, body: bytes) -> Response:
    """Figures in Prometheus' text format, as the scraper takes them."""
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return Response(HTTPStatus.OK, body, CONTENT_TYPE)
    import gzip  # only scrapers need it

    return Response(HTTPStatus.OK, gzip.compress(body, 1), CONTENT_TYPE, (("content-encoding", "gzip"),))


def _answer(request: Request, answers: Mapping[str, Answer] | None, may_change: bool) -> Response | Later:
    if answers is None:
        return text(HTTPStatus.NOT_FOUND)
    answer = answers.get("GET" if request.method == "HEAD" else request.method)
    if answer is None:
        allowed = ", ".join(("GET", "HEAD", *(verb for verb in answers if verb != "GET")))
        return text(HTTPStatus.METHOD_NOT_ALLOWED, headers=(("allow", allowed),))
    if request.method not in ("GET", "HEAD") and not may_change:
        return text(HTTPStatus.FORBIDDEN, "only from this machine, and not from a web page")
    return answer(request)


def _may_change(request: Request) -> bool:
    return request.peer.startswith(LOOPBACK) and "origin" not in request.headers


def _wants_json(request: Request) -> bool:
    query = request.target.partition(b"?")[2].split(b"&")
    return b"verbose" in query or bool(request.query("verbose")) or JSON in request.headers.get("accept", "")
