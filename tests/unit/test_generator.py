"""The load generator: what it records, which keys it picks, what it takes for a failure and when it calls."""

import asyncio
from collections import Counter
from collections.abc import Callable
from math import ceil
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from stateside._speedups.h2 import Channel, Handler, Server, ServerCall
from stateside.bench.generator import Command, Generator, Keys, Latencies
from stateside.bench.load_report import as_json, hgrm

PATH = b"/shop.Cart/Get"
NAME = 1  # field number


@given(st.lists(st.integers(0, 10**13), min_size=1), st.floats(0, 1))
def test_a_quantile_is_right_to_three_digits_and_never_too_good(times: list[int], share: float) -> None:
    latencies = Latencies()
    for ns in times:
        latencies.add(ns)
    exact = sorted(times)[max(0, ceil(share * len(times) - 1e-6) - 1)]
    assert exact <= latencies.quantile_ns(share) <= exact * 1.001 + 1
    assert (latencies.count, latencies.total_ns, latencies.max_ns) == (len(times), sum(times), max(times))


def test_merged_latencies_are_those_of_both() -> None:
    one, other = Latencies(), Latencies()
    one.add(5)
    other.add(1_000_000)
    one.merge(other)
    assert one.distribution() == [(5, 1), (1_000_447, 1)]
    one.clear()
    assert (one.count, one.distribution(), one.quantile_ns(0.5)) == (0, [], 0)


def picked(distribution: str, argument: float = 0.0, population: int = 100, count: int = 50_000) -> Counter[int]:
    keys = Keys("", population, distribution, argument)
    return Counter(keys.next() for _ in range(count))


def test_uniform_keys_are_alike() -> None:
    found = picked("uniform")
    assert sorted(found) == list(range(100))
    assert 400 < min(found.values()) <= max(found.values()) < 600


def test_zipf_keys_are_as_frequent_as_their_rank_says() -> None:
    found = picked("zipf", 0.9)
    assert set(found) <= set(range(100))
    harmonic = sum(rank**-0.9 for rank in range(1, 101))
    assert found[0] == pytest.approx(50_000 / harmonic, rel=0.05)
    assert found[0] > found[1] > found[5] > found[50]


def test_a_hot_key_gets_its_share_and_the_others_the_rest() -> None:
    found = picked("hot", 0.5)
    assert found[0] == pytest.approx(25_250, rel=0.05)
    assert len(found) == 100
    assert set(picked("hot", 1.0)) == {0}


