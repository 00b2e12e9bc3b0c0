"""How a training step's time and memory grow with layers, width, sequence and devices.

    python benchmarks/growth.py --output=growth.png

One size grows, the others stay as in the quickstart model; the tokens of a step stay
the same. Times are medians of steps that take turns over all points, so that a busy
machine disturbs them alike; memory is the compiler's account of one device. Both are
compared with a formula: FLOPs (`ModelConfig.flops_per_token`) for time, state,
gradients and what the backward pass reads for memory. Devices are simulated by the CPU:
they share its cores, so their time cannot fall; their memory does.
"""

import argparse
import dataclasses
import os
import statistics
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import matplotlib
import numpy as np

from phi1_jax.cli import gin_config
from phi1_jax.parallel import sharding
from phi1_jax.training import memory
from phi1_jax.training import state as train_state
from phi1_jax.training.setup import CONFIGURABLES, RunConfig, Setup, make_setup
from phi1_jax.training.step import make_train_step

matplotlib.use("Agg")
import matplotlib.pyplot as plt

TOKENS = 2048
MIB = 2**20
POINTS = {
  "layers": (1, 2, 4, 8, 16),
  "width": (96, 192, 384, 768),
  "sequence": (64, 128, 256, 512, 1024, 2048),
  "devices": (1, 2, 4, 8),
}


@dataclasses.dataclass
class Point:
  """One size of one axis.

  Attributes:
    axis: what grows.
    size: to what.
    setup: the run.
    expected_flops: of a step, by formula.
    expected_bytes: of a device, by formula.
    actual_bytes: of a device, by the compiler.
    seconds: of each step.
  """

  axis: str
  size: int
  setup: Setup
  expected_flops: float
  expected_bytes: float
  actual_bytes: float = 0.0
  seconds: list[float] = dataclasses.field(default_factory=list)


def point(axis: str, size: int) -> Point:
  """The quickstart run with one size changed."""
  length = size if axis == "sequence" else 256
  changes: dict[str, Any] = {
    "Train.batch_size": max(TOKENS // length, 1),
    "Train.sequence_length": length,
    "Model.max_length": max(length, 256),
    "Train.head_chunks": 1,
  }
  if axis == "layers":
    changes["Model.num_layers"] = size
  if axis == "width":
    changes |= {"Model.embed_dim": size, "Model.mlp_dim": 4 * size}
    changes["Model.num_heads"] = size // 32
  bindings = [(name, repr(value)) for name, value in changes.items()]
  parts = gin_config.load(["gin/quickstart_pretrain.gin"], bindings, CONFIGURABLES)
  devices = jax.devices()[: size if axis == "devices" else 1]
  setup = make_setup(RunConfig.from_parts(parts), Path(), devices)
  flops = setup.flops_per_token * setup.config.train.tokens_per_step
  return Point(axis, size, setup, flops, formula_bytes(setup))


def formula_bytes(setup: Setup) -> float:
  """State and gradients, what the backward pass reads again, and the logits, twice.

  A block keeps, per token, its input and norm (2 widths), q, k, v and the context (4),
  the MLP's layer before and after GELU (2 x 4), and the causal half of the attention
  weights and of the scores that they come from.
  """
  model, train = setup.config.model, setup.config.train
  tokens = train.tokens_per_step
  weights = model.num_heads * train.sequence_length
  kept = model.num_layers * (6 * model.embed_dim + 2 * model.mlp_dim + weights)
  numbers = tokens * (kept + 2 * model.vocabulary_size)
  return 4 * (numbers + 4 * model.num_parameters()) / setup.mesh.size


def prepare(one: Point) -> Any:
  """Compiles the step of a point, notes its memory, and makes it ready to run."""
  setup = one.setup
  with sharding.layout(setup.mesh):
    step = make_train_step(setup, document_end=0)
    compiled = memory.compile_step(step, setup)
    state = train_state.initialise(setup.model, setup.optimizer, setup.mesh, 0)
  one.actual_bytes = sum(memory.step_memory(compiled, setup))
  train = setup.config.train
  shape = train.batch_size, train.sequence_length + 1
  rows = np.random.default_rng(0).integers(1, 2000, shape, np.int32)
  batch = sharding.put_batch(rows, setup.mesh, train.batch_size)

  def run() -> None:
    nonlocal state
    started = time.perf_counter()
    state, metrics = compiled(state, batch)
    jax.block_until_ready(metrics)
    one.seconds.append(time.perf_counter() - started)

  run()
  one.seconds.clear()  # the first one is not like the others
  return run


def draw(points: list[Point], path: Path) -> None:
  """Time above, memory below, one column an axis; measured against the formula."""
  figure, axes = plt.subplots(2, len(POINTS), figsize=(13, 6), layout="constrained")
  for column, axis in enumerate(POINTS):
    rows = [one for one in points if one.axis == axis]
    sizes = [one.size for one in rows]
    seconds = [statistics.median(one.seconds) for one in rows]
    # The formula's FLOPs at the speed of the first point.
    speed = rows[0].expected_flops / seconds[0]
    drawn = (
      (
        "ms a step",
        [1e3 * s for s in seconds],
        "FLOPs at the first point's speed",
        [1e3 * one.expected_flops / speed for one in rows],
      ),
      (
        "MiB a device",
        [one.actual_bytes / MIB for one in rows],
        "formula",
        [one.expected_bytes / MIB for one in rows],
      ),
    )
    for row, (unit, measured, label, formula) in enumerate(drawn):
      panel = axes[row][column]
      panel.loglog(sizes, measured, "o-", color="#2a6f97", label="measured")
      panel.loglog(sizes, formula, "--", color="#6b7280", label=label)
      panel.set_xticks(sizes, [str(size) for size in sizes])
      panel.minorticks_off()
      panel.set_xlabel(axis)
      panel.set_ylabel(unit)
      panel.grid(alpha=0.3)
      panel.legend(frameon=False, fontsize=8)
  figure.suptitle("A training step of the quickstart model, one size growing (CPU)")
  figure.savefig(path, dpi=110)


def main() -> None:
  """Measures all points in turns, prints a table, draws."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
  parser.add_argument("--rounds", type=int, default=9, help="steps per point")
  parser.add_argument("--output", type=Path, default=Path("growth.png"))
  arguments = parser.parse_args()
  jax.config.update("jax_num_cpu_devices", max(POINTS["devices"]))
  memory.keep_freed_memory()
  points = [point(axis, size) for axis, sizes in POINTS.items() for size in sizes]
  runs = [prepare(one) for one in points]
  for _ in range(arguments.rounds):
    for run in runs:
      run()
  print("axis      size  ms/step  time/formula  MiB/device  memory/formula")
  first: dict[str, Point] = {}
  for one in points:
    base = first.setdefault(one.axis, one)
    seconds = statistics.median(one.seconds)
    growth = (seconds / statistics.median(base.seconds)) / (
      one.expected_flops / base.expected_flops
    )
    print(
      f"{one.axis:<9}{one.size:>5}{1e3 * seconds:>9.1f}{growth:>14.2f}"
      f"{one.actual_bytes / MIB:>12.1f}{one.actual_bytes / one.expected_bytes:>16.2f}"
    )
  draw(points, arguments.output)


if __name__ == "__main__":
  main()
