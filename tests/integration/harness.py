"""The proxy as a process, and clients that see what it answers: what black-box tests need besides a user function.

    World = ScriptedUserFunction + ProxyProcess + Client, on free ports, with a journal in a folder of its own

Tests are coroutines on one event loop of the session (see loop.py), because grpc.aio ties servers and channels to a
loop and many tests share a proxy.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import grpc.aio
from tck import eventsourced_pb2 as model

from . import messages
from .user_function import PATIENCE_S, EntityStream, ScriptedUserFunction, soon

READY_LINE = "Stateside serves http"
START_PATIENCE_S = 20.0
ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    """A port that was free a moment ago, for servers that must know it before they start."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def eventually(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Ask again and again, for what can only be asked for."""

    async def poll() -> None:
        while not await condition():
            await asyncio.sleep(0.01)

    await soon(poll(), what)


# --- the process -----------------------------------------------------------------------------------------------------


class ProxyProcess:
    """`stateside proxy` as a subprocess. The same object may start again, on the same journal and admin port."""

    def __init__(self, to_port: int, folder: Path, **settings: str) -> None:
        """`settings` are settings of the proxy by key, as texts."""
        self.folder = folder
        self.admin_port = free_port()
        self.settings = {
            "http_interface": "127.0.0.1",
            "http_port": "0",
            "admin_port": str(self.admin_port),
            "metrics_enabled": "false",
            "user_function_port": str(to_port),
            "journal": f"lmdb:{folder / 'journal'}",
            "backoff_min": "50ms",
            "backoff_max": "200ms",
            "graceful_termination_timeout": "2s",
        } | settings
        self.port = 0
        self.stdout: list[str] = []
        self.process: asyncio.subprocess.Process | None = None
        self._ready = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    @property
    def log(self) -> str:
        """All it ever wrote to stderr."""
        path = self.folder / "proxy.log"
        return path.read_text() if path.exists() else ""

    async def start(self, ready: bool = True) -> ProxyProcess:
        """Start it; with `ready`, also wait until it serves."""
        self._ready.clear()
        with (self.folder / "proxy.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "stateside.proxy.cli",
                "proxy",
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=self.environment(),
                cwd=self.folder,
            )
        self._reading = asyncio.create_task(self._read_stdout(self.process))
        if ready:
            await self.wait_ready()
        return self

    def environment(self) -> dict[str, str]:
        """Its own, without settings that happen to be in ours."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("STATESIDE_")}
        return kept | {f"STATESIDE_{key.upper()}": value for key, value in self.settings.items()}

    async def wait_ready(self) -> None:
        ready, ended = asyncio.create_task(self._ready.wait()), asyncio.create_task(self.wait_exit(START_PATIENCE_S))
        await asyncio.wait((ready, ended), return_when=asyncio.FIRST_COMPLETED, timeout=START_PATIENCE_S)
        ready.cancel()
        ended.cancel()
        await asyncio.gather(ready, ended, return_exceptions=True)
        assert self._ready.is_set(), f"the proxy did not become ready:\n{self.stdout}\n{self.log}"

    @property
    def ready(self) -> bool:
        return self._ready.is_set()

    async def wait_exit(self, patience_s: float = PATIENCE_S) -> int:
        """Its exit code."""
        assert self.process is not None
        async with asyncio.timeout(patience_s):
            return await self.process.wait()

    def signal(self, number: int) -> None:
        assert self.process is not None and self.process.returncode is None
        self.process.send_signal(number)

    async def kill(self) -> None:
        """kill -9."""
        self.signal(signal.SIGKILL)
        await self.wait_exit()
        await self._finish_reading()

    async def stop(self) -> None:
        """End it however it stands; for the end of tests."""
        if self.process is None:
            return
        if self.process.returncode is None:
            await self.kill()
        await self._finish_reading()

    async def terminate(self) -> int:
        """SIGTERM, and the exit code."""
        self.signal(signal.SIGTERM)
        code = await self.wait_exit(PATIENCE_S + 5)
        await self._finish_reading()
        return code

    async def _finish_reading(self) -> None:
        if self._reading is not None:
            await self._reading
            self._reading = None

    async def _read_stdout(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            text = line.decode().rstrip()
            self.stdout.append(text)
            if text.startswith(READY_LINE):
                self.port = int(text.rpartition(":")[2])
                self._ready.set()

    # --- admin port --------------------------------------------------------------------------------------------------

    async def admin(self, path: str) -> tuple[int, str]:
        return await http_get(self.admin_port, path)

    async def metrics(self, service: str = messages.MODEL) -> Metrics:
        """The metrics of one entity type as they are now."""
        status, text = await self.admin("/metrics")
        assert status == 200
        return Metrics(text, messages.PERSISTENCE_IDS[service])


class Metrics(dict[str, float]):
    """Values by short name: `cloudstate_eventsourced_<name>`, or that of value entities, with the label of one entity
    type."""

    PREFIXES = ("cloudstate_eventsourced_", "stateside_value_", "stateside_crdt_")

    def __init__(self, text: str, entity_name: str) -> None:
        super().__init__()
        label = f'{{entity_name="{entity_name}"}}'
        for line in text.splitlines():
            name, _, value = line.rpartition(" ")
            for prefix in self.PREFIXES:
                if name.startswith(prefix) and name.endswith(label):
                    self[name[len(prefix) : -len(label)]] = float(value)

    def since(self, earlier: Metrics) -> dict[str, float]:
        """What changed, without times."""
        changes = {name: value - earlier.get(name, 0.0) for name, value in self.items() if not name.endswith("_sum")}
        return {name: change for name, change in changes.items() if change}


async def http_get(port: int, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
    """(status, body) of a GET over HTTP/1.1."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    fields = {"Host": "localhost", "Connection": "close"} | dict(headers or {})
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    writer.write(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
    answer = (await soon(reader.read(), f"an answer to GET {path}")).decode()
    writer.close()
    await writer.wait_closed()
    top, _, body = answer.partition("\r\n\r\n")
    return int(top.split()[1]), body


# --- clients ---------------------------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """What a client sees of a call."""

    status: grpc.StatusCode
    details: str
    message: str | None  # of the model's Response

    @property
    def ok(self) -> bool:
        return self.status == grpc.StatusCode.OK


def ok(text: str = "") -> Outcome:
    return Outcome(grpc.StatusCode.OK, "", text)


def unknown(details: str) -> Outcome:
    """What the reference answers to most that goes wrong."""
    return Outcome(grpc.StatusCode.UNKNOWN, details, None)


class Client:
    """One connection to the proxy."""

    def __init__(self, port: int, *options: tuple[str, Any]) -> None:
        # Each client has a connection of its own, and comes back quickly after the proxy was away.
        own = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.min_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 100),
            ("grpc.enable_retries", 0),
        ]
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[*own, *options])

    async def raw(self, path: str, data: bytes, timeout: float = PATIENCE_S, **more: Any) -> Outcome:
        """A unary call of any path with any bytes."""
        return await outcome(self.call(path, data, timeout, **more))

    def call(self, path: str, data: bytes, timeout: float = PATIENCE_S, **more: Any) -> Any:
        """The grpc.aio call itself, for headers and cancelling."""
        return self.channel.unary_unary(path)(data, timeout=timeout, **more)

    async def ask(
        self, key: str, *actions: Any, service: str = messages.MODEL, timeout: float = PATIENCE_S, **more: Any
    ) -> Outcome:
        """Call the service's method for an entity."""
        return await self.raw(
            method_path(service), messages.request(key, *actions, service=service).SerializeToString(), timeout, **more
        )

    def start(self, key: str, *actions: Any, **more: Any) -> asyncio.Task[Outcome]:
        """`ask`, begun now and awaited later."""
        return asyncio.create_task(self.ask(key, *actions, **more))

    async def close(self) -> None:
        await self.channel.close()


