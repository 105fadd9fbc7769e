"""The shopping cart's user function and a proxy before it, as two child processes.

Used by `run` (stay in the foreground) and by `demo` (a purchase, a kill -9 of the proxy, the same cart again).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

START_TIMEOUT = 30.0  # seconds
STOP_TIMEOUT = 20.0


class Child:
    """A child process that says on stdout, in one line, that it is ready."""

    def __init__(self, name: str, arguments: list[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self._arguments = arguments
        self._environment = dict(os.environ) | dict(environment)
        self.process: subprocess.Popen[str] | None = None
        self.ready_line = ""

    def start(self) -> str:
        """Start and wait; the ready line. Raises RuntimeError when it ends or stays silent instead."""
        process = self.process = subprocess.Popen(
            [sys.executable, "-m", *self._arguments],
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the parent, which stops its children in order
        )
        silence = threading.Timer(START_TIMEOUT, process.kill)
        silence.start()
        assert process.stdout is not None
        self.ready_line = process.stdout.readline().strip()
        silence.cancel()
        if not self.ready_line:
            raise RuntimeError(f"the {self.name} did not start (exit code {process.wait()})")
        return self.ready_line

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def wait(self) -> int:
        """Block until it ends; the exit code."""
        assert self.process is not None
        return self.process.wait()

    def kill(self) -> None:
        """kill -9 of it and of the processes that it has started, as a power cut would."""
        if self.running:
            assert self.process is not None
            pid = self.process.pid
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            for each in (pid, *map(int, children)):
                os.kill(each, signal.SIGKILL)
            self._reap(self.process)

    def stop(self) -> None:
        """Ask it to stop, and insist after a while."""
        if not self.running:
            return
        assert self.process is not None
        self.process.terminate()
        try:
            self._reap(self.process, STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()

    def _reap(self, process: subprocess.Popen[str], timeout: float | None = None) -> None:
        process.wait(timeout)
        assert process.stdout is not None
        process.stdout.close()


def user_function(port: int) -> Child:
    """The cart, listening on `port` (0: any)."""
    return Child("user function", ["examples.shopping_cart"], {"PORT": str(port)})


def proxy(http_port: int, user_function_port: int, settings: Mapping[str, str] | None = None) -> Child:
    """The sidecar before it. Other settings come from the environment."""
    environment = {"HTTP_PORT": str(http_port), "USER_FUNCTION_PORT": str(user_function_port)}
    return Child("proxy", ["stateside.proxy.cli", "proxy"], environment | dict(settings or {}))


def port_of(ready_line: str) -> int:
    """The port at the end of a ready line."""
    return int(ready_line.rsplit(":", 1)[1])
