"""The data engine: what is kept, what is dropped, and why."""
