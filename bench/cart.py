"""`python -m stateside.bench.cart`: the shopping cart of the examples, in Python, on a free port.

To be run at the top of the project, where `examples` lies. Says `{"port": n}` when it listens.
"""

import asyncio
import json
import signal

import uvloop

from examples.shopping_cart.entity import ShoppingCart
from stateside.support import Stateside


async def serve() -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    user_function = Stateside(ShoppingCart, name="shopping-cart")
    print(json.dumps({"port": await user_function.start("127.0.0.1", 0)}), flush=True)
    await stopped.wait()
    await user_function.stop(0)


if __name__ == "__main__":
    uvloop.run(serve())
