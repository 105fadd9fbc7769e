"""The smallest CRDT entity: a counter that every node can change (`python -m examples.shared_counter`)."""
