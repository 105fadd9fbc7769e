"""What any transport of ours does, tested with our client and server, and with grpcio on either side.

The same behaviours run over each pair of peers; what needs control of single frames is in test_transport_frames.py,
what hostile peers do in test_transport_hostile.py.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import uvloop

from stateside._speedups import h2

from .transport_peers import GrpcioClient, GrpcioServer, OurClient, OurServer, eventually, meet

Run = Callable[[Coroutine[Any, Any, None]], None]
MIB = 1024 * 1024
PAIRS = [("ours", "ours"), ("grpcio", "ours"), ("ours", "grpcio")]

OK, CANCELLED, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND = 0, 1, 3, 4, 5
RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = 8, 12, 13


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs a coroutine on the loop of this module: uvloop, and the plain one."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        yield lambda body: runner.run(body)


@pytest.fixture(params=PAIRS, ids=["-".join(pair) for pair in PAIRS])
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    chosen: tuple[str, str] = request.param
    return chosen


def test_a_unary_call_is_answered(run: Run, pair: tuple[str, str]) -> None:
    async def body() -> None:
        async with meet(*pair) as (client, _):
            result = await client.call(b"Unary", [b"hello"])
            assert (result.status, result.messages) == (OK, [b"hello"])

    run(body())


def test_an_empty_message_is_a_message(run: Run, pair: tuple[str, str]) -> None:
    async def body() -> None:
        async with meet(*pair) as (client, _):
            assert (await client.call(b"Unary", [b""])).messages == [b""]
            assert (await client.call(b"Chat", [b"", b"", b"x", b""])).messages == [b"", b"", b"x", b""]

    run(body())


def test_a_server_streams_many_messages(run: Run, pair: tuple[str, str]) -> None:
    async def body() -> None:
        async with meet(*pair) as (client, _):
            result = await client.call(b"Count", [b"1000 700"])
            assert result.status == OK
            assert result.messages == [bytes(700)] * 1000

    run(body())


def test_a_client_streams_many_messages(run: Run, pair: tuple[str, str]) -> None:
    async def body() -> None:
        async with meet(*pair) as (client, _):
            assert (await client.call(b"Sum", [bytes(i) for i in range(500)])).messages == [b"500 124750"]
            assert (await client.call(b"Sum", [])).messages == [b"0 0"]

    run(body())


def test_a_long_conversation_keeps_its_order(run: Run, pair: tuple[str, str]) -> None:
    async def body() -> None:
        async with meet(*pair) as (client, _):
            said = [b"%d" % i * (i % 90) for i in range(2000)]
            result = await client.call(b"Chat", said)
            assert (result.status, result.messages) == (OK, said)

    run(body())


def test_big_messages_pass_up_to_the_limit(run: Run, pair: tuple[str, str]) -> None:
    async def body() -> None:
        async with meet(*pair) as (client, _):
            big = bytes(range(256)) * (12 * 4096)
            assert len(big) == 12 * MIB
            result = await client.call(b"Unary", [big])
            assert result.status == OK
            assert result.messages == [big]

    run(body())


def test_a_message_over_the_servers_limit_is_refused(run: Run, pair: tuple[str, str]) -> None:
    async def body() -> None:
        if pair[1] != "ours":
            return  # grpcio's own limit is not ours to test
        async with meet(*pair, limits=h2.Limits(max_message_size=1000)) as (client, server):
            assert (await client.call(b"Unary", [bytes(1000)])).status == OK
            result = await client.call(b"Unary", [bytes(1001)])
            assert result.status == RESOURCE_EXHAUSTED
            assert "1001 bytes" in result.text and "1000" in result.text
            assert server.server.counters["oversized"] == 1
            assert (await client.call(b"Unary", [b"still served"])).status == OK

    run(body())


@pytest.mark.parametrize("peer", ["ours", "grpcio"])
def test_a_message_over_the_clients_limit_ends_the_call(run: Run, peer: str) -> None:
    async def body() -> None:
        async with meet("ours", peer, client_limits=h2.Limits(max_message_size=1000)) as (client, _):
            result = await client.call(b"Count", [b"3 1001"])
            assert (result.status, result.messages) == (RESOURCE_EXHAUSTED, [])
            assert (await client.call(b"Count", [b"3 1000"])).status == OK

    run(body())


def test_many_calls_at_once_do_not_mix(run: Run, pair: tuple[str, str]) -> None:
    async def body() -> None:
        async with meet(*pair) as (client, _):
            number = 500 if "grpcio" in pair else 3000
            calls = [client.open(b"Unary", [b"%d" % i * 20]) for i in range(number)]
            results = await asyncio.gather(*(call.result() for call in calls))
            assert [result.messages for result in results] == [[b"%d" % i * 20] for i in range(number)]

    run(body())


@pytest.mark.parametrize(
    "text", ["plain", "per cent % and\nnew line", "Grüße, 東京 \U0001f600", " blanks at the ends ", "%41 is not A", ""]
)
def test_status_and_text_and_trailers_arrive(run: Run, pair: tuple[str, str], text: str) -> None:
    async def body() -> None:
        async with meet(*pair) as (client, _):
            result = await client.call(b"Status", [b"5 " + text.encode()])
            assert (result.status, result.text, result.messages) == (NOT_FOUND, text, [])
            assert result.trailers[b"x-end"] == b"done"

    run(body())


def test_every_status_code_arrives(run: Run, pair: tuple[str, str]) -> None:
    async def body() -> None:
        async with meet(*pair) as (client, _):
            codes = [(await client.call(b"Status", [b"%d why" % code])).status for code in range(17)]
            assert codes == list(range(17))

    run(body())


def test_metadata_goes_both_ways(run: Run, pair: tuple[str, str]) -> None:
    async def body() -> None:
        async with meet(*pair) as (client, _):
            binary = b"\x00\xff\x80" if isinstance(client, GrpcioClient) else b"AP+A"
            headers = [(b"x-ask", b"some text"), (b"x-ask-bin", binary)]
            result = await client.call(b"Metadata", [b""], headers=headers)
            assert result.status == OK
            assert result.headers[b"x-seen"] == b"some text"
            # ours leaves -bin values in their base64 form, padded or not as the peer likes
            assert result.trailers[b"x-end-bin"].rstrip(b"=") == binary

    run(body())


def test_an_unknown_method_is_unimplemented(run: Run, pair: tuple[str, str]) -> None:
    async def body() -> None:
        async with meet(*pair) as (client, _):
            assert (await client.call(b"NoSuch", [b""])).status == UNIMPLEMENTED
            assert (await client.call(b"Unary", [b"x"])).status == OK

    run(body())


@pytest.mark.parametrize("messages", [[], [b"one", b"two"]], ids=["none", "two"])
def test_a_unary_method_takes_exactly_one_message(run: Run, messages: list[bytes]) -> None:
    async def body() -> None:
        for client_kind in ("ours", "grpcio"):
            async with meet(client_kind, "ours") as (client, _):
                result = await client.call(b"Unary", messages)
                assert result.status == INVALID_ARGUMENT
                assert "one request message" in result.text

    run(body())


# --- deadlines and cancellation --------------------------------------------------------------------------------------


def test_a_deadline_ends_the_call_on_both_sides(run: Run, pair: tuple[str, str]) -> None:
    async def body() -> None:
        async with meet(*pair) as (client, server):
            loop = asyncio.get_running_loop()
            before = loop.time()
            result = await client.call(b"Never", [b""], timeout=0.25)
            assert result.status == DEADLINE_EXCEEDED
            assert 0.24 <= loop.time() - before < 0.40
            await eventually(lambda: server.never_cancelled == 1)
            if isinstance(server, OurServer):
                assert server.never.cancelled[0] in (DEADLINE_EXCEEDED, CANCELLED)  # whose clock was faster

    run(body())


def test_the_server_itself_enforces_the_deadline(run: Run) -> None:
    async def body() -> None:
        async with meet("ours", "ours") as (client, server):
            # sent as a plain header, so that the client does not watch it
            loop = asyncio.get_running_loop()
            for text, seconds in ((b"200m", 0.2), (b"50000u", 0.05), (b"30000000n", 0.03)):
                before = loop.time()
                result = await client.call(b"Never", [b""], headers=[(b"grpc-timeout", text)])
                assert result.status == DEADLINE_EXCEEDED
                assert seconds <= loop.time() - before + 0.002 < seconds + 0.1
            assert server.never.cancelled == [DEADLINE_EXCEEDED] * 3
            assert server.server.counters["expired"] == 3

    run(body())


@pytest.mark.parametrize("text", [b"", b"1", b"m", b"1x", b"-1m", b"123456789m", b"1.5S"])
def test_a_malformed_timeout_is_refused(run: Run, text: bytes) -> None:
    async def body() -> None:
        async with meet("ours", "ours") as (client, _):
            result = await client.call(b"Unary", [b""], headers=[(b"grpc-timeout", text)])
            assert result.status == INTERNAL
            assert "grpc-timeout" in result.text

    run(body())


def test_far_deadlines_in_every_unit_are_accepted(run: Run) -> None:
    async def body() -> None:
        async with meet("ours", "ours") as (client, _):
            for text in (b"99999999H", b"60M", b"10S", b"20000m", b"99999999u"):
                assert (await client.call(b"Unary", [b""], headers=[(b"grpc-timeout", text)])).status == OK
            for seconds in (0.5, 50.0, 5_000.0, 5e6, 5e9):
                assert (await client.call(b"Unary", [b""], timeout=seconds)).status == OK

    run(body())


def test_deadlines_expire_in_time_whatever_their_order(run: Run) -> None:
    async def body() -> None:
        async with meet("ours", "ours") as (client, server):
            loop = asyncio.get_running_loop()
            seconds = [0.3, 0.05, 6.0, 0.11, 0.2, 0.051, 0.05]
            started = loop.time()
            calls = [client.open(b"Never", [b""], timeout=each) for each in seconds]

            async def ended_after(call: Any) -> float:
                await call.result()
                return loop.time() - started

            calls[2].cancel()
            ends = await asyncio.gather(*map(ended_after, calls))
            for wanted, taken in zip(seconds, ends, strict=True):
                if wanted < 1:
                    assert wanted - 0.002 <= taken < wanted + 0.05
            await eventually(lambda: server.server.streams == 0)

    run(body())


def test_a_cancelled_call_ends_at_once_and_the_server_learns_it(run: Run, pair: tuple[str, str]) -> None:
    async def body() -> None:
        async with meet(*pair) as (client, server):
            call = (
                client.open(b"Never", [b"x"], half_close=False) if pair[0] == "ours" else client.open(b"Never", [b"x"])
            )
            await eventually(lambda: server.never_opened == 1)
            call.cancel()
            assert (await call.result()).status == CANCELLED
            await eventually(lambda: server.never_cancelled == 1)
            assert (await client.call(b"Unary", [b"x"])).status == OK

    run(body())


def test_cancel_reports_later_and_only_once(run: Run) -> None:
    async def body() -> None:
        async with meet("ours", "ours") as (client, server):
            call = client.open(b"Never", [b""])
            call.cancel()
            call.cancel()
            assert not call.collector.done.done() and not call.call.ended
            assert (await call.result()).status == CANCELLED
            assert call.call.ended
            call.cancel()
            assert call.call.send(b"ignored") is True
            call.call.half_close()
            await asyncio.sleep(0.02)
            assert client.channel.active == 0
            assert server.never.opened == 0  # reset before the request left: the server never saw it

    run(body())


def test_cancelling_in_the_middle_of_much_data_leaves_the_connection_usable(run: Run) -> None:
    async def body() -> None:
        limits = h2.Limits(connection_window=70_000, stream_window=65_535)
        async with meet("ours", "ours", client_limits=limits) as (client, _):
            for _ in range(20):
                call = client.open(b"Count", [b"100 20000"])
                await call.first_message()
                call.cancel()
                await call.result()
            assert len((await client.call(b"Count", [b"100 20000"])).messages) == 100

    run(body())


# --- handlers --------------------------------------------------------------------------------------------------------


class Faulty(h2.Handler):
    def __init__(self, where: str) -> None:
        self.where = where
        self.cancelled = 0

    def on_open(self, call: h2.ServerCall) -> None:
        self.fail_in("on_open")

    def on_message(self, call: h2.Call, message: bytes) -> None:
        self.fail_in("on_message")

    def on_half_close(self, call: h2.ServerCall) -> None:
        self.fail_in("on_half_close")

    def on_cancel(self, call: h2.ServerCall, status: int) -> None:
        self.cancelled += 1

    def fail_in(self, place: str) -> None:
        if place == self.where:
            raise RuntimeError(f"broken in {place}")


@pytest.mark.parametrize("where", ["on_open", "on_message", "on_half_close"])
def test_an_exception_in_a_handler_ends_its_call_only(run: Run, where: str, caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        async with meet("ours", "ours") as (client, server):
            faulty = server.routes[b"/contract.Service/Faulty"] = Faulty(where)
            result = await client.call(b"Faulty", [b"x"])
            assert (result.status, result.text) == (INTERNAL, "internal error")
            assert f"broken in {where}" in caplog.text
            assert faulty.cancelled == 0
            assert (await client.call(b"Unary", [b"x"])).status == OK

    run(body())


def test_an_exception_in_the_clients_handler_cancels_its_call(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    class Bad(h2.Handler):
        def __init__(self) -> None:
            self.statuses: list[int] = []

        def on_message(self, call: h2.Call, message: bytes) -> None:
            raise RuntimeError("the client's handler is broken")

        def on_end(self, call: h2.ClientCall, status: int, message: str) -> None:
            self.statuses.append(status)

    async def body() -> None:
        async with meet("ours", "ours") as (client, _):
            bad = Bad()
            call = client.channel.open(b"/contract.Service/Chat", bad)
            call.send(b"x")
            await eventually(lambda: bad.statuses)
            assert bad.statuses == [CANCELLED]
            assert "the client's handler is broken" in caplog.text

    run(body())


def test_headers_that_cannot_be_sent_are_refused_with_their_name(run: Run) -> None:
    async def body() -> None:
        async with meet("ours", "ours") as (client, _):
            for headers, named in (
                ([(b"bad name", b"x")], "bad name"),
                ([(b":path", b"/x")], ":path"),
                ([(b"x", b"line\nbreak")], "line"),
                ([(b"x", b"y")] * 65, "65 headers"),
                ([(b"x", b"y" * 40_000)], "bytes"),
            ):
                with pytest.raises(ValueError, match=named):
                    client.open(b"Unary", [b""], headers=headers)
            assert client.channel.active == 0
            assert (await client.call(b"Unary", [b""])).status == OK

    run(body())


def test_the_server_may_half_close_a_conversation_first(run: Run) -> None:
    class Impatient(h2.Handler):
        def on_message(self, call: h2.Call, message: bytes) -> None:
            assert isinstance(call, h2.ServerCall)
            call.send(message)
            call.finish(OK, "enough")

    async def body() -> None:
        for client_kind in ("ours", "grpcio"):
            async with meet(client_kind, "ours") as (client, server):
                server.routes[b"/contract.Service/Impatient"] = Impatient()
                result = await client.call(b"Impatient", [bytes(1000)] * 300)
                assert (result.status, result.messages) == (OK, [bytes(1000)])
                await server.idle()

    run(body())


def test_routes_are_asked_again_after_forget(run: Run) -> None:
    async def body() -> None:
        async with meet("ours", "ours") as (client, server):
            assert (await client.call(b"New", [b""])).status == UNIMPLEMENTED
            server.routes[b"/contract.Service/New"] = server.routes[b"/contract.Service/Unary"]
            assert (await client.call(b"New", [b""])).status == UNIMPLEMENTED
            server.server.forget()
            assert (await client.call(b"New", [b""])).status == OK

    run(body())


def test_calls_know_their_path_peer_and_context(run: Run) -> None:
    class Tell(h2.Handler):
        unary = True

        def on_request(self, call: h2.ServerCall, message: bytes) -> None:
            call.reply(f"{call.path.decode()} {call.peer} {call.deadline > 0} {call.headers}".encode())

    async def body() -> None:
        async with meet("ours", "ours") as (client, server):
            server.routes[b"/contract.Service/Tell"] = Tell()
            (told,) = (await client.call(b"Tell", [b""], timeout=5)).messages
            path, peer, has_deadline, headers = told.decode().split(" ", 3)
            assert (path, has_deadline, headers) == ("/contract.Service/Tell", "True", "[]")
            assert peer.startswith("127.0.0.1:")

    run(body())


# --- compression -----------------------------------------------------------------------------------------------------


def test_gzip_of_a_grpcio_client_is_understood_and_answered_plainly(run: Run) -> None:
    async def body() -> None:
        import grpc

        async with meet("grpcio", "ours") as (client, _):
            zeros = bytes(5 * MIB)
            result = await client.call(b"Chat", [zeros, b"x" * 100], compression=grpc.Compression.Gzip)
            assert (result.status, result.messages) == (OK, [zeros, b"x" * 100])

    run(body())


def test_gzip_is_bounded_by_the_size_of_the_message_inside(run: Run) -> None:
    async def body() -> None:
        import grpc

        async with meet("grpcio", "ours", limits=h2.Limits(max_message_size=100_000)) as (client, _):
            result = await client.call(b"Unary", [bytes(5 * MIB)], compression=grpc.Compression.Gzip)
            assert result.status == RESOURCE_EXHAUSTED

    run(body())


def test_an_unknown_compression_is_unimplemented_and_names_the_known_ones(run: Run) -> None:
    async def body() -> None:
        import grpc

        async with meet("grpcio", "ours") as (client, _):
            result = await client.call(b"Unary", [bytes(1000)], compression=grpc.Compression.Deflate)
            assert result.status == UNIMPLEMENTED
            assert "deflate" in result.text

    run(body())


def test_gzip_of_a_grpcio_server_is_understood(run: Run) -> None:
    async def body() -> None:
        import grpc

        server = GrpcioServer(compression=grpc.Compression.Gzip)
        await server.start()
        client = OurClient(server.port)
        await client.start()
        result = await client.call(b"Unary", [bytes(100_000)])
        assert (result.status, result.messages) == (OK, [bytes(100_000)])
        assert result.headers[b"grpc-encoding"] == b"gzip"
        await client.close()
        await server.close()

    run(body())


# --- back-pressure ---------------------------------------------------------------------------------------------------


def test_a_paused_reader_stops_its_writer_but_not_other_calls(run: Run) -> None:
    class Flood(h2.Handler):
        """Sends as much as it may."""

        unary = True

        def __init__(self) -> None:
            self.sent = 0
            self.most_queued = 0

        def on_request(self, call: h2.ServerCall, message: bytes) -> None:
            self.on_drain(call)

        def on_drain(self, call: h2.Call) -> None:
            while self.sent < 20_000_000:
                self.sent += 10_000
                more = call.send(bytes(10_000))
                self.most_queued = max(self.most_queued, call.queued_bytes)
                if not more:
                    return
            assert isinstance(call, h2.ServerCall)
            call.finish()

    async def body() -> None:
        async with meet("ours", "ours") as (client, server):
            flood = server.routes[b"/contract.Service/Flood"] = Flood()
            slow = client.open(b"Flood", [b""])
            slow.call.pause()
            await eventually(lambda: flood.sent > 256 * 1024)
            for _ in range(50):
                assert (await client.call(b"Unary", [bytes(30_000)])).status == OK
            assert slow.collector.messages == []
            assert flood.sent < 256 * 1024 + 64 * 1024 + 30_000  # window, queue, and a message of each
            assert flood.most_queued < 64 * 1024 + 20_000
            slow.call.resume()
            assert slow.collector.messages == []  # never from inside resume
            result = await slow.result()
            assert result.status == OK
            assert sum(map(len, result.messages)) == flood.sent == 20_000_000

    run(body())


def test_a_paused_server_call_stops_its_client(run: Run) -> None:
    class Slow(h2.Handler):
        def __init__(self) -> None:
            self.received = 0
            self.call: h2.ServerCall | None = None

        def on_open(self, call: h2.ServerCall) -> None:
            self.call = call
            call.pause()

        def on_message(self, call: h2.Call, message: bytes) -> None:
            self.received += len(message)

        def on_half_close(self, call: h2.ServerCall) -> None:
            call.reply(b"%d" % self.received)

    async def body() -> None:
        async with meet("ours", "ours") as (client, server):
            slow = server.routes[b"/contract.Service/Slow"] = Slow()
            call = client.open(b"Slow", [], half_close=False)
            await eventually(lambda: slow.call)
            sent = 10_000
            while call.call.send(bytes(10_000)):
                sent += 10_000
                await asyncio.sleep(0.001)
            assert sent < 256 * 1024 + 64 * 1024 + 30_000  # window, queue, and a message of each
            await asyncio.sleep(0.05)
            assert call.call.queued_bytes > 16 * 1024
            assert slow.received == 0
            assert slow.call is not None
            slow.call.resume()
            await eventually(lambda: call.collector.drained == 1)
            assert call.call.queued_bytes <= 16 * 1024
            call.call.half_close()
            result = await call.result()
            assert result.messages == [b"%d" % sent]

    run(body())


def test_messages_held_by_a_pause_are_delivered_before_the_end(run: Run) -> None:
    async def body() -> None:
        async with meet("ours", "ours") as (client, server):
            call = client.open(b"Count", [b"5 10"])
            call.call.pause()
            await eventually(lambda: server.server.streams == 0 and server.server.counters["calls_total"] == 1)
            await asyncio.sleep(0.02)
            assert not call.collector.done.done()
            call.call.resume()
            assert (await call.result()).messages == [bytes(10)] * 5

    run(body())


def test_a_pause_inside_a_callback_holds_the_next_message(run: Run) -> None:
    class OneByOne(h2.Handler):
        def __init__(self) -> None:
            self.got: list[bytes] = []

        def on_message(self, call: h2.Call, message: bytes) -> None:
            self.got.append(message)
            call.pause()
            asyncio.get_running_loop().call_soon(call.resume)

        def on_half_close(self, call: h2.ServerCall) -> None:
            call.reply(b" ".join(self.got))

    async def body() -> None:
        async with meet("ours", "ours") as (client, server):
            server.routes[b"/contract.Service/OneByOne"] = OneByOne()
            result = await client.call(b"OneByOne", [b"%d" % i for i in range(50)])
            assert result.messages == [b" ".join(b"%d" % i for i in range(50))]

    run(body())


def test_many_paused_calls_beyond_the_connection_window_resume_in_the_end(run: Run) -> None:
    async def body() -> None:
        limits = h2.Limits(connection_window=100_000, stream_window=65_535)
        async with meet("ours", "ours", client_limits=limits) as (client, _):
            calls = [client.open(b"Count", [b"10 30000"]) for _ in range(8)]
            for call in calls:
                call.call.pause()
            await asyncio.sleep(0.05)
            for call in calls:
                call.call.resume()
            for call in calls:
                assert (await call.result()).messages == [bytes(30_000)] * 10

    run(body())
