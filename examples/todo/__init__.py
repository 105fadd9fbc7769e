"""A to-do list for several hands: a map of maps, merged field by field (`python -m examples.todo`)."""
