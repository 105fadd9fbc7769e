"""The admin and metrics ports of a proxy of several workers: asks all of them, answers as one.

What is asked of all at once is answered with the worst that came back. A drain and a log level hold for workers that
are started later, too.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
from collections.abc import Coroutine, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

from stateside.proxy import logs
from stateside.proxy.admin import (
    DRAIN,
    DRAINING,
    AdminPorts,
    Answer,
    exposition,
    readiness_answer,
    wanted_level,
)
from stateside.proxy.admin_client import AdminAnswer
from stateside.proxy.child import Child
from stateside.proxy.config import Settings
from stateside.proxy.exchange import Later, Request, Response, text
from stateside.proxy.expositions import LABEL, Merged

if TYPE_CHECKING:
    from stateside.proxy.supervisor import Supervisor

ASK_WITHIN_S = 2.0  # a child that takes longer is left out of an answer
SUPERVISOR = "supervisor"

log = logs.get(__name__)


class _Reply(NamedTuple):
    """What a child answered. `silent`: why it did not; empty if it did."""

    child: Child
    answer: AdminAnswer
    silent: str


class SupervisorAdmin(AdminPorts):
    """Of the supervisor."""

    def __init__(self, settings: Settings, supervisor: Supervisor) -> None:
        super().__init__(settings)
        self._supervisor = supervisor
        self._is_drained = False
        self._running: set[asyncio.Task[None]] = set()

    def answers(self) -> Mapping[str, Mapping[str, Answer]]:
        return {
            "/alive": {"GET": lambda request: text(HTTPStatus.OK)},
            "/ready": {"GET": lambda request: self._later(self._ready(request))},
            "/metrics": {"GET": self.scrape},
            "/log-level": {"GET": lambda request: text(HTTPStatus.OK, logs.level()), "PUT": self._set_log_level},
            "/peers/leave": {"POST": lambda request: self._later(self._leave(request))},
            "/drain": {"GET": self._draining, "POST": self._drain, "DELETE": self._undrain},
        }

    def scrape(self, request: Request) -> Later:
        """/metrics of all."""
        return self._later(self._scrape(request))

    def bring_up_to_date(self, child: Child) -> None:
        """It has answered for the first time since its start."""
        if self._is_drained:
            self._run(self._tell(child, "POST", "/drain"))
        if logs.level() != self._settings.log_level:
            self._run(self._tell(child, "PUT", "/log-level", logs.level().encode()))

    # --- what is asked -----------------------------------------------------------------------------------------------

    async def _ready(self, request: Request) -> Response:
        return readiness_answer(request, await self._reasons())

    async def _reasons(self) -> dict[str, str]:
        """Why the proxy is not ready, by worker and part."""
        supervisor = self._supervisor
        if supervisor.is_stopping:
            return {"process": "the proxy is stopping"}
        reasons = {DRAIN: DRAINING} if self._is_drained else {}
        if not supervisor.workers:
            reasons["journal"] = supervisor.folder.doing or "the proxy is starting"
        for child, answer, silent in await self._ask_all(supervisor.required, "GET", "/ready?verbose"):
            if silent:
                reasons[child.name] = f"{child.name}: {silent}"
                continue
            for part, reason in json.loads(answer.body)["reasons"].items():
                if part != DRAIN:
                    reasons[f"{child.name}/{part}"] = f"{child.name}: {reason}"
        return reasons

    async def _scrape(self, request: Request) -> Response:
        query = request.target.partition(b"?")[2].decode("latin-1")
        merged = Merged()
        answered: dict[str, float] = {}
        for child, answer, silent in await self._ask_all(self._supervisor.children, "GET", f"/metrics?{query}"):
            is_there = not silent and answer.status == HTTPStatus.OK
            answered[f'{LABEL}="{child.place.label}"'] = is_there
            if is_there:
                merged.add(answer.body, child.place.label)
        merged.add(process_figures(), SUPERVISOR)
        self._add_own(merged, answered)
        return exposition(request, merged.render(request.query("name[]")))

    def _add_own(self, merged: Merged, answered: Mapping[str, float]) -> None:
        children = self._supervisor.children
        up = {f'{LABEL}="{child.place.label}"': child.ready for child in children}
        restarts = {
            f'{LABEL}="{child.place.label}",reason="{reason}"': count
            for child in children
            for reason, count in child.restarts.items()
        }
        merged.add_family("gauge", "stateside_workers", "Workers that there should be", self._settings.workers)
        merged.add_family("gauge", "stateside_worker_ready", "1 while the process is ready", up)
        merged.add_family("gauge", "stateside_worker_answered", "1 if its series are in this answer", answered)
        merged.add_family("counter", "stateside_worker_restarts_total", "Starts after an unwanted end", restarts)
        for family in self._supervisor.folder.figures():
            merged.add_family(*family)

    # --- what is changed ---------------------------------------------------------------------------------------------

    def _set_log_level(self, request: Request) -> Response | Later:
        wanted, refusal = wanted_level(request)
        if refusal is not None:
            return refusal
        logs.set_level(wanted)
        log.warning("log level changed", level=wanted)
        return self._later(self._tell_all(request, wanted, wanted.encode()))

    def _draining(self, request: Request) -> Response:
        return text(HTTPStatus.OK, "draining" if self._is_drained else "serving")

    def _drain(self, request: Request) -> Later:
        self._is_drained = True
        return self._later(self._tell_all(request, "draining"))

    def _undrain(self, request: Request) -> Later:
        self._is_drained = False
        return self._later(self._tell_all(request, "serving"))

    async def _tell_all(self, request: Request, done: str, body: bytes = b"") -> Response:
        """`done` if all that are up have heard of it; those that are not up yet will, once they are."""
        up = [worker for worker in self._supervisor.workers if worker.answered]
        return await self._pass_on(request, up, body) if up else text(HTTPStatus.OK, done)

    async def _leave(self, request: Request) -> Response:
        return await self._pass_on(request, self._supervisor.workers)

    async def _pass_on(self, request: Request, workers: Sequence[Child], body: bytes = b"") -> Response:
        """The worst answer of these, and who gave which if they differ."""
        replies = await self._ask_all(workers, request.method, request.target.decode("latin-1"), body)
        told = {reply.child.name: reply.silent or reply.answer.text for reply in replies}
        worst = max((reply.answer.status for reply in replies), default=0)
        silent = not replies or any(reply.silent for reply in replies)
        status = HTTPStatus.SERVICE_UNAVAILABLE if silent else HTTPStatus(worst)
        if len(set(told.values())) == 1:
            return text(status, next(iter(told.values())))
        return text(status, "\n".join(f"{name}: {said}" for name, said in told.items()))

    async def _tell(self, child: Child, method: str, target: str, body: bytes = b"") -> None:
        """One that has just come up what the others know already."""
        reply = await self._ask(child, method, target, body)
        if reply.silent:
            log.warning("a worker was not told", process=child.name, what=target, why=reply.silent)

    # --- asking ------------------------------------------------------------------------------------------------------

    async def _ask_all(
        self, children: Sequence[Child], method: str, target: str, body: bytes = b""
    ) -> Sequence[_Reply]:
        return await asyncio.gather(*(self._ask(child, method, target, body) for child in children))

    async def _ask(self, child: Child, method: str, target: str, body: bytes) -> _Reply:
        nothing = AdminAnswer(0, "", b"")
        try:
            return _Reply(child, await child.ask(method, target, body, ASK_WITHIN_S), "")
        except TimeoutError:
            return _Reply(child, nothing, child.down or f"no answer within {ASK_WITHIN_S:g} s")
        except OSError as error:
            return _Reply(child, nothing, child.down or f"no answer: {error}")

    def _later(self, answer: Coroutine[Any, Any, Response]) -> Later:
        later = Later()

        async def fill() -> None:
            try:
                later.answer(await answer)
            except Exception:
                log.exception("a question to all workers failed")
                later.answer(text(HTTPStatus.INTERNAL_SERVER_ERROR))

        self._run(fill())
        return later

    def _run(self, what: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(what)
        self._running.add(task)
        task.add_done_callback(self._running.discard)


def process_figures() -> bytes:
    """Of this process, as prometheus_client's ProcessCollector has them, which would have to be imported."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    with open("/proc/self/statm", "rb") as file:
        pages = file.read().split()
    page = os.sysconf("SC_PAGE_SIZE")
    own = Merged()
    cpu = used.ru_utime + used.ru_stime
    own.add_family("counter", "process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", cpu)
    resident, virtual = int(pages[1]) * page, int(pages[0]) * page
    own.add_family("gauge", "process_resident_memory_bytes", "Resident memory size in bytes.", resident)
    own.add_family("gauge", "process_virtual_memory_bytes", "Virtual memory size in bytes.", virtual)
    files = len(os.listdir("/proc/self/fd"))
    own.add_family("gauge", "process_open_fds", "Number of open file descriptors.", files)
    return own.render()
