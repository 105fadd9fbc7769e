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
EXIT_LOST = 75  # another process has claimed the shards of this one (sysexits: EX_TEMPFAIL)


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
