"""TLS of a real proxy: to its clients, to its user function, and certificates that change while it runs."""

from __future__ import annotations

import asyncio
import http.client
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.helpers.certificates import HOST, Authority, Issued

from . import messages
from .harness import Client, Outcome, ProxyProcess, World, eventually, ok, outcome
from .messages import emit
from .user_function import PATIENCE_S, ScriptedUserFunction, a_key, soon

ENTITY = "/tck/model/eventsourced/"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def files(issued: Issued, prefix: str = "tls") -> dict[str, str]:
    return {f"{prefix}_certificate": str(issued.certificate), f"{prefix}_key": str(issued.key)}


@asynccontextmanager
async def served(authority: Authority, **settings: str) -> AsyncIterator[World]:
    """A world whose proxy speaks TLS; its `client` does not."""
    issued = authority.issue("proxy")
    async with World(authority.folder, **files(issued), journal="memory:", **settings) as world:
        yield world


async def ask(port: int, authority: Authority, key: str, own: Issued | None = None, message: str = "x") -> Outcome:
    """A call of grpcio over TLS."""
    credentials = grpc.ssl_channel_credentials(
        authority.certificate.read_bytes(),
        own.key.read_bytes() if own else None,
        own.certificate.read_bytes() if own else None,
    )
    request = messages.request(key, emit(message)).SerializeToString()
    # grpcio shares connections between channels of equal options, and a new one is wanted here.
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(f"{HOST}:{port}", credentials, options=options) as channel:
        path = f"/{messages.MODEL}/{messages.METHODS[messages.MODEL]}"
        return await outcome(channel.unary_unary(path)(request, timeout=PATIENCE_S))


