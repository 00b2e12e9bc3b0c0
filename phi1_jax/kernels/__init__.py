"""The expensive operations: a reference implementation of each, and faster ones."""
