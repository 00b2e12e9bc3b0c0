"""Converts checkpoints between Hugging Face's format and this project's.

    python -m phi1_jax.convert from-hf models/phi-1 runs/phi-1
    python -m phi1_jax.convert to-hf runs/phi-1 models/phi-1-again --dtype=float16

Reads CodeGen and all published layouts of phi-1. Writes files that transformers'
PhiForCausalLM and AutoTokenizer load. The output appears under its name only when it is
complete.
"""

import argparse
import logging
import math
import time
from collections.abc import Sequence

from phi1_jax import InputError, storage
from phi1_jax.cli import command
from phi1_jax.cli.progress import Progress
from phi1_jax.model import DTYPES
from phi1_jax.storage import AnyPath

_MAX_SHARD_BYTES = 5_000_000_000  # as transformers up to version 4


def main(argv: Sequence[str] | None = None) -> int:
  """Convert in the direction that the first word names."""
  arguments = _parser().parse_args(argv)
  from phi1_jax.sampling.checkpoint import check_one_host  # JAX takes a second to load

  # Only shapes of the model are used, so warnings about its attention do not matter.
  logging.getLogger("phi1_jax.kernels").setLevel(logging.WARNING)
  check_one_host()
  return arguments.convert(arguments)


def _parser() -> argparse.ArgumentParser:
  parser = command.PathParser(
    prog="python -m phi1_jax.convert",
    description="Converts checkpoints between Hugging Face's safetensors and ours.",
    epilog="example:\n  python -m phi1_jax.convert from-hf models/phi-1 runs/phi-1",
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  directions = parser.add_subparsers(required=True, metavar="from-hf | to-hf")
  words = "a folder of Hugging Face's to a work directory with one checkpoint"
  reader = directions.add_parser("from-hf", help=words, allow_abbrev=False)
  words = "config.json, *.safetensors, tokenizer"
  reader.add_argument("folder", type=storage.parse, help=words)
  reader.add_argument("out", type=storage.parse, help="the work directory to make")
  words = "default: %(default)s"
  reader.add_argument("--dtype", choices=DTYPES, default="float32", help=words)
  reader.set_defaults(convert=_from_hf)
  words = "a checkpoint to a folder that transformers loads"
  writer = directions.add_parser("to-hf", help=words, allow_abbrev=False)
  words = "a work directory, or one step folder in it"
  writer.add_argument("checkpoint", type=storage.parse, help=words)
  writer.add_argument("folder", type=storage.parse, help="the folder to make")
  writer.add_argument("--dtype", choices=DTYPES, help="default: the checkpoint's own")
  writer.add_argument(
    "--max_shard_bytes",
    type=float,
    default=_MAX_SHARD_BYTES,
    metavar="N",
    help="start another file before one grows larger (default: 5e9)",
  )
  writer.set_defaults(convert=_to_hf)
  return parser


def _from_hf(arguments: argparse.Namespace) -> int:
  from phi1_jax.interop import from_hf, staging

  started = time.perf_counter()
  staging.refuse_existing(arguments.out)
  source = from_hf.open_source(arguments.folder, arguments.dtype)
  parameters = source.config.num_parameters()
  print(
    f"{source.folder}: {source.layout.name}, {parameters:,} parameters, "
    f"{' and '.join(source.dtypes)}",
    flush=True,
  )
  for note in source.notes:
    print(note)
  with Progress(source.num_bytes, "B", f"reading {source.folder}") as progress:
    from_hf.convert(source, arguments.out, progress.update, progress.write)
  _sum_up(arguments.out, parameters, arguments.dtype, started)
  print(f"next: python -m phi1_jax.sample --checkpoint={arguments.out} --prompt='def '")
  return command.DONE


def _to_hf(arguments: argparse.Namespace) -> int:
  import jax.numpy as jnp

  from phi1_jax.checkpoint.checkpoint import Checkpoint
  from phi1_jax.interop import staging, to_hf

  started = time.perf_counter()
  if not 1 <= arguments.max_shard_bytes < math.inf:  # nor NaN
    raise InputError(
      f"--max_shard_bytes: got {arguments.max_shard_bytes:g}, expected a number of "
      "bytes from 1 up, such as 5e9"
    )
  staging.refuse_existing(arguments.folder)
  source = Checkpoint.find(arguments.checkpoint)
  config = source.model()
  dtype, parameters = arguments.dtype or config.param_dtype, config.num_parameters()
  print(f"{source.path}: {parameters:,} parameters", flush=True)
  num_bytes = parameters * jnp.dtype(dtype).itemsize
  with Progress(num_bytes, "B", f"writing {arguments.folder}") as progress:
    to_hf.convert(
      source, arguments.folder, dtype, int(arguments.max_shard_bytes), progress.update
    )
  _sum_up(arguments.folder, parameters, dtype, started)
  local = arguments.folder
  if storage.is_remote(local):
    local = local.name
    print(f"next: gcloud storage cp -r {arguments.folder} .")
  print(
    'next: python -c "from transformers import AutoModelForCausalLM as M; '
    f"print(M.from_pretrained('{local}'))\""
  )
  return command.DONE


def _sum_up(made: AnyPath, parameters: int, dtype: str, started: float) -> None:
  seconds = time.perf_counter() - started
  print(f"{made}: {parameters:,} parameters in {dtype}, {seconds:.1f} s")


if __name__ == "__main__":
  command.run(main)
