"""The main port that all workers share: held by the supervisor, so that it stays the proxy's while workers come and go.

The supervisor binds it and never listens; every worker listens on it with SO_REUSEPORT, and the kernel spreads new
connections over those that do.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

from stateside.proxy.config import Settings


class MainPort:
    """Bound on every address that `http_interface` names. `number` is the port, a free one for http_port = 0."""

    def __init__(self, settings: Settings) -> None:
        """Raises OSError naming the setting to change."""
        self.number = settings.http_port
        self._held: list[socket.socket] = []
        interface = settings.http_interface
        try:
            for family, address in _addresses(interface):
                self._hold(family, address)
        except OSError as error:
            self.close()
            place = f"http_port = {settings.http_port}: cannot listen on {interface}"
            raise OSError(error.errno, f"{place}: {error.strerror}") from error

    def close(self) -> None:
        for each in self._held:
            each.close()
        self._held.clear()

    def _hold(self, family: int, address: str) -> None:
        if self.number:
            # Sharing is for our own workers: a port on which anybody listens already is refused, sharing or not.
            _bind(family, address, self.number, shared=False).close()
        held = _bind(family, address, self.number, shared=True)
        self._held.append(held)
        self.number = held.getsockname()[1]


def _addresses(interface: str) -> Iterator[tuple[int, str]]:
    found = socket.getaddrinfo(interface, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    yield from dict.fromkeys((int(family), str(address[0])) for family, _, _, _, address in found)


def _bind(family: int, address: str, port: int, shared: bool) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((address, port))
    except OSError:
        made.close()
        raise
    return made
