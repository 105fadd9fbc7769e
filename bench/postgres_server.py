"""A server of Postgres for one measurement: a cluster of its own with settings as they come, on a free port."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from stateside.bench.processes import Process, Stage, free_port
from stateside.bench.works import MeasurementFailed, answering

OWNER = "postgres"
INIT_TIMEOUT = 60.0
STOP_TIMEOUT = 15.0


@asynccontextmanager
async def postgres(stage: Stage) -> AsyncIterator[tuple[Process, str]]:
    """The server, and the address of a database in it."""
    home = Path(tempfile.mkdtemp(prefix="stateside-bench-", dir=reachable(stage.folder.resolve())))
    try:
        become = as_owner(home)
        cluster, port = home / "cluster", free_port()
        initdb = ["--no-sync", "--auth=trust", f"--username={OWNER}", "-D", str(cluster)]
        made = await stage.start("initdb", [*become, program("initdb"), *initdb])
        if await made.ended(INIT_TIMEOUT) != 0:
            raise made.failed("failed")
        settings = (f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=")
        options = [option for setting in settings for option in ("-c", setting)]
        server = await stage.start("postgres", [*become, program("postgres"), "-D", str(cluster), *options])
        await answering(port)
        yield server, f"postgresql://{OWNER}@127.0.0.1:{port}/postgres"
        server.signal(signal.SIGINT)  # which ends connections too
        await server.ended(STOP_TIMEOUT)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def reachable(folder: Path) -> Path | None:
    """The folder if the server's owner can go there, None for the system's folder of temporary files."""
    if os.getuid() != 0 or all(each.stat().st_mode & 0o001 for each in (folder, *folder.parents)):
        return folder
    return None


def as_owner(folder: Path) -> list[str]:
    """How a program is started that refuses to run as root; the folder becomes its own."""
    if os.getuid() != 0:
        return []
    try:
        owner = pwd.getpwnam(OWNER)
    except KeyError:
        raise MeasurementFailed(f"there is no user {OWNER!r}; scripts/setup-bench installs Postgres") from None
    os.chown(folder, owner.pw_uid, owner.pw_gid)
    return ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]


def program(name: str) -> str:
    """Debian keeps the programs of each version apart, and most of them out of the way."""
    found = shutil.which(name) or next(map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None)
    if found is None:
        raise MeasurementFailed(f"{name} is missing; scripts/setup-bench installs it")
    return found
