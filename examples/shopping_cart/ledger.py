"""Who shops while things break, and what they were told: every command has an id of its own, which is what it buys.

So a cart says of each command how often it was done. What was acknowledged must be there once; of what was not,
nobody knows, but twice is wrong in any case.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from examples.shopping_cart.client import CallFailed, CartClient

CARTS = 40
CLIENTS = 12
PAUSE = 0.05  # seconds after a failure
PATIENCE = 40.0  # seconds without any progress


@dataclass
class Ledger:
    """Ids of commands: all that were sent, and those that were acknowledged."""

    sent: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)

    def problems(self, found: Counter[str]) -> list[str]:
        """What is wrong with what the carts say."""
        lost = [f"acknowledged and lost: {one}" for one in self.acknowledged if not found[one]]
        twice = [f"done {count} times: {one}" for one, count in found.items() if count > 1]
        foreign = [f"nobody sent it: {one}" for one in found if one not in self.sent]
        return sorted(lost + twice + foreign)


class Shoppers:
    """Clients with a connection each that go on whatever happens to the server, until they are stopped."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ledger = Ledger()
        self.port = 0  # where the proxy is at the moment
        self._stopping = False
        self._news = asyncio.Event()  # something was acknowledged
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, port: int) -> None:
        self.port, self._stopping = port, False
        self._tasks = [asyncio.create_task(self._shop(f"{self.name}{client}")) for client in range(CLIENTS)]

    async def stop(self) -> None:
        """After the commands under way."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def progress(self, seconds: float, at_least: int) -> None:
        """Wait so long, and for so many further acknowledgements. Raises TimeoutError when they do not come."""
        wanted = len(self.ledger.acknowledged) + at_least
        await asyncio.sleep(seconds)
        async with asyncio.timeout(PATIENCE):
            while len(self.ledger.acknowledged) < wanted:
                self._news.clear()
                await self._news.wait()

    async def _shop(self, client: str) -> None:
        number = len(self.ledger.sent)  # ids differ from those before a stop
        while not self._stopping:
            try:
                async with await CartClient.connect("127.0.0.1", self.port) as connection:
                    while not self._stopping:
                        number += 1
                        await self._buy(connection, f"{client}-{number}", f"{self.name}-{number % CARTS}")
            except (OSError, CallFailed):
                await asyncio.sleep(PAUSE)

    async def _buy(self, connection: CartClient, command: str, cart: str) -> None:
        self.ledger.sent.add(command)
        await connection.add_item(cart, command, "bought once", 1)
        self.ledger.acknowledged.add(command)
        self._news.set()

    async def look(self, port: int) -> Counter[str]:
        """How often each command was done, as the carts say."""
        found: Counter[str] = Counter()
        async with await CartClient.connect("127.0.0.1", port) as connection:
            for cart in range(CARTS):
                for command, _, quantity in await connection.get_cart(f"{self.name}-{cart}"):
                    found[command] += quantity
        return found
