"""The phi decoder: its sizes, its layers and their composition, in Flax Linen."""
