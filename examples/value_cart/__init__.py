"""Value entities: a shopping cart kept as one value (`python -m examples.value_cart`)."""
