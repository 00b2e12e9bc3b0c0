"""A teacher that needs no model: an engine and its tables."""

# What manifests call it.
NAME = "grammar teacher (no LLM)"
# Part of every seed: to change what any (seed, index) gives, raise it.
VERSION = 3
