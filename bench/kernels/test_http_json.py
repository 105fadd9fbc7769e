"""What a message costs as JSON: the proxy's plans beside protobuf's json_format, in both directions."""

import json
from typing import Any

import pytest
from google.protobuf import json_format
from pytest_benchmark.fixture import BenchmarkFixture

from examples.shopping_cart.protos.shoppingcart import shoppingcart_pb2 as shop
from stateside.bench.kernels.figures import FIGURES, KERNEL
from stateside.proxy.json_plan import Plan, Plans, by_json_format

JSON_FORMAT = "protobuf's json_format"
LINES = [shop.LineItem(product_id=f"product-{number}", name="Näh & Tee", quantity=number) for number in range(5)]
CART = shop.Cart(items=LINES)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return Plans().of(shop.Cart.DESCRIPTOR)  # type: ignore[arg-type]  # its stub knows two kinds


@pytest.mark.parametrize("who", [KERNEL, JSON_FORMAT])
def test_print(benchmark: BenchmarkFixture, plan: Plan, who: str) -> None:
    printer: Any = plan.print if who == KERNEL else by_json_format
    value = FIGURES.run("JSON of a cart of five lines, printed", who, benchmark, printer, CART)
    assert value == by_json_format(CART)


@pytest.mark.parametrize("who", [KERNEL, JSON_FORMAT])
def test_read(benchmark: BenchmarkFixture, plan: Plan, who: str) -> None:
    value = json.loads(json.dumps(by_json_format(CART)))

    def by_plan() -> Any:
        message = plan.new()
        assert plan.read(message, value)
        return message

    reader = by_plan if who == KERNEL else lambda: json_format.ParseDict(value, shop.Cart())
    assert FIGURES.run("JSON of a cart of five lines, read", who, benchmark, reader) == CART
