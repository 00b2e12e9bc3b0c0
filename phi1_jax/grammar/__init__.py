"""A teacher that needs no model: exercises and textbook sections from a grammar."""
