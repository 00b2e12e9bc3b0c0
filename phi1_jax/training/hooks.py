"""Hooks: functions that run every so many steps.

The loop knows no sampler and no benchmark: it calls hooks, and writes down the
(name, value) pairs that they yield.
"""

import dataclasses
import functools
import importlib
import inspect
import logging
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from phi1_jax import InputError
from phi1_jax.data.loader import held_out_batches
from phi1_jax.data.token_store import TokenStore
from phi1_jax.parallel import hosts, sharding
from phi1_jax.telemetry import writers
from phi1_jax.training import step as train_step
from phi1_jax.training.config import RuntimeConfig
from phi1_jax.training.preemption import HookStoppedError
from phi1_jax.training.setup import Setup
from phi1_jax.training.state import TrainState

log = logging.getLogger(__name__)

Values = Iterable[tuple[str, float]]


@dataclasses.dataclass(frozen=True)
class Hook:
  """A function of the state that runs every so many steps, and after the last."""

  # (step, state) -> pairs to write as metrics of that step.
  run: Callable[[int, TrainState], Values]
  every: int | None = None  # period in steps
  steps: tuple[int, ...] = ()  # further steps at which to run

  def due(self, step: int, last_step: int) -> bool:
    """Return whether to run on the state after `step` updates."""
    periodic = bool(self.every) and step > 0 and step % (self.every or 1) == 0
    return periodic or step in self.steps or step == last_step


def held_out_loss(setup: Setup, store: TokenStore) -> Hook:
  """Return the hook for the loss on text that is never trained on.

  `eval/loss` is the mean over all held-out targets, estimated task by task where
  `evaluation_batches` limits the windows; `eval/bits_per_byte` is for all tokenizers.
  """
  train = setup.config.train
  size = train.batch_size // setup.accumulation_steps  # what a step holds at once
  completions_only = setup.config.data.loss_on == "completions"
  targets = store.num_targets("held_out", completions_only)

  @jax.jit
  def evaluate(params, tokens, weights_BT) -> tuple[jax.Array, jax.Array]:
    sums = train_step.loss(
      *(setup.model, params, tokens, weights_BT),
      head_chunks=train.head_chunks,
      document_end=store.eos_id if train.document_mask else None,
    )
    return sums.loss, sums.weight

  def mean_loss(task: str, state: TrainState) -> float | None:
    sums = np.zeros(2)
    batches = held_out_batches(
      *(store, task),
      batch_size=size,
      sequence_length=train.sequence_length,
      completions_only=completions_only,
      whole_documents=train.whole_documents,
      rows=sharding.host_rows(setup.mesh, size),
      limit=train.evaluation_batches and train.evaluation_batches * train.batch_size,
    )
    for arrays in batches:
      if setup.stop_requested():
        raise HookStoppedError
      batch = (sharding.put_batch(array, setup.mesh, size) for array in arrays)
      with sharding.layout(setup.mesh):  # jit traces at the first call, not before
        sums += jax.device_get(evaluate(state.params, *batch))
    return float(sums[0] / sums[1]) if sums[1] else None  # windows of prompts alone

  def run(step: int, state: TrainState) -> Values:
    found = {task: mean_loss(task, state) for task in targets}
    losses = {task: loss for task, loss in found.items() if loss is not None}
    if not losses:
      where = "%s: no held-out target in these windows; raise Data.held_out_fraction"
      log.warning(where, store.directory)
      return
    nats = sum(loss * targets[task] for task, loss in losses.items())
    yield "eval/loss", nats / sum(targets[task] for task in losses)
    if len(losses) > 1:
      for task, loss in losses.items():
        yield f"eval/{task}_loss", loss
    if not completions_only:  # the bytes of prompts are not counted apart
      num_bytes = sum(
        targets[task] * store.bytes_per_token(task, "held_out") for task in losses
      )
      yield "eval/bits_per_byte", nats / num_bytes / math.log(2)

  return Hook(run, train.evaluate_every)


