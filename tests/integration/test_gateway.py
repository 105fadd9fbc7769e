"""The main port against bad input, a missing user function, wrong settings, a damaged journal: a clear answer each."""

from __future__ import annotations

import asyncio
import shutil
import socket
import sys
from pathlib import Path

import grpc
import pytest

from .harness import Client, ProxyProcess, World, eventually, http_get, method_path, ok
from .messages import MODEL, emit, init, reply, request
from .user_function import ScriptedUserFunction, a_key

SETTINGS = {"journal": "memory:", "max_request_size": "64K", "stash_depth": "5"}

MALFORMED = [b"\xff", b"\x0a\x7fshort", b"\x0a\x02\xff\xfe", b"\x0b", b"\x00\x00", b"\x0a\x03key\x12"]


@pytest.mark.parametrize("data", MALFORMED, ids=[data.hex() for data in MALFORMED])
async def test_a_malformed_request_is_an_invalid_argument_that_names_the_method(world: World, data: bytes) -> None:
    streams = len(world.user_function.streams)
    outcome = await world.client.raw(method_path(MODEL), data)
    assert outcome.status == grpc.StatusCode.INVALID_ARGUMENT
    assert f"{MODEL}.Process" in outcome.details
    assert len(world.user_function.streams) == streams


async def test_a_malformed_request_leaves_the_entity_and_the_connection_untouched(world: World) -> None:
    key = a_key()
    assert await world.client.ask(key, emit("x")) == ok("x")
    damaged = request(key, emit("y")).SerializeToString()[:-1]
    assert (await world.client.raw(method_path(MODEL), damaged)).status == grpc.StatusCode.INVALID_ARGUMENT
    assert await world.client.ask(key) == ok("x")
    (stream,) = world.user_function.streams_of(key)
    assert len(stream.received) == 3


async def test_d8_an_empty_key_is_an_invalid_argument_at_once(world: World) -> None:
    """The reference lets the client wait for a minute."""
    outcome = await world.client.ask("", emit("x"))
    assert outcome.status == grpc.StatusCode.INVALID_ARGUMENT
    assert f"{MODEL}.Process" in outcome.details and "key" in outcome.details


@pytest.mark.parametrize("key", ["ä 漢字 🛒", "a|b", "a/b?c=d&e#f", " ", "\n", "-", "x" * 400])
async def test_any_text_is_a_key(world: World, key: str) -> None:
    assert await world.client.ask(key, emit("x")) == ok("x")
    assert world.user_function.streams_of(key)[0].received[0] == init(key)


async def test_a_very_long_key_is_served_or_refused_clearly(world: World) -> None:
    outcome = await world.client.ask("k" * 30_000, emit("x"))
    refused = outcome.status in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert outcome == ok("x") or refused


@pytest.mark.parametrize(
    "path", [f"/{MODEL}/NoSuchMethod", "/no.such.Service/Process", f"/{MODEL}", "/", f"/{MODEL.lower()}/Process"]
)
async def test_an_unknown_method_is_unimplemented(world: World, path: str) -> None:
    outcome = await world.client.raw(path, request("key").SerializeToString())
    assert outcome.status == grpc.StatusCode.UNIMPLEMENTED


async def test_d32_a_request_above_the_limit_is_resource_exhausted(world: World) -> None:
    key = a_key()
    outcome = await world.client.ask(key, emit("x" * 70_000))
    assert outcome.status == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert world.user_function.streams_of(key) == []
    assert (await world.client.ask(key, emit("x" * 60_000))).ok


async def test_more_commands_than_may_wait_for_one_entity_are_refused(world: World) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key)
    waiting = [world.client.start(key) for _ in range(5)]
    await world.queued(5)
    refused = await world.client.ask(key)
    assert refused.status == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "stash_depth" in refused.details
    for number, waiter in enumerate([call, *waiting], 1):
        await stream.send(reply(number, str(number)))
        assert await waiter == ok(str(number))


async def test_a_unary_method_called_with_two_messages_or_none_is_refused(world: World) -> None:
    key = a_key()
    data = request(key).SerializeToString()
    for messages in ([], [data, data]):
        call = world.client.channel.stream_unary(method_path(MODEL))(iter(messages), timeout=5)
        assert await call.code() != grpc.StatusCode.OK
    assert world.user_function.streams_of(key) == []


async def test_get_of_the_root_is_answered_over_http_1(world: World) -> None:
    """The TCK asks so whether the proxy is there."""
    status, _ = await http_get(world.proxy.port, "/")
    assert status == 404


async def test_bytes_that_are_no_http_hurt_nobody(world: World) -> None:
    for garbage in (b"\x00" * 1000, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100, b"GET", b""):
        reader, writer = await asyncio.open_connection("127.0.0.1", world.proxy.port)
        writer.write(garbage)
        writer.write_eof()
        async with asyncio.timeout(15):
            await reader.read()
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
    assert (await world.client.ask(a_key())).ok


# --- the user function is away ---------------------------------------------------------------------------------------


