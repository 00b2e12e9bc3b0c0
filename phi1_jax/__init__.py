"""phi-1 ("Textbooks Are All You Need", Gunasekar et al. 2023) in JAX.

A file directly under this package is a command (`python -m phi1_jax.train`), a
folder is a part; docs/architecture.md lists them.
"""

import os
from pathlib import Path


class InputError(ValueError):
  """What the user gave is wrong: a flag, a gin binding, a file, a checkpoint.

  The message is one or two lines that name the thing, what was got, what was
  expected, and what to do. Commands print it without a traceback and exit with 2.
  """


def how_to_install(extra: str) -> str:
  """Return the command that installs an extra, such as "data", for error messages."""
  if (Path(__file__).parents[1] / "constraints.txt").is_file():  # a checkout
    return f"pip install -c constraints.txt -e '.[{extra}]'"
  return f"pip install 'phi1_jax[{extra}]'"


def cores() -> int:
  """Return the number of CPU cores that this process may use."""
  if hasattr(os, "sched_getaffinity"):  # Linux; a container may have fewer
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
