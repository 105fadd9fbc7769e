"""Two services that call each other by side effects and forwards (`python -m examples.ping_pong`)."""
