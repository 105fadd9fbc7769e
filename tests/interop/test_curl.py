"""curl against a real proxy: HTTP/JSON over HTTP/1.1, HTTP/2 and TLS, CORS, and what ALPN chooses."""

from __future__ import annotations

import json
import subprocess

import pytest

from .web_shop import PATIENCE_S, WebShop, run

pytestmark = pytest.mark.interop

JSON = ["-H", "content-type: application/json"]
# option of curl -> version of HTTP that is to be spoken
VERSIONS = [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2"), ("--http2", "2")]


def curl(*arguments: str) -> tuple[int, str, str]:
    """Status, version of HTTP, and body."""
    said = run(["curl", "-sS", "--max-time", str(PATIENCE_S), *arguments, "-w", "\n%{http_code} %{http_version}"])
    body, _, end = said.rpartition("\n")
    status, version = end.split()
    return int(status), version, body


@pytest.mark.parametrize(("option", "version"), VERSIONS[:2], ids=["1.1", "2"])
def test_a_cart_over_plaintext(web_shop: WebShop, user: str, option: str, version: str) -> None:
    item = '{"productId":"tea","name":"Grüner Tee","quantity":2}'
    cart = f"{web_shop.url}/cart/{user}/items"
    assert curl(option, *JSON, "-d", item, f"{cart}/add") == (200, version, "{}")
    expected = '{"items":[{"productId":"tea","name":"Grüner Tee","quantity":2}]}'
    assert curl(option, f"{web_shop.url}/carts/{user}") == (200, version, expected)
    assert curl(option, "-X", "POST", f"{cart}/milk/remove") == (500, version, "Item milk not in cart")
    assert curl(option, *JSON, "-d", '{"quantity":', f"{cart}/add")[:2] == (400, version)
    assert curl(option, f"{web_shop.url}/nowhere")[:2] == (404, version)


@pytest.mark.parametrize(("option", "version"), [VERSIONS[0], VERSIONS[2]], ids=["1.1", "2"])
def test_a_cart_over_tls_in_the_version_that_alpn_chooses(
    web_shop: WebShop, user: str, option: str, version: str
) -> None:
    trusting = ["--cacert", str(web_shop.authority.certificate), option]
    item = '{"productId":"tea","name":"Tea","quantity":2}'
    url = web_shop.secure_url
    assert curl(*trusting, *JSON, "-d", item, f"{url}/cart/{user}/items/add") == (200, version, "{}")
    expected = '[{"productId":"tea","name":"Tea","quantity":2}]'
    assert curl(*trusting, f"{url}/carts/{user}/items") == (200, version, expected)


def test_a_large_body_goes_through_tls_whole(web_shop: WebShop, user: str) -> None:
    trusting = ["--cacert", str(web_shop.authority.certificate)]
    name = "x" * 3_000_000
    url = web_shop.secure_url
    done = subprocess.run(
        ["curl", "-sS", *trusting, *JSON, "-d", "@-", f"{url}/cart/{user}/items/add"],
        input=json.dumps({"productId": "tea", "name": name, "quantity": 1}),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert done.stdout == "{}"
    _, _, body = curl(*trusting, f"{url}/carts/{user}")
    assert json.loads(body)["items"] == [{"productId": "tea", "name": name, "quantity": 1}]


def test_nobody_is_served_who_does_not_trust_the_certificate(web_shop: WebShop) -> None:
    said = run(["curl", "-sS", f"{web_shop.secure_url}/carts/x"], ok=False)
    assert "SSL certificate problem" in said


@pytest.mark.parametrize("too_old", ["1.0", "1.1"])
def test_tls_before_1_2_is_refused(web_shop: WebShop, too_old: str) -> None:
    old = ["--tlsv1.0", "--tls-max", too_old, "--ciphers", "DEFAULT@SECLEVEL=0"]
    said = run(["curl", "-sS", "-k", *old, f"{web_shop.secure_url}/carts/x"], ok=False)
    assert said.startswith("curl: (35) ")  # no handshake


@pytest.mark.parametrize(("option", "version"), VERSIONS[:2], ids=["1.1", "2"])
def test_a_preflight_and_the_answer_behind_it(web_shop: WebShop, user: str, option: str, version: str) -> None:
    url = f"{web_shop.url}/carts/{user}"
    asked = ["-H", "origin: https://shop.example", "-H", "access-control-request-method: GET"]
    status, _, said = curl(option, "-i", "-X", "OPTIONS", *asked, url)
    assert status == 200
    assert "access-control-allow-methods: GET, HEAD" in said
    status, _, said = curl(option, "-i", "-H", "origin: https://shop.example", url)
    assert status == 200
    assert "access-control-allow-origin: *" in said


@pytest.mark.parametrize(("option", "version"), VERSIONS[:2], ids=["1.1", "2"])
def test_a_stream_of_replies_as_events_and_as_lines(web_shop: WebShop, option: str, version: str) -> None:
    url = f"{web_shop.url}/deliveries/7?places=2"
    events = "".join(f'data:{{"place":"7 at {number}","number":{number}}}\n\n' for number in (1, 2))
    assert curl(option, "-N", "-H", "accept: text/event-stream", url) == (200, version, events)
    lines = "".join(f'{{"place":"7 at {number}","number":{number}}}\n' for number in (1, 2))
    assert curl(option, "-N", url) == (200, version, lines)


def test_events_over_tls(web_shop: WebShop) -> None:
    trusting = ["--cacert", str(web_shop.authority.certificate), "-H", "accept: text/event-stream"]
    status, version, said = curl("-N", *trusting, f"{web_shop.secure_url}/deliveries/7?places=300")
    assert (status, version, said.count("data:")) == (200, "2", 300)
