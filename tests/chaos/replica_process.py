"""A node in a process of its own, to be killed: increments a counter and says so, one line per acknowledged write.

python -m tests.chaos.replica_process <folder> <own port> <peer's port> <die: never | before-send>
"""

from __future__ import annotations

import asyncio
import os
import sys

import uvloop

from stateside._speedups.crdt import GCOUNTER
from tests.helpers.nodes import Activation, Node

IN_FLIGHT = 8


async def main(folder: str, port: int, peer: int, die: str) -> None:
    node = await Node(f"lmdb:{folder}", port, (f"127.0.0.1:{peer}",), crdt_read_timeout=5.0).start()
    if die == "before-send":
        # The change is durable here, and no peer has heard of it.
        node.replicas.store._on_own = lambda key, delta: os._exit(9)
    activation = await node.open("counter")
    print("value", activation.state(GCOUNTER).value(), flush=True)
    await asyncio.gather(*(increment(activation) for _ in range(IN_FLIGHT)))


async def increment(activation: Activation) -> None:
    while True:
        activation.state(GCOUNTER).increment()
        sys.stdout.write("asked\n")
        writing = activation.begin_write()
        writing.add_done_callback(acknowledged)
        sys.stdout.flush()
        await writing


def acknowledged(writing: asyncio.Future[object]) -> None:
    assert writing.result() is None
    sys.stdout.write("acknowledged\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
