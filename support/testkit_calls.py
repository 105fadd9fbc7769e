"""The transport's and the operator's side of the test kit: calls that keep what is sent, hooks that keep exceptions."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from .hooks import Hooks


class KitCall:
    """A call that keeps what is sent."""

    ended = False

    def __init__(self) -> None:
        self.context: Any = None
        self.sent: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def send(self, message: bytes) -> bool:
        self.sent.append(message)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        return True

    def reply(self, message: bytes) -> None:
        """The whole answer of a unary call."""
        self.send(message)

    async def answered(self) -> None:
        """Wait until something was sent."""
        if not self.sent:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def finish(self) -> None:
        """The stream ended; what it sent can still be read."""

    def pause(self) -> None:
        """Nothing is held back here."""

    def resume(self) -> None:
        """Nothing was held back."""


class KitHooks(Hooks):
    """Keeps the exception of a failed stream, so that the test sees it where it happened."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def stream_failed(self, service: str, entity_id: str, command: str, description: str, error: Exception) -> None:
        self.error = error