def test_keys_in_turn_come_one_after_the_other() -> None:
    keys = Keys("", 3, "turn")
    assert [keys.next() for _ in range(5)] == [0, 1, 2, 0, 1]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("", 0), "a population of 0"),
        (("", 1, "normal"), "distribution 'normal'"),
        (("", 1, "zipf", 1.0), "an exponent of 1.0"),
        (("", 1, "hot", 1.5), "a share of 1.5"),
        (("x" * 101, 1), "prefix"),
    ],
)
def test_impossible_keys_are_refused(arguments: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Keys(*arguments)


class Shop(Handler):
    """Answers as it is told, and remembers the requests."""

    def __init__(self, answer: Callable[[ServerCall, bytes], None]) -> None:
        self.unary = True
        self.requests: list[bytes] = []
        self._answer = answer

    def on_request(self, call: ServerCall, message: bytes) -> None:
        self.requests.append(message)
        self._answer(call, message)


def echo(call: ServerCall, message: bytes) -> None:
    call.reply(message)


def generate(shop: Shop, command: Command, keys: Keys | None = None, **plan: Any) -> Generator:
    """A whole run against a server that answers with `shop`."""

    async def scenario() -> Generator:
        loop = asyncio.get_running_loop()
        server = Server(loop, lambda path: shop if path == PATH else None)
        channel = await Channel.connect(loop, "127.0.0.1", await server.listen_tcp("127.0.0.1", 0))
        done = asyncio.Event()
        generator = Generator(loop, [channel], [command], keys or Keys("key-", 10, "turn"), done.set, **plan)
        generator.start()
        await asyncio.wait_for(done.wait(), 10)
        channel.close()
        await server.close()
        return generator

    return uvloop.run(scenario())


def test_the_key_stands_in_its_field_before_all_others() -> None:
    shop = Shop(echo)
    generate(shop, Command(PATH, b"\x10\x07", NAME), count=3, in_flight=1)
    assert shop.requests == [b"\x0a\x05key-" + digit + b"\x10\x07" for digit in (b"0", b"1", b"2")]


def test_a_message_without_a_key_is_sent_as_it_is() -> None:
    shop = Shop(echo)
    generate(shop, Command(PATH, b"\x10\x07", 0), count=2)
    assert shop.requests == [b"\x10\x07"] * 2


@pytest.mark.parametrize("rate", [0.0, 2000.0])
def test_as_many_calls_are_made_as_asked_and_each_is_timed(rate: float) -> None:
    generator = generate(Shop(echo), Command(PATH, b"", NAME, echoes=True), count=200, in_flight=8, rate=rate)
    assert (generator.begun, generator.completed, generator.failed, generator.in_flight) == (200, 200, 0, 0)
    assert generator.commands[0].latencies.count == generator.window.count == 200


@pytest.mark.parametrize(
    ("answer", "command", "problem"),
    [
        (lambda call, message: call.fail(5, "no such cart"), Command(PATH, b"", NAME), "status 5: no such cart"),
        (lambda call, message: call.finish(), Command(PATH, b"", NAME), "0 answers in place of one"),
        (lambda call, message: call.reply(b"\xff"), Command(PATH, b"", NAME), "an answer is not"),
        (lambda call, message: call.reply(b""), Command(PATH, b"", NAME, echoes=True), "an answer is not"),
        (lambda call, message: call.reply(b""), Command(PATH, b"", NAME, expected=b"\x08\x01"), "an answer is not"),
        (echo, Command(b"/shop.Cart/Put", b"", NAME), "status 12"),
    ],
)
def test_what_is_not_the_right_answer_is_a_failure(answer: Any, command: Command, problem: str) -> None:
    generator = generate(Shop(answer), command, count=3)
    assert (generator.completed, generator.failed) == (0, 3)
    assert len(generator.problems) == 1
    assert problem in generator.problems[0]


def test_an_open_loop_keeps_its_rate_and_counts_the_wait_for_a_stalled_server() -> None:
    """One call takes 200 ms while one may be in flight: those that were due meanwhile began late, and are timed from
    when they were due."""
    calls = []

    def stall_once(call: ServerCall, message: bytes) -> None:
        calls.append(call)
        delay = 0.2 if len(calls) == 1 else 0.0
        asyncio.get_running_loop().call_later(delay, call.reply, message)

    generator = generate(Shop(stall_once), Command(PATH, b"", NAME), count=100, in_flight=1, rate=500.0)
    latencies = generator.commands[0].latencies
    assert generator.late >= 90
    assert latencies.quantile_ns(0.5) > 50_000_000


@pytest.mark.parametrize("rate", [0.0, 5000.0])
def test_channels_have_equal_shares_of_the_calls(rate: float) -> None:
    async def scenario() -> list[int]:
        loop, shops, servers, channels = asyncio.get_running_loop(), [Shop(echo), Shop(echo)], [], []
        for shop in shops:
            server = Server(loop, {PATH: shop}.get)
            servers.append(server)
            channels.append(await Channel.connect(loop, "127.0.0.1", await server.listen_tcp("127.0.0.1", 0)))
        done = asyncio.Event()
        plan: dict[str, Any] = {"in_flight": 8, "rate": rate, "count": 400 if rate else 8}
        generator = Generator(loop, channels, [Command(PATH, b"", NAME)], Keys("", 10), done.set, **plan)
        generator.start()
        await asyncio.wait_for(done.wait(), 10)
        for channel, server in zip(channels, servers, strict=True):
            channel.close()
            await server.close()
        return [len(shop.requests) for shop in shops]

    first, second = uvloop.run(scenario())
    # At a rate, what falls due together goes over one channel.
    assert abs(first - second) <= (0.5 * (first + second) if rate else 0)


def test_keys_can_have_a_fixed_number_of_digits() -> None:
    shop = Shop(echo)
    generate(shop, Command(PATH, b"", NAME), Keys("key-", 3, "turn", digits=4), count=3, in_flight=1)
    assert shop.requests == [b"\x0a\x08key-000" + digit for digit in (b"0", b"1", b"2")]
    with pytest.raises(ValueError, match="numbers of 21 digits"):
        Keys("", 1, digits=21)


@pytest.mark.parametrize("population", [3, 100_000])
def test_messages_are_the_same_whether_they_are_kept_or_written_each_time(population: int) -> None:
    shop = Shop(echo)
    generate(shop, Command(PATH, b"\x10\x07", NAME, echoes=True), Keys("", population, "turn"), count=7, in_flight=2)
    numbers = [str(each % population).encode() for each in range(7)]
    assert shop.requests == [b"\x0a\x01" + number + b"\x10\x07" for number in numbers]


def test_commands_of_a_mix_come_by_their_weights() -> None:
    shop = Shop(echo)

    async def scenario() -> Generator:
        loop = asyncio.get_running_loop()
        server = Server(loop, lambda path: shop)
        channel = await Channel.connect(loop, "127.0.0.1", await server.listen_tcp("127.0.0.1", 0))
        done = asyncio.Event()
        mix = [Command(b"/shop.Cart/Get", b"", NAME, 3.0), Command(b"/shop.Cart/Add", b"", NAME, 1.0)]
        generator = Generator(loop, [channel], mix, Keys("", 10), done.set, count=4000)
        generator.start()
        await asyncio.wait_for(done.wait(), 10)
        channel.close()
        await server.close()
        return generator

    generator = uvloop.run(scenario())
    reads, writes = (command.completed for command in generator.commands)
    assert reads + writes == 4000
    assert 2850 < reads < 3150


def test_the_report_has_each_command_and_all_percentiles() -> None:
    generator = generate(Shop(echo), Command(PATH, b"", NAME), count=50)
    report = as_json(generator, 2.0)
    assert (
        report["commands"][0] | {"name": "shop.Cart/Get", "completed": 50, "calls_per_s": 25.0} == report["commands"][0]
    )
    lines = hgrm(generator).splitlines()
    assert lines[0].split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    assert lines[-1].startswith("#[Max")
    assert int(lines[-3].split()[2]) == 50


def test_nothing_to_do_is_refused() -> None:
    with pytest.raises(ValueError, match="a load needs"):
        Generator(uvloop.new_event_loop(), [], [], Keys("", 1), lambda: None)
