"""An action with streams, and the entity that keeps what it finds (`python -m examples.fraud_scoring`)."""
