"""The user function of the two players: `python -m examples.ping_pong`, at HOST:PORT of the environment."""

import logging

from stateside.support import Stateside

from .players import Pinger, Ponger

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    Stateside(Pinger, Ponger, name="ping-pong").run()
