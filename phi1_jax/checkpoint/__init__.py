"""Checkpoints with Orbax: what is saved, and how it is checked on restore."""
