"""Whether the proxy is ready, and if not, what it waits for. Read by /ready and grpc.health.v1.

Ready means discovered, bound and not stopping; whoever starts and stops the proxy writes it here. It says nothing about
the health of user code afterwards: a user function that fails must not have its proxy restarted.
"""

from collections.abc import Callable, Mapping


class Readiness:
    """Reasons for not being ready, by the part that gives them; ready when there are none."""

    __slots__ = ("_listeners", "_reasons")

    def __init__(self, reasons: Mapping[str, str] | None = None) -> None:
        self._reasons = dict(reasons or {})
        self._listeners: list[Callable[[], None]] = []

    @property
    def ready(self) -> bool:
        return not self._reasons

    @property
    def reasons(self) -> list[str]:
        return list(self._reasons.values())

    @property
    def by_part(self) -> dict[str, str]:
        """Reason by part."""
        return dict(self._reasons)

    def block(self, part: str, reason: str) -> None:
        """`part` is not ready, because ..."""
        self._reasons[part] = reason
        self._tell()

    def clear(self, part: str) -> None:
        """`part` is ready."""
        self._reasons.pop(part, None)
        self._tell()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever something may have changed."""
        self._listeners.append(listener)

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()
