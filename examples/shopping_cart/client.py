"""A small client of the shopping cart, on the transport of this project: no other gRPC library is needed.

`python -m examples.shopping_cart.client` buys something through a proxy at 127.0.0.1:9000 and prints the cart.
From other code:

    async with await CartClient.connect("127.0.0.1", 9000) as client:
        await client.add_item("alice", "tea", "Green tea", 2)
        print(await client.get_cart("alice"))
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop
from google.protobuf.empty_pb2 import Empty

from stateside._speedups.h2 import Channel, Handler
from stateside.proto.status import Status

from .protos.shoppingcart.shoppingcart_pb2 import AddLineItem, Cart, GetShoppingCart, RemoveLineItem

SERVICE = "com.example.shoppingcart.ShoppingCart"


class CallFailed(Exception):
    """The answer to a call was a gRPC status other than OK."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(f"{status.name}: {message}")
        self.status = status
        self.message = message


class CartClient:
    """Calls of the ShoppingCart service over one connection. Methods raise CallFailed."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @classmethod
    async def connect(cls, host: str, port: int) -> CartClient:
        """A client of the server at host:port. Raises OSError."""
        return cls(await Channel.connect(asyncio.get_running_loop(), host, port))

    async def add_item(self, user_id: str, product_id: str, name: str, quantity: int) -> None:
        """Put something into a user's cart."""
        request = AddLineItem(user_id=user_id, product_id=product_id, name=name, quantity=quantity)
        await self._call("AddItem", request, Empty)

    async def remove_item(self, user_id: str, product_id: str) -> None:
        """Take all of a product out of a user's cart."""
        await self._call("RemoveItem", RemoveLineItem(user_id=user_id, product_id=product_id), Empty)

    async def get_cart(self, user_id: str) -> list[tuple[str, str, int]]:
        """Product id, name and quantity of each line, in the order they were first put in."""
        cart = await self._call("GetCart", GetShoppingCart(user_id=user_id), Cart)
        return [(item.product_id, item.name, item.quantity) for item in cart.items]

    async def _call(self, method: str, request: Any, reply_class: Any) -> Any:
        handler = _Unary()
        call = self._channel.open(f"/{SERVICE}/{method}".encode(), handler, timeout=10.0)
        call.send(request.SerializeToString())
        call.half_close()
        return reply_class.FromString(await handler.reply)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    async def __aenter__(self) -> CartClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class _Unary(Handler):
    """Turns the callbacks of one call into a future of its reply."""

    def __init__(self) -> None:
        self.reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._message: bytes | None = None

    def on_message(self, call: Any, message: bytes) -> None:
        self._message = message

    def on_end(self, call: Any, status: int, message: str) -> None:
        if self.reply.done():
            return
        if status == Status.OK and self._message is not None:
            self.reply.set_result(self._message)
        else:
            self.reply.set_exception(CallFailed(Status(status or Status.INTERNAL), message or "no message"))


async def add_item(
    user_id: str, product_id: str, name: str, quantity: int, *, host: str = "127.0.0.1", port: int = 9000
) -> None:
    """One purchase over a connection of its own."""
    async with await CartClient.connect(host, port) as client:
        await client.add_item(user_id, product_id, name, quantity)


async def get_cart(user_id: str, *, host: str = "127.0.0.1", port: int = 9000) -> list[tuple[str, str, int]]:
    """The cart of a user, over a connection of its own."""
    async with await CartClient.connect(host, port) as client:
        return await client.get_cart(user_id)


async def main(host: str, port: int) -> None:
    """A purchase, and what is in the cart after it."""
    async with await CartClient.connect(host, port) as client:
        await client.add_item("alice", "tea", "Green tea", 2)
        for product_id, name, quantity in await client.get_cart("alice"):
            print(f"{quantity:4d} x {name} ({product_id})")


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1", int(sys.argv[2]) if len(sys.argv) > 2 else 9000))
