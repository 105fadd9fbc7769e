"""Asking the user function what it serves, and telling it what it did wrong (spec core 1, design 4).

One connection is kept for this alone. As long as it lives `discover` is never called again; when it is lost the user
function has stopped, and whoever comes back is asked afresh, because it may be another version. Clients are not
dropped meanwhile: the routes stay until the new answer is there. An invalid answer is reported, and not asked for
again until the user function restarts.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Awaitable, Callable

from stateside._speedups.h2 import Channel, ChannelUnavailable
from stateside.proto import cloudstate
from stateside.proxy import logs
from stateside.proxy.calls import CallFailed, unary
from stateside.proxy.config import Settings
from stateside.proxy.readiness import Readiness
from stateside.proxy.spec import ServiceModel, SpecError, proxy_info, validate
from stateside.proxy.userfunction import connect

DISCOVER = b"/cloudstate.EntityDiscovery/discover"
REPORT_ERROR = b"/cloudstate.EntityDiscovery/reportError"
MAX_REPORTS_WAITING = 100
PART = "discovery"  # of the readiness

log = logs.get(__name__)


class Discovery:
    """Finds the user function and keeps an eye on it. `found(model)` is awaited after each valid answer."""

    def __init__(
        self,
        settings: Settings,
        found: Callable[[ServiceModel], Awaitable[None]],
        readiness: Readiness,
        tls: ssl.SSLContext | None = None,
        speaks: bool = True,
    ) -> None:
        """speaks: it tells the user function what is wrong with its answer. Of several workers, who all see the same,
        one does."""
        self._settings = settings
        self._tls = tls
        self._found = found
        self._speaks = speaks
        self._readiness = readiness
        self._channel: Channel | None = None
        self._lost = asyncio.Event()
        self._reports: asyncio.Queue[str] = asyncio.Queue(MAX_REPORTS_WAITING)
        self.dropped_reports = 0
        self._discovered = False
        self._not_ready("the user function has not been discovered yet")

    async def run(self) -> None:
        """For as long as the proxy runs."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_discovered())
            group.create_task(self._send_reports())

    def report(self, text: str) -> None:
        """Send a UserFunctionError soon. When too many wait already, it is counted and dropped: it is in the log
        anyway."""
        try:
            self._reports.put_nowait(text)
        except asyncio.QueueFull:
            self.dropped_reports += 1

    async def _keep_discovered(self) -> None:
        failures = 0
        while True:
            try:
                await self._discover()
            except (OSError, TimeoutError, CallFailed, ChannelUnavailable) as error:
                self._not_ready(f"the user function is not available: {error or 'no answer'}")
                log.info(
                    "user function not available yet", reason=str(error) or type(error).__name__, attempt=failures + 1
                )
                await asyncio.sleep(self._delay(failures))
                failures += 1
                continue
            except SpecError as error:
                self._not_ready(f"the user function is invalid: {error}")
                log.error("user function refused", reason=str(error))
                if self._speaks:
                    self.report(str(error))
            failures = 0
            await self._lost.wait()
            log.info("user function went away")

    async def _discover(self) -> None:
        """One connection, one question. Returns when the answer is valid and served."""
        self._lost.clear()
        channel = self._channel = await connect(self._settings, self._tls)
        channel.on_change = self._on_change
        try:
            answer = await unary(channel, DISCOVER, proxy_info().SerializeToString(), self._settings.discovery_timeout)
        except BaseException:
            channel.close()  # the next attempt makes its own
            raise
        try:
            spec = cloudstate.EntitySpec.FromString(answer)
        except Exception as error:
            raise SpecError(f"The answer to discover is not an EntitySpec: {error}") from error
        model = validate(spec, self._settings)
        for warning in model.warnings:
            log.warning("user function accepted with a warning", problem=warning)
        await self._found(model)
        self._discovered = True
        self._readiness.clear(PART)

    def _not_ready(self, reason: str) -> None:
        """Only until the first success: later the old routes go on being served."""
        if not self._discovered:
            self._readiness.block(PART, reason)

    def _on_change(self, channel: Channel) -> None:
        if channel is self._channel and (channel.closed or channel.draining):
            self._channel = None
            self._lost.set()

    def _delay(self, failures: int) -> float:
        settings = self._settings
        delay = min(settings.backoff_max, settings.backoff_min * 2.0 ** min(failures, 30))
        return delay * (1 + random.random() * settings.backoff_random_factor)

    async def _send_reports(self) -> None:
        while True:
            text = await self._reports.get()
            channel = self._channel
            if channel is None:
                self.dropped_reports += 1
                continue
            message = cloudstate.UserFunctionError(message=text).SerializeToString()
            try:
                await unary(channel, REPORT_ERROR, message, self._settings.discovery_timeout)
            except (CallFailed, ChannelUnavailable) as error:
                log.warning("the user function did not take an error report", reason=str(error), report=text)
