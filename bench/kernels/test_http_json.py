"""What a message costs as JSON: the proxy's plans beside protobuf's json_format, in both directions."""

import json
from typing import Any

import pytest
from google.protobuf import json_format
from pytest_benchmark.fixture import BenchmarkFixture

from examples.shopping_cart.protos.shoppingcart import shoppingcart_pb2 as shop
from stateside.proxy.json_plan import Plan, Plans, by_json_format

LINES = [shop.LineItem(product_id=f"product-{number}", name="Näh & Tee", quantity=number) for number in range(5)]
CART = shop.Cart(items=LINES)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return Plans().of(shop.Cart.DESCRIPTOR)  # type: ignore[arg-type]  # its stub knows two kinds


@pytest.mark.benchmark(group="a cart of five lines, printed")
@pytest.mark.parametrize("how", ["plan", "json_format"])
def test_print(benchmark: BenchmarkFixture, plan: Plan, how: str) -> None:
    value = benchmark(plan.print if how == "plan" else by_json_format, CART)
    assert value == by_json_format(CART)


@pytest.mark.benchmark(group="a cart of five lines, read")
@pytest.mark.parametrize("how", ["plan", "json_format"])
def test_read(benchmark: BenchmarkFixture, plan: Plan, how: str) -> None:
    value = json.loads(json.dumps(by_json_format(CART)))

    def by_plan() -> Any:
        message = plan.new()
        assert plan.read(message, value)
        return message

    assert benchmark(by_plan if how == "plan" else lambda: json_format.ParseDict(value, shop.Cart())) == CART