# (setup, store) -> what `Hook.run` does.
MakeHook = Callable[[Setup, TokenStore], Callable[[int, TrainState], Values]]


def find(runtime: RuntimeConfig) -> dict[str, MakeHook]:
  """Return the functions that `Runtime.hooks` names: anybody's, found by their module.

  Each is called with (setup, store) and returns run, where run(step, state) yields
  (name, value) pairs, as `Hook.run` does. A stop signal ends it, by an exception inside
  it; with several hosts it should ask `setup.stop_requested()` between its batches, on
  all hosts alike, and raise `HookStoppedError`. Files go into `setup.local`.

  Raises:
    InputError: no such module or function, or no wandb for `Runtime.wandb_project`.
  """
  if runtime.wandb_project and hosts.is_first():
    writers.check_wandb(runtime.wandb_project)
  found = {}
  for name in runtime.hooks:
    module, _, function = name.partition(":")
    try:
      found[name] = getattr(importlib.import_module(module), function)
      inspect.signature(found[name]).bind(None, None)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
      raise InputError(
        f"Runtime.hooks: got {name!r}, expected 'module:function', a module that can "
        f"be imported from here and a function of (setup, store) in it ({error})"
      ) from None
  return found


def named(found: Mapping[str, MakeHook], setup: Setup, store: TokenStore) -> list[Hook]:
  """Return the hooks that `find` found.

  Raises:
    InputError: a function that returns no function.
  """
  hooks = []
  for name, make in found.items():
    run = make(setup, store)
    if not callable(run):
      raise InputError(
        f"Runtime.hooks: {name} returned {type(run).__name__}, expected a function "
        "run(step, state) that yields (name, value) pairs"
      )
    checked = functools.partial(_values, name, run, store.manifest["tasks"])
    hooks.append(Hook(checked, setup.config.runtime.hooks[name]))
  return hooks


def _values(
  name: str, run: Any, tasks: Collection[str], step: int, state: TrainState
) -> Values:
  """Return what a named hook yields.

  Raises:
    InputError: it returns something else than pairs of a name that the trainer does not
      have and a number, or nothing.
  """
  found = run(step, state)
  try:
    values = dict(found or ())
  except (TypeError, ValueError) as error:
    if isinstance(found, Iterator):  # the hook's own code raised it
      raise
    raise InputError(
      f"Runtime.hooks: {name} returned {type(found).__name__} at step {step}, expected "
      f"(name, value) pairs, which a function yields ({error})"
    ) from None
  for key, value in values.items():
    said = f"Runtime.hooks: {name} yielded {key!r} = {value!r:.60} at step {step}"
    taken = writers.OWN | {f"eval/{task}_loss" for task in tasks}
    if not isinstance(key, str) or key in taken:
      raise InputError(f"{said}, expected a name of its own, such as 'eval/mine'")
    try:
      values[key] = value if value is None else float(value)
    except (TypeError, ValueError):
      raise InputError(f"{said}, expected a number") from None
  return values.items()


def profile(setup: Setup) -> Hook:
  """Return the hook that profiles the steps of `Runtime.profile_at`.

  Starts the profiler's server on `Runtime.profiler_port`, if that is set.
  """
  runtime, folder = setup.config.runtime, setup.local / "profile"
  if port := runtime.profiler_port:
    jax.profiler.start_server(port)
    log.info("profiles: connect to port %d of this host", port)
  opens = runtime.profile_at
  steps = () if opens is None else (opens, opens + runtime.profile_steps)
  running = False

  def window(step: int, state: TrainState) -> Values:
    nonlocal running
    jax.block_until_ready(state.params)  # else its work would be in the picture
    if step == opens:
      jax.profiler.start_trace(str(folder))
      running = True
    elif running:
      jax.profiler.stop_trace()
      running = False
      log.info(
        "profile of steps %d to %d: %s (open it with XProf: pip install xprof "
        "tensorboard; tensorboard --logdir=%s)",
        *(opens, step, folder, folder),
      )
    return ()

  return Hook(window, steps=steps)
