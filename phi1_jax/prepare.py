"""Builds a token store from a seqio mixture.

    python -m phi1_jax.prepare --gin_file=gin/data/quickstart.gin

The work is cut into units, one shard of one task each, and several processes take
them. A unit is on the disk whole or not at all, so a build that was stopped, however
rudely, goes on with the next unit when the same command is given again; the bytes are
those of a build that was never stopped, whatever the number of processes.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import importlib.util
import io
import json
import logging
import multiprocessing
import multiprocessing.forkserver
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi1_jax import InputError, storage
from phi1_jax.cli import command
from phi1_jax.cli.progress import Progress
from phi1_jax.data import token_store
from phi1_jax.data.config import DataConfig
from phi1_jax.storage import AnyPath, lease
from phi1_jax.text import tokenizer as tokenizers
from phi1_jax.text.tokenizer import Tokenizer

if TYPE_CHECKING:  # it loads TensorFlow, which takes seconds: not for --help
  from phi1_jax.data.shards import Unit

# A small BPE learns from at most this much text, chosen by hash; more changes little.
TRAINING_BYTES = 32 << 20
_WORKERS = "phi1_jax.data.shards"
_BUILD = "build.json"
_log = logging.getLogger("phi1_jax.prepare")


def prepare(config: DataConfig, progress: bool = False) -> str:
  """Builds the store that a config describes, or goes on building it.

  Args:
    config: the mixture, its tokenizer and the folder of the store.
    progress: show rate and time left on standard error.

  Returns:
    The digest of the store. If it is complete already, nothing is written.

  Raises:
    InputError: a mixture, module, tokenizer or corpus that is not there; or a folder
      that holds something else, e.g. a store built from another config.
  """
  tokenizer = None if config.tokenizer == "train" else _load(config.tokenizer)
  processes = config.processes or len(os.sched_getaffinity(0))
  if processes > 1:
    _start_forkserver()
  place = storage.parse(config.store)
  config = _with_local_sets(config)
  with storage.Lease(place, "building a token store", flag="Data.store", wait=True):
    facts, units = _plan(config, tokenizer)
    if (place / "COMPLETED").exists():
      opened = token_store.TokenStore.open(place, verify=config.verify)
      _refuse_other(place, opened.manifest, facts)
      _log.info("%s is complete already: %s", place, _summary(opened.manifest))
      return opened.digest
    mirror = storage.Mirror(place)
    mirror.fetch()
    _claim(mirror.local, place, facts)
    pool = _Pool(config, processes, progress)
    try:
      digest, manifest = _build(pool, mirror, facts, units, tokenizer)
    finally:
      mirror.upload()
    _log.info("%s: %s", place, _summary(manifest))
    return digest


def _build(
  pool: _Pool,
  mirror: storage.Mirror,
  facts: dict[str, Any],
  units: list[Unit],
  tokenizer: Tokenizer | None,
) -> tuple[str, dict[str, Any]]:
  """Build the store in the mirror's local folder; return its digest and manifest."""
  store = mirror.local
  if tokenizer is None:
    tokenizer = _trained(pool.config, store, units, pool)
  elif not (store / tokenizers.FILE_NAME).exists():
    tokenizer.save(store / tokenizers.FILE_NAME)
  entries = _build_shards(mirror, units, tokenizer, pool)
  facts = {**facts, "dropped": _dropped(store, units)}
  facts["tokenizer"] = {
    **facts["tokenizer"],
    "digest": tokenizer.digest,
    "vocabulary_size": tokenizer.vocabulary_size,
    "eos_id": tokenizer.eos_id,
  }
  digest = token_store.finish(store, facts, entries)
  _remove_notes(store)
  return digest, json.loads((store / "manifest.json").read_bytes())


def _with_local_sets(config: DataConfig) -> DataConfig:
  """Copy curated sets that are on cloud storage to this machine, for seqio to read."""
  if config.curated_directory is None:
    return config
  mirror = storage.Mirror(storage.parse(config.curated_directory))
  mirror.fetch()
  return dataclasses.replace(config, curated_directory=str(mirror.local))


def _load(name: str) -> Tokenizer:
  tokenizer = tokenizers.load(name)
  if tokenizer.vocabulary_size > 1 << 16:
    raise InputError(
      f"Data.tokenizer: {name} has {tokenizer.vocabulary_size} ids, a token store "
      "holds 16-bit ids: expected at most 65,536"
    )
  return tokenizer


def _summary(manifest: dict[str, Any]) -> str:
  dropped = {
    f"{task}: {count} {reason}"
    for task, counts in manifest["dropped"].items()
    for reason, count in counts.items()
  }
  left_out = f"; dropped {', '.join(sorted(dropped))}" if dropped else ""
  return (
    f"{manifest['tokens']:,} tokens in {manifest['documents']:,} documents, "
    f"{manifest['bytes'] / manifest['tokens']:.2f} bytes per token{left_out}"
  )


