"""Token store of a run: built if it is missing, opened, and checked."""

import contextlib
import logging
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

from phi1_jax import InputError, grammar, storage
from phi1_jax.checkpoint.checkpoint import exists_in
from phi1_jax.cli import child, gin_config
from phi1_jax.data import files
from phi1_jax.data.config import CURATED_CONTENT, DataConfig
from phi1_jax.data.loader import train_batches
from phi1_jax.data.token_store import TokenStore
from phi1_jax.grammar import rows
from phi1_jax.parallel import hosts
from phi1_jax.storage import AnyPath
from phi1_jax.text import tokenizer
from phi1_jax.training.preemption import StopSignal
from phi1_jax.training.setup import RunConfig, Setup

log = logging.getLogger(__name__)

# Passes over a store beyond which a model hardly learns more (the paper made eight over
# CodeTextbook), and learns a small one by heart.
_MOST_PASSES = 50
# Timeout of other hosts while host 0 builds the token store.
_BUILD_SECONDS = 24 * 3600


def open_store(run: Setup, stop: StopSignal) -> TokenStore | None:
  """Open the run's token store; host 0 builds it first if it is missing.

  Host 0 verifies the files once, for all hosts and for later starts of the run. A store
  on cloud storage is copied to each host, which verifies its copy once.

  Returns:
    The store, or None if a stop signal ended the build.

  Raises:
    InputError: the store cannot be built, is damaged, does not suit the configuration,
      or differs from that of host 0.
  """
  data = run.config.data
  place = storage.parse(data.store)
  built = True
  with (
    _stop_of_any(stop) as stopping,
    hosts.shared_errors("building the token store", limit=_BUILD_SECONDS),
  ):
    if hosts.is_first() and not storage.exists(place / "COMPLETED"):
      data.check_sources()
      check_vocabulary(run.config)
      built = _build(data, stopping)
  if not hosts.exchange("the token store is built", built)[0]:
    return None
  with hosts.shared_errors("opening the token store"):
    verify = data.verify and (hosts.is_first() or storage.is_remote(place))
    note = run.workdir / "verified_store.json"
    store = TokenStore.open(place, verify=verify, verified=note)
    check(store, run.config)
  first = hosts.exchange("comparing token stores", store.digest)[0]
  with hosts.shared_errors("the token store"):
    if store.digest != first:
      raise InputError(
        f"Data.store: {storage.full(place)} of host {hosts.index()} has digest "
        f"{store.digest[:16]}, that of host 0 {first[:16]}; expected the same tokens "
        "on all hosts: copy host 0's, or share it"
      )
    check_current(store, run)
  return store


@contextlib.contextmanager
def _stop_of_any(stop: StopSignal) -> Iterator[Callable[[], bool]]:
  """Give host 0 a function that returns whether any host got a stop signal.

  The others wait for host 0 meanwhile: a thread of each passes its signal on.
  """
  name, over = "stop the build of the token store", threading.Event()

  def pass_on() -> None:
    while not over.wait(0.2):
      if stop.received:
        hosts.raise_flag(name)
        return

  if not hosts.is_first():
    threading.Thread(target=pass_on, daemon=True).start()
  try:
    yield lambda: stop.received or hosts.flag_is_raised(name)
  finally:
    over.set()


def _build(data: DataConfig, stopping: Callable[[], bool]) -> bool:
  """Build the token store in a child, so that this process never loads TensorFlow."""
  bindings = gin_config.text({"Data": data}).splitlines()
  flags = [
    f"--gin.{name}={value}"
    for name, _, value in (line.partition(" = ") for line in bindings)
    if not data.without_effect(name.removeprefix("Data."))
  ]
  doing = f"building the token store {data.store}"
  print(f"{doing} from {data.origin}", flush=True)
  return child.run("phi1_jax.prepare", flags, stopping, doing)


def batches(store: TokenStore, config: RunConfig, **where: Any) -> Any:
  """Return `loader.train_batches` of a run; `where` are its other arguments."""
  data, train = config.data, config.train
  return train_batches(
    store,
    batch_size=train.batch_size,
    sequence_length=train.sequence_length,
    seed=train.seed,
    rates=data.rates,
    completions_only=data.loss_on == "completions",
    whole_documents=train.whole_documents,
    **where,
  )


def check_vocabulary(config: RunConfig, size: int | None = None) -> None:
  """Refuse a model that is too small for the tokenizer of the store.

  Args:
    config: the run.
    size: ids of the tokenizer; None if the store is not built.

  Raises:
    InputError: there is no such tokenizer, or it has more ids than the model.
  """
  data = config.data
  size = size or data.trained_vocabulary_size
  size = size or tokenizer.load(data.tokenizer).vocabulary_size
  if size > config.model.vocabulary_size:
    raise InputError(
      f"Model.vocabulary_size: got {config.model.vocabulary_size}, expected at least "
      f"{size}, the ids of the tokenizer of the store {data.store}"
    )


