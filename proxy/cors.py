"""CORS: what pages of other origins may ask of this proxy, as their browsers want to be told (Fetch standard, 3.2).

Off unless `cors_allow_origins` names somebody, as in the reference proxy. `http_route.py` asks here twice: a preflight
is answered here, and every other answer to a page gets the headers that let the page read it.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING

from stateside.proxy.exchange import Later, Response, Upgrade, text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stateside.proxy.config import Settings
    from stateside.proxy.exchange import Carrier, Request

Fields = tuple[tuple[str, str], ...]

ANY = "*"
PREFLIGHT_VARY = ("vary", "origin, access-control-request-method, access-control-request-headers")
MAX_NAMES = 100  # of headers that a page asks for
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Cors:
    """The rules of one proxy. False if there are none."""

    def __init__(self, settings: Settings) -> None:
        self._origins = frozenset(settings.cors_allow_origins)
        self._headers = settings.cors_allow_headers
        self._exposed = ", ".join(settings.cors_expose_headers)
        self._max_age = settings.cors_max_age
        self._credentials = settings.cors_allow_credentials

    def __bool__(self) -> bool:
        return bool(self._origins)

    @staticmethod
    def is_preflight(request: Request) -> bool:
        asked = "origin" in request.headers and "access-control-request-method" in request.headers
        return request.method == "OPTIONS" and asked

    def preflight(self, request: Request, methods: Iterable[str]) -> Response:
        """The answer to a preflight for a path that is served with `methods`."""
        origin = request.headers["origin"]
        if not self._allows(origin):
            return text(HTTPStatus.FORBIDDEN, "this origin is not among cors_allow_origins", (PREFLIGHT_VARY,))
        asked = request.headers["access-control-request-method"]
        allowed = [asked if name == ANY and _TOKEN.fullmatch(asked) else name for name in methods]
        fields = [
            *self._who(origin),
            ("access-control-allow-methods", ", ".join(sorted(set(allowed)))),
            ("access-control-allow-headers", self._allowed_headers(request)),
            *([("access-control-max-age", f"{self._max_age:.0f}")] if self._max_age else ()),
            PREFLIGHT_VARY,
        ]
        return Response(HTTPStatus.OK, b"", "", tuple(fields))

    def may_open_socket(self, request: Request) -> bool:
        """Whether a page may open a WebSocket, for which browsers do not ask first: its origin is listed, or that of
        the proxy itself."""
        origin = request.headers.get("origin")
        if origin is None or self._allows(origin):
            return True
        return origin.partition("://")[2].lower() == request.headers.get("host", "").lower()

    def applied(self, request: Request, answer: Response | Later) -> Response | Later:
        """An answer that the page may read, if its origin is allowed to."""
        fields = self._fields(request.headers.get("origin"))
        if not fields or isinstance(answer, Upgrade):
            return answer
        return with_fields(answer, fields) if isinstance(answer, Response) else LaterWithFields(answer, fields)

    def _fields(self, origin: str | None) -> Fields:
        vary: Fields = () if self._is_open else (("vary", "origin"),)
        if origin is None or not self._allows(origin):
            return vary
        exposed: Fields = (("access-control-expose-headers", self._exposed),) if self._exposed else ()
        return (*self._who(origin), *exposed, *vary)

    @property
    def _is_open(self) -> bool:
        return ANY in self._origins

    def _allows(self, origin: str) -> bool:
        return self._is_open or origin in self._origins

    def _who(self, origin: str) -> Fields:
        allowed = ("access-control-allow-origin", ANY if self._is_open else origin)
        return (allowed, ("access-control-allow-credentials", "true")) if self._credentials else (allowed,)

    def _allowed_headers(self, request: Request) -> str:
        if ANY not in self._headers:
            return ", ".join(self._headers)
        asked = request.headers.get("access-control-request-headers", "").split(",", MAX_NAMES)
        return ", ".join(name for each in asked[:MAX_NAMES] if _TOKEN.fullmatch(name := each.strip()))


def with_fields(response: Response, fields: Fields) -> Response:
    return Response(response.status, response.body, response.content_type, (*response.headers, *fields))


class LaterWithFields(Later):
    """Another `Later` whose answer gets further headers: to it this is the connection, and to the connection the
    answer."""

    __slots__ = ("_fields", "_inner")

    def __init__(self, inner: Later, fields: Fields) -> None:
        Later.__init__(self)
        self._inner = inner
        self._fields = fields

    def attach(self, carrier: Carrier) -> None:
        Later.attach(self, carrier)
        self._inner.attach(self)

    def detach(self) -> None:
        Later.detach(self)
        self._inner.detach()

    def answer(self, response: Response) -> None:
        Later.answer(self, with_fields(response, self._fields))

    def begin(self, head: Response) -> None:
        Later.begin(self, with_fields(head, self._fields))

    def on_drain(self) -> None:
        self._inner.on_drain()

    def on_gone(self) -> None:
        self._inner.on_gone()
