"""What the clients of the web tests talk to: a user function, and proxies before it with and without TLS."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc_tools
from google.api import annotations_pb2
from grpc_tools import protoc

from tests.helpers.certificates import Authority

from .program import CartProgram
from .shop import Proxy

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).parent / "web"
CART = "com.example.shoppingcart.ShoppingCart"
DELIVERIES = "com.example.deliveries.Deliveries"
SECURE_NAME = "proxy.example"  # of the proxy that speaks TLS, beside its address
PATIENCE_S = 30


def set_up() -> None:
    """Install the clients; quick when they are there."""
    done = subprocess.run([FOLDER / "setup"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"tests/interop/web/setup failed:\n{done.stdout}{done.stderr}")


class WebFunction(CartProgram):
    """`web_function.py` as a process, on a free port."""

    def __init__(self) -> None:
        super().__init__([sys.executable, "-m", "tests.interop.web_function"], ROOT, {"HOST": "127.0.0.1", "PORT": "0"})

    def start(self) -> None:
        super().start()
        self.env["PORT"] = self.wait_for_output(r"listening on port (\d+)")[1]


class WebShop:
    """The user function, a proxy that speaks plaintext and one that speaks TLS. Each keeps carts of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        issued = self.authority.issue("proxy", "127.0.0.1", SECURE_NAME)
        own = {"STATESIDE_JOURNAL": "memory:", "STATESIDE_CORS_ALLOW_ORIGINS": "*"}
        tls = {"STATESIDE_TLS_CERTIFICATE": str(issued.certificate), "STATESIDE_TLS_KEY": str(issued.key)}
        self.function = WebFunction()
        self.function.start()
        self.plain = Proxy(self.function, folder, **own)
        self.secure = Proxy(self.function, folder, **own, **tls)
        self.descriptors = folder / "services.binpb"
        describe(self.descriptors)

    def open(self) -> None:
        for proxy in (self.plain, self.secure):
            proxy.start()
        for proxy in (self.plain, self.secure):
            proxy.wait_until_serving()

    def close(self) -> None:
        for program in (self.plain, self.secure, self.function):
            program.close()

    @property
    def url(self) -> str:
        return f"http://{self.plain.target}"

    @property
    def secure_url(self) -> str:
        return f"https://{self.secure.target}"

    def node(self, program: str, **options: Any) -> list[dict[str, Any]]:
        """What a program of tests/interop/web found out: one object for each of the `calls` among its options."""
        options = {"url": self.url, "descriptors": str(self.descriptors), **options}
        said = run(["node", str(FOLDER / program), json.dumps(options)])
        found: list[dict[str, Any]] = json.loads(said)
        return found


def run(command: list[str], ok: bool = True, **more: Any) -> str:
    """Run a client to its end; what it wrote on stdout (and stderr, if it is to fail)."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, **more)
    said = f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    assert (done.returncode == 0) == ok, said
    return done.stdout if ok else done.stdout + done.stderr


def describe(target: Path) -> None:
    """Compile what clients know of the services, with all that is imported, into a descriptor set."""
    included = [
        ROOT / "examples" / "shopping_cart" / "protos",
        ROOT / "tests" / "protos",
        ROOT / "proto",
        Path(annotations_pb2.__file__).parents[2],
        Path(grpc_tools.__file__).parent / "_proto",
    ]
    files = ["shoppingcart/shoppingcart.proto", "web/deliveries.proto"]
    output = ["--include_imports", f"--descriptor_set_out={target}"]
    assert protoc.main(["protoc", *(f"-I{folder}" for folder in included), *output, *files]) == 0
