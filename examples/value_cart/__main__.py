"""The user function of the value cart: `python -m examples.value_cart`, at HOST:PORT of the environment."""

import logging

from stateside.support import Stateside

from .entity import ValueCart

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    Stateside(ValueCart, name="value-cart").run()
