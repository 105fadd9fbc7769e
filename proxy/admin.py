"""The admin port and the metrics port: /alive, /ready and /metrics over HTTP/1.1. On the admin port, which others than
operators do not reach, POST /peers/leave?name=host:port takes a departed proxy out of the cluster.

Liveness never depends on user code or on a store. Readiness answers 503 with the reasons, one a line.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus

from stateside.proxy.config import Settings
from stateside.proxy.http1 import Request, Response, Route, Service, text
from stateside.proxy.metrics import CONTENT_TYPE, Metrics
from stateside.proxy.readiness import Readiness
from stateside.proxy.values import Addresses


class AdminServer:
    """Both ports. `admin_port` and `metrics_port` are the bound ones after `start` (0: not open)."""

    def __init__(self, settings: Settings, readiness: Readiness, metrics: Metrics) -> None:
        self._settings = settings
        self._readiness = readiness
        self._metrics = metrics
        self._services: list[Service] = []
        self._servers: list[asyncio.Server] = []
        self.admin_port = 0
        self.metrics_port = 0
        self.leave: Callable[[str], None] | None = None  # a peer has left for good; None: nothing is replicated

    async def start(self) -> None:
        """Bind. Raises OSError naming the setting to change."""
        settings = self._settings
        admin = (settings.admin_interface, settings.admin_port)
        metrics = (settings.metrics_host, settings.metrics_port)
        try:
            self.admin_port = await self._listen(self._route_admin, *admin, "admin_port")
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
        loop = asyncio.get_running_loop()
        service = Service(route, loop)
        try:
            server = await loop.create_server(service.connect, interface, port)
        except OSError as error:
            raise OSError(error.errno, f"{key} = {port}: cannot listen on {interface}: {error.strerror}") from error
        self._services.append(service)
        self._servers.append(server)
        bound: int = server.sockets[0].getsockname()[1]
        return bound

    def _route_admin(self, request: Request) -> Response:
        if request.path == "/peers/leave":
            return self._leave(request)
        answer = {"/alive": self._alive, "/ready": self._ready, "/metrics": self._scrape}.get(request.path)
        return _get_only(request, answer)

    def _route_metrics(self, request: Request) -> Response:
        return _get_only(request, self._scrape if request.path in ("/", "/metrics") else None)

    def _alive(self, request: Request) -> Response:
        return text(HTTPStatus.OK)

    def _ready(self, request: Request) -> Response:
        if self._readiness.ready:
            return text(HTTPStatus.OK)
        return text(HTTPStatus.SERVICE_UNAVAILABLE, "\n".join(self._readiness.reasons))

    def _leave(self, request: Request) -> Response:
        names = request.query("name")
        if request.method != "POST":
            return text(HTTPStatus.METHOD_NOT_ALLOWED, headers=(("allow", "POST"),))
        if self.leave is None:
            return text(HTTPStatus.CONFLICT, "nothing is replicated by this proxy")
        if len(names) != 1 or not Addresses().is_one(names[0]):
            return text(HTTPStatus.BAD_REQUEST, "name must be host:port, as in `peers`")
        self.leave(names[0])
        return text(HTTPStatus.OK, f"{names[0]} has left")

    def _scrape(self, request: Request) -> Response:
        body = self._metrics.render(request.query("name[]"))
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return Response(HTTPStatus.OK, body, CONTENT_TYPE)
        import gzip  # only scrapers need it

        return Response(HTTPStatus.OK, gzip.compress(body, 1), CONTENT_TYPE, (("content-encoding", "gzip"),))


def _get_only(request: Request, answer: Callable[[Request], Response] | None) -> Response:
    if answer is None:
        return text(HTTPStatus.NOT_FOUND)
    if request.method not in ("GET", "HEAD"):
        return text(HTTPStatus.METHOD_NOT_ALLOWED, headers=(("allow", "GET, HEAD"),))
    return answer(request)
