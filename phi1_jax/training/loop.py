"""The train loop: runs training steps, and hooks and saves between them.

It runs `last` training steps, then one final iteration for hooks and saving only.
"""

import contextlib
import dataclasses
import io
import logging
import math
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax

from phi1_jax import InputError, storage
from phi1_jax.checkpoint.checkpoint import Checkpoint
from phi1_jax.checkpoint.manager import Checkpoints
from phi1_jax.cli.progress import Progress
from phi1_jax.data.loader import ORDER
from phi1_jax.data.token_store import TokenStore
from phi1_jax.parallel import hosts, sharding
from phi1_jax.telemetry import goodput
from phi1_jax.telemetry.writers import Recorder
from phi1_jax.training import memory, workdir
from phi1_jax.training import store as stores
from phi1_jax.training.hooks import Hook
from phi1_jax.training.metrics import NOTHING, MetricsReader
from phi1_jax.training.preemption import HookStoppedError, StopSignal
from phi1_jax.training.setup import Setup
from phi1_jax.training.state import TrainState
from phi1_jax.training.step import make_train_step

log = logging.getLogger(__name__)

# Hosts that have the step in their cache wait for those that compile it.
COMPILE_SECONDS = 3 * 3600


def train(
  setup: Setup,
  store: TokenStore,
  hooks: Sequence[Hook],
  stop: StopSignal,
) -> bool:
  """Train until the last step, or until a stop signal.

  Args:
    setup: the run on its mesh.
    store: the tokens.
    hooks: functions to call periodically.
    stop: notes signals.

  Returns:
    True when the last step is done; False when it saved and stopped before.

  Raises:
    DivergedError: a step's loss or gradient was not finite; nothing after the step
      before it was kept.
    InputError: a checkpoint or the memory does not suit the run.
    StorageError: a checkpoint could not be saved, twice.
  """
  config = setup.config.train
  last = config.last_step

  # ---- Compiled step: before anything is allocated, so that a model that is too
  # large for its device is refused with the sizes.
  started = time.perf_counter()
  log.info("compiling the step; a signal is noticed afterwards")
  with hosts.shared_errors("compiling the step", limit=COMPILE_SECONDS):
    memory.check_fits(None, setup)
    compiled = memory.compile_step(make_train_step(setup, store.eos_id), setup)
    memory.check_fits(compiled, setup)
  log.info("compiled the step in %.1f s", time.perf_counter() - started)

  with contextlib.ExitStack() as opened:  # closed in reverse, whatever happens
    # ---- State: restored or made, in the order that checkpoint.manager writes down.
    checkpoints = Checkpoints(setup.workdir / "checkpoints", setup.config.checkpoint)
    opened.push(checkpoints)
    state, before = restore_or_initialise(setup, store, checkpoints)
    first = int(state.step)
    if first > last:
      raise InputError(
        f"{setup.workdir}: this run is at step {first} already, expected at most "
        f"{last}; raise Train.total_steps (or stop_at_step), or use another --workdir"
      )

    # ---- Data: a batch is a function of the store, the seed and the windows before it.
    rows = sharding.host_rows(setup.mesh, config.batch_size)
    batches = stores.batches(
      store, setup.config, rows=rows, start=before["samples_seen"]
    )
    opened.callback(batches.close)

    # ---- Records: rows of metrics, and the losses that decide which checkpoints stay.
    # Without a terminal the rows show the progress.
    stream = sys.stderr if hosts.is_first() else io.StringIO()
    bar = Progress(
      last, "steps", "training", initial=first, interval=None, stream=stream
    )
    opened.enter_context(bar)
    with hosts.shared_errors("writing into the work directory"):
      recorder = opened.enter_context(
        Recorder(
          setup.local,
          resumed_at=first or None,
          num_steps=last,
          process_index=hosts.index(),
          emit=bar.write,
          wandb_project=setup.config.runtime.wandb_project,
          config=dataclasses.asdict(setup.config),
        )
      )
      losses = []
      if hosts.is_first():  # nothing refuses this start any more, so it counts
        workdir.describe(setup, store)
        goodput.note_start(setup.local, setup.began)
        if setup.mirror:
          setup.mirror.upload()
        losses = workdir.losses(storage.read_lines(setup.local / "metrics.jsonl"))
    checkpoints.losses |= dict(hosts.exchange("held-out losses", losses)[0])
    reader = MetricsReader(setup, recorder, first, before)

    def save(step: int, *, again: bool = False) -> None:
      # First the rows: a checkpoint in the bucket has all rows before it beside it.
      if setup.mirror and hosts.is_first():
        recorder.flush()
        try:
          setup.mirror.upload()
        except storage.StorageError as error:  # the state is worth more than its rows
          log.warning("%s", error)
      (checkpoints.save_again if again else checkpoints.save)(step, state, meta(step))

    def meta(step: int) -> dict[str, Any]:
      config = {"config": dataclasses.asdict(setup.config), "order": ORDER}
      return {**_belongings(setup, store), **config, **reader.seen(step)}

    # ---- Loop: at each pass `state` has seen `step` updates.
    for step in range(first, last + 1):
      wanted = stop.poll(
        save=hosts.is_first() and checkpoints.overdue(), again=checkpoints.failing()
      )
      stopping, again = "stop" in wanted, "again" in wanted
      # What was due at the step of a stop runs after the restart instead.
      due = [] if stopping else [hook for hook in hooks if hook.due(step, last)]
      saving = bool(wanted) or checkpoints.due(step, last)
      if due or saving:
        with reader.paused():
          if saving:  # first: a hook that fails must not cost what was trained
            save(step, again=again)
          try:
            for hook in due:
              with stop.interrupting():
                values = dict(hook.run(step, state))
              if values:
                recorder.write(step, values)
              if math.isfinite(loss := values.get("eval/loss", math.nan)):
                checkpoints.losses[step] = loss
          except HookStoppedError:
            stopping = True
            save(step)
          except Exception:
            if hosts.count() == 1:  # else the others do not come to the save
              save(step)
              log.error("a hook failed at step %d, which is saved first", step)
            raise
      if stopping or step == last:
        checkpoints.finish(step, state, meta(step))
        break
      with reader.throughput.waiting_for_input():
        windows = next(batches)
      batch = sharding.put_batch(windows, setup.mesh, config.batch_size)
      with jax.profiler.StepTraceAnnotation("train", step_num=step):
        state, metrics = compiled(state, batch)
      bar.update(1)
      reader.follow(step + 1, metrics)  # reads the step before, while this one runs

  return not stopping


