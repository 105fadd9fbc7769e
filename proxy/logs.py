"""The log: one line per event on stderr, JSON for machines or plain for people.

`get(name)` gives a structlog logger; what libraries say through the standard `logging` comes out in the same form.
"""

import json
import logging
import sys
from types import TracebackType
from typing import Any

from stateside.proxy.config import Settings

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def _import_structlog() -> Any:
    """structlog without rich: it would import it only for prettier tracebacks, at ten times its own cost."""
    present = "rich" in sys.modules
    if not present:
        sys.modules["rich"] = None  # type: ignore[assignment]  # makes `import rich` fail, as if not installed
    try:
        import structlog
    finally:
        if not present:
            del sys.modules["rich"]
    return structlog


structlog = _import_structlog()


def configure(settings: Settings, worker: str = "") -> None:
    """Set up the log of this process. `worker`: which one of several it is, as a field of each line."""
    structlog.configure(
        processors=[_Worker(worker), *_processors(settings.log_format)] if worker else _processors(settings.log_format),
        # A line is written with its end at once: the processes of a proxy share their stderr.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,  # a level may be set at any time
    )
    logging.basicConfig(handlers=[_Forward()], force=True)
    set_level(settings.log_level)


def set_level(name: str) -> None:
    """The least of what is logged from now on: one of LEVELS."""
    number = LEVELS[name]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(number))
    logging.getLogger().setLevel(max(number, logging.INFO))
    _Level.name = name


def level() -> str:
    """The least of what is logged."""
    return _Level.name


class _Level:
    name = "info"


def toggle_debug(configured: str) -> None:
    """To debug, and back to what was configured."""
    set_level("debug" if level() != "debug" else configured if configured != "debug" else "info")
    get(__name__).warning("log level changed", level=level())


def get(name: str) -> Any:
    """A logger; `name` becomes the field `part` of each line. May be asked for before `configure`."""
    return structlog.get_logger(part=name)


def _processors(log_format: str) -> list[Any]:
    shared = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=log_format == "json"),
    ]
    if log_format == "json":
        renderer = structlog.processors.JSONRenderer(serializer=json.dumps, default=_as_text)
        return [*shared, structlog.processors.format_exc_info, renderer]
    colors = sys.stderr.isatty()
    plain = structlog.dev.plain_traceback
    return [*shared, structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain)]


def _as_text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else repr(value)


class _Worker:
    """Adds which process of the proxy speaks."""

    def __init__(self, worker: str) -> None:
        self._worker = worker

    def __call__(self, _: object, __: str, fields: dict[str, Any]) -> dict[str, Any]:
        fields["worker"] = self._worker
        return fields


ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


class _Forward(logging.Handler):
    """Hands records of the standard library's logging to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {"exc_info": record.exc_info} if record.exc_info else {}
        try:
            text = record.getMessage()
        except (TypeError, ValueError):
            text = record.msg  # arguments that do not fit their format must not cost the line
        get(record.name).log(record.levelno, text, **fields)
