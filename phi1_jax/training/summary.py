"""Summary of a finished run: summary.json and loss.png in its work directory."""

import importlib.metadata
import sys
import time
from typing import Any

import jax

from phi1_jax import InputError, storage
from phi1_jax.data.token_store import TokenStore
from phi1_jax.telemetry import goodput, plot, writers
from phi1_jax.training.setup import Setup

_FILE_NAME = "summary.json"
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def is_written(run: Setup) -> bool:
  """Return whether an earlier start did the last step and wrote the summary."""
  try:
    summary = storage.read_json(run.workdir / _FILE_NAME)
    return summary["step"] == run.config.train.last_step
  except (InputError, KeyError):
    return False


def write(run: Setup, store: TokenStore, seconds: float) -> str:
  """Write summary.json and loss.png; return one or two lines for the user.

  Args:
    run: the run, after its last step.
    store: the tokens that it was trained on.
    seconds: duration of its last start.
  """
  metrics = run.local / "metrics.jsonl"
  last: dict[str, Any] = {}
  held_out: dict[str, float] = {}  # step -> loss, of the checkpoints that are kept
  checkpoints = run.workdir / "checkpoints"
  kept = storage.names(checkpoints)
  for row in writers.read_metrics(metrics):
    last.update(row)
    if "eval/loss" in row and str(row["step"]) in kept:
      held_out[str(row["step"])] = row["eval/loss"]
  best = min(held_out, key=held_out.__getitem__, default=None)
  parameters = run.config.model.num_parameters()
  if last:
    picture, name = run.local / "loss.png", run.workdir.name
    plot.plot_loss(metrics, picture, name=name, num_parameters=parameters)
  events = goodput.read_events(run.local / goodput.FILE_NAME)
  spent = goodput.measure(events, now=time.time())
  wall = spent["total_seconds"] if spent else seconds
  writers.write_summary(
    run.workdir / _FILE_NAME,
    {
      **last,
      "parameters": parameters,
      "flops_per_token": run.flops_per_token,
      "wall_seconds": wall,
      "last_start_seconds": seconds,
      "goodput": spent,
      "best_checkpoint": best and str(checkpoints / best),
      "store": store.digest,
      "devices": jax.device_count(),
      "device_kind": jax.devices()[0].device_kind,
      "processes": jax.process_count(),
      "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
      "python": sys.version.split()[0],
    },
  )
  losses = {"loss": last.get("loss"), "held out": last.get("eval/loss")}
  shown = [f"{name} {loss:.4f}" for name, loss in losses.items() if loss is not None]
  shown.append(f"{wall:.0f} s")
  if spent and spent["starts"] > 1:
    shown.append(f"goodput {spent['goodput']:.1%} over {spent['starts']} starts")
  text = (
    f"done: {', '.join(shown)}; see {run.workdir}/loss.png and "
    f"{run.workdir}/{_FILE_NAME}"
  )
  if best and len(held_out) > 1:
    text += (
      f"\nlowest held-out loss of the kept checkpoints: {held_out[best]:.4f}, "
      f"{checkpoints / best}"
    )
  return text
