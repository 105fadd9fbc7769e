"""The user function of the polls: `python -m examples.voting`, at HOST:PORT of the environment."""

import logging

from stateside.support import Stateside

from .polls import Poll

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    Stateside(Poll, name="voting").run()
