"""TensorFlow and seqio, imported without their messages and kept off the GPUs.

Other modules import them from here. Importing both takes seconds.
"""

import os
import sys

from absl import logging

from phi1_jax import InputError, how_to_install

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
logging.set_verbosity(logging.ERROR)
# Native libraries write to file descriptor 2, whatever the log level.
sys.stderr.flush()
_saved, _null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
os.dup2(_null, 2)
try:
  import seqio
  import tensorflow as tf
  import tensorflow_datasets as tfds

  # Tokens are made on the CPU; a trainer may be using the GPUs.
  tf.config.set_visible_devices([], "GPU")
except ModuleNotFoundError as error:
  raise InputError(
    f"{error}: preparing tokens needs seqio and TensorFlow; {how_to_install('data')}"
  ) from error
finally:
  sys.stderr.flush()
  os.dup2(_saved, 2)
  os.close(_saved)
  os.close(_null)

__all__ = ["seqio", "tf", "tfds"]
