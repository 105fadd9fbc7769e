"""The user function of the chat: `python -m examples.chat`, at HOST:PORT of the environment."""

import logging

from stateside.support import Hooks, Stateside

from .rooms import Room


class Ready(Hooks):
    """Says on stdout, in one line, that the user function can be called."""

    def started(self, address: str) -> None:
        print(f"Chat at {address}", flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    Stateside(Room, name="chat", hooks=Ready()).run()
