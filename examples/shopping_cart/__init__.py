"""The shopping cart: an event sourced entity, its user function (`python -m examples.shopping_cart`), and a small
client.
"""
