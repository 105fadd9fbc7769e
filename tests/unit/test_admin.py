"""The admin and metrics ports, and HTTP/1.1 on the main port: real sockets, every bound, every refusal."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

from stateside.proxy.admin import AdminServer
from stateside.proxy.config import load
from stateside.proxy.http1 import Bounds, Service, main_port, route_main_port
from stateside.proxy.metrics import Metrics
from stateside.proxy.readiness import Readiness

Answer = tuple[int, dict[str, str], bytes]


class Client:
    """A plain socket with just enough HTTP to read answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, head_only: bool = False) -> Answer:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        status, *lines = head.strip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        body = b"" if head_only else await self.reader.readexactly(int(headers["content-length"]))
        return int(status.split()[1]), headers, body

    async def get(self, path: str, method: str = "GET", headers: str = "") -> Answer:
        self.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
        return await self.answer(head_only=method == "HEAD")

    async def closed(self) -> bool:
        """Waits until the server has closed; True if it said nothing more."""
        try:
            return await self.reader.read() == b""
        except ConnectionResetError:
            return True


clients: list[Client] = []


async def connect(port: int) -> Client:
    clients.append(Client(*await asyncio.open_connection("127.0.0.1", port)))
    return clients[-1]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # what is waited for is inside the code under test
        await asyncio.sleep(0.001)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        try:
            async with asyncio.timeout(20):
                await test()
        finally:
            for client in clients:
                client.writer.close()
            await asyncio.gather(*(client.writer.wait_closed() for client in clients), return_exceptions=True)
            clients.clear()

    uvloop.run(bounded())


def with_admin(test: Callable[[AdminServer, Readiness, Metrics], Awaitable[None]], **settings: str) -> None:
    async def body() -> None:
        readiness, metrics = Readiness({"discovery": "the user function was not discovered yet"}), Metrics()
        ports = {"admin_port": "0", "metrics_port": "0", "metrics_host": "127.0.0.1"}
        server = AdminServer(load(ports | settings), readiness, metrics)
        await server.start()
        try:
            await test(server, readiness, metrics)
        finally:
            await server.close()

    run(body)


def with_service(test: Callable[[Service, int], Awaitable[None]], route: Any = route_main_port, **bounds: Any) -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        service = Service(route, loop, Bounds(**bounds))
        server = await loop.create_server(service.connect, "127.0.0.1", 0)
        try:
            await test(service, server.sockets[0].getsockname()[1])
        finally:
            service.close()
            server.close()

    run(body)


def test_alive_is_always_ok_and_ready_says_what_it_waits_for() -> None:
    async def test(server: AdminServer, readiness: Readiness, metrics: Metrics) -> None:
        client = await connect(server.admin_port)
        readiness.block("port", "the main port is not bound")
        status, _, body = await client.get("/ready")
        assert (status, body.decode().splitlines()) == (
            503,
            ["the user function was not discovered yet", "the main port is not bound"],
        )
        assert (await client.get("/alive"))[::2] == (200, b"OK\n")
        readiness.clear("discovery")
        readiness.clear("port")
        assert (await client.get("/ready?x=y"))[::2] == (200, b"OK\n")

    with_admin(test)


def test_a_departed_peer_is_named_by_a_post_to_the_admin_port_only() -> None:
    async def test(server: AdminServer, readiness: Readiness, metrics: Metrics) -> None:
        client, left = await connect(server.admin_port), list[str]()
        path = "/peers/leave?name=b.example:7600"
        assert (await client.get(path, "POST", "Content-Length: 0\r\n"))[0] == 409  # nothing is replicated
        server.leave = left.append
        assert (await client.get(path))[0] == 405
        for wrong in ("/peers/leave", "/peers/leave?name=b", "/peers/leave?name=a:1&name=b:1"):
            assert (await client.get(wrong, "POST", "Content-Length: 0\r\n"))[0] == 400
        assert left == []
        assert (await client.get(path, "POST", "Content-Length: 0\r\n"))[::2] == (200, b"b.example:7600 has left\n")
        assert left == ["b.example:7600"]
        other = await connect(server.metrics_port)
        assert (await other.get(path, "POST", "Content-Length: 0\r\n"))[0] == 404

    with_admin(test)


