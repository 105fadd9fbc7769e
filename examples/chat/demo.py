"""`make demo-chat`: three nodes, a chat over all of them, a kill -9 of one, its return, and the whole chat on each.

A node is a proxy with a user function; the proxies know each other by the setting `peers`. With STATESIDE_WORKERS each
proxy has so many workers. Everything runs on free
ports, with journals in a temporary folder. Exit code 1 if anything is missing anywhere.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import uvloop

from examples.chat.client import CallFailed, ChatClient, Visit
from examples.chat.protos.chat.chat_pb2 import Room
from examples.shopping_cart.stack import Child, port_of
from stateside.proto.status import Status

ROOM = "kitchen"
PATIENCE = 20.0  # seconds
LOOK_INTERVAL = 0.05
SETTINGS = {
    "STATESIDE_ADMIN_PORT": "0",
    "STATESIDE_METRICS_ENABLED": "false",
    "STATESIDE_LOG_LEVEL": "error",
    "STATESIDE_LOG_FORMAT": "console",
}


class Missing(Exception):
    """Something did not come in time."""


class Node:
    """A proxy and its user function, as child processes."""

    def __init__(self, number: int, peer_port: int, peers: list[str], folder: Path) -> None:
        self.name = f"node {number}"
        self.function = Child(f"user function of {self.name}", ["examples.chat"], {"PORT": "0"})
        self._settings = SETTINGS | {
            "HTTP_PORT": "0",
            "STATESIDE_JOURNAL": f"lmdb:{folder / str(number)}",
            "STATESIDE_PEERS": ",".join(peers),
            "STATESIDE_PEER_INTERFACE": "127.0.0.1",
            "STATESIDE_PEER_PORT": str(peer_port),
            "STATESIDE_PEER_NAME": f"127.0.0.1:{peer_port}",
        }
        self.proxy: Child | None = None
        self.client: ChatClient
        self.room = Room()
        """As it was when it was last looked at."""

    async def start(self) -> None:
        """Start what does not run, and connect to it."""
        if not self.function.running:
            self._settings["USER_FUNCTION_PORT"] = str(port_of(await asyncio.to_thread(self.function.start)))
        self.proxy = Child(f"proxy of {self.name}", ["stateside.proxy.cli", "proxy"], self._settings)
        self.client = await ChatClient.connect("127.0.0.1", port_of(await asyncio.to_thread(self.proxy.start)))

    def stop(self) -> None:
        for child in (self.proxy, self.function):
            if child is not None:
                child.stop()


class Guest:
    """Somebody in the room, by one of the nodes."""

    def __init__(self, user: str, node: Node) -> None:
        self.user = user
        self.node = node
        self.visit: Visit = node.client.join(ROOM, user)
        self.ended: asyncio.Task[None] = asyncio.create_task(self._stay())

    async def say(self, text: str) -> None:
        await self.node.client.say(ROOM, self.user, text)
        print(f"  {self.node.name}  {self.user}: {text}")

    async def _stay(self) -> None:
        try:
            while await self.visit.next():
                pass
        except CallFailed as failed:
            if failed.status != Status.CANCELLED:
                print(f"  {self.node.name}  {self.user} is cut off: {failed.status.name}")


async def demo(nodes: list[Node]) -> None:
    """The whole story. Raises Missing."""
    print("Three nodes start")
    for node in nodes:
        await node.start()
    alice, bob, carol = (Guest(user, node) for user, node in zip(("alice", "bob", "carol"), nodes, strict=True))
    guests = [alice, bob, carol]
    await everybody(guests, lambda guest: guest.visit.online == ["alice", "bob", "carol"], "sees all three")
    print("alice, bob and carol are in the kitchen, each by a node of her own, and see each other")

    said = await talk([(alice, "Is there tea?"), (bob, "The kettle is on."), (carol, "I bring cake.")])
    await everybody(guests, lambda guest: sorted(guest.visit.seen) == sorted(said), "heard all of it")
    print("everybody heard everything")

    print("kill -9 of the proxy of node 3")
    assert carol.node.proxy is not None
    carol.node.proxy.kill()
    await asyncio.wait_for(carol.ended, PATIENCE)
    said += await talk([(alice, "Where is carol?"), (bob, "Fetching the cake.")])
    await everybody([alice, bob], lambda guest: sorted(guest.visit.seen) == sorted(said), "heard all of it")
    print("the chat went on without it")

    await carol.node.start()
    back = Guest("carol", carol.node)
    await everybody([back], lambda guest: sorted(guest.visit.seen) == sorted(said), "was told what was said before")
    print("node 3 is back, and carol was told what she had missed")
    said += await talk([(back, "Here it is!"), (alice, "Lovely.")])
    await everybody([alice, bob, back], lambda guest: sorted(guest.visit.seen) == sorted(said), "heard all of it")
    await everybody([alice, bob, back], lambda guest: guest.visit.online == ["alice", "bob", "carol"], "sees all three")

    for node in nodes:
        await until(partial(whole, node, said, ["alice", "bob", "carol"]), partial(not_whole, node))
        print(f"{node.name} has the whole chat: {len(said)} messages, 3 people")
    for guest in (alice, bob, back):
        guest.visit.leave()
    for node in nodes:
        await until(partial(whole, node, said, []), partial(not_whole, node))
    print("all three leave, and the kitchen is empty")


async def talk(lines: list[tuple[Guest, str]]) -> list[str]:
    """Say some lines; what was said."""
    for guest, text in lines:
        await guest.say(text)
    return [f"{guest.user}: {text}" for guest, text in lines]


async def whole(node: Node, said: list[str], online: list[str]) -> bool:
    """Whether a node knows everything that was said, and who is there."""
    room = node.room = await node.client.look(ROOM)
    return [f"{message.user}: {message.text}" for message in room.messages] == said and list(room.online) == online


def not_whole(node: Node) -> str:
    return f"{node.name} knows {len(node.room.messages)} messages, and there are {list(node.room.online)}: {node.room}"


async def everybody(guests: list[Guest], condition: Callable[[Guest], bool], what: str) -> None:
    """Wait until a condition holds for each of the guests."""
    for guest in guests:
        await until(partial(_holds, condition, guest), partial(_lacking, guest, what))


async def _holds(condition: Callable[[Guest], bool], guest: Guest) -> bool:
    return condition(guest)


def _lacking(guest: Guest, what: str) -> str:
    return f"not so: {guest.user} {what}; she saw {guest.visit.seen}, and there were {guest.visit.online}"


async def until(holds: Callable[[], Awaitable[bool]], lacking: Callable[[], str]) -> None:
    """Wait until something holds. Raises Missing with the text of `lacking` if it takes too long."""
    for _ in range(round(PATIENCE / LOOK_INTERVAL)):
        if await holds():
            return
        await asyncio.sleep(LOOK_INTERVAL)
    raise Missing(lacking())


def free_ports(count: int, each: int) -> list[int]:
    """The first of `each` ports in a row, so often, that nobody listens on: proxies have to know each other's before
    they start. The kernel gives none of these to whoever wants any."""
    first = random.randrange(20_000, 30_000)
    found: list[int] = []
    for port in range(first, first + 2000, each):
        if len(found) < count and all(is_free(port + number) for number in range(each)):
            found.append(port)
    return found


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def main() -> int:
    ports = free_ports(3, int(os.environ.get("STATESIDE_WORKERS", "1")))
    peers = [f"127.0.0.1:{port}" for port in ports]
    with tempfile.TemporaryDirectory() as folder:
        nodes = [Node(number, port, peers, Path(folder)) for number, port in enumerate(ports, 1)]
        try:
            uvloop.run(demo(nodes))
        except (Missing, CallFailed, OSError, RuntimeError) as error:
            print(f"FAILED: {error or type(error).__name__}")
            return 1
        finally:
            for node in nodes:
                node.stop()
    print("the chat is whole on all three")
    return 0


if __name__ == "__main__":
    sys.exit(main())
