"""The user function of the transfers: `python -m examples.transfer`, at HOST:PORT of the environment."""

import logging

from stateside.support import Stateside

from .services import Account, Transfers

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    Stateside(Transfers, Account, name="transfer").run()
