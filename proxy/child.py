"""One process under the supervisor: started, asked whether it lives, replaced when it dies or does not answer.

    starting -> answering -> ended -> (waiting) -> starting ...

It is started again at once; one that dies soon after that waits, each time twice as long up to BACK_OFF_MAX. Whatever
end the supervisor finds, even SIGKILL, its children are told to stop by the kernel.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic

from stateside.proxy import logs
from stateside.proxy.admin_client import AdminAnswer, ask
from stateside.proxy.place import Place
from stateside.proxy.run_folder import complaint_path
from stateside.proxy.words import EXIT_BROKEN, EXIT_CONFIG, EXIT_OK

SOON_S = 10.0  # an end within this time of the start is one of a row
BACK_OFF_MIN_S, BACK_OFF_MAX_S = 0.25, 10.0
START_PATIENCE_S = 30.0  # until the first answer; importing and a large journal take their time
HEARTBEAT_S = 1.0
HURRY_S = 0.05  # between two questions to one that is not ready yet
STEPS = 4  # questions in a row, together as long as worker_timeout, that a hung process leaves unanswered

EXIT_NOT_STARTED = 1

# Why a process was started again.
EXITED, KILLED, HUNG = "exited", "killed", "hung"
REASONS = (EXITED, KILLED, HUNG)

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)

log = logs.get(__name__)


class Child:
    """`ready` and `answered`: as of its last answer. `down`: why it does not answer, empty if it does. `on_news` is
    called when `ready` has changed, or when it answers for the first time after a start."""

    def __init__(
        self, place: Place, module: str, environment: Mapping[str, str], timeout: float, inherit: tuple[int, ...]
    ) -> None:
        """`module` is run with `-m`; `timeout` is that of an answer in seconds; `inherit` are open files."""
        self.place = place
        self.restarts = dict.fromkeys(REASONS, 0)
        self.answered = False
        self.ready = False
        self.down = "starting"
        self.on_news: Callable[[Child], None] = lambda child: None
        self._command = [sys.executable, "-m", module, place.name]
        self._environment = dict(environment) | place.to_environment()
        self._timeout = timeout
        self._inherit = inherit
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = asyncio.Event()
        self._stop = asyncio.Event()
        self._hung = False
        self._ends_in_a_row = 0
        self._complaint = ""

    @property
    def name(self) -> str:
        return self.place.name

    @property
    def admin(self) -> str:
        return self.place.admin_socket(self.name)

    @property
    def pid(self) -> int:
        """0: there is no process now."""
        return self._process.pid if self._process is not None else 0

    @property
    def complaint(self) -> str:
        """What its last process said why it cannot be started, if that was why it ended."""
        return self._complaint

    async def keep(self, is_settled: Callable[[], bool]) -> int:
        """Keep a process running; its exit code when it is not to be started again: it was stopped, its journal is
        broken, or, while `is_settled` says that the proxy has never been ready, its settings are wrong."""
        while True:
            started = monotonic()
            code = await self._live() if self._start() else EXIT_NOT_STARTED
            if self._stop.is_set():
                return max(code, EXIT_OK)
            if code == EXIT_BROKEN or (code == EXIT_CONFIG and not is_settled()):
                return code
            if await self._wait_before_next(code, monotonic() - started):
                return EXIT_OK

    def stop(self) -> None:
        """It is to end, after a drain, and not to be started again."""
        self._stop.set()
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        self._stop.set()
        self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def reap(self) -> None:
        """After SIGCHLD."""
        if self._process is not None and self._process.poll() is not None:
            self._ended.set()

    async def ask(self, method: str, target: str, body: bytes = b"", within: float = 1.0) -> AdminAnswer:
        """Its admin routes. Raises TimeoutError and OSError."""
        return await ask(self.admin, method, target, body, within)

    # --- one life ----------------------------------------------------------------------------------------------------

    def _start(self) -> bool:
        """Whether the machine had room for it."""
        complaint_path(self.place).unlink(missing_ok=True)
        self._ended.clear()
        self._hung = False
        try:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                pass_fds=self._inherit,
                process_group=0,  # what a terminal sends to all is for the supervisor to pass on
                preexec_fn=partial(_prepare, os.getpid()),
            )
        except (OSError, subprocess.SubprocessError) as error:
            self.down = f"cannot be started: {error}"
            return False
        self.down = "starting"
        log.debug("started", process=self.name, pid=self._process.pid)
        return True

    async def _live(self) -> int:
        """Until it ends: its exit code, below 0 if a signal ended it."""
        assert self._process is not None
        heartbeat = asyncio.create_task(self._watch())
        await self._ended.wait()
        heartbeat.cancel()
        await asyncio.gather(heartbeat, return_exceptions=True)
        code = self._process.returncode
        self._process = None
        self._complaint = self._read_complaint() if code == EXIT_CONFIG else ""
        self._set(answered=False, ready=False)
        self.down = "killed: it did not answer" if self._hung else self._complaint or _end_of(code)
        return int(code)

    async def _watch(self) -> None:
        """Ask it again and again; kill it when it stays silent. Silence is counted in questions, not read from a clock,
        so that a supervisor that was stopped itself holds it against nobody."""
        step = self._timeout / STEPS
        silent, patience = 0.0, max(self._timeout, START_PATIENCE_S)
        while silent < patience:
            try:
                answer = await self.ask("GET", "/ready?verbose", within=step)
                is_ready = bool(json.loads(answer.body)["ready"])
            except TimeoutError:
                silent += step
            except (OSError, LookupError, TypeError, ValueError):  # not there yet, not any more, or not itself
                if self._stop.is_set():
                    return
                silent += HURRY_S
                await asyncio.sleep(HURRY_S)
            else:
                silent, patience = 0.0, self._timeout
                self.down = ""
                self._set(answered=True, ready=is_ready)
                await asyncio.sleep(min(HEARTBEAT_S, step) if self.ready else HURRY_S)
        log.error("it does not answer and is killed", process=self.name, pid=self.pid, seconds=round(silent, 1))
        self._hung = True
        self.signal(signal.SIGKILL)

    def _set(self, answered: bool, ready: bool) -> None:
        is_news = (answered and not self.answered) or ready != self.ready
        self.answered, self.ready = answered, ready
        if is_news:
            self.on_news(self)

    # --- between two lives -------------------------------------------------------------------------------------------

    async def _wait_before_next(self, code: int, lived: float) -> bool:
        """Whether it was stopped meanwhile."""
        self._ends_in_a_row = self._ends_in_a_row + 1 if lived < SOON_S else 0
        delay = _delay(self._ends_in_a_row)
        reason = HUNG if self._hung else KILLED if code < 0 else EXITED
        self.restarts[reason] += 1
        log.error("a process ended and is started again", process=self.name, why=self.down, in_seconds=delay)
        if delay:
            self.down += f"; started again in {delay:g} s"
        try:
            async with asyncio.timeout(delay):
                await self._stop.wait()
        except TimeoutError:
            return False
        return True

    def _read_complaint(self) -> str:
        try:
            return complaint_path(self.place).read_text()
        except OSError:
            return ""


def _delay(ends_in_a_row: int) -> float:
    """Seconds before the next start."""
    if ends_in_a_row <= 1:
        return 0.0
    return min(BACK_OFF_MAX_S, BACK_OFF_MIN_S * 2.0 ** min(ends_in_a_row - 2, 30))


def _end_of(code: int) -> str:
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _prepare(supervisor: int) -> None:
    """In the child, before its program: it ends when the supervisor does, however that ended; and what it does not
    handle it ignores, so that a signal that is passed on early does no harm."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != supervisor:
        os._exit(EXIT_OK)  # it ended before prctl
    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
