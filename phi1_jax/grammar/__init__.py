"""A teacher that needs no model: exercises and textbook sections from a grammar."""

# What manifests call it.
NAME = "grammar teacher (no LLM)"
# Part of every seed: to change what any (seed, index) gives, raise it.
VERSION = 1
