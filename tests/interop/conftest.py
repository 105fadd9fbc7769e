"""Programs that nobody of this project wrote, installed and started for the tests of this folder."""

import re
from collections.abc import Iterator

import pytest

from . import node_cart as node
from . import old_python_cart as old_python
from . import web_shop as web
from .node_cart import NodeCart
from .old_python_cart import OldPythonCart
from .web_shop import WebShop


@pytest.fixture(scope="session")
def node_installed() -> None:
    """Node's packages are there; installing them is quick when they are."""
    node.set_up()


@pytest.fixture
def new_node_cart(node_installed: None) -> Iterator[NodeCart]:
    """A shopping cart user function of the test's own, which the test may kill."""
    cart = NodeCart()
    cart.start()
    yield cart
    cart.close()


@pytest.fixture(scope="module")
def node_cart(node_installed: None) -> Iterator[NodeCart]:
    """A shopping cart user function for all tests of a file. They leave it running."""
    cart = NodeCart()
    cart.start()
    yield cart
    cart.close()


@pytest.fixture(scope="session")
def old_python_installed() -> None:
    """The old Python library is there, in a virtual environment of its own."""
    old_python.set_up()


@pytest.fixture(scope="module")
def old_python_cart(old_python_installed: None) -> Iterator[OldPythonCart]:
    """A shopping cart user function for all tests of a file. They leave it running."""
    cart = OldPythonCart()
    cart.start()
    yield cart
    cart.close()


@pytest.fixture(scope="session")
def web_shop(node_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebShop]:
    """A user function and its proxies for all web tests, which use carts of their own."""
    web.set_up()
    shop = WebShop(tmp_path_factory.mktemp("web"))
    try:
        shop.open()
        yield shop
    finally:
        shop.close()


@pytest.fixture
def user(request: pytest.FixtureRequest) -> str:
    """A user whom no other test knows."""
    return re.sub(r"\W", "-", request.node.name)