def restore_or_initialise(
  setup: Setup, store: TokenStore, checkpoints: Checkpoints
) -> tuple[TrainState, dict[str, int]]:
  """Return the state to start from, and what it has seen.

  Follows the order in `checkpoint.manager`: own work directory, `resume_from`,
  `init_from`, scratch.
  """
  config, same_run = setup.config.checkpoint, _belongings(setup, store)
  found = checkpoints.restore_latest(setup.abstract_state, same_run)
  if found is None and config.resume_from:
    source = Checkpoint.find(config.resume_from)
    found = source.restore(setup.abstract_state, same_run), source
  if found is not None:
    state, source = found
    _log_differences(source, setup)
    log.info("going on from step %d", int(state.step))
    return state, _seen(source, setup)
  state = setup.initial_state()
  if config.init_from:
    source = Checkpoint.find(config.init_from)
    abstract = {"params": setup.abstract_state.params}
    same_model = {name: same_run[name] for name in ("model_shape", "tokenizer")}
    params = source.restore(abstract, same_model)["params"]
    _log_differences(source, setup, "Model.")
    log.info("starting from the parameters of %s", source.path)
    state = dataclasses.replace(state, params=params)
  return state, dict(NOTHING)


def _log_differences(source: Checkpoint, setup: Setup, part: str = "") -> None:
  """Log the settings that differ from those of a checkpoint's run."""
  for name, of in setup.config.differences(source.meta).items():
    if name.startswith(part):
      log.warning("%s: its run had %s = %r, this one has %r", source.path, name, *of)


def _seen(source: Checkpoint, setup: Setup) -> dict[str, int]:
  """Return what a checkpoint has seen; without counts, only step 0 is taken.

  Raises:
    InputError: its run read the windows in another version's order.
  """
  meta, run = source.meta, source.path
  begun = meta.get("order", 1)
  if begun != ORDER and meta.get("samples_seen", meta["step"]):
    raise InputError(
      f"{run}: got a run with order {begun} of the training windows, expected {ORDER}; "
      f"start from its parameters, --gin.Checkpoint.init_from={run} with another "
      "--workdir, or go on with the version of phi1_jax that began it"
    )
  ours = setup.config.train.sequence_length
  length = meta.get("config", {}).get("train", {}).get("sequence_length", ours)
  seen = {name: meta.get(name, 0) for name in NOTHING}
  if length != ours:
    log.warning(
      "Train.sequence_length was %d and is %d: windows are cut anew, so the run goes "
      "on after as many tokens, in another order",
      *(length, ours),
    )
  return seen | {"samples_seen": seen["samples_seen"] * length // ours}


def _belongings(setup: Setup, store: TokenStore) -> dict[str, Any]:
  """Return the entries of a checkpoint's meta that a run must share to go on."""
  return {
    "model_shape": setup.config.model.shape(),
    "store": store.digest,
    "tokenizer": store.manifest["tokenizer"]["digest"],
  }
