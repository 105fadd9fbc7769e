"""For development: notices that a source file changed, so that the process can start again with the new code."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path

POLL_INTERVAL = 0.5  # seconds

logger = logging.getLogger("stateside.support")


def watched() -> dict[Path, int]:
    """Source files of the application's loaded modules, with their modification times in nanoseconds.

    The application's are those outside the installation of Python and its packages.
    """
    roots = {Path(root).resolve() for root in (sys.prefix, sys.base_prefix, sys.exec_prefix)}
    names = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    files = {Path(name).resolve() for name in names if name and name.endswith(".py")}
    return {file: _modified(file) for file in files if not any(root in file.parents for root in roots)}


def changed(before: Mapping[Path, int]) -> list[Path]:
    """Files of `before` that have another modification time now, in order."""
    return sorted(file for file, modified in before.items() if _modified(file) != modified)


async def until_changed(interval: float = POLL_INTERVAL) -> list[Path]:
    """Wait until files changed; which. Changes that do not compile are logged and waited on."""
    files = watched()
    while True:
        await asyncio.sleep(interval)
        found = changed(files)
        if found and all([_compiles(file) for file in found]):
            return found
        files |= {file: _modified(file) for file in found}
        files = watched() | files  # what was imported meanwhile is watched too


def _modified(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0


def _compiles(file: Path) -> bool:
    try:
        compile(file.read_bytes(), str(file), "exec")
    except (SyntaxError, ValueError, OSError) as error:
        logger.error("not reloaded: %s: %s", file, error)
        return False
    return True


def start_again() -> None:
    """Replace this process by a new one with the same arguments."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
