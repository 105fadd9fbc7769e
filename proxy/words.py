"""What a process says on its way up and down to whoever started it: the line that it serves, why it cannot, exit codes.

A process that is alone says it to the operator. One of several leaves it to its supervisor, so that there is one line.
"""

from __future__ import annotations

import sys

from stateside.proxy.config import Settings
from stateside.proxy.place import Place
from stateside.proxy.run_folder import complaint_path

EXIT_OK = 0
EXIT_CONFIG = 2
EXIT_BROKEN = 70  # the journal cannot be trusted any more (sysexits: EX_SOFTWARE)


def complain(place: Place, why: str | Exception) -> None:
    """The one line of a process that cannot be started."""
    why = reason(why) if isinstance(why, Exception) else why
    if place.is_alone:
        print(f"stateside: {why}", file=sys.stderr)
    else:
        complaint_path(place).write_text(why)


def reason(error: Exception) -> str:
    """Without the number that Python puts before errors of the system."""
    return str(error).removeprefix(f"[Errno {error.errno}] ") if isinstance(error, OSError) else str(error)


def serving(settings: Settings, port: int) -> str:
    """The line that tells that the main port is open."""
    host = "127.0.0.1" if settings.http_interface in ("0.0.0.0", "::") else settings.http_interface
    return f"Stateside serves {'https' if settings.tls_certificate else 'http'}://{host}:{port}"


def worker_journal(url: str, place: Place) -> str:
    """The URL of one worker's journal: an LMDB environment of its own below the first one's, or what all share."""
    return f"{url}/{place.name}" if url.startswith("lmdb:") and place.index else url
