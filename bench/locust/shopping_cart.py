"""Shoppers for locust: people who look, add, remove, view and check out, over gRPC and over HTTP/JSON.

Run by `make load`, or by hand: `locust -f bench/locust/shopping_cart.py --host http://localhost:9000`. Every shopper
has a cart of its own and knows what has to be in it; a cart that differs is a failure, named "wrong cart".

Beside the times of requests it counts what a shop wants to know: carts checked out, things bought and things thought
better of. The workers tell the master, who writes them into the result.

Environment: CART_THINK_TIME, seconds between two actions on average (0.3; 0: none); CART_MAX_P99_MS, above which the
run fails (20); CART_MIN_REQUESTS, below which it proves nothing (100); CART_RESULT, a file for the figures as JSON.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import grpc.experimental.gevent
from google.protobuf.empty_pb2 import Empty
from locust import FastHttpUser, User, events, task
from locust.env import Environment
from locust.runners import WorkerRunner

from examples.shopping_cart.protos.shoppingcart import shoppingcart_pb2 as shop

grpc.experimental.gevent.init_gevent()

SERVICE = "/com.example.shoppingcart.ShoppingCart"
PRODUCTS = [f"product-{number}" for number in range(20)]
SHOWN = 50  # carts that everybody looks at
THINK_TIME = float(os.environ.get("CART_THINK_TIME", "0.3"))
MAX_P99_MS = float(os.environ.get("CART_MAX_P99_MS", "20"))
MIN_REQUESTS = int(os.environ.get("CART_MIN_REQUESTS", "100"))
RESULT = os.environ.get("CART_RESULT", "")
TIMEOUT = 10.0
SALES = ("checkouts", "bought", "put_back", "wrong_carts")
counted: Counter[str] = Counter()  # in a worker since its last report; in the master, or without workers, of all


class WrongCart(Exception):
    """A cart does not hold what was put into it."""


class Shopper(User):
    """What a shopper does, however it calls. Subclasses say how to add, remove and view."""

    abstract = True

    def on_start(self) -> None:
        self.user_id = f"shopper-{uuid4()}"
        self.cart: dict[str, int] = {}

    def wait_time(self) -> float:
        """Between two actions; exponential, as of people who do not know of each other."""
        return random.expovariate(1 / THINK_TIME) if THINK_TIME else 0.0

    @task(4)
    def browse(self) -> None:
        """Look at a cart that others look at too."""
        self.view(f"shown-{random.randrange(SHOWN)}", "browse")

    @task(5)
    def add_item(self) -> None:
        product, quantity = random.choice(PRODUCTS), random.randint(1, 3)
        if self.add(product, quantity):
            self.cart[product] = self.cart.get(product, 0) + quantity

    @task(1)
    def remove_item(self) -> None:
        if self.cart:
            product = random.choice(list(self.cart))
            if self.remove(product):
                counted["put_back"] += self.cart.pop(product)

    @task(4)
    def view_cart(self) -> None:
        found = self.view(self.user_id, "view")
        if found is not None and found != self.cart:
            self.report("view", WrongCart(f"{self.user_id}: {found} in place of {self.cart}"))

    @task(1)
    def checkout(self) -> None:
        """Look once more, then everything leaves the cart."""
        self.view_cart()
        counted["checkouts"] += bool(self.cart)
        for product in list(self.cart):
            if self.remove(product):
                counted["bought"] += self.cart.pop(product)

    def report(self, name: str, error: Exception) -> None:
        counted["wrong_carts"] += 1
        self.environment.events.request.fire(
            request_type="check", name="wrong cart", response_time=0, response_length=0, exception=error, context={}
        )

    def add(self, product: str, quantity: int) -> bool:
        """Whether it was added."""
        raise NotImplementedError

    def remove(self, product: str) -> bool:
        raise NotImplementedError

    def view(self, user_id: str, name: str) -> dict[str, int] | None:
        """Quantities by product; None when there was no answer."""
        raise NotImplementedError


class GrpcShopper(Shopper):
    """Over gRPC. All shoppers of one process share a connection."""

    _channel: grpc.Channel | None = None

    def on_start(self) -> None:
        super().on_start()
        if GrpcShopper._channel is None:
            address = (self.host or "").removeprefix("http://")
            GrpcShopper._channel = grpc.insecure_channel(address)
        self._add = self._method("AddItem", shop.AddLineItem, Empty)
        self._remove = self._method("RemoveItem", shop.RemoveLineItem, Empty)
        self._get = self._method("GetCart", shop.GetShoppingCart, shop.Cart)

    def _method(self, name: str, request: Any, answer: Any) -> Callable[..., Any]:
        assert GrpcShopper._channel is not None
        return GrpcShopper._channel.unary_unary(f"{SERVICE}/{name}", request.SerializeToString, answer.FromString)

    def _call(self, name: str, method: Callable[..., Any], request: Any) -> Any:
        """The answer, or None; timed and counted by locust in either case."""
        begun, answer, error, size = time.perf_counter(), None, None, 0
        try:
            answer = method(request, timeout=TIMEOUT)
            size = answer.ByteSize()
        except grpc.RpcError as failure:
            error = failure
        self.environment.events.request.fire(
            request_type="grpc",
            name=name,
            response_time=(time.perf_counter() - begun) * 1000,
            response_length=size,
            exception=error,
            context={},
        )
        return answer

    def add(self, product: str, quantity: int) -> bool:
        item = shop.AddLineItem(user_id=self.user_id, product_id=product, name=product, quantity=quantity)
        return self._call("add", self._add, item) is not None

    def remove(self, product: str) -> bool:
        item = shop.RemoveLineItem(user_id=self.user_id, product_id=product)
        return self._call("remove", self._remove, item) is not None

    def view(self, user_id: str, name: str) -> dict[str, int] | None:
        cart = self._call(name, self._get, shop.GetShoppingCart(user_id=user_id))
        return None if cart is None else {item.product_id: item.quantity for item in cart.items}


class HttpShopper(Shopper, FastHttpUser):
    """Over HTTP/JSON."""

    network_timeout = connection_timeout = TIMEOUT

    def add(self, product: str, quantity: int) -> bool:
        item = {"productId": product, "name": product, "quantity": quantity}
        with self.client.post(f"/cart/{self.user_id}/items/add", json=item, name="add") as response:
            return bool(response.ok)

    def remove(self, product: str) -> bool:
        with self.client.post(f"/cart/{self.user_id}/items/{product}/remove", name="remove") as response:
            return bool(response.ok)

    def view(self, user_id: str, name: str) -> dict[str, int] | None:
        with self.client.get(f"/carts/{user_id}", name=name) as response:
            if not response.ok:
                return None
            return {item["productId"]: item["quantity"] for item in response.json()["items"]}


@events.report_to_master.add_listener  # type: ignore[untyped-decorator]
def tell(client_id: str, data: dict[str, Any]) -> None:
    """A worker's part of what is counted."""
    data["shop"] = dict(counted)
    counted.clear()


