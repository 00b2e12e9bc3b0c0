"""TensorFlow and seqio, imported without their messages and kept off the GPUs.

Other modules import them from here. Importing both takes seconds.
"""

import contextlib
import os
import sys
from collections.abc import Iterator

from absl import logging

from phi1_jax import InputError


@contextlib.contextmanager
def _native_stderr_closed() -> Iterator[None]:
  """Close file descriptor 2: native libraries write there, whatever the log level."""
  sys.stderr.flush()
  saved = os.dup(2)
  null = os.open(os.devnull, os.O_WRONLY)
  os.dup2(null, 2)
  os.close(null)
  try:
    yield
  finally:
    sys.stderr.flush()
    os.dup2(saved, 2)
    os.close(saved)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
logging.set_verbosity(logging.ERROR)
try:
  with _native_stderr_closed():
    import seqio
    import tensorflow as tf
    import tensorflow_datasets as tfds

    # Tokens are made on the CPU; a trainer may be using the GPUs.
    tf.config.set_visible_devices([], "GPU")
except ModuleNotFoundError as error:
  raise InputError(
    f"{error}: preparing tokens needs seqio and TensorFlow; "
    "pip install -c constraints.txt -e '.[data]'"
  ) from error

__all__ = ["seqio", "tf", "tfds"]
