"""Processes of a measurement: started, listened to and ended by their own pid.

A `Stage` owns the processes and the folder of one measurement. Whatever happens in it, at its end they are gone.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
READY_TIMEOUT = 15.0
STOP_TIMEOUT = 15.0
STDERR_TAIL_BYTES = 500
LINE_LIMIT_BYTES = 1 << 20


class ProcessFailed(Exception):
    """A process did not do what it was started for. The text ends with the last it had to say."""


class Process:
    """One running process. Its stdout is read line by line, its stderr goes to a file."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, stderr: Path) -> None:
        self.name = name
        self.pid = process.pid
        self._process = process
        self._stderr = stderr

    async def line(self, within: float = READY_TIMEOUT) -> str:
        """The next line of stdout. Raises ProcessFailed when it has ended or says nothing for so long."""
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), within)
        except TimeoutError:
            raise self.failed(f"said nothing for {within:g} s") from None
        if not line:
            raise self.failed(f"ended with status {await self._process.wait()}")
        return line.decode().rstrip("\n")

    async def json(self, within: float = READY_TIMEOUT) -> dict[str, Any]:
        """The next line of stdout as a JSON object."""
        line = await self.line(within)
        try:
            return dict(json.loads(line))
        except ValueError:
            raise self.failed(f"said {line!r} in place of JSON") from None

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def stop(self) -> list[str]:
        """SIGTERM, then SIGKILL if need be; the lines of stdout that nobody had read."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        assert self._process.stdout is not None
        try:
            rest = await asyncio.wait_for(self._process.stdout.read(), STOP_TIMEOUT)
            await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            raise self.failed(f"did not end within {STOP_TIMEOUT:g} s of SIGTERM") from None
        return rest.decode().splitlines()

    async def stopped(self, within: float = READY_TIMEOUT) -> None:
        """Wait for its end by itself. Raises ProcessFailed when it fails."""
        if await asyncio.wait_for(self._process.wait(), within) != 0:
            raise self.failed("failed")

    async def ended(self, within: float) -> int:
        """Wait for its end by itself; its status. What it says is thrown away."""
        await asyncio.wait_for(self._process.communicate(), within)
        assert self._process.returncode is not None
        return self._process.returncode

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def failed(self, what: str) -> ProcessFailed:
        tail = self._stderr.read_bytes()[-STDERR_TAIL_BYTES:].decode(errors="replace").strip()
        return ProcessFailed(f"{self.name} {what}" + (f"; its last words: {tail}" if tail else ""))


class Stage:
    """Processes and folder of one measurement: `async with Stage(folder) as stage`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: list[Process] = []

    async def __aenter__(self) -> Stage:
        self.folder.mkdir(parents=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self._processes):
            await process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def start(self, name: str, command: Sequence[str], variables: Mapping[str, str] | None = None) -> Process:
        stderr = self.folder / f"{len(self._processes)}-{name}.stderr"
        with stderr.open("wb") as errors:
            running = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                env=clean_environment() | dict(variables or {}),
                limit=LINE_LIMIT_BYTES,
            )
        process = Process(name, running, stderr)
        self._processes.append(process)
        return process

    async def python(self, module: str, *arguments: object, variables: Mapping[str, str] | None = None) -> Process:
        """`python -m module`."""
        command = [sys.executable, "-m", module, *map(str, arguments)]
        return await self.start(module.rpartition(".")[2], command, variables)


def clean_environment() -> dict[str, str]:
    """The environment without settings of a proxy that happen to be in it."""
    foreign = ("STATESIDE_", "USER_FUNCTION_", "HTTP_", "METRICS_", "PASSIVATION_", "MANAGEMENT_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


def free_port() -> int:
    """For programs that cannot take a free port by themselves."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
