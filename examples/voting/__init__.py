"""Polls with live counts: a register for each voter, a flag for the end (`python -m examples.voting`)."""
