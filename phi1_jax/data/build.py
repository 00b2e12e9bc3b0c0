"""Builds a token store from files or a mixture, in several processes.

The work is divided into units: one shard of one task. Each unit is written atomically,
so a build that was stopped or killed continues with the next unit. The bytes depend
neither on that nor on the number of processes.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import logging
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from phi1_jax import InputError, storage
from phi1_jax.data import mixtures, shards, token_store
from phi1_jax.data.config import DataConfig
from phi1_jax.data.shards import Unit
from phi1_jax.data.token_store import SPLITS
from phi1_jax.storage import AnyPath, lease
from phi1_jax.text import tokenizer as tokenizers
from phi1_jax.text.tokenizer import Tokenizer

TRAINING_BYTES = 32 << 20  # of text for a trained tokenizer, chosen by hash
_NOTE = "build.json"
# For a task without documents; by whether it is Data.files.
_ADVICE = ("check its source", "check the files, or name their columns in Data.columns")
log = logging.getLogger(__name__)

# Total shards, shards done before, description -> a progress bar.
Show = Callable[[int, int, str], contextlib.AbstractContextManager[Any]]


def build(config: DataConfig, processes: int, show: Show) -> str:
  """Build the store that a config describes, or continue to build it.

  Args:
    config: the mixture, its tokenizer and the folder of the store.
    processes: how many worker processes; 1 works in this process.
    show: makes a progress bar.

  Returns:
    The digest of the store. Writes nothing if the store is complete.

  Raises:
    InputError: a mixture, module, tokenizer or corpus that does not exist; or a folder
      with other contents, such as a store built from another config.
  """
  place = storage.parse(config.store)
  if config.curated_directory is not None:  # seqio reads them from a local folder
    sets = storage.Mirror(storage.parse(config.curated_directory))
    sets.fetch()
    config = dataclasses.replace(config, curated_directory=str(sets.local))
  rated = mixtures.resolve(config)
  tokenizer = None if config.tokenizer == "train" else _load(config.tokenizer)
  facts, units = _plan(config, rated, tokenizer)  # a mistake leaves no folder behind
  with storage.Lease(
    place, "building a token store", flag="Data.store", wait=True
  ) as lease:
    if storage.exists(place / "COMPLETED"):
      opened = token_store.TokenStore.open(place, verify=config.verify)
      refuse_other(place, opened.manifest, facts)
      _clean(place)  # a build killed at its very end leaves its records
      summary = _summary(opened.manifest, opened.digest)
      log.info("%s is complete already: %s", place, summary)
      return opened.digest
    mirror = storage.Mirror(place, lease)
    mirror.fetch()
    _begin(mirror.local, place, facts)
    try:
      work = _Work(units, processes, show)
      tokenizer = work.tokenizer(mirror.local, tokenizer, config)
      entries = work.shards(place, mirror, tokenizer.digest)
      digest = _finish(mirror.local, facts, tokenizer, entries)
    finally:
      mirror.upload()
  manifest = json.loads((mirror.local / "manifest.json").read_bytes())
  log.info("%s: %s", place, _summary(manifest, digest))
  return digest


def _load(name: str) -> Tokenizer:
  tokenizer = tokenizers.load(name)
  if tokenizer.vocabulary_size > 1 << 16:
    raise InputError(
      f"Data.tokenizer: {name} has {tokenizer.vocabulary_size} ids, a token store "
      "holds 16-bit ids: expected at most 65,536"
    )
  return tokenizer


def _plan(
  config: DataConfig, rated: Mapping[str, mixtures.Rated], tokenizer: Tokenizer | None
) -> tuple[dict[str, Any], list[Unit]]:
  """Return the facts that decide a store's bytes, for its manifest, and its units."""
  made = {
    "train": {"name": "train", "vocabulary_size": config.trained_vocabulary_size},
    "codegen": {"name": "codegen"},
  }.get(config.tokenizer, {"name": "file"})
  if tokenizer is not None:
    made["digest"] = tokenizer.digest
  facts = {
    "mixture": config.mixture,
    "tasks": {
      name: {"rate": rate, "sources": source.describe()}
      for name, (source, rate) in rated.items()
    },
    "tokenizer": made,
    "held_out_fraction": config.held_out_fraction,
    "curated": config.curated_directory is not None,
    "shards_per_task": config.shards,
    "modules": {name: _sha256_of_module(name) for name in config.modules},
  }
  marked = config.loss_on == "completions"
  if marked:  # stores without marks are as they were before there were any
    facts["loss_on"] = config.loss_on
  counts = {name: x.num_shards(config.shards) for name, (x, _) in rated.items()}
  places = [(name, i, n) for name, n in counts.items() for i in range(n)]
  units = [
    Unit(
      *(name, rated[name][0], i, n, position, len(places)),
      *(config.held_out_fraction, marked),
    )
    for position, (name, i, n) in enumerate(places)
  ]
  return facts, units


