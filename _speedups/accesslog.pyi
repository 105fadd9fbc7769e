"""The access log's lines, in C: taken on the loop's thread, written by another."""

class AccessLog:
    """`json`: a line is a JSON object, otherwise its values with blanks between them. `keys`: entity keys are wanted.
    `most`: bytes that may wait; what comes beyond is counted in `dropped` and not kept."""

    is_json: bool
    wants_keys: bool
    lines: int
    dropped: int
    def __init__(self, *, json: bool, keys: bool, most: int) -> None: ...
    def write(
        self,
        protocol: str,
        method: str,
        status: str,
        seconds: float,
        peer: str,
        bytes_in: int,
        bytes_out: int,
        key: str | None = None,
    ) -> None:
        """One call that has just ended after `seconds`."""
    def drain(self, file: int) -> int:
        """Write what has gathered to a file descriptor, without the GIL; 0, or an errno, and then it is lost. To be
        called from one thread at a time, any."""
