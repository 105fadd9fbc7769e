"""The shopping cart on the old Python support library, as a process.

The library can neither choose a free port nor tell of one, so the port is chosen here, and kept: a socket that is bound
to it but does not listen keeps everybody else away, except the library, whose server shares ports.
"""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import uvloop

from .program import CartProgram

FOLDER = Path(__file__).parent / "python_old"
PERSISTENCE_ID = "old-python-cart"
# The library serves each open stream by one thread of its ten, and needs one for discovery and error reports.
STREAMS = 9
PROXY_SETTINGS = {
    "STATESIDE_USER_FUNCTION_MAX_CONNECTIONS": "1",
    "STATESIDE_USER_FUNCTION_STREAMS_PER_CONNECTION": str(STREAMS),
}


def set_up() -> None:
    """Install what the user function needs; quick when nothing changed."""
    done = subprocess.run([FOLDER / "setup"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"tests/interop/python_old/setup failed:\n{done.stdout}{done.stderr}")


class OldPythonCart(CartProgram):
    """The user function, on the same port whenever it is started."""

    def __init__(self) -> None:
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._reserved.bind(("127.0.0.1", 0))
        env = {
            "HOST": "127.0.0.1",
            "PORT": str(self._reserved.getsockname()[1]),
            "PYTHONPATH": ".venv/generated",
            "PYTHONUNBUFFERED": "1",
        }
        super().__init__([FOLDER / ".venv" / "bin" / "python", "cart.py"], FOLDER, env)

    def start(self) -> None:
        """It is there when it answers: what it prints comes before it listens."""
        super().start()
        uvloop.run(self.discover())

    def close(self) -> None:
        super().close()
        self._reserved.close()