def method_path(service: str) -> str:
    return f"/{service}/{messages.METHODS[service]}"


async def outcome(call: Any) -> Outcome:
    try:
        message = model.Response.FromString(await call)
    except grpc.aio.AioRpcError as error:
        return Outcome(error.code(), error.details() or "", None)
    return Outcome(grpc.StatusCode.OK, await call.details() or "", message.message)


# --- all together ----------------------------------------------------------------------------------------------------


class World:
    """A user function, a proxy before it and a client. `async with World(folder, setting=...)`."""

    def __init__(self, folder: Path, *, user_function: ScriptedUserFunction | None = None, **settings: str) -> None:
        self.folder = folder
        self.user_function = user_function or ScriptedUserFunction()
        self.settings = settings

    async def __aenter__(self) -> World:
        await self.user_function.start()
        self.proxy = ProxyProcess(self.user_function.port, self.folder, **self.settings)
        try:
            await self.proxy.start()
        except BaseException:
            await self.proxy.stop()
            await self.user_function.stop()
            raise
        self.client = Client(self.proxy.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()
        await self.proxy.stop()
        await self.user_function.stop()

    async def restart_proxy(self) -> None:
        """kill -9 and start again on the same journal; the client follows."""
        await self.proxy.kill()
        await self.proxy.start()
        await self.client.close()
        self.client = Client(self.proxy.port)

    async def discovered(self, count: int) -> None:
        """Wait until the proxy serves what it found at its `count`th discovery; the user function is asked earlier."""

        async def now() -> bool:
            return self.proxy.log.count('"user function discovered"') == count

        await eventually(now, f"{count} discoveries")

    async def queued(self, count: int, service: str = messages.MODEL) -> None:
        """Wait until so many commands of an entity type wait behind others."""

        async def now() -> bool:
            metrics = await self.proxy.metrics(service)
            return metrics["stashed_commands_total"] - metrics["unstashed_commands_total"] == count

        await eventually(now, f"{count} commands queued")

    async def until_metric(self, name: str, value: float, service: str = messages.MODEL) -> None:
        async def now() -> bool:
            return (await self.proxy.metrics(service)).get(name) == value

        await eventually(now, f"{name} = {value:g}")

    async def next_life(self, key: str, stream: EntityStream) -> tuple[list[Any], EntityStream]:
        """Make the user function ask for a restart of an idle entity: what its next instance is sent up to its first
        command, and the new stream, idle again."""
        call = self.client.start(key)
        last = await stream.next()
        await stream.send(messages.failed(last.command.id, "restart, please", restart=True))
        assert await call == unknown("restart, please")
        await stream.close_as_asked()
        stream = await self.user_function.stream(key)
        call = self.client.start(key)
        sent = []
        while not (message := await stream.next()).HasField("command"):
            sent.append(message)
        await stream.send(messages.reply(message.command.id))
        assert await call == ok()
        return sent, stream

    async def busy(self, key: str, *actions: Any, **more: Any) -> tuple[asyncio.Task[Outcome], EntityStream]:
        """A call of a played entity without history whose command is now with the user function."""
        call = self.client.start(key, *actions, **more)
        stream = await self.user_function.ready_stream(key, more.get("service", messages.MODEL))
        first = await stream.next()
        assert first == messages.command(1, key, *actions, service=more.get("service", messages.MODEL))
        return call, stream