async def ask_over_http1(port: int, context: ssl.SSLContext, path: str, body: bytes) -> tuple[int, bytes]:
    """A POST of the standard library's client."""

    def run() -> tuple[int, bytes]:
        connection = http.client.HTTPSConnection(HOST, port, context=context, timeout=PATIENCE_S)
        try:
            connection.request("POST", path, body, {"content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    return await asyncio.to_thread(run)


async def certificate_of(port: int, context: ssl.SSLContext) -> bytes:
    """What a new client is shown."""
    _, writer = await asyncio.open_connection(HOST, port, ssl=context)
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return shown


# --- clients ---------------------------------------------------------------------------------------------------------


async def test_grpc_and_http_are_served_over_tls_and_nothing_without_it(authority: Authority) -> None:
    async with served(authority) as world:
        port, key = world.proxy.port, a_key()
        assert world.proxy.stdout == [f"Stateside serves https://{HOST}:{port}"]
        assert await ask(port, authority, key) == ok("x")
        answer = await ask_over_http1(port, authority.client_context(), ENTITY + key, b"{}")
        assert answer == (200, b'{"message":"x"}')
        refused = await world.client.ask(key)
        assert refused.status == grpc.StatusCode.UNAVAILABLE
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert b"HTTP" not in await soon(reader.read(), "the end of a connection in plaintext")
        writer.close()
        assert await ask(port, authority, key, message="y") == ok("xy")
        assert '"error"' not in world.proxy.log


async def test_a_body_that_is_too_large_is_refused_over_tls_too(authority: Authority) -> None:
    async with served(authority, max_request_size="1K") as world:
        status, _ = await ask_over_http1(world.proxy.port, authority.client_context(), ENTITY + a_key(), b" " * 2000)
        assert status == 413
        assert '"error"' not in world.proxy.log


async def test_a_client_without_certificate_is_turned_away_where_one_is_required(authority: Authority) -> None:
    async with served(authority, tls_client_ca=str(authority.certificate)) as world:
        port = world.proxy.port
        own = authority.issue("client", "someone")
        assert await ask(port, authority, a_key(), own) == ok("x")
        assert (await ask(port, authority, a_key())).status == grpc.StatusCode.UNAVAILABLE
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            await ask_over_http1(port, authority.client_context(), ENTITY + a_key(), b"{}")
        answer = await ask_over_http1(port, authority.client_context(own), ENTITY + a_key(), b"{}")
        assert answer == (200, b'{"message":""}')


async def test_an_unfinished_handshake_is_given_up(authority: Authority) -> None:
    async with served(authority, header_timeout="200ms") as world:
        reader, writer = await asyncio.open_connection(HOST, world.proxy.port)
        assert await soon(reader.read(), "the end of a silent connection") == b""
        writer.close()


async def test_failed_handshakes_are_counted(authority: Authority) -> None:
    async with served(authority) as world:
        with pytest.raises(ssl.SSLCertVerificationError):
            await certificate_of(world.proxy.port, ssl.create_default_context())

        async def is_counted() -> bool:
            _, figures = await world.proxy.admin("/metrics")
            return "\nstateside_tls_failed_handshakes_total 1.0\n" in figures

        await eventually(is_counted, "the failed handshake in the metrics")


async def test_the_proxy_stops_cleanly_with_connections_open(authority: Authority) -> None:
    async with served(authority) as world:
        port, context = world.proxy.port, authority.client_context()
        key = world.user_function.play()
        asked = asyncio.create_task(ask(port, authority, key))
        stream = await world.user_function.ready_stream(key)
        reader, writer = await asyncio.open_connection(HOST, port, ssl=context)
        stopped = asyncio.create_task(world.proxy.terminate())
        assert await soon(reader.read(), "the end of an idle connection") == b""
        writer.close()
        await stream.next()
        await stream.send(messages.reply(1, "x"))
        assert await asked == ok("x")
        assert await stopped == 0


# --- files that change -----------------------------------------------------------------------------------------------


async def test_a_new_certificate_is_used_without_a_restart_and_open_connections_stay(authority: Authority) -> None:
    async with served(authority, tls_check_interval="100ms") as world:
        port, context, key = world.proxy.port, authority.client_context(), a_key()
        first = await certificate_of(port, context)
        credentials = grpc.ssl_channel_credentials(authority.certificate.read_bytes())
        client = Client(port)
        await client.close()
        client.channel = grpc.aio.secure_channel(f"{HOST}:{port}", credentials)
        assert await client.ask(key, emit("x")) == ok("x")
        second = authority.issue("proxy").der

        async def is_used() -> bool:
            return await certificate_of(port, context) == second

        await eventually(is_used, "the new certificate")
        assert first != second
        assert await client.ask(key, emit("y")) == ok("xy")
        await client.close()


async def test_at_sighup_the_files_are_read_again_and_broken_ones_are_logged_and_left(authority: Authority) -> None:
    async with served(authority, tls_check_interval="0") as world:
        port, context = world.proxy.port, authority.client_context()
        first = await certificate_of(port, context)
        key = authority.folder / "proxy.key"
        good = key.read_bytes()
        key.write_bytes(b"broken")
        world.proxy.signal(signal.SIGHUP)

        async def is_logged() -> bool:
            return "the new files cannot be used" in world.proxy.log

        await eventually(is_logged, "the broken key in the log")
        assert str(key) in world.proxy.log
        assert await certificate_of(port, context) == first
        key.write_bytes(good)
        second = authority.issue("proxy").der
        assert await certificate_of(port, context) == first
        world.proxy.signal(signal.SIGHUP)

        async def is_used() -> bool:
            return await certificate_of(port, context) == second

        await eventually(is_used, "the new certificate")


# --- the start -------------------------------------------------------------------------------------------------------


async def test_files_that_cannot_be_used_end_the_start_with_their_name_and_the_reason(authority: Authority) -> None:
    issued, other = authority.issue("proxy"), authority.issue("other")
    cases: list[tuple[dict[str, str], str]] = [
        ({"tls_certificate": str(authority.folder / "none.pem")}, "none.pem': cannot be read: No such file"),
        (files(issued) | {"tls_key": str(other.key)}, "other.key': the private key does not belong to the certificate"),
    ]
    for settings, said in cases:
        proxy = ProxyProcess(1, authority.folder, **settings)
        await proxy.start(ready=False)
        assert await proxy.wait_exit() == 2
        await proxy.stop()
        assert proxy.log.splitlines()[-1].startswith("stateside: tls_certificate = ")
        assert said in proxy.log


# --- the user function -----------------------------------------------------------------------------------------------


class SecureUserFunction(ScriptedUserFunction):
    """A user function that speaks TLS, and asks for the proxy's certificate if it has an authority for it."""

    def __init__(self, issued: Issued, client_authority: Authority | None = None) -> None:
        super().__init__()
        self._credentials = grpc.ssl_server_credentials(
            [(issued.key.read_bytes(), issued.certificate.read_bytes())],
            client_authority.certificate.read_bytes() if client_authority else None,
            require_client_auth=client_authority is not None,
        )

    async def start(self) -> ScriptedUserFunction:
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers(self._services())
        self.port = self._server.add_secure_port(f"{HOST}:{self.port}", self._credentials)
        await self._server.start()
        return self


def secure(authority: Authority, **more: str) -> dict[str, Any]:
    return {
        "user_function_tls": "true",
        "user_function_tls_ca": str(authority.certificate),
        "journal": "memory:",
        **more,
    }


async def test_the_user_function_is_spoken_to_over_tls_with_certificates_of_both_sides(authority: Authority) -> None:
    user_function = SecureUserFunction(authority.issue("function"), authority)
    own = files(authority.issue("own", "proxy"), "user_function_tls")
    async with World(authority.folder, user_function=user_function, **secure(authority, **own)) as world:
        assert await world.client.ask(a_key(), emit("x")) == ok("x")


async def test_the_user_function_may_have_another_name_than_its_address(authority: Authority) -> None:
    user_function = SecureUserFunction(authority.issue("function", "function.example"))
    settings = secure(authority, user_function_tls_server_name="function.example")
    async with World(authority.folder, user_function=user_function, **settings) as world:
        assert await world.client.ask(a_key(), emit("x")) == ok("x")


@pytest.mark.parametrize(
    ("host", "expired", "reason"), [(HOST, True, "certificate has expired"), ("another.example", False, "mismatch")]
)
async def test_a_user_function_that_cannot_prove_itself_is_not_served_and_the_log_says_why(
    authority: Authority, host: str, expired: bool, reason: str
) -> None:
    user_function = SecureUserFunction(authority.issue("function", host, expired=expired))
    await user_function.start()
    proxy = ProxyProcess(user_function.port, authority.folder, **secure(authority))
    await proxy.start(ready=False)
    try:

        async def is_logged() -> bool:
            return reason in proxy.log

        await eventually(is_logged, f"{reason!r} in the log")
        assert user_function.discovered == []
        assert not proxy.ready
    finally:
        await proxy.stop()
        await user_function.stop()
