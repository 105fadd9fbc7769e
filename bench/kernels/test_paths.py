"""Which rule an HTTP request meets, beside the routers of two well-known frameworks with the same forty rules.

werkzeug walks a tree of segments, starlette tries one expression after the other; neither knows that a later rule wins.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from examples.shopping_cart.protos.shoppingcart import shoppingcart_pb2 as shop
from stateside.bench.kernels.figures import FIGURES, KERNEL
from stateside.proxy import templates
from stateside.proxy.http_rules import Binding, Table
from stateside.proxy.json_plan import Plans

WERKZEUG, STARLETTE = "werkzeug", "starlette"
EVERYBODY = [KERNEL, *(name for name in (WERKZEUG, STARLETTE) if find_spec(name))]
TEMPLATES = [
    *(f"/v1/kind{number}" for number in range(10)),
    *(f"/v1/kind{number}/{{id}}" for number in range(10)),
    *(f"/v1/kind{number}/{{id}}/items/{{item}}" for number in range(10)),
    *(f"/v1/kind{number}/{{id}}/state" for number in range(10)),
]
PATHS = {
    "a path without variables": ("/v1/kind4", ()),
    "a path with one variable": ("/v1/kind4/someone", ("someone",)),
    "a path with two variables": ("/v1/kind4/someone/items/tea", ("someone", "tea")),
}
Find = Callable[[str], tuple[Any, ...]]


def stateside_table() -> Find:
    plan = Plans().of(shop.Cart.DESCRIPTOR)  # type: ignore[arg-type]  # its stub knows two kinds
    table = Table([binding(order, template, plan) for order, template in enumerate(TEMPLATES)])

    def find(path: str) -> tuple[Any, ...]:
        found = table.find("GET", path)
        assert found is not None
        return found[1]

    return find


def binding(order: int, template: str, plan: Any) -> Binding:
    return Binding(
        order=order,
        service="bench.Paths",
        method=f"Method{order}",
        verb="GET",
        template=templates.parse(template),
        variables=(),
        body=None,
        response=None,
        input=plan,
        output=plan,
        client_streaming=False,
        server_streaming=False,
        answers_bytes=False,
        texts=None,
    )


def werkzeug_map() -> Find:
    routing: Any = import_module("werkzeug.routing")
    rules = [template.replace("{", "<").replace("}", ">") for template in TEMPLATES]
    bound = routing.Map([routing.Rule(rule, endpoint=rule, methods=["GET"]) for rule in rules]).bind("localhost")
    return lambda path: tuple(bound.match(path, "GET")[1].values())


def starlette_routes() -> Find:
    routing: Any = import_module("starlette.routing")

    async def endpoint(request: Any) -> None: ...

    routes = [routing.Route(template, endpoint, methods=["GET"]) for template in TEMPLATES]

    def find(path: str) -> tuple[Any, ...]:
        scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": []}
        for route in routes:
            match, child = route.matches(scope)
            if match is routing.Match.FULL:
                return tuple(child["path_params"].values())
        raise LookupError(path)

    return find


MAKERS = {KERNEL: stateside_table, WERKZEUG: werkzeug_map, STARLETTE: starlette_routes}


@pytest.mark.parametrize("who", EVERYBODY)
@pytest.mark.parametrize("work", PATHS)
def test_path(benchmark: BenchmarkFixture, work: str, who: str) -> None:
    path, captured = PATHS[work]
    assert FIGURES.run(f"{work} among {len(TEMPLATES)} rules", who, benchmark, MAKERS[who](), path) == captured
