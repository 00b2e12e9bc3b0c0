"""The phi decoder: its sizes, its layers and their composition, in Flax Linen."""

from typing import Literal, get_args

DType = Literal["float32", "bfloat16", "float16"]
DTYPES = get_args(DType)
