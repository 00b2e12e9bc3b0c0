"""phi-1 ("Textbooks Are All You Need", Gunasekar et al. 2023) in JAX.

A file directly under this package is a command (`python -m phi1_jax.train`), a
folder is a part; README.md draws the tree.
"""


class InputError(ValueError):
  """What the user gave is wrong: a flag, a gin binding, a file, a checkpoint.

  The message is one or two lines that name the thing, what was got, what was
  expected, and what to do. Commands print it without a traceback and exit with 2.
  """
