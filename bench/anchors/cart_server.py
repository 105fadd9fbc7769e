"""`python -m stateside.bench.anchors.cart_server FILE`: a plain gRPC server that answers each read of a cart alike.

What stands behind another transcoder, where the proxy has a user function that keeps carts: it costs less. Writes the
descriptors of the service to FILE and says `{"port": n}` when it listens. To be run at the top of the project.
"""

import argparse
import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import uvloop
from google.protobuf import descriptor_pb2

from examples.shopping_cart.protos.shoppingcart import shoppingcart_pb2 as shop
from stateside._speedups.h2 import Handler, Server, ServerCall

PATH = b"/com.example.shoppingcart.ShoppingCart/GetCart"
CART = shop.Cart(items=[shop.LineItem(product_id="tea", name="Tea", quantity=2)])


class GetCart(Handler):
    def __init__(self) -> None:
        self.unary = True
        self.reply: bytes = CART.SerializeToString()

    def on_request(self, call: ServerCall, message: bytes) -> None:
        call.reply(self.reply)


def descriptors() -> bytes:
    """The service's file behind all that it imports."""
    files: dict[str, Any] = {}

    def visit(file: Any) -> None:
        if file.name not in files:
            for each in file.dependencies:
                visit(each)
            files[file.name] = descriptor_pb2.FileDescriptorProto.FromString(file.serialized_pb)

    visit(shop.DESCRIPTOR)
    serialized: bytes = descriptor_pb2.FileDescriptorSet(file=files.values()).SerializeToString()
    return serialized


async def serve() -> None:
    loop, stopped, handler = asyncio.get_running_loop(), asyncio.Event(), GetCart()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    server = Server(loop, {PATH: handler}.get)
    print(json.dumps({"port": await server.listen_tcp("127.0.0.1", 0)}), flush=True)
    await stopped.wait()
    await server.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="stateside.bench.anchors.cart_server", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("descriptors", type=Path)
    parser.parse_args().descriptors.write_bytes(descriptors())
    uvloop.run(serve())


if __name__ == "__main__":
    main()
