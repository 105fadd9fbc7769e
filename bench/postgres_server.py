"""A real Postgres server for tests and benchmarks: a cluster in a folder of its own, ended by its pid."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

OWNER = "postgres"
START_TIMEOUT = 30.0


class PostgresServer:
    """`start`, `kill` (-9) and `start` again, `stop`. `dsn` names a database in it."""

    def __init__(self, options: Sequence[str] = ()) -> None:
        """options: settings as `name=value`."""
        self.port = _free_port()
        self.dsn = f"postgresql://{OWNER}@127.0.0.1:{self.port}/postgres"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        # The server refuses to run as root, and its owner must be able to reach the folder.
        self._home = Path(tempfile.mkdtemp(prefix="stateside-postgres-"))
        self._home.chmod(0o755)
        self.folder = self._home / "cluster"
        self.folder.mkdir()
        self._as_owner = _as_owner(self.folder)
        self._run("initdb", "--no-sync", "--auth=trust", f"--username={OWNER}", "-D", str(self.folder))

    def start(self) -> PostgresServer:
        settings = [f"port={self.port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", *self._options]
        arguments = [option for setting in settings for option in ("-c", setting)]
        command = [*self._as_owner, _program("postgres"), "-D", str(self.folder), *arguments]
        log = (self._home / "log").open("ab")
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        self._await_ready()
        return self

    def kill(self) -> None:
        """All of it at once, as a crash of the machine would (what was flushed stays)."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGINT)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._home, ignore_errors=True)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        postmaster = int((self.folder / "postmaster.pid").read_text().split("\n")[0])
        children = _children(postmaster)
        os.kill(postmaster, number)
        process.wait(30)
        if number == signal.SIGKILL:
            for child in children:
                try:
                    os.kill(child, signal.SIGKILL)
                except ProcessLookupError:
                    pass  # it noticed by itself that its parent is gone
            (self.folder / "postmaster.pid").unlink(missing_ok=True)

    def _await_ready(self) -> None:
        end = time.monotonic() + START_TIMEOUT
        while subprocess.run(
            [_program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False
        ).returncode:
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"Postgres did not start: {(self._home / 'log').read_text()[-2000:]}")

    def _run(self, name: str, *arguments: str) -> None:
        command = [*self._as_owner, _program(name), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder, check=False)
        if done.returncode:
            raise RuntimeError(f"{name}: {done.stderr}")


def _program(name: str) -> str:
    """Debian keeps the programs of each version apart, and most of them out of the way."""
    found = shutil.which(name) or next(map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None)
    if found is None:
        raise RuntimeError(f"{name} is missing: tests/interop/setup installs PostgreSQL")
    return found


def _as_owner(folder: Path) -> list[str]:
    if os.getuid() != 0:
        return []
    owner = pwd.getpwnam(OWNER)
    os.chown(folder, owner.pw_uid, owner.pw_gid)
    return ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
