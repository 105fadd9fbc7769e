"""The works of the end-to-end bench, by what they are about. catalogue.py lists them."""
