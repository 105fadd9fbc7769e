"""The user function of the fraud scoring: `python -m examples.fraud_scoring`, at HOST:PORT of the environment."""

import logging

from stateside.support import Stateside

from .services import CustomerCase, Scoring

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    Stateside(Scoring(), CustomerCase, name="fraud-scoring").run()
