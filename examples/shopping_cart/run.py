"""`make run`: the shopping cart behind a proxy, in the foreground until Ctrl-C.

Honours HTTP_PORT (9000), USER_FUNCTION_PORT (8080) and every other setting of the proxy; keeps the journal in ./data.
A proxy or user function that dies is started again, so that one can kill either and look.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

from examples.shopping_cart.stack import Child, proxy, user_function

RESTART_PAUSE = 0.5  # seconds


def main() -> int:
    """Start both, keep both running, stop both."""
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    http_port = int(os.environ.get("HTTP_PORT", "9000"))
    function_port = int(os.environ.get("USER_FUNCTION_PORT", "8080"))
    readable = {"STATESIDE_LOG_FORMAT": os.environ.get("STATESIDE_LOG_FORMAT", "console")}
    children = [user_function(function_port), proxy(http_port, function_port, readable)]
    try:
        for child in children:
            child.start()
            threading.Thread(target=keep, args=(child, stopping), daemon=True).start()
        print(children[-1].ready_line, flush=True)
        stopping.wait()
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        stopping.set()
        for child in reversed(children):  # the proxy before its user function
            child.stop()
    return 0


def keep(child: Child, stopping: threading.Event) -> None:
    """Start `child` again whenever it ends before it is meant to."""
    while not stopping.is_set():
        code = child.wait()
        if stopping.wait(RESTART_PAUSE):
            return
        print(f"the {child.name} ended (exit code {code}); starting it again", file=sys.stderr, flush=True)
        try:
            child.start()
        except RuntimeError as error:
            print(error, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
