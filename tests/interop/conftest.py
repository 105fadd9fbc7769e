"""Programs that nobody of this project wrote, installed and started for the tests of this folder."""

from collections.abc import Iterator

import pytest

from .node_cart import NodeCart, set_up


@pytest.fixture(scope="session")
def node_installed() -> None:
    """Node's packages are there; installing them is quick when they are."""
    set_up()


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
