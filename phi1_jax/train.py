"""Trains a phi model.

    python -m phi1_jax.train --gin_file=quickstart.gin

Builds the token store first if it is missing. Continues from the last checkpoint in the
work directory, and writes config.gin, metrics.jsonl, checkpoints/, tensorboard/,
tokenizer.json, loss.png and summary.json there.
"""

import argparse
import sys
import time
from collections.abc import Sequence

from phi1_jax import storage
from phi1_jax.cli import command, gin_config


def main(argv: Sequence[str] | None = None) -> int:
  """Read the flags, join the other hosts, train."""
  arguments = _parser().parse(argv)
  command.simulate_devices(arguments.simulated_devices)
  with command.joined(arguments):
    return _train(arguments)


def _parser() -> command.Parser:
  parser = command.Parser(
    "train",
    "Trains a phi model; the same command on the same --workdir goes on.",
    "python -m phi1_jax.train --gin_file=gin/quickstart.gin --workdir=runs/quickstart",
  )
  parser.add_argument(
    "--workdir",
    help="where the run lives, local or gs:// (default: runs/<names of the gin files>)",
  )
  parser.add_argument(
    "--dry_run",
    action="store_true",
    help="check everything, compile one step, say what the run needs, and stop",
  )
  command.add_simulated_devices(parser)
  command.add_hosts(parser)
  return parser


def _train(arguments: argparse.Namespace) -> int:
  """Train on this host; every host does the same. Return the exit code."""
  # JAX takes a second to load, which flags that are wrong need not wait for.
  from phi1_jax.parallel import hosts
  from phi1_jax.training import hooks, loop, memory, preflight, setup
  from phi1_jax.training import store as stores
  from phi1_jax.training import workdir as workdirs
  from phi1_jax.training.metrics import DivergedError
  from phi1_jax.training.preemption import StopSignal

  memory.keep_freed_memory()

  # ---- Read the configuration, and set the run up; nothing is allocated yet.
  with hosts.shared_errors("reading the configuration"):
    files, bindings = arguments.gin_files, arguments.gin_bindings
    parts = gin_config.load(files, bindings, setup.CONFIGURABLES)
    config = setup.RunConfig.from_parts(parts)
    named_hooks = hooks.find(config.runtime)
    workdir = storage.parse(arguments.workdir or command.default_workdir(files))
  preflight.check_same_config(config.text())
  with hosts.shared_errors("laying the run out"):
    run = setup.make_setup(config, workdir)
  if hosts.is_first():
    print(preflight.describe(run), flush=True)
  if arguments.dry_run:
    answer = preflight.dry_run(run)
    if hosts.is_first():
      print(answer)
    return command.DONE

  with StopSignal() as stop, workdirs.opened(run, stop) as run:
    workdirs.use_compilation_cache(run)
    with hosts.shared_errors("looking for checkpoints"):
      preflight.check_start(run)
      done = workdirs.is_summed_up(run)
    if hosts.exchange("is the run done", done)[0]:
      if hosts.is_first():
        print(f"was done already; see {run.workdir}/{workdirs.SUMMARY}")
      return command.DONE

    # ---- Build the token store if it is missing, and open it.
    store = stores.open_store(run, stop)
    if store is None or any(hosts.exchange("stop", stop.received)):
      if hosts.is_first():
        print("stopped; run the same command to go on")
      return command.PREEMPTED

    # ---- Train to the last step, or to a stop signal.
    started = time.perf_counter()
    with hosts.shared_errors("making hooks"):
      periodic = [hooks.held_out_loss(run, store), hooks.profile(run)]
      periodic += hooks.named(named_hooks, run, store)
    try:
      done = loop.train(run, store, periodic, stop)
    except DivergedError as error:
      print(f"error: {error}", file=sys.stderr)
      return 1

    # ---- Sum up.
    if hosts.is_first():
      seconds = time.perf_counter() - started
      stopped = f"stopped after saving; run the same command to go on ({run.workdir})"
      print(workdirs.sum_up(run, store, seconds) if done else stopped)
  return command.DONE if done else command.PREEMPTED


if __name__ == "__main__":
  command.run(main)