def _sha256_of_module(name: str) -> str:
  """Return the digest of a user's module, which may change without a version."""
  spec = importlib.util.find_spec(name)
  if spec is None or not spec.origin or not Path(spec.origin).is_file():
    return "no source file"
  return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()


def _begin(store: Path, place: AnyPath, facts: dict[str, Any]) -> None:
  """Write the facts of this build into its folder; refuse a folder of another one.

  A build without documents and without a tokenizer of its own, such as after a
  misspelt column, is begun anew.
  """
  if storage.exists(store / _NOTE):
    found = json.loads((store / _NOTE).read_bytes())
    records = (json.loads(x.read_bytes()) for x in store.glob("shard-*-of-*.json"))
    same = dict(_leaves(found, "")) == dict(_leaves(facts, ""))
    trained = found["tokenizer"]["name"] == "train"
    work = (trained and storage.exists(store / tokenizers.FILE_NAME)) or any(
      record[split]["documents"] for record in records for split in SPLITS
    )
    if same or work:
      refuse_other(place, found, facts)
      return
    _clean(store)
    for path in (store / tokenizers.FILE_NAME, *store.glob("*-of-*.npy")):
      path.unlink(missing_ok=True)
  for name in sorted(entry.name for entry in store.iterdir()):
    if not name.startswith(lease.FILE_NAME) and not name.endswith(".partial"):
      raise InputError(
        f"Data.store: {place} is not a token store, it holds {name}; name an "
        "empty or a new folder"
      )
  storage.write_json(store / _NOTE, facts)


