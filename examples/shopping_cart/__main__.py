"""The user function of the shopping cart: `python -m examples.shopping_cart`, at HOST:PORT of the environment."""

import logging

from stateside.support import Stateside

from .entity import ShoppingCart

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    Stateside(ShoppingCart, name="shopping-cart").run()