# What the store is to be.


def _plan(
  config: DataConfig, tokenizer: Tokenizer | None
) -> tuple[dict[str, Any], list[Unit]]:
  """Everything that decides a store's bytes, for its manifest, and its units."""
  from phi1_jax.data import shards, sources, tasks

  shards.register(config.modules, config.curated_directory)
  rated = tasks.tasks_of(config.mixture)
  made = {
    "train": {"name": "train", "vocabulary_size": config.trained_vocabulary_size},
    "codegen": {"name": "codegen"},
  }.get(config.tokenizer, {"name": "file"})
  if tokenizer is not None:
    made["digest"] = tokenizer.digest
  facts = {
    "mixture": config.mixture,
    "tasks": {
      name: {"rate": entry.rate, "sources": sources.describe(entry.task.source)}
      for name, entry in rated.items()
    },
    "tokenizer": made,
    "held_out_fraction": config.held_out_fraction,
    "curated": config.curated_directory is not None,
    "shards_per_task": config.shards,
    "modules": {name: _sha256_of_module(name) for name in config.modules},
  }
  counts = {
    name: tasks.num_shards(entry.task, config.shards) for name, entry in rated.items()
  }
  places = [(name, i, n) for name, n in counts.items() for i in range(n)]
  units = [
    shards.Unit(*place, position, len(places), config.held_out_fraction)
    for position, place in enumerate(places)
  ]
  return facts, units


def _sha256_of_module(name: str) -> str:
  """A user's task may change with its module, which no version tells."""
  spec = importlib.util.find_spec(name)
  if spec is None or not spec.origin or not Path(spec.origin).is_file():
    return "no source file"
  return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()


# The folder: one builder at a time, one config for ever.


def _claim(store: Path, place: AnyPath, facts: dict[str, Any]) -> None:
  """Note the facts of the store that is built here; refuse a folder of another one."""
  if (store / _BUILD).exists():
    _refuse_other(place, json.loads((store / _BUILD).read_bytes()), facts)
    return
  foreign = [
    entry.name
    for entry in sorted(store.iterdir())
    if entry.name != lease.FILE_NAME and not entry.name.endswith(".partial")
  ]
  if foreign:
    raise InputError(
      f"Data.store: {place} is not a token store, it holds {foreign[0]}; name an "
      "empty or a new folder"
    )
  storage.write_json(store / _BUILD, facts)


def _refuse_other(
  store: AnyPath, found: dict[str, Any], wanted: dict[str, Any]
) -> None:
  found = {**found, "tokenizer": _only(found["tokenizer"], wanted["tokenizer"])}
  if found["tasks"] == _without_content(found["tasks"]):
    # It was begun before the content of curated sets was written down.
    wanted = {**wanted, "tasks": _without_content(wanted["tasks"])}
  # Through JSON, as the one that was found went.
  different = _difference(
    _only(found, wanted), json.loads(json.dumps(wanted)), path="Data"
  )
  if different:
    path, was, now = different
    raise InputError(
      f"{store} was begun with {path} = {was!r}, now it is {now!r}; delete the folder "
      "to build it anew, or name another with Data.store"
    )


def _without_content(tasks: dict[str, Any]) -> dict[str, Any]:
  return {
    name: {**task, "sources": [_except(s, "content") for s in task["sources"]]}
    for name, task in tasks.items()
  }


def _except(found: dict[str, Any], name: str) -> dict[str, Any]:
  return {key: value for key, value in found.items() if key != name}


def _only(found: dict[str, Any], keys: dict[str, Any]) -> dict[str, Any]:
  return {key: value for key, value in found.items() if key in keys}


def _difference(was: Any, now: Any, path: str) -> tuple[str, Any, Any] | None:
  """Where two nested values first differ: path, one value, the other; None = equal."""
  if was == now:
    return None
  if isinstance(was, dict) and isinstance(now, dict):
    for key in sorted(was.keys() | now.keys()):
      inner = _difference(was.get(key), now.get(key), f"{path}.{key}")
      if inner:
        return inner
  if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
    for index, pair in enumerate(zip(was, now, strict=True)):
      inner = _difference(*pair, f"{path}[{index}]")
      if inner:
        return inner
  return path, was, now


def _remove_notes(store: Path) -> None:
  """Removes what only a build in progress needs."""
  for pattern in (_BUILD, "build.lock", "dropped-*.json", ".*.partial"):
    for path in store.glob(pattern):
      path.unlink(missing_ok=True)


# The work.