def refuse_other(
  store: AnyPath, found: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
  """Refuse a store that was begun with other facts, and name the first difference."""
  now = dict(_leaves(wanted, "Data"))
  was = dict(_leaves({name: found.get(name) for name in wanted}, "Data"))
  if not any(path.endswith("].content") for path in was):
    # The build began before manifests had the content of curated sets.
    now = {path: x for path, x in now.items() if not path.endswith("].content")}
  for path in sorted(was.keys() | now.keys()):
    added_by_build = path.startswith("Data.tokenizer.") and path not in now
    if was.get(path) != now.get(path) and not added_by_build:
      raise InputError(
        f"{store} was begun with {path} = {was.get(path)!r}, now it is "
        f"{now.get(path)!r}; delete the folder to build it anew, or name another with "
        "Data.store"
      )


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
  """Yield (path, value) of everything in nested dicts and lists."""
  if isinstance(value, Mapping):
    for key, item in value.items():
      yield from _leaves(item, f"{path}.{key}")
  elif isinstance(value, (list, tuple)):
    for index, item in enumerate(value):
      yield from _leaves(item, f"{path}[{index}]")
  else:
    yield path, value


@dataclasses.dataclass(frozen=True)
class _Work:
  """The units of a build and the processes that work on them; see `build`."""

  units: Sequence[Unit]
  processes: int
  show: Show

  def tokenizer(
    self, store: Path, given: Tokenizer | None, config: DataConfig
  ) -> Tokenizer:
    """Return the store's tokenizer: saved there, given, or trained on all units."""
    path = store / tokenizers.FILE_NAME
    if path.exists():
      return given or tokenizers.load(path)
    if given is None:
      size = config.trained_vocabulary_size
      assert size is not None  # DataConfig refuses it
      pairs: list[tuple[bytes, bytes]] = []
      dropped = {unit.task: collections.Counter[str]() for unit in self.units}
      with self.show(len(self.units), 0, "choosing text for the tokenizer") as bar:
        for unit, found in self._each(shards.sample, self.units, TRAINING_BYTES):
          pairs = shards.smallest([*pairs, *found[0]], TRAINING_BYTES)
          dropped[unit.task] += found[1]
          bar.update(1)
      if not pairs:
        raise InputError(
          f"Data: no documents to train on (left out: {_reasons(dropped) or 'none'}); "
          f"{_ADVICE[bool(config.files)]}"
        )
      fits = sum(len(text) for _, text in pairs) <= TRAINING_BYTES
      texts = [text.decode() for _, text in (pairs if fits else pairs[:-1])]
      given = tokenizers.train(texts, size)
    given.save(path)
    return given

  def shards(
    self, place: AnyPath, mirror: storage.Mirror, tokenizer_digest: str
  ) -> list[dict]:
    """Build the missing shards; return the entries of all, in order."""
    store, units = mirror.local, self.units
    entries = {
      unit.position: entry
      for unit in units
      if (entry := token_store.finished_shard(store, unit.position, unit.positions))
    }
    missing = [unit for unit in units if unit.position not in entries]
    tokens = 0
    with self.show(len(units), len(entries), f"writing {place}") as bar:
      arguments = (str(store), tokenizer_digest)
      for unit, entry in self._each(shards.build, missing, *arguments):
        entries[unit.position] = entry
        tokens += entry["train"]["tokens"] + entry["held_out"]["tokens"]
        bar.update(1, tokens=f"{tokens:,}")
        mirror.upload()
    return [entries[unit.position] for unit in units]

  def _each(
    self, function: Callable[..., Any], units: Sequence[Unit], *arguments: Any
  ) -> Iterator[tuple[Unit, Any]]:
    """Yield each unit with `function(unit, *arguments)`, in the order they finish."""
    workers = min(self.processes, len(units))
    if workers <= 1:
      yield from ((unit, function(unit, *arguments)) for unit in units)
      return
    executor = concurrent.futures.ProcessPoolExecutor(
      workers,
      mp_context=multiprocessing.get_context("forkserver"),
      initializer=shards.start_worker,
    )
    try:
      jobs = {executor.submit(function, unit, *arguments): unit for unit in units}
      for job in concurrent.futures.as_completed(jobs):
        yield jobs[job], job.result()
    finally:
      executor.shutdown(cancel_futures=True)


def _finish(
  store: Path, facts: dict[str, Any], tokenizer: Tokenizer, entries: list[dict]
) -> str:
  """Write the manifest of a store whose shards are built; return its digest."""
  dropped = {entry["task"]: collections.Counter[str]() for entry in entries}
  for entry in entries:
    dropped[entry["task"]].update(entry["dropped"])
  first: dict[tuple[str, str], str] = {}
  for entry in entries:
    for reason, place in entry.get("first_dropped", {}).items():
      first.setdefault((entry["task"], reason), place)
  for (task, reason), place in sorted(first.items()):
    log.info("%s: dropped %s: %s", task, place, reason)
  full = {entry["task"] for entry in entries if entry["train"]["documents"]}
  for task in sorted(dropped.keys() - full):
    counts = (e["held_out"]["documents"] for e in entries if e["task"] == task)
    without = +collections.Counter({shards.HELD_OUT: sum(counts)})
    reasons = _reasons({task: dropped[task] + without})
    raise InputError(
      f"task {task} gives no documents to train on"
      f"{f' (dropped {reasons})' if reasons else ''}; {_ADVICE[task == 'files']}"
    )
  made = {
    **facts["tokenizer"],
    "digest": tokenizer.digest,
    "vocabulary_size": tokenizer.vocabulary_size,
    "eos_id": tokenizer.eos_id,
  }
  facts = {**facts, "dropped": dropped, "tokenizer": made}
  digest = token_store.finish(store, facts, entries)
  _clean(store)
  return digest


def _clean(store: storage.AnyPath) -> None:
  """Remove what a build needs and a finished store does not."""
  for path in (
    store / _NOTE,
    *store.glob("shard-*-of-*.json"),
    *store.glob(".*.partial"),
  ):
    path.unlink(missing_ok=True)


def _summary(manifest: dict[str, Any], digest: str) -> str:
  dropped = _reasons(manifest["dropped"])
  return (
    f"{manifest['tokens']:,} tokens in {manifest['documents']:,} documents, "
    f"{manifest['bytes'] / manifest['tokens']:.2f} bytes per token"
    f"{f'; dropped {dropped}' if dropped else ''}; its digest is {digest[:16]} .."
  )


def _reasons(dropped: Mapping[str, Mapping[str, int]]) -> str:
  return "; ".join(
    f"{task}: {count} {reason}"
    for task, counts in sorted(dropped.items())
    for reason, count in sorted(counts.items())
  )
