"""A shop for the interop tests: a gRPC client, our proxy as a process with a durable journal, and a user function on a
foreign library, whichever it is."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import grpc.aio
import pytest
import uvloop

from .node_cart import CartClient, CartMessages
from .program import CartProgram, Program

Line = tuple[str, str, int]
Scenario = Callable[[CartClient], Awaitable[None]]


class Proxy(Program):
    """`stateside proxy` in front of a user function. Its port is chosen at the first start and kept over restarts."""

    def __init__(self, user_function: CartProgram, folder: Path, **env: str) -> None:
        settings = {
            "HTTP_PORT": "0",
            "STATESIDE_HTTP_INTERFACE": "127.0.0.1",
            "MANAGEMENT_PORT": "0",
            "STATESIDE_METRICS_ENABLED": "false",
            "USER_FUNCTION_HOST": "127.0.0.1",
            "USER_FUNCTION_PORT": str(user_function.port),
            "STATESIDE_PROTOCOL_COMPATIBILITY_CHECK": "false",
            "STATESIDE_JOURNAL": f"lmdb:{folder / 'journal'}",
        }
        super().__init__([Path(sys.executable).with_name("stateside"), "proxy"], folder, settings | env)

    def wait_until_serving(self) -> None:
        self.env["HTTP_PORT"] = self.wait_for_output(r"Stateside serves https?://127\.0\.0\.1:(\d+)")[1]

    def restart(self) -> None:
        """kill -9, and start anew on the same port with the same journal."""
        self.kill()
        self.start()
        self.wait_until_serving()

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.env['HTTP_PORT']}"


class Shop:
    """User function, proxy and clients of one test."""

    def __init__(self, cart: CartProgram, proxy: Proxy, messages: CartMessages) -> None:
        self.cart = cart
        self.proxy = proxy
        self.messages = messages

    def open(self) -> None:
        """Start what does not run."""
        for program in (self.cart, self.proxy):
            if not program.alive:
                program.close()
                program.start()
        self.proxy.wait_until_serving()

    def visit(self, scenario: Scenario) -> None:
        """Run a scenario with a client on a connection of its own."""

        async def run() -> None:
            async with grpc.aio.insecure_channel(self.proxy.target) as channel:
                await scenario(CartClient(channel, self.messages))

        uvloop.run(run())

    def add_items(self, user_id: str, numbers: range) -> None:
        """One command per number: so many pieces of a product of that number."""

        async def scenario(client: CartClient) -> None:
            for number in numbers:
                await client.add_item(user_id, f"product{number}", f"Product {number}", number)

        self.visit(scenario)

    def cart_of(self, user_id: str, patience_s: float = 0) -> list[Line]:
        """The cart's lines. A patient client tries again for a while as long as the answer is UNAVAILABLE."""
        found: list[Line] = []
        deadline = time.monotonic() + patience_s

        async def scenario(client: CartClient) -> None:
            while True:
                try:
                    found.extend(await client.get_cart(user_id))
                    return
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() >= deadline:
                        raise
                await asyncio.sleep(0.05)

        self.visit(scenario)
        return found

    def failure_of(self, scenario: Scenario) -> tuple[grpc.StatusCode, str | None]:
        """Status and message that the client sees."""
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            self.visit(scenario)
        return failed.value.code(), failed.value.details()


def lines(numbers: range) -> list[Line]:
    """The cart after `add_items` with these numbers."""
    return [(f"product{number}", f"Product {number}", number) for number in numbers]
