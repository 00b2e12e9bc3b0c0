"""The train loop. It knows no feature: what is periodic is a hook.

`last` passes train, and one more lets the hooks and the save see the final state.
"""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Sequence
from typing import Any, Protocol

import jax

from phi1_jax import InputError
from phi1_jax.checkpoint import manager
from phi1_jax.checkpoint.manager import Checkpoints
from phi1_jax.data.loader import train_batches
from phi1_jax.data.token_store import TokenStore
from phi1_jax.parallel import hosts, sharding
from phi1_jax.telemetry.writers import Recorder
from phi1_jax.training import memory
from phi1_jax.training import state as train_state
from phi1_jax.training.hooks import Hook
from phi1_jax.training.metrics import MetricsReader
from phi1_jax.training.preemption import StopSignal
from phi1_jax.training.setup import Setup
from phi1_jax.training.state import TrainState
from phi1_jax.training.step import make_train_step

log = logging.getLogger(__name__)

# Hosts compile for minutes, and one that has the step in its cache waits for the rest.
COMPILE_SECONDS = 3 * 3600


class Watcher(Protocol):
  """Shows a person how far the run is."""

  def skip(self, count: int) -> None:
    """Counts steps that an earlier start of the run did."""

  def update(self, count: int) -> None:
    """Counts steps done."""

  def write(self, line: str) -> None:
    """Shows a line."""


def train(
  setup: Setup,
  store: TokenStore,
  hooks: Sequence[Hook],
  stop: StopSignal,
  watcher: Watcher,
) -> bool:
  """Trains until the last step, or until it is told to stop.

  Args:
    setup: the run on its mesh.
    store: the tokens.
    hooks: what to do beside training.
    stop: says when the machine is taken away.
    watcher: shows lines and progress to a person.

  Returns:
    True when the last step is done; False when it saved and stopped before.

  Raises:
    DivergedError: a step's loss or gradient was not finite; nothing after the step
      before it was kept.
    InputError: a checkpoint or the memory does not suit the run.
  """
  config = setup.config.train
  last = config.last_step

  # ---- Compiled step: before anything is allocated, so that a model that is too
  # large for its device is refused with the sizes.
  started = time.perf_counter()
  with hosts.agreed("compiling the step", limit=COMPILE_SECONDS):
    with sharding.layout(setup.mesh):
      step_function = make_train_step(setup, store.eos_id)
    memory.check_fits(None, setup)
    compiled = memory.compile_step(step_function, setup)
    memory.check_fits(compiled, setup)
  log.info("compiled the step in %.1f s", time.perf_counter() - started)

  with contextlib.ExitStack() as opened:  # closed in reverse, whatever happens
    # ---- State: restored or made, in the order that checkpoint.manager writes down.
    checkpoints = Checkpoints(setup.workdir / "checkpoints", setup.config.checkpoint)
    opened.push(checkpoints)
    state, tokens_before = restore_or_initialise(setup, store, checkpoints)
    first = int(state.step)
    _refuse_past(first, setup)
    watcher.skip(first)

    # ---- Data: batch k is a function of the store, the seed and k.
    batches = train_batches(
      store,
      batch_size=config.batch_size,
      sequence_length=config.sequence_length,
      seed=config.seed,
      rates=setup.config.data.rates,
      rows=sharding.host_rows(setup.mesh, config.batch_size),
      start_step=first,
    )
    opened.callback(batches.close)

    # ---- Loop: at each pass `state` has seen `step` updates.
    with hosts.agreed("opening metrics.jsonl"):
      recorder = opened.enter_context(
        Recorder(
          setup.workdir,
          resumed_at=first or None,
          num_steps=last,
          process_index=hosts.index(),
          emit=watcher.write,
        )
      )
    reader = MetricsReader(setup, recorder, first, tokens_before)
    for step in range(first, last + 1):
      stopping = stop.requested(step)
      # What was due at the step of a stop runs after the restart instead.
      due = [] if stopping else [hook for hook in hooks if hook.due(step, last)]
      saving = stopping or checkpoints.due(step, last)
      if due or saving:
        with reader.paused():
          if saving:  # first: a hook that fails must not cost what was trained
            checkpoints.save(step, state, _meta(setup, store, reader.tokens_seen(step)))
          for hook in due:
            if values := dict(hook.run(step, state)):
              recorder.write(step, values)
      if stopping or step == last:
        break
      with reader.waiting_for_input():
        rows = next(batches)
      batch = sharding.put_batch(rows, setup.mesh, config.batch_size)
      with jax.profiler.StepTraceAnnotation("train", step_num=step):
        state, metrics = compiled(state, batch)
      watcher.update(1)
      reader.follow(step + 1, metrics)  # reads the step before, while this one runs

  return not stopping


def _refuse_past(first: int, setup: Setup) -> None:
  last = setup.config.train.last_step
  if first > last:
    raise InputError(
      f"{setup.workdir}: this run is at step {first} already, expected at most "
      f"{last}; raise Train.total_steps (or stop_at_step), or use another --workdir"
    )


def restore_or_initialise(
  setup: Setup, store: TokenStore, checkpoints: Checkpoints
) -> tuple[TrainState, int]:
  """The state to start from, and the tokens it has seen.

  Follows the order in `checkpoint.manager`: own work directory, `resume_from`,
  `init_from`, scratch.
  """
  config = setup.config.checkpoint
  expected = {
    "model_shape": setup.config.model.shape(),
    "tokenizer": store.manifest["tokenizer"]["digest"],
  }
  same_run = {**expected, "store": store.digest}
  try:
    found = checkpoints.restore_latest(setup.abstract_state, same_run)
    if found is None and config.resume_from:
      path = manager.find(config.resume_from)
      found = manager.restore(path, setup.abstract_state, same_run)
    if found is not None:
      state, meta = found
      log.info("going on from step %d", int(state.step))
      return state, meta["tokens_seen"]
    with sharding.layout(setup.mesh):
      state = train_state.initialise(
        setup.model, setup.optimizer, setup.mesh, setup.config.train.seed
      )
    if config.init_from:
      path = manager.find(config.init_from)
      abstract = {"params": setup.abstract_state.params}
      restored, meta = manager.restore(path, abstract, expected)
      log.info("starting from the parameters of %s", path)
      return dataclasses.replace(state, params=restored["params"]), 0
  except manager.DamagedError as error:
    raise error.refusal(config.resume_from or config.init_from) from None
  return state, 0


def _meta(setup: Setup, store: TokenStore, tokens_seen: int) -> dict[str, Any]:
  return {
    "config": setup.config.asdict(),
    "model_shape": setup.config.model.shape(),
    "store": store.digest,
    "tokenizer": store.manifest["tokenizer"]["digest"],
    "tokens_seen": tokens_seen,
  }
