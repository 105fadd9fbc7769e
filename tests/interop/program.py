"""A program under test as a process of its own: its output collected line by line, its end in the hand of the test.

The user function and the proxy of the interop tests are such programs. Output is kept (bounded) so that a test can wait
for a line of it, and so that the error of a program that did not start carries what the program said.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import grpc.aio

from stateside.proto import cloudstate

KEPT_LINES = 10_000


class ProgramError(AssertionError):
    """The program ended or stayed silent where the test expected something of it. The text ends with its output."""


class Program:
    """A command run in `folder` with `env` added to the environment; it can be started again after it ended."""

    def __init__(self, command: Sequence[str | Path], folder: Path, env: Mapping[str, str]) -> None:
        self.command = [str(part) for part in command]
        self.folder = folder
        self.env = dict(env)
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._ended = False
        self._changed = threading.Condition()

    def start(self) -> None:
        """Start the process; its output begins anew."""
        if self._process is not None:
            raise ProgramError(f"{self.command[0]} already runs as {self.pid}")
        self._lines.clear()
        self._ended = False
        self._process = subprocess.Popen(
            self.command,
            cwd=self.folder,
            env=os.environ | self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._collect, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def stop(self) -> int:
        """Ask the process to end (SIGTERM), kill it if it does not within 10 s; answers its exit code."""
        process = self._running()
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
        return self._reap(process)

    def kill(self) -> None:
        """kill -9: the process gets no chance to say good-bye."""
        process = self._running()
        process.kill()
        self._reap(process)

    def close(self) -> None:
        """Kill the process if it still runs."""
        if self._process is not None:
            self.kill()

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def output(self) -> str:
        with self._changed:
            return "\n".join(self._lines)

    def wait_for_output(self, pattern: str, timeout_s: float = 20) -> re.Match[str]:
        """The first match of a regular expression in the output since the start, as soon as there is one."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not (found := re.search(pattern, "\n".join(self._lines))):
                remaining = deadline - time.monotonic()
                if self._ended or remaining <= 0 or not self._changed.wait(remaining):
                    happened = "ended" if self._ended else "stayed silent"
                    raise ProgramError(f"{self.command} {happened} before {pattern!r}:\n" + "\n".join(self._lines))
        return found

    def _collect(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                with self._changed:
                    self._lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise ProgramError(f"{self.command[0]} does not run")
        return self._process

    def _reap(self, process: subprocess.Popen[str]) -> int:
        code = process.wait()
        assert self._reader is not None
        self._reader.join()
        self._process = None
        return code


class CartProgram(Program):
    """A shopping cart user function, on whatever library."""

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.env["PORT"])

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def restart(self) -> None:
        """kill -9, and start anew on the same port."""
        self.kill()
        self.start()

    async def discover(self, proxy: Any = None) -> Any:
        """What it answers to a proxy that introduces itself; waits for it to be ready, at most 20 s."""
        async with grpc.aio.insecure_channel(self.target) as channel:
            discover = channel.unary_unary(
                "/cloudstate.EntityDiscovery/discover",
                request_serializer=cloudstate.ProxyInfo.SerializeToString,
                response_deserializer=cloudstate.EntitySpec.FromString,
            )
            return await discover(proxy or cloudstate.ProxyInfo(), wait_for_ready=True, timeout=20)
