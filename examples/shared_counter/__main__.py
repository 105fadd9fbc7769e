"""The user function of the counters: `python -m examples.shared_counter`, at HOST:PORT of the environment."""

import logging

from stateside.support import Stateside

from .entity import SharedCounter

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    Stateside(SharedCounter, name="shared-counter").run()