def _require(data: DataConfig, what: str, built: object, wanted: object) -> None:
  """Refuse a store that was built with other settings or from another source."""
  if built != wanted:
    raise InputError(
      f"Data.store: {data.store} was built with {what} = {built!r}, expected "
      f"{wanted!r}; name another folder, or delete this one to build it anew"
    )


def check(store: TokenStore, config: RunConfig) -> None:
  """Refuse a token store that is not the one that the configuration describes.

  Raises:
    InputError: another mixture, split or tokenizer, ids beyond the model's vocabulary,
      rates of tasks that are not there, or too little text for one window.
  """
  data, built = config.data, store.manifest
  _require(data, "mixture", built.get("mixture"), data.mixture)
  fraction = data.held_out_fraction
  _require(data, "held_out_fraction", built.get("held_out_fraction"), fraction)
  _require(data, "shards_per_task", built.get("shards_per_task"), data.shards)
  _require(data, "curated", built.get("curated"), data.curated_directory is not None)
  theirs, ids = built["tokenizer"], data.trained_vocabulary_size
  wanted = {"name": "train", "vocabulary_size": ids}
  if data.tokenizer != "train":
    wanted = {"digest": tokenizer.load(data.tokenizer).digest}
  _require(data, "tokenizer", {name: theirs[name] for name in wanted}, wanted)
  path = store.directory / tokenizer.FILE_NAME
  if not path.is_file() or tokenizer.load(str(path)).digest != theirs["digest"]:
    raise InputError(
      f"{path}: missing, or not the tokenizer that the store was made with; copy it "
      "back, or build the store again with `python -m phi1_jax.prepare`"
    )
  check_vocabulary(config, store.vocabulary_size)
  wanted = config.train.last_step * config.train.tokens_per_step
  if wanted > _MOST_PASSES * store.manifest["tokens"]:
    log.warning(
      "Train.total_steps: the run reads the %d tokens of %s %d times",
      *(store.manifest["tokens"], data.store, wanted // store.manifest["tokens"]),
    )
  batches(store, config, prefetch=0)  # checks rates and sizes when it is made


def check_current(store: TokenStore, run: Setup) -> None:
  """Refuse to begin a run on a store whose sources have changed since.

  As far as can be told without TensorFlow, and where the sets lie on this machine: with
  a `curated_directory` that holds none of them, a store is taken as it is. A run that
  goes on keeps its store. Another version of the grammar teacher is only said.

  Raises:
    InputError: a set has another version or content than the store was built from.
  """
  data = run.config.data
  if data.files:
    _check_files(store, data)
  if exists_in(run.workdir) or run.config.checkpoint.resume_from:
    return
  tasks = store.manifest["tasks"].values()
  for source in (source for task in tasks for source in task.get("sources", ())):
    name, version = source["name"], source.get("version")
    if name == grammar.NAME:
      if version != str(grammar.VERSION):
        log.warning(
          "%s was built by version %s of the grammar teacher; this is version %d",
          *(data.store, version, grammar.VERSION),
        )
      if "exercises" in source:
        wanted = data.grammar_exercises
        _require(data, "grammar_exercises", source["exercises"], wanted)
        if data.verify:
          tables = rows.digest(data.grammar_tables)
          _require(data, "tables with digest", source.get("tables"), tables)
    if data.curated_directory and source.get("content"):
      built = version, source["content"]
      now = _curated_now(storage.parse(data.curated_directory) / name) or built
      _require(data, f"{name} of version and content", built, now)


def _curated_now(folder: AnyPath) -> tuple[str, str | None] | None:
  """Return version and content of the set that a build would read, or None."""
  found = {
    tuple(map(int, path.parent.name.split("."))): path
    for path in folder.glob(f"*/{CURATED_CONTENT}")
    if re.fullmatch(r"1\.\d+\.\d+", path.parent.name)
  }
  if not found:
    return None
  newest = found[max(found)]
  return newest.parent.name, storage.read_json(newest).get("documents")


def _check_files(store: TokenStore, data: DataConfig) -> None:
  """Refuse a store of other files than `Data.files`.

  Their number and size tell; contents are read only of files changed since the build.
  """
  try:
    source = files.FileSource(data.files, data.columns)
    count, size = source.size()
  except InputError as error:
    if data.verify:
      raise InputError(
        f"{error}; or give --gin.Data.verify=False to train on the store {data.store} "
        "as it is, without its files"
      ) from None
    log.warning("%s; the store %s is taken as it is", error, data.store)
    return
  (built,) = store.manifest["tasks"]["files"]["sources"]
  now = {"files": count, "bytes": size, "columns": list(data.columns)}
  if source.newest() > storage.stat(storage.parse(data.store) / "COMPLETED")[1]:
    now |= source.describe()[0]
  known = {"columns": [], **built}
  _require(data, "Data.files", {name: known.get(name) for name in now}, now)
