"""Work directory of a run: its lock, its growing files, its config, its summary."""

import contextlib
import dataclasses
import importlib.metadata
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from phi1_jax import InputError, storage
from phi1_jax.checkpoint.checkpoint import Checkpoint
from phi1_jax.data.token_store import TokenStore
from phi1_jax.parallel import compiler, hosts
from phi1_jax.storage import AnyPath, lease
from phi1_jax.telemetry import goodput, plot, writers
from phi1_jax.text import tokenizer
from phi1_jax.training.preemption import StopSignal
from phi1_jax.training.setup import Setup

SUMMARY = "summary.json"
# A network file system may show a new file to other hosts a minute late.
SHARED_SECONDS = 60.0
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


@contextlib.contextmanager
def opened(run: Setup, stop: StopSignal) -> Iterator[Setup]:
  """Lock the work directory, open the files that grow, and give the run with both.

  At the end, uploads the files and unlocks the work directory. Host 0 does this alone;
  all hosts must call it, and have a local folder for files of their own.

  Raises:
    InputError: another process uses the folder, it cannot be written, or the hosts see
      different folders.
  """
  with contextlib.ExitStack() as stack:
    lock = None
    lost = f"error: {run.workdir}: another process goes on with this run"
    with hosts.shared_errors("opening the work directory"):
      if hosts.is_first():
        if not storage.exists(run.workdir):
          stack.callback(_remove_if_empty, run.workdir)  # the run may be refused
        lock = storage.Lease(
          run.workdir,
          "training",
          stopping=lambda: stop.received,
          on_lost=lambda: hosts.end(lost, os.EX_TEMPFAIL),
        )
        stack.enter_context(lock)
        if not storage.is_remote(run.workdir):
          # Now, so that no save fails later.
          for name in ("checkpoints", "tensorboard"):
            _make_folder(run.workdir / name)
            stack.callback(_remove_if_empty, run.workdir / name)
      mirror = storage.Mirror(run.workdir, lock)
      if hosts.is_first():
        mirror.fetch("metrics.jsonl", goodput.FILE_NAME, writers.WANDB_ID)
        stack.callback(mirror.upload)
    token = hosts.exchange("the work directory's lock", lock and lock.token)[0]
    with hosts.shared_errors("sharing the work directory"):
      deadline = time.monotonic() + SHARED_SECONDS
      while lease.token(run.workdir) != token:
        if time.monotonic() > deadline:
          raise InputError(
            f"--workdir: host {hosts.index()} has another {storage.full(run.workdir)} "
            "than host 0; expected a folder on a file system that all hosts share, or "
            "gs://"
          )
        time.sleep(0.1)
    yield dataclasses.replace(run, mirror=mirror, stop_requested=stop.requested)


def _make_folder(folder: AnyPath) -> None:
  try:
    folder.mkdir(exist_ok=True)
  except OSError as error:
    raise InputError(
      f"--workdir: cannot make the folder {folder} ({error.strerror}); name another"
    ) from None


def _remove_if_empty(folder: AnyPath) -> None:
  with contextlib.suppress(OSError):  # it holds files
    os.rmdir(folder)


def use_compilation_cache(run: Setup) -> None:
  """Keep compiled steps in `Runtime.compilation_cache`, relative to the workdir."""
  if folder := run.config.runtime.compilation_cache:
    path = storage.parse(folder)
    absolute = storage.is_remote(path) or Path(path).is_absolute()
    compiler.cache_in(path if absolute else run.workdir / folder)


def describe(run: Setup, store: TokenStore) -> None:
  """Write config.gin and tokenizer.json."""
  storage.write_text(run.workdir / "config.gin", run.config.text())
  tokens = (store.directory / tokenizer.FILE_NAME).read_text("utf-8")
  storage.write_text(run.workdir / tokenizer.FILE_NAME, tokens)


def is_summed_up(run: Setup) -> bool:
  """Return whether an earlier start did the last step and wrote the summary.

  Raises:
    InputError: it did, with other settings that decide the result.
  """
  last = run.config.train.last_step
  try:
    newest = Checkpoint.find(run.workdir)
    meta, summary = newest.meta, storage.read_json(run.workdir / SUMMARY)
  except InputError:
    return False
  if (newest.path.name, summary.get("step")) != (str(last), last):
    return False
  for name, (theirs, ours) in run.config.differences(meta).items():
    raise InputError(
      f"{run.workdir}: this run is finished, with {name} = {theirs!r}; got {ours!r}, "
      "expected the same, or another --workdir"
    )
  return True


def sum_up(run: Setup, store: TokenStore, seconds: float) -> str:
  """Write summary.json and loss.png; return one or two lines for the user.

  Args:
    run: the run, after its last step.
    store: the tokens that it was trained on.
    seconds: duration of its last start.
  """
  metrics, checkpoints = run.local / "metrics.jsonl", run.workdir / "checkpoints"
  parameters = run.config.model.num_parameters()
  rows = writers.read_metrics(metrics)
  last: dict[str, Any] = {}
  for row in rows:
    last |= row
  if last:
    picture, name = run.local / "loss.png", run.workdir.name
    plot.plot_loss(metrics, picture, name=name, num_parameters=parameters)
  kept = storage.names(checkpoints)
  held_out = {step: loss for step, loss in losses(rows) if str(step) in kept}
  best = min(held_out, key=held_out.__getitem__, default=None)
  spent = goodput.measure(run.local, rows, now=time.time())
  summary = {
    **last,
    "parameters": parameters,
    "flops_per_token": run.flops_per_token,
    "wall_seconds": spent["total_seconds"] if spent else seconds,
    "last_start_seconds": seconds,
    "goodput": spent,
    "best_checkpoint": None if best is None else str(checkpoints / str(best)),
    "store": store.digest,
    "devices": jax.device_count(),
    "device_kind": jax.devices()[0].device_kind,
    "processes": jax.process_count(),
    "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
    "python": sys.version.split()[0],
  }
  writers.write_summary(run.workdir / SUMMARY, summary)
  named = {"loss": last.get("loss"), "held out": last.get("eval/loss")}
  shown = [f"{name} {loss:.4f}" for name, loss in named.items() if loss is not None]
  shown.append(f"{seconds:.0f} s")
  if spent and spent["starts"] > 1:
    shown.append(f"goodput {spent['goodput']:.1%} over {spent['starts']} starts")
  files = f"{run.workdir}/loss.png and {run.workdir}/{SUMMARY}"
  text = f"done: {', '.join(shown)}; see {files}"
  if best is not None and len(held_out) > 1:
    text += (
      f"\nlowest held-out loss of the kept checkpoints: {held_out[best]:.4f}, "
      f"{summary['best_checkpoint']}"
    )
  return text


def losses(rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, float]]:
  """Return (step, held-out loss) of each evaluation whose loss is finite."""
  found = ((row["step"], row.get("eval/loss")) for row in rows)
  return [(step, loss) for step, loss in found if loss is not None]
