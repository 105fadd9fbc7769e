"""What becomes of a request on the main port that is not gRPC, over HTTP/1.1 and HTTP/2 alike:

    CORS preflight of a served path -> gRPC-web, by its content type -> HTTP/JSON, the network probe, 404

and every answer gets the headers of CORS, if that is on.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from stateside.proxy import websocket
from stateside.proxy.exchange import text
from stateside.proxy.grpc_web import path_of

if TYPE_CHECKING:
    from stateside.proxy.cors import Cors
    from stateside.proxy.exchange import Later, Request, Response
    from stateside.proxy.grpc_web import GrpcWeb
    from stateside.proxy.http_json import HttpJson


class HttpRoute:
    """The faces of the main port beside gRPC, in their order."""

    def __init__(self, grpc_web: GrpcWeb, http_json: HttpJson, cors: Cors) -> None:
        self._grpc_web = grpc_web
        self._http_json = http_json
        self._cors = cors

    def __call__(self, request: Request) -> Response | Later:
        """A `Route`."""
        if not self._cors:
            return self._answer(request)
        if self._cors.is_preflight(request) and (methods := self._methods(request)):
            return self._cors.preflight(request, methods)
        if websocket.is_offered(request) and not self._cors.may_open_socket(request):
            return text(HTTPStatus.FORBIDDEN, "this origin is not among cors_allow_origins")
        return self._cors.applied(request, self._answer(request))

    def _answer(self, request: Request) -> Response | Later:
        if self._grpc_web.recognizes(request):
            return self._grpc_web.route(request)
        return self._http_json.route(request)

    def _methods(self, request: Request) -> set[str]:
        """What the path of a request may be asked with."""
        methods = set(self._http_json.verbs(request))
        if self._grpc_web.lookup(path_of(request)) is not None:
            methods.add("POST")
        return methods
