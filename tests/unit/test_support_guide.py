"""The user guide and the sample of the README do what they say."""

import re
from pathlib import Path
from typing import Any

import pytest

from examples.readme_sample import ShoppingCart
from examples.shopping_cart.protos.shoppingcart import shoppingcart_pb2 as shop
from stateside.support.testkit import TestKit

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["event-sourced", "value-entities", "actions", "crdts"])
def test_every_snippet_of_the_guide_runs(name: str) -> None:
    guide = (ROOT / "docs" / f"user-guide-{name}.md").read_text()
    snippets = re.findall(r"^```python\n(.*?)^```", guide, re.DOTALL | re.MULTILINE)
    assert len(snippets) == guide.count("```python") > 3
    names: dict[str, Any] = {"__name__": "guide"}
    for snippet in snippets:
        exec(compile(snippet, "guide", "exec"), names)


def test_the_sample_of_the_readme_is_short_and_works() -> None:
    assert len((ROOT / "examples" / "readme_sample.py").read_text().splitlines()) < 30
    cart = TestKit(ShoppingCart).entity("alice")
    cart.add_item(shop.AddLineItem(product_id="tea", quantity=2))
    assert cart.add_item(shop.AddLineItem(product_id="tea", quantity=0)).failure == "Quantity must be positive"
    assert cart.get_cart(shop.GetShoppingCart()).reply.items[0].quantity == 2