@dataclasses.dataclass(frozen=True)
class _Pool:
  """Runs functions of `phi1_jax.data.shards` on units, here or in processes."""

  config: DataConfig
  processes: int
  progress: bool

  def run(
    self, function: Callable[..., Any], units: Sequence[Unit], *arguments: Any
  ) -> Iterator[tuple[Unit, Any]]:
    """Yields each unit with `function(unit, *arguments)`, in the order they finish."""
    workers = min(self.processes, len(units))
    if workers <= 1:
      yield from ((unit, function(unit, *arguments)) for unit in units)
      return
    from phi1_jax.data import shards

    executor = concurrent.futures.ProcessPoolExecutor(
      workers,
      mp_context=multiprocessing.get_context("forkserver"),
      initializer=shards.start_worker,
      initargs=(self.config.modules, self.config.curated_directory),
    )
    try:
      jobs = {executor.submit(function, unit, *arguments): unit for unit in units}
      for job in concurrent.futures.as_completed(jobs):
        yield jobs[job], job.result()
    finally:
      executor.shutdown(cancel_futures=True)

  def show(self, total: int, done: int, description: str) -> Progress:
    """A progress bar over shards."""
    stream = sys.stderr if self.progress else io.StringIO()
    return Progress(total, "shards", description, initial=done, stream=stream)


def _start_forkserver() -> None:
  """Starts the process that workers are forked from.

  It imports TensorFlow once for all of them, while this process imports its own.
  """
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  multiprocessing.get_context("forkserver").set_forkserver_preload([_WORKERS])
  multiprocessing.forkserver.ensure_running()


def _trained(
  config: DataConfig, store: Path, units: list[Unit], pool: _Pool
) -> Tokenizer:
  """The tokenizer learnt from the units' training documents; kept in the store."""
  from phi1_jax.data import shards

  path = store / tokenizers.FILE_NAME
  if path.exists():
    return tokenizers.load(str(path))
  size = config.trained_vocabulary_size
  assert size is not None  # DataConfig refuses it
  pairs: list[tuple[bytes, bytes]] = []
  with pool.show(len(units), 0, "choosing text for the tokenizer") as bar:
    for _, chosen in pool.run(shards.sample, units, TRAINING_BYTES):
      pairs = shards.smallest([*pairs, *chosen], TRAINING_BYTES)
      bar.update(1)
  tokenizer = tokenizers.train((text.decode() for _, text in pairs), size)
  tokenizer.save(path)
  return tokenizer


def _build_shards(
  mirror: storage.Mirror, units: list[Unit], tokenizer: Tokenizer, pool: _Pool
) -> list[dict[str, Any]]:
  """Builds what an earlier run has not; the shards' manifest entries, in order."""
  from phi1_jax.data import shards

  store = mirror.local
  entries = {
    unit.position: entry
    for unit in units
    if (entry := token_store.finished_shard(store, unit.position, unit.positions))
  }
  missing = [unit for unit in units if unit.position not in entries]
  tokens = 0
  with pool.show(len(units), len(entries), f"writing {store}") as bar:
    jobs = pool.run(shards.build, missing, str(store), tokenizer.digest)
    for unit, entry in jobs:
      entries[unit.position] = entry
      tokens += entry["train"]["tokens"] + entry["held_out"]["tokens"]
      bar.update(1, tokens=f"{tokens:,}")
      mirror.upload()
  for task in {unit.task for unit in units}:
    shards_of_task = [entry for entry in entries.values() if entry["task"] == task]
    if not any(entry["train"]["documents"] for entry in shards_of_task):
      raise InputError(f"task {task} gives no documents to train on; check its source")
  return [entries[unit.position] for unit in units]


def _dropped(store: Path, units: list[Unit]) -> dict[str, dict[str, int]]:
  """Per task, how many files or documents were left out and why."""
  from phi1_jax.data.shards import dropped_file

  totals: dict[str, dict[str, int]] = {unit.task: {} for unit in units}
  for unit in units:
    for reason, count in json.loads(dropped_file(store, unit).read_bytes()).items():
      total = totals[unit.task]
      total[reason] = total.get(reason, 0) + count
  return totals


# The command.


def main(argv: Sequence[str] | None = None) -> int:
  """Reads the config from gin and prepares its store."""
  parser = command.Parser(
    "prepare",
    "Builds a token store from a seqio mixture; run it again to go on.",
    "python -m phi1_jax.prepare --gin_file=gin/data/quickstart.gin "
    "--gin.Data.store=stores/quickstart",
  )
  arguments = parser.parse(argv)
  from phi1_jax.cli import gin_config  # after --help

  classes = {"Data": DataConfig}
  built = gin_config.load(arguments.gin_files, arguments.gin_bindings, classes)
  print(prepare(built["Data"], progress=True))
  return command.DONE


if __name__ == "__main__":
  command.run(main)
