"""The phi decoder: its sizes, its layers and their composition, in Flax Linen."""

DTYPES = ("float32", "bfloat16", "float16")
