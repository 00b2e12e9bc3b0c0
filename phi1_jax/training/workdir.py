"""Work directory of a run: its lock, its growing files, its config and tokenizer."""

import contextlib
import dataclasses
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from phi1_jax import InputError, storage
from phi1_jax.data.token_store import TokenStore
from phi1_jax.parallel import compiler, hosts
from phi1_jax.storage import AnyPath
from phi1_jax.telemetry import goodput, writers
from phi1_jax.text import tokenizer
from phi1_jax.training import preflight
from phi1_jax.training.preemption import StopSignal
from phi1_jax.training.setup import Setup

log = logging.getLogger(__name__)


@contextlib.contextmanager
def opened(run: Setup, stop: StopSignal, waited: float) -> Iterator[Setup]:
  """Lock the work directory, open the files that grow, and give the run with both.

  At the end, uploads the files and unlocks the work directory. Host 0 does this alone;
  all hosts must call it, and have a local folder for files of their own. `waited` is
  how many seconds of this process another run took.

  Raises:
    InputError: another process uses the folder, it cannot be written, or the hosts see
      different folders.
  """
  with contextlib.ExitStack() as stack:
    lock = None
    lost = f"error: {run.workdir}: another process goes on with this run"
    with hosts.shared_errors("opening the work directory"):
      if hosts.is_first():
        lock = storage.Lease(
          run.workdir,
          "training",
          stopping=lambda: stop.received,
          on_lost=lambda: hosts.end(lost, os.EX_TEMPFAIL),
        )
        stack.enter_context(lock)
        _make_folders(run.workdir)
      mirror = storage.Mirror(run.workdir, lock)
      if hosts.is_first():
        mirror.fetch("metrics.jsonl", goodput.FILE_NAME, writers.WANDB_ID)
        stack.callback(mirror.upload)
        stack.enter_context(goodput.StartLog(mirror.local).start(waited))
        mirror.upload()
    preflight.check_shared(run.workdir, lock and lock.token)
    yield dataclasses.replace(run, mirror=mirror, stop_requested=stop.requested)


def _make_folders(workdir: AnyPath) -> None:
  """Make the folders of checkpoints and events now, so that no save fails hours later.

  Raises:
    InputError: they cannot be made.
  """
  if storage.is_remote(workdir):
    return
  for name in ("checkpoints", "tensorboard"):
    try:
      (workdir / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise InputError(
        f"--workdir: cannot make the folder {workdir / name} ({error.strerror}); name "
        "another folder"
      ) from None


def use_compilation_cache(run: Setup) -> None:
  """Keep compiled steps in `Runtime.compilation_cache`, relative to the workdir."""
  if folder := run.config.runtime.compilation_cache:
    path = storage.parse(folder)
    absolute = storage.is_remote(path) or Path(path).is_absolute()
    compiler.cache_in(path if absolute else run.workdir / folder)


@contextlib.contextmanager
def described(run: Setup, config: str, store: TokenStore) -> Iterator[None]:
  """Write config.gin and tokenizer.json; log what has changed since the last start.

  Restores both if an `InputError` refuses the run inside: they belong to the
  checkpoints in the folder. Host 0 does this alone; all hosts must call it.
  """
  before: dict[AnyPath, str] = {}
  with hosts.shared_errors("writing config.gin"):
    if hosts.is_first():
      place = run.workdir / "config.gin"
      tokens = (store.directory / tokenizer.FILE_NAME).read_text("utf-8")
      new = {place: config, run.workdir / tokenizer.FILE_NAME: tokens}
      before |= {path: storage.read_text(path) for path in new if storage.exists(path)}
      known = values(before.get(place, config))
      for name, value in values(config).items():
        if known.get(name) != value:
          log.warning(
            "changed since this run was last started: %s = %s (it was %s)",
            *(name, value, known.get(name, "not there")),
          )
      for path, text in new.items():
        if text != before.get(path):
          storage.write_text(path, text)
  try:
    yield
  except InputError:
    for path, text in before.items():
      storage.write_text(path, text)
    raise


def values(text: str) -> dict[str, str]:
  """Return the value of each parameter of a config.gin."""
  return dict(line.split(" = ", 1) for line in text.splitlines() if " = " in line)
