"""The user function of the lists: `python -m examples.todo`, at HOST:PORT of the environment."""

import logging

from stateside.support import Stateside

from .entity import TodoList

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    Stateside(TodoList, name="todo").run()
