"""The standard health service, grpc.health.v1, for the proxy as a whole ("") and for each entity service.

A service is SERVING while the proxy is ready (`readiness.py`), NOT_SERVING otherwise. Watchers are bounded in number;
one that does not read is told only the latest state once it reads again.
"""

from collections.abc import Iterable
from typing import Any, cast

from google.protobuf.message import DecodeError

from stateside._speedups import h2
from stateside.proto import health
from stateside.proto.status import Status
from stateside.proxy.readiness import Readiness

SERVICE = "grpc.health.v1.Health"
MAX_WATCHERS = 1000


class Health:
    """State of all services and who watches them."""

    def __init__(self, readiness: Readiness, max_watchers: int = MAX_WATCHERS) -> None:
        self._readiness = readiness
        self._services: frozenset[str] = frozenset({""})
        self._watchers: dict[h2.ServerCall, _Watcher] = {}
        self._max_watchers = max_watchers
        readiness.listen(self._tell)

    @property
    def watchers(self) -> int:
        """Watch calls that are open."""
        return len(self._watchers)

    def handlers(self) -> dict[bytes, h2.Handler]:
        """Handlers by path."""
        return {
            f"/{SERVICE}/Check".encode(): CheckHandler(self),
            f"/{SERVICE}/Watch".encode(): WatchHandler(self),
        }

    def set_services(self, names: Iterable[str]) -> None:
        """The entity services that are known from now on."""
        self._services = frozenset({"", *names})
        self._tell()

    def status(self, service: str) -> int:
        """A `ServingStatus`."""
        statuses: Any = health.HealthCheckResponse
        if service not in self._services:
            return int(statuses.SERVICE_UNKNOWN)
        return int(statuses.SERVING if self._readiness.ready else statuses.NOT_SERVING)

    def watch(self, call: h2.ServerCall, service: str) -> None:
        if len(self._watchers) >= self._max_watchers:
            call.fail(Status.RESOURCE_EXHAUSTED, f"there are {self._max_watchers} health watchers already")
            return
        watcher = self._watchers[call] = _Watcher(call, service)
        watcher.tell(self.status(service))

    def drained(self, call: h2.ServerCall) -> None:
        watcher = self._watchers.get(call)
        if watcher is not None:
            watcher.blocked = False
            watcher.tell(self.status(watcher.service))

    def forget(self, call: h2.ServerCall) -> None:
        self._watchers.pop(call, None)

    def close(self) -> None:
        """End all watches, so that nobody waits for them when the proxy stops."""
        for call in list(self._watchers):
            call.finish(Status.UNAVAILABLE, "the proxy is stopping")
        self._watchers.clear()

    def _tell(self) -> None:
        for watcher in list(self._watchers.values()):
            watcher.tell(self.status(watcher.service))


class _Watcher:
    """One Watch call. `told` is what its client knows."""

    __slots__ = ("blocked", "call", "service", "told")

    def __init__(self, call: h2.ServerCall, service: str) -> None:
        self.call = call
        self.service = service
        self.told = -1
        self.blocked = False

    def tell(self, status: int) -> None:
        if status != self.told and not self.blocked:
            self.told = status
            self.blocked = not self.call.send(_response(status))


class CheckHandler(h2.Handler):
    """Check: the state now."""

    unary = True
    essential = True

    def __init__(self, state: Health) -> None:
        self._state = state

    def on_request(self, call: h2.ServerCall, message: bytes) -> None:
        service = _service(call, message)
        if service is None:
            return
        status = self._state.status(service)
        if status == health.HealthCheckResponse.SERVICE_UNKNOWN:
            call.fail(Status.NOT_FOUND, f"unknown service {service}")
        else:
            call.reply(_response(status))


class WatchHandler(h2.Handler):
    """Watch: the state now and whenever it changes, until the client goes."""

    unary = True
    essential = True

    def __init__(self, state: Health) -> None:
        self._state = state

    def on_request(self, call: h2.ServerCall, message: bytes) -> None:
        service = _service(call, message)
        if service is not None:
            self._state.watch(call, service)

    def on_drain(self, call: h2.Call) -> None:
        self._state.drained(cast(h2.ServerCall, call))

    def on_cancel(self, call: h2.ServerCall, status: int) -> None:
        self._state.forget(call)


def _service(call: h2.ServerCall, message: bytes) -> str | None:
    """The service that is asked for; None when the call was failed because nobody can tell."""
    try:
        return str(health.HealthCheckRequest.FromString(message).service)
    except DecodeError:
        call.fail(Status.INVALID_ARGUMENT, "the message is not a HealthCheckRequest")
        return None


def _response(status: int) -> bytes:
    serialized: bytes = health.HealthCheckResponse(status=status).SerializeToString()
    return serialized
