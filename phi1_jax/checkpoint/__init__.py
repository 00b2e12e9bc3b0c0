"""Checkpoints with Orbax: what is saved, and what is believed on restore."""
