"""The access log: a line for every call, to stdout or to a file, written by a thread of its own.

The lines are put together by the transport and by HTTP/JSON as calls end (_speedups/accesslog.pyx); here is the file,
and the thread that empties the buffer into it. A file that was renamed or removed, as log rotation does, is opened
anew.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

from stateside._speedups.accesslog import AccessLog
from stateside.proxy import logs

if TYPE_CHECKING:
    from stateside.proxy.config import Settings

INTERVAL = 0.02  # seconds that a line may wait; what gathers meanwhile should not fill the processor's cache
LOOK_AFTER_FILE = 50  # intervals between two looks whether the file is still the one that was opened
MAX_WAITING_BYTES = 8 << 20
FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC

log = logs.get(__name__)


class AccessLogWriter:
    """The thread. `lines` is what calls are written to."""

    def __init__(self, settings: Settings) -> None:
        """Raises OSError naming the setting to change."""
        self.lines = AccessLog(
            json=settings.access_log == "json", keys=settings.access_log_keys, most=MAX_WAITING_BYTES
        )
        self._path = settings.access_log_file
        self._file = self._open()
        self._failed = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def close(self, within: float = 2.0) -> None:
        """Write what is left, unless nobody takes it."""
        self._stop.set()
        self._thread.join(within)
        if self._path and not self._thread.is_alive():
            os.close(self._file)

    def _open(self) -> int:
        if not self._path:
            return sys.stdout.fileno()
        try:
            return os.open(self._path, FLAGS, 0o640)
        except OSError as error:
            raise OSError(
                error.errno, f"access_log_file = {self._path}: cannot be written: {error.strerror}"
            ) from error

    def _run(self) -> None:
        turns = 0
        while not self._stop.wait(INTERVAL):
            turns += 1
            if self._path and turns % LOOK_AFTER_FILE == 0:
                self._look_after_file()
            self._drain()
        self._drain()

    def _drain(self) -> None:
        error = self.lines.drain(self._file)
        if error and not self._failed:
            log.error("the access log cannot be written; its lines are dropped", error=os.strerror(error))
        self._failed = bool(error)

    def _look_after_file(self) -> None:
        """Lines go on to the old file while the new one cannot be opened."""
        if is_same_file(self._path, self._file):
            return
        try:
            fresh = self._open()
        except OSError as error:
            if not self._failed:
                log.error("the access log cannot be opened anew", error=str(error))
            return
        old, self._file = self._file, fresh
        os.close(old)


def is_same_file(path: str, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except OSError:
        return False
