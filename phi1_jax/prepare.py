"""Builds a token store from files or a mixture.

    python -m phi1_jax.prepare --gin_file=gin/data/quickstart.gin

The same command continues a build that was stopped.
"""

import contextlib
import io
import multiprocessing
import multiprocessing.forkserver
import os
import sys
from collections.abc import Sequence

from phi1_jax import cores
from phi1_jax.cli import command, gin_config
from phi1_jax.cli.progress import Progress
from phi1_jax.data import build
from phi1_jax.data.config import DataConfig


def main(argv: Sequence[str] | None = None) -> int:
  """Read the config from gin, build its store and print the digest."""
  parser = command.Parser(
    "prepare",
    "Builds a token store from files or a mixture; run it again to go on.",
    "python -m phi1_jax.prepare --gin_file=gin/data/quickstart.gin "
    "--gin.Data.store=stores/quickstart",
  )
  arguments = parser.parse(argv)
  classes = {"Data": DataConfig}
  built = gin_config.load(arguments.gin_files, arguments.gin_bindings, classes)
  # Standard output is for the digest: what modules of users print is a message.
  with contextlib.redirect_stdout(sys.stderr):
    digest = prepare(built["Data"], progress=True)
  print(digest)
  return command.DONE


def prepare(config: DataConfig, progress: bool = False) -> str:
  """Build a store, or continue to; return its digest. See `data.build.build`.

  Args:
    config: the mixture, its tokenizer and the folder of the store.
    progress: show rate and time left on standard error.
  """
  processes = config.processes or cores()
  if processes > 1:
    # A server process imports TensorFlow once for all workers, while this one does.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    context = multiprocessing.get_context("forkserver")
    modules = ["phi1_jax.data.shards", "phi1_jax.data.tasks"]
    context.set_forkserver_preload(modules[: 1 + config.needs_seqio])
    multiprocessing.forkserver.ensure_running()

  stream = sys.stderr if progress else io.StringIO()

  def show(total: int, done: int, description: str) -> Progress:
    return Progress(total, "shards", description, initial=done, stream=stream)

  return build.build(config, processes, show)


if __name__ == "__main__":
  command.run(main)
