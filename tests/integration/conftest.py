"""One event loop for the whole session, coroutine tests on it, and a `world` that the tests of a file share."""

from __future__ import annotations

from .loop import pytest_pyfunc_call, runner, world

__all__ = ["pytest_pyfunc_call", "runner", "world"]