def test_metrics_are_on_both_ports_and_on_the_root_of_their_own() -> None:
    async def test(server: AdminServer, readiness: Readiness, metrics: Metrics) -> None:
        metrics.event_sourced("carts").received_commands += 3
        admin, own = await connect(server.admin_port), await connect(server.metrics_port)
        for client, path in ((admin, "/metrics"), (own, "/metrics"), (own, "/")):
            status, headers, body = await client.get(path)
            assert status == 200
            assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
            assert b'received_commands_total{entity_name="carts"} 3.0' in body
        assert (await admin.get("/"))[0] == 404
        assert (await own.get("/alive"))[0] == 404

    with_admin(test)


def test_metrics_may_be_chosen_by_name_and_are_compressed_for_those_who_accept_it() -> None:
    async def test(server: AdminServer, readiness: Readiness, metrics: Metrics) -> None:
        metrics.gauge("a", "A.", lambda: 1)
        metrics.gauge("b", "B.", lambda: 2)
        client = await connect(server.admin_port)
        _, headers, body = await client.get("/metrics?name[]=a&name%5B%5D=c", headers="Accept-Encoding: gzip, br\r\n")
        assert headers["content-encoding"] == "gzip"
        assert gzip.decompress(body) == b"# HELP a A.\n# TYPE a gauge\na 1.0\n"

    with_admin(test)


def test_the_metrics_port_can_be_left_closed() -> None:
    async def test(server: AdminServer, readiness: Readiness, metrics: Metrics) -> None:
        assert server.metrics_port == 0
        assert (await (await connect(server.admin_port)).get("/metrics"))[0] == 200

    with_admin(test, metrics_enabled="false")


def test_only_get_and_head_are_allowed_and_unknown_paths_are_not_found() -> None:
    async def test(server: AdminServer, readiness: Readiness, metrics: Metrics) -> None:
        client = await connect(server.admin_port)
        status, headers, _ = await client.get("/alive", method="POST")
        assert (status, headers["allow"]) == (405, "GET, HEAD")
        assert (await client.get("/nothing", method="POST"))[0] == 404
        status, headers, body = await client.get("/alive", method="HEAD")
        assert (status, headers["content-length"], body) == (200, "3", b"")
        assert (await client.get("/alive"))[0] == 200  # nothing of a body was sent

    with_admin(test)


def test_a_port_that_is_taken_is_named_with_its_setting() -> None:
    async def test(server: AdminServer, readiness: Readiness, metrics: Metrics) -> None:
        settings = load({"admin_port": str(server.admin_port)})
        with pytest.raises(OSError, match=f"admin_port = {server.admin_port}: cannot listen on 127.0.0.1"):
            await AdminServer(settings, readiness, metrics).start()

    with_admin(test)


def test_the_main_port_answers_http1_with_not_found_and_keeps_the_connection() -> None:
    async def test(service: Service, port: int) -> None:
        client = await connect(port)
        for path in ("/", "/shop.Cart/Add", "*"):
            status, headers, _ = await client.get(path)
            assert (status, headers["connection"]) == (404, "keep-alive")

    with_service(test)


@pytest.mark.parametrize(("value", "status", "body"), [("queue", 200, b"queue"), ("other", 400, None)])
def test_the_main_port_answers_knative_probes(value: str, status: int, body: bytes | None) -> None:
    async def test(service: Service, port: int) -> None:
        answer = await (await connect(port)).get("/", headers=f"K-Network-Probe: {value}\r\n")
        assert answer[0] == status
        assert body is None or answer[2] == body

    with_service(test)


