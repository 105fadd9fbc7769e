"""The journal's folder as the supervisor has it, before any worker opens its part."""

from __future__ import annotations

from collections.abc import Iterator

from stateside.journal.contract import JournalError
from stateside.proxy.config import Settings


class JournalFolder:
    """`replica`: the node's identity for CRDTs; 0 if each journal has its own."""

    Error = JournalError

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.replica = 0
        self.progress = "the journal is being opened"

    async def open(self) -> None:
        """Raises JournalError."""

    async def close(self) -> None:
        """After all workers have ended."""

    def figures(self) -> Iterator[tuple[str, str, str, float]]:
        """Type, name, meaning and value."""
        return iter(())
