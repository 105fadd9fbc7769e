"""The user function of the shopping cart: `python -m examples.shopping_cart`, at HOST:PORT of the environment."""

import logging

from stateside.support import Hooks, Stateside

from .entity import ShoppingCart


class Ready(Hooks):
    """Says on stdout, in one line, that the user function can be called."""

    def started(self, address: str) -> None:
        print(f"Shopping cart at {address}", flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    Stateside(ShoppingCart, name="shopping-cart", hooks=Ready()).run()
