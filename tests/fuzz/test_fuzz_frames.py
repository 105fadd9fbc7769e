"""The fuzz target fuzz_frames.py on seeded mutations of real conversations, so that it runs without a fuzzer too."""

import gc
import gzip
import random
import struct
from collections.abc import Callable

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection

from stateside._speedups import h2

from .fuzz_frames import TestOneInput as fuzz_one

REQUEST = [(":method", "POST"), (":scheme", "http"), (":authority", "x"), ("te", "trailers")]
MUTATIONS = 2000


def framed(message: bytes, compressed: int = 0) -> bytes:
    return struct.pack(">BI", compressed, len(message)) + message


def conversation(*parts: Callable[[H2Connection], object]) -> bytes:
    client = H2Connection(H2Configuration(client_side=True, validate_outbound_headers=False))
    client.initiate_connection()
    for part in parts:
        part(client)
    return client.data_to_send()


def request(
    stream: int, path: str, body: bytes, *more: tuple[str, str], end: bool = True
) -> Callable[[H2Connection], object]:
    def send(client: H2Connection) -> None:
        kind = ("content-type", "application/grpc")
        client.send_headers(stream, [*REQUEST, (":path", path), kind, *more])
        client.send_data(stream, body, end_stream=end)

    return send


SEEDS = [
    conversation(request(1, "/a/Unary", framed(b"hello")), request(3, "/a/Unary", framed(b"x" * 5000))),
    conversation(*(request(s, "/a/Chat", framed(b"abc") * 20, ("grpc-timeout", "10m")) for s in range(1, 50, 2))),
    conversation(request(1, "/a/Chat", framed(gzip.compress(b"z" * 9000), 1), ("grpc-encoding", "gzip"))),
    conversation(request(1, "/a/Chat", framed(b"q" * 10_003)[:9000], end=False), lambda c: c.reset_stream(1)),
    conversation(lambda c: c.ping(b"12345678"), lambda c: c.update_settings({4: 10}), request(1, "/no", framed(b""))),
    conversation(request(1, "/a/Unary", b"", ("x-long", "y" * 20_000)), lambda c: c.close_connection()),
    b"POST / HTTP/1.1\r\nhost: x\r\n\r\n",
]


def mutated(random_: random.Random) -> bytes:
    data = bytearray(random_.choice(SEEDS))
    for _ in range(random_.randrange(6)):
        at = random_.randrange(24 if random_.random() < 0.95 else 0, len(data)) if len(data) > 24 else 0
        kind = random_.randrange(5)
        if kind == 0:
            data[at] = random_.randrange(256)
        elif kind == 1:
            data[at] ^= 1 << random_.randrange(8)
        elif kind == 2:
            del data[at : at + random_.randrange(1, 30)]
        elif kind == 3:
            data[at:at] = random_.randbytes(random_.randrange(1, 30))
        else:
            data[at:at] = random_.choice(SEEDS)[24 : 24 + random_.randrange(300)]
    return bytes((random_.randrange(32),)) + bytes(data)


@pytest.mark.parametrize("seed", range(4))
def test_no_mutated_conversation_breaks_the_server_or_leaves_anything(seed: int) -> None:
    gc.collect()
    before = h2.live_objects()
    random_ = random.Random(seed)
    for _ in range(MUTATIONS // 4):
        fuzz_one(mutated(random_))
    gc.collect()
    assert h2.live_objects() == before


@pytest.mark.parametrize("shape", range(32))
def test_whole_conversations_pass_however_they_are_cut(shape: int) -> None:
    for seed in SEEDS:
        fuzz_one(bytes((shape,)) + seed)
