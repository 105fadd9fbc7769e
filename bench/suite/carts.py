"""The support library: items are added and carts are read, half and half, at the example in Python."""

from __future__ import annotations

from stateside.bench.processes import Stage
from stateside.bench.works import CART_ENTITIES, Figures, Measurement, Setting, load, start_proxy


async def cart(setting: Setting, stage: Stage) -> Figures:
    user_function = await stage.python("stateside.bench.cart")
    port = (await user_function.json())["port"]
    proxy, proxy_port = await start_proxy(stage, port, "memory:")
    result = await load(
        stage, proxy_port, "cart", setting, entities=CART_ENTITIES, proxy=proxy, user_function=user_function
    )
    return result | {"calls_per_core": 1e6 / result["user_function_cpu_us"]}


MEASUREMENTS: dict[str, Measurement] = {"cart": cart}
