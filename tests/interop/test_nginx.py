"""nginx in front of a real proxy: as reverse proxy of gRPC, of HTTP/JSON and gRPC-web, and as the end of TLS."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any

import pytest

from .program import Program
from .web_shop import CART, DELIVERIES, PATIENCE_S, SECURE_NAME, WebShop, run

pytestmark = pytest.mark.interop

# One process of the user who runs the tests, with all its files in one folder.
CONFIG = Template("""
daemon off;
master_process off;
pid $folder/nginx.pid;
error_log stderr warn;
events { worker_connections 256; }
http {
    access_log off;
    client_body_temp_path $folder/body;
    proxy_temp_path $folder/proxy;
    fastcgi_temp_path $folder/fastcgi;
    uwsgi_temp_path $folder/uwsgi;
    scgi_temp_path $folder/scgi;
    ssl_certificate $certificate;
    ssl_certificate_key $key;

    server {  # gRPC over plaintext and over TLS, to a proxy without TLS
        listen 127.0.0.1:$grpc_port http2;
        listen 127.0.0.1:$grpc_tls_port ssl http2;
        location / { grpc_pass grpc://$plain; }
    }
    server {  # gRPC to a proxy with TLS, whose certificate is checked
        listen 127.0.0.1:$to_tls_port http2;
        location / {
            grpc_pass grpcs://$secure;
            grpc_ssl_trusted_certificate $authority;
            grpc_ssl_verify on;
            grpc_ssl_name $secure_name;
        }
    }
    server {  # HTTP/JSON and gRPC-web
        listen 127.0.0.1:$http_port;
        location / {
            proxy_pass http://$plain;
            proxy_http_version 1.1;
            proxy_set_header connection "";
            proxy_buffering off;
        }
    }
}
""")
PORTS = ("grpc_port", "grpc_tls_port", "to_tls_port", "http_port")


class Nginx(Program):
    def __init__(self, shop: WebShop, folder: Path) -> None:
        self.ports = free_ports()
        issued = shop.authority.issue("nginx")
        config = folder / "nginx.conf"
        config.write_text(
            CONFIG.substitute(
                self.ports,
                folder=folder,
                plain=shop.plain.target,
                secure=shop.secure.target,
                secure_name=SECURE_NAME,
                authority=shop.authority.certificate,
                certificate=issued.certificate,
                key=issued.key,
            )
        )
        super().__init__(["nginx", "-p", str(folder), "-e", "stderr", "-c", str(config)], folder, {})

    def url(self, port: str, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.ports[port]}"

    def wait_until_listening(self) -> None:
        command = ["curl", "-s", "-o", "/dev/null", "--retry", "50", "--retry-connrefused", "--retry-delay", "1"]
        run([*command, self.url("http_port") + "/"])


def free_ports() -> dict[str, int]:
    """nginx has to be told its ports."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in PORTS]
    found = {name: int(each.getsockname()[1]) for name, each in zip(PORTS, sockets, strict=True)}
    for each in sockets:
        each.close()
    return found


@pytest.fixture(scope="module")
def nginx(web_shop: WebShop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    nginx = Nginx(web_shop, tmp_path_factory.mktemp("nginx"))
    nginx.start()
    try:
        nginx.wait_until_listening()
        yield nginx
    finally:
        nginx.close()


def calls(user: str) -> list[dict[str, Any]]:
    def of_cart(method: str, **message: Any) -> dict[str, Any]:
        return {"service": CART, "method": method, "messages": [{"userId": user, **message}]}

    track = {"service": DELIVERIES, "method": "Track"}
    return [
        of_cart("AddItem", productId="tea", name="Grüner Tee", quantity=2),
        of_cart("RemoveItem", productId="käse 100%"),
        of_cart("GetCart"),
        {**track, "messages": [{"orderId": "7", "places": 300}]},
        {**track, "messages": [{"orderId": "8"}]},
    ]


def check(found: list[dict[str, Any]]) -> None:
    """What came of `calls`."""
    added, missing, read, tracked, lost = found
    assert (added["code"], added["messages"]) == ("ok", [{}])
    assert (missing["code"], missing["error"]) == ("Unknown", "Item käse 100% not in cart")
    assert read["messages"] == [{"items": [{"productId": "tea", "name": "Grüner Tee", "quantity": 2}]}]
    assert (tracked["code"], len(tracked["messages"])) == ("ok", 300)
    assert (lost["code"], lost["error"], len(lost["messages"])) == ("Unknown", "lost on the way", 1)


@pytest.mark.parametrize(
    ("port", "scheme"),
    [("grpc_port", "http"), ("grpc_tls_port", "https"), ("to_tls_port", "http")],
    ids=["plaintext", "tls-ends-at-nginx", "tls-from-nginx-on"],
)
def test_grpc(web_shop: WebShop, nginx: Nginx, user: str, port: str, scheme: str) -> None:
    ca = {"ca": str(web_shop.authority.certificate)} if scheme == "https" else {}
    url = nginx.url(port, scheme)
    check(web_shop.node("connect.mjs", protocol="grpc", http="2", url=url, calls=calls(user), **ca))


def test_grpc_web(web_shop: WebShop, nginx: Nginx, user: str) -> None:
    url = nginx.url("http_port")
    check(web_shop.node("connect.mjs", protocol="grpc-web", http="1.1", url=url, calls=calls(user)))


def test_grpc_web_of_a_browsers_client(web_shop: WebShop, nginx: Nginx, user: str) -> None:
    for format in ("text", "binary"):
        found = web_shop.node("grpc-web.mjs", url=nginx.url("http_port"), format=format, calls=calls(user)[:3])
        assert [outcome["code"] for outcome in found] == [0, 2, 0]


def test_http_json(web_shop: WebShop, nginx: Nginx, user: str) -> None:
    url = nginx.url("http_port")
    item = ["-H", "content-type: application/json", "-d", '{"productId":"tea","name":"Tea","quantity":2}']
    added = subprocess.run(
        ["curl", "-sS", *item, f"{url}/cart/{user}/items/add"], capture_output=True, timeout=PATIENCE_S, check=True
    )
    assert added.stdout == b"{}"
    assert run(["curl", "-sS", f"{url}/carts/{user}"]) == '{"items":[{"productId":"tea","name":"Tea","quantity":2}]}'
    assert run(["curl", "-sS", "-X", "POST", f"{url}/cart/{user}/items/milk/remove"]) == "Item milk not in cart"


def test_events_come_through_unbuffered(nginx: Nginx) -> None:
    url = f"{nginx.url('http_port')}/deliveries/7?places=2"
    said = run(["curl", "-sSN", "-H", "accept: text/event-stream", url])
    assert said == 'data:{"place":"7 at 1","number":1}\n\ndata:{"place":"7 at 2","number":2}\n\n'