async def test_without_its_user_function_a_command_is_unavailable_at_once_and_later_served(tmp_path: Path) -> None:
    async with World(tmp_path, journal="memory:") as world:
        key = a_key()
        assert await world.client.ask(key, emit("x")) == ok("x")
        await world.user_function.stop()
        for _ in range(3):
            outcome = await world.client.ask(key, emit("y"), timeout=2)
            assert outcome.status == grpc.StatusCode.UNAVAILABLE
            assert "user function" in outcome.details
        await world.user_function.start()

        async def served() -> bool:
            return await world.client.ask(key) == ok("x")

        await eventually(served, "the entity is served again")


async def test_commands_in_flight_when_the_user_function_dies_fail_and_those_behind_are_told(tmp_path: Path) -> None:
    async with World(tmp_path, journal="memory:") as world:
        key = world.user_function.play()
        call, _ = await world.busy(key)
        queued = world.client.start(key)
        await world.queued(1)
        await world.user_function.stop()
        outcome = await call
        assert (outcome.status, outcome.details) == (grpc.StatusCode.UNKNOWN, "Unexpected entity termination")
        assert (await queued).status == grpc.StatusCode.UNAVAILABLE
        await world.user_function.start()


# --- settings --------------------------------------------------------------------------------------------------------


async def refused_start(folder: Path, **settings: str) -> str:
    """Start a proxy that is to refuse; its one line."""
    proxy = ProxyProcess(1, folder, **settings)
    try:
        await proxy.start(ready=False)
        assert await proxy.wait_exit(15) == 2
    finally:
        await proxy.stop()
    assert proxy.stdout == []
    (line,) = [line for line in proxy.log.splitlines() if line and not line.startswith("{")]
    return line


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"http_port": "ninety"}, ["http_port", "ninety", "65535"]),
        ({"durability": "sometimes"}, ["durability", "sometimes", "relaxed"]),
        ({"http_prot": "9000"}, ["HTTP_PROT"]),
        ({"backoff_min": "5s", "backoff_max": "1s"}, ["backoff_min", "backoff_max"]),
    ],
)
async def test_a_wrong_setting_is_one_clear_line_and_exit_code_2(
    tmp_path: Path, settings: dict[str, str], words: list[str]
) -> None:
    line = await refused_start(tmp_path, **settings)
    assert all(word in line for word in words), line


async def test_a_journal_that_cannot_be_opened_is_one_clear_line_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    user_function = await ScriptedUserFunction().start()  # whether a journal is needed shows at discovery
    port = str(user_function.port)
    line = await refused_start(tmp_path, user_function_port=port, journal=f"lmdb:{tmp_path / 'file' / 'journal'}")
    assert "journal" in line
    await user_function.stop()


async def test_a_journal_in_use_is_refused(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        (tmp_path / "second").mkdir()
        settings = {key: world.proxy.settings[key] for key in ("journal", "user_function_port")}
        line = await refused_start(tmp_path / "second", **settings)
        assert "journal" in line
        assert (await world.client.ask(a_key(), emit("x"))).ok


@pytest.mark.parametrize("key", ["http_port", "admin_port"])
async def test_a_port_that_is_taken_is_one_clear_line_and_exit_code_2(tmp_path: Path, key: str) -> None:
    user_function = await ScriptedUserFunction().start()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        settings = {key: port, "user_function_port": str(user_function.port), "journal": "memory:"}
        line = await refused_start(tmp_path, **settings)
        assert key in line and port in line
    await user_function.stop()


# --- a damaged journal -----------------------------------------------------------------------------------------------


async def test_a_corrupt_record_is_data_loss_for_its_entity_and_the_others_are_served(tmp_path: Path) -> None:
    """Row 29 of core 4.4, where the reference lets clients hang."""
    async with World(tmp_path) as world:
        good, bad, marker = a_key(), a_key(), "the-record-to-damage"
        assert (await world.client.ask(good, emit("fine"))).ok
        assert (await world.client.ask(bad, emit(marker))).ok
        await world.proxy.kill()
        damage(tmp_path / "journal", marker.encode())
        await world.proxy.start()
        client = Client(world.proxy.port)
        for _ in range(2):
            outcome = await client.ask(bad)
            assert outcome.status == grpc.StatusCode.DATA_LOSS
            assert bad in outcome.details
        assert await client.ask(good) == ok("fine")
        assert (await client.ask(a_key(), emit("new"))).ok
        await client.close()


def damage(folder: Path, marker: bytes) -> None:
    """Flip one bit of every copy of `marker` in the files of a journal."""
    found = 0
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        data = bytearray(path.read_bytes())
        at = data.find(marker)
        while at >= 0:
            data[at] ^= 1
            found += 1
            at = data.find(marker, at + 1)
        path.write_bytes(data)
    assert found


async def test_state_survives_a_kill_of_the_proxy(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        key = a_key()
        for value, state in zip("abcdefg", ("a", "ab", "abc", "abcd", "abcde", "abcdef", "abcdefg"), strict=True):
            assert await world.client.ask(key, emit(value)) == ok(state)
        await world.restart_proxy()
        assert await world.client.ask(key) == ok("abcdefg")


def test_the_command_is_installed() -> None:
    assert shutil.which("stateside", path=str(Path(sys.executable).parent))
