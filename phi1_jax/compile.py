"""Compiles the train step for a machine that is not here.

    python -m phi1_jax.compile --gin_file=gin/pretrain.gin --topology=v5e:4x4

Prints whether it fits, its traffic through memory and between devices, and a bound on
its speed. TPUs of any size come from the compiler in libtpu (the extra `tpu`); GPUs are
simulated (see `planning.topology`).
"""

from collections.abc import Sequence

from phi1_jax import InputError
from phi1_jax.cli import command


def main(argv: Sequence[str] | None = None) -> int:
  """Read the configuration, compile, print."""
  parser = command.Parser(
    "compile",
    "Compiles the train step for a machine that is not here.",
    "python -m phi1_jax.compile --gin_file=gin/pretrain.gin --topology=v5e:4x4",
  )
  parser.add_argument(
    "--topology",
    metavar="MACHINE",
    help="such as v5e:4x4, v4-8, v5e-16x2 (two slices), h100-8x2 (two nodes), cpu-8",
  )
  parser.add_argument("--json", action="store_true", help="print JSON")
  parser.add_argument(
    "--search",
    action="store_true",
    help="try batch x remat x attention and recommend the fastest that fits",
  )
  parser.add_argument(
    "--table",
    nargs="*",
    metavar="PRESET",
    help="print a Markdown table of these presets, gin files that are named after "
    "their machines (default: all of gin/meshes)",
  )
  arguments = parser.parse(argv)
  if arguments.table is None and not arguments.topology:
    raise InputError("--topology: got none, expected a machine, such as v5e:4x4")
  # JAX takes a second to load, which flags that are wrong need not wait for.
  from phi1_jax.training import compile_for

  if arguments.table is not None:
    compile_for.print_table(arguments)
  else:
    compile_for.print_one(arguments)
  return command.DONE


if __name__ == "__main__":
  command.run(main)
