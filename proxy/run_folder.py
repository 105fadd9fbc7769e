"""The folder of Unix sockets through which the processes of one proxy find each other; only its user may look into it.

It stands where paths are short, because that of a Unix socket has 107 bytes at most. Every process of the proxy holds
the lock of its folder, so that what was left behind by one that was killed can be told from what is in use.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from stateside.proxy.place import Place

PREFIX = "stateside-run-"
LOCK = "lock"
MAX_SOCKET_PATH = 107  # bytes, sun_path of unix(7) without its end
LONGEST_SOCKET = "worker-255.admin.sock"


class RunFolder:
    """A new folder, and its lock, which children are to inherit."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        """Raises OSError if there is no place for it."""
        where = _place_for(_candidates(environ))
        _remove_left_ones(where)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=where))
        fresh = self.path / f"{LOCK}.new"
        self.lock = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        fresh.rename(self.path / LOCK)  # whoever finds it under its name finds it held

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock)


def complaint_path(place: Place) -> Path:
    """Where a child says in one line why it cannot be started, for its supervisor to pass on."""
    return Path(place.run, f"{place.name}.complaint")


def _candidates(environ: Mapping[str, str]) -> Iterable[Path]:
    if environ.get("XDG_RUNTIME_DIR"):
        yield Path(environ["XDG_RUNTIME_DIR"])
    yield Path(tempfile.gettempdir())
    yield Path("/tmp")


def _place_for(candidates: Iterable[Path]) -> Path:
    needed = len(PREFIX) + len("12345678") + len(LONGEST_SOCKET) + 2
    for candidate in candidates:
        if len(os.fsencode(candidate)) + needed <= MAX_SOCKET_PATH and os.access(candidate, os.W_OK | os.X_OK):
            return candidate
    raise OSError("no folder for the sockets of workers: neither $XDG_RUNTIME_DIR nor $TMPDIR nor /tmp can be used")


def _remove_left_ones(where: Path) -> None:
    """Folders of ours whose processes are all gone."""
    for folder in where.glob(f"{PREFIX}*"):
        if folder.stat().st_uid == os.getuid() and _is_left(folder / LOCK):
            shutil.rmtree(folder, ignore_errors=True)


def _is_left(lock: Path) -> bool:
    try:
        file = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False  # no folder of ours, or one that is just being made
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(file)
