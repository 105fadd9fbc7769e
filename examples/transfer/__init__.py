"""A saga: money from one account to another, or back again (`python -m examples.transfer`)."""