@events.worker_report.add_listener  # type: ignore[untyped-decorator]
def told(client_id: str, data: dict[str, Any]) -> None:
    counted.update(data.get("shop", {}))


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def judge(environment: Environment, **_: Any) -> None:
    """What makes a run fail: any failure, a 99th percentile too high, or hardly any request."""
    if isinstance(environment.runner, WorkerRunner):
        return  # the master judges
    total = environment.stats.total
    p99 = total.get_response_time_percentile(0.99) or 0
    verdicts = {
        f"{total.num_failures} of {total.num_requests} requests failed": total.num_failures > 0,
        f"p99 is {p99:g} ms; {MAX_P99_MS:g} ms are allowed": p99 > MAX_P99_MS,
        f"only {total.num_requests} requests were made; {MIN_REQUESTS} are wanted": total.num_requests < MIN_REQUESTS,
    }
    broken = [verdict for verdict, holds in verdicts.items() if holds]
    if RESULT:
        figures = {
            "requests_per_s": total.total_rps,
            "failures": total.num_failures,
            "p50_ms": total.get_response_time_percentile(0.5) or 0,
            "p99_ms": p99,
            "verdicts": broken,
            "shop": {name: counted[name] for name in SALES},
        }
        Path(RESULT).write_text(json.dumps(figures))
    for verdict in broken:
        print(f"FAILED: {verdict}")
    if broken:
        environment.process_exit_code = 1
