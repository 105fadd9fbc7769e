"""`python -m stateside.bench.fixed_cart`: a user function for the shopping cart that gives the same cart to everybody.

It costs what the server costs that stands behind another transcoder (anchors/cart_server.py), so that what is measured
is what stands before it. Says `{"port": n}` when it listens. To be run at the top of the project.
"""

import asyncio
import json
import signal
from typing import Any

import uvloop

from examples.shopping_cart.entity import ShoppingCart
from stateside._speedups.h2 import Call, Handler, Server, ServerCall
from stateside._speedups.wire import IN_COMMAND, scan_event_sourced_in, write_reply
from stateside.bench.anchors.cart_server import CART
from stateside.bench.echo import Discover, ReportError
from stateside.support import Stateside

TYPE_URL = "type.googleapis.com/com.example.shoppingcart.Cart"


class FixedCart(Handler):
    def __init__(self) -> None:
        self.reply: bytes = CART.SerializeToString()

    def on_message(self, call: Call, message: bytes) -> None:
        scanned = scan_event_sourced_in(message)
        if scanned.kind == IN_COMMAND:
            call.send(write_reply(scanned.command_id, TYPE_URL, self.reply))

    def on_half_close(self, call: ServerCall) -> None:
        call.finish()


async def serve() -> None:
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    handlers: dict[bytes, Any] = {
        b"/cloudstate.EntityDiscovery/discover": Discover(Stateside(ShoppingCart, name="fixed-cart").entity_spec()),
        b"/cloudstate.EntityDiscovery/reportError": ReportError(),
        b"/cloudstate.eventsourced.EventSourced/handle": FixedCart(),
    }
    server = Server(loop, handlers.get)
    print(json.dumps({"port": await server.listen_tcp("127.0.0.1", 0)}), flush=True)
    await stopped.wait()
    await server.close()


if __name__ == "__main__":
    uvloop.run(serve())
