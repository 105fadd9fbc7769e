"""The shopping cart on the Node support library, as a process, and what a client or a proxy needs to talk to it.

`NodeCart` is the user function: `node cart.js` on a port of its own, kept over restarts. `CartClient` calls the service
it offers, through whatever channel leads there. The message classes come from the descriptor set that the user function
itself hands out, in a pool of their own: its `cloudstate.entity_key` has another number than ours.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from .program import CartProgram

HERE = Path(__file__).parent
FOLDER = HERE / "node"
DESCRIPTOR_SET = FOLDER / "user-function.desc"
SERVICE = "com.example.shoppingcart.ShoppingCart"
PERSISTENCE_ID = "shopping-cart"
SNAPSHOT_EVERY = 5


def set_up() -> None:
    """Install what the user function needs; quick when nothing changed."""
    done = subprocess.run([HERE / "setup"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"tests/interop/setup failed:\n{done.stdout}{done.stderr}")


class NodeCart(CartProgram):
    """The user function. It chooses a free port when first started, and takes the same one when started again.

    It tells on its output what the library does (`DEBUG`), among others each snapshot and event it is given.
    """

    def __init__(self) -> None:
        env = {"HOST": "127.0.0.1", "PORT": "0", "DEBUG": "cloudstate*"}
        super().__init__(["node", "cart.js"], FOLDER, env)

    def start(self) -> None:
        super().start()
        self.env["PORT"] = self.wait_for_output(r"listening on port (\d+)")[1]


class CartMessages:
    """Message classes by full name, from a serialized descriptor set in any order."""

    def __init__(self, descriptor_set: bytes) -> None:
        files = {file.name: file for file in descriptor_pb2.FileDescriptorSet.FromString(descriptor_set).file}
        self.pool = descriptor_pool.DescriptorPool()
        added: set[str] = set()

        def add(name: str) -> None:
            if name in added:
                return
            added.add(name)
            for dependency in files[name].dependency:
                add(dependency)
            self.pool.Add(files[name])

        for name in files:
            add(name)

    def cart(self, message: str, /, **fields: Any) -> Message:
        """A message of the package of the service."""
        return self.named(f"com.example.shoppingcart.{message}")(**fields)

    def persisted(self, message: str, /, **fields: Any) -> Message:
        """A message of the package of what is persisted."""
        return self.named(f"com.example.shoppingcart.persistence.{message}")(**fields)

    def named(self, full_name: str) -> type[Message]:
        found: type[Message] = message_factory.GetMessageClass(self.pool.FindMessageTypeByName(full_name))
        return found


class CartClient:
    """Calls the shopping cart. Each call waits for the server, at most `timeout_s`."""

    def __init__(self, channel: grpc.aio.Channel, messages: CartMessages, timeout_s: float = 20) -> None:
        self.channel = channel
        self.messages = messages
        self.timeout_s = timeout_s

    async def add_item(self, user_id: str, product_id: str, name: str, quantity: int) -> None:
        fields = {"user_id": user_id, "product_id": product_id, "name": name, "quantity": quantity}
        await self._call("AddItem", self.messages.cart("AddLineItem", **fields), "google.protobuf.Empty")

    async def remove_item(self, user_id: str, product_id: str) -> None:
        request = self.messages.cart("RemoveLineItem", user_id=user_id, product_id=product_id)
        await self._call("RemoveItem", request, "google.protobuf.Empty")

    async def get_cart(self, user_id: str) -> list[tuple[str, str, int]]:
        """The lines of the cart as (product id, name, quantity), in their order."""
        request = self.messages.cart("GetShoppingCart", user_id=user_id)
        cart: Any = await self._call("GetCart", request, "com.example.shoppingcart.Cart")
        return [(item.product_id, item.name, item.quantity) for item in cart.items]

    async def _call(self, method: str, request: Message, response: str) -> Message:
        call = self.channel.unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=self.messages.named(response).FromString,
        )
        answer: Message = await call(request, wait_for_ready=True, timeout=self.timeout_s)
        return answer
