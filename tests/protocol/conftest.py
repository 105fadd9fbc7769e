"""Coroutine tests run as those of tests/integration do."""

from __future__ import annotations

from ..integration.loop import pytest_pyfunc_call, runner, world

__all__ = ["pytest_pyfunc_call", "runner", "world"]