def test_the_main_port_takes_over_what_the_transport_has_read() -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        service = main_port(load(), loop)
        first = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        server = await loop.create_server(lambda: service.connect(first), "127.0.0.1", 0)
        client = await connect(server.sockets[0].getsockname()[1])
        client.write(first)
        assert (await client.answer())[0] == 404
        service.close()
        server.close()

    run(test)


def test_http_1_0_and_connection_close_end_the_connection() -> None:
    async def test(service: Service, port: int) -> None:
        for request in (b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"):
            client = await connect(port)
            client.write(request)
            status, headers, _ = await client.answer()
            assert (status, headers["connection"]) == (404, "close")
            assert await client.closed()

    with_service(test)


def test_an_offer_to_upgrade_is_answered_without_upgrading() -> None:
    async def test(service: Service, port: int) -> None:
        client = await connect(port)
        assert (await client.get("/", headers="Connection: Upgrade\r\nUpgrade: h2c\r\n"))[0] == 404
        assert await client.closed()

    with_service(test)


def test_requests_may_be_split_anywhere_and_sent_in_one_piece() -> None:
    async def test(service: Service, port: int) -> None:
        client = await connect(port)
        request = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
        for byte in request:
            client.write(bytes([byte]))
            await asyncio.sleep(0)
        client.write(request * 2)
        assert [(await client.answer())[0] for _ in range(3)] == [404, 404, 404]

    with_service(test)


def test_a_flood_of_pipelined_requests_ends_the_connection() -> None:
    async def test(service: Service, port: int) -> None:
        client = await connect(port)
        client.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        answers = 0
        while (await client.answer())[1]["connection"] == "keep-alive":
            answers += 1
        assert answers < 1000
        assert await client.closed()

    with_service(test)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\x00\x01\x02\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\na: " + b"b" * 40_000, 431),
        (b"GET /" + b"b" * 40_000, 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"b" * 70_000, 413),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\nExpect: 100-continue\r\n\r\n", 404),
    ],
)
def test_what_cannot_be_served_is_refused_and_the_connection_closed(request_bytes: bytes, status: int) -> None:
    async def test(service: Service, port: int) -> None:
        client = await connect(port)
        client.write(request_bytes)
        answer = await client.answer()
        assert (answer[0], answer[1]["connection"]) == (status, "close")
        assert await client.closed()

    with_service(test)


def test_a_connection_too_many_is_told_so_and_room_is_made_by_those_who_leave() -> None:
    async def test(service: Service, port: int) -> None:
        two = [await connect(port) for _ in range(2)]
        assert [(await client.get("/"))[0] for client in two] == [404, 404]
        assert (await (await connect(port)).answer())[0] == 503
        two[0].writer.close()
        await until(lambda: len(service.connections) == 1)
        assert (await (await connect(port)).get("/"))[0] == 404

    with_service(test, max_connections=2)


def test_a_request_that_does_not_end_is_timed_out() -> None:
    async def test(service: Service, port: int) -> None:
        client = await connect(port)
        client.write(b"GET / HTTP/1.1\r\n")
        assert (await client.answer())[0] == 408
        assert await client.closed()

    with_service(test, request_timeout=0.05)


@pytest.mark.parametrize("first", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_a_silent_connection_is_closed_without_a_word(first: bytes) -> None:
    async def test(service: Service, port: int) -> None:
        client = await connect(port)
        client.write(first)
        if first:
            await client.answer()
        assert await client.closed()
        assert not service.connections

    with_service(test, request_timeout=0.05, idle_timeout=0.05)


def test_a_client_that_does_not_read_is_cut_off() -> None:
    from http import HTTPStatus

    from stateside.proxy.http1 import Request, Response

    def large(request: Request) -> Response:
        return Response(HTTPStatus.OK, bytes(50_000_000))

    async def test(service: Service, port: int) -> None:
        client = await connect(port)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await until(lambda: bool(service.connections))
        await until(lambda: not service.connections)

    with_service(test, large, request_timeout=0.1)
