"""Token store of a run: built if it is missing, opened, and checked."""

import importlib.util
import logging
import re
from collections.abc import Mapping
from typing import Any

from phi1_jax import InputError, grammar, how_to_install, storage
from phi1_jax.checkpoint import manager
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
  with hosts.shared_errors(
    "building the token store", limit=_BUILD_SECONDS, waiting=stop.noticed
  ):
    if hosts.is_first() and not storage.exists(place / "COMPLETED"):
      check_vocabulary(run.config)
      built = _build(data, stop)
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


def _build(data: DataConfig, stop: StopSignal) -> bool:
  """Build the token store in a child, so that this process never loads TensorFlow."""
  if data.needs_seqio and importlib.util.find_spec("seqio") is None:
    raise InputError(
      f"Data.store: {data.store} is not built, and building it needs seqio: "
      f"{how_to_install('data')}, or copy a store here"
    )
  bindings = gin_config.text({"Data": data}).splitlines()
  flags = [f"--gin.{line.replace(' = ', '=', 1)}" for line in bindings]
  doing = f"building the token store {data.store}"
  print(f"{doing} from {data.origin}", flush=True)
  return child.run("phi1_jax.prepare", flags, stop.noticed, doing)


def check(store: TokenStore, config: RunConfig) -> None:
  """Refuse a token store that is not the one that the configuration describes.

  Raises:
    InputError: another mixture, split or tokenizer, ids beyond the model's vocabulary,
      rates of tasks that are not there, or too little text for one window.
  """
  data = config.data
  wanted = {
    "mixture": data.mixture,
    "held_out_fraction": data.held_out_fraction,
    "shards_per_task": data.shards,
    "curated": data.curated_directory is not None,
  }
  for name, value in wanted.items():
    if (built := store.manifest.get(name)) != value:
      raise _another(data, f"with {name} = {built!r}, expected {value!r}")
  _check_tokenizer(store, data)
  _check_vocabulary(store.vocabulary_size, config)
  batches(store, config, prefetch=0)  # checks rates and sizes when it is made


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


def check_vocabulary(config: RunConfig) -> None:
  """Refuse a model that is too small for the tokenizer of a store that is not built.

  Raises:
    InputError: there is no such tokenizer, or it has more ids than the model.
  """
  data = config.data
  size = data.trained_vocabulary_size
  _check_vocabulary(size or tokenizer.load(data.tokenizer).vocabulary_size, config)


def _check_vocabulary(size: int, config: RunConfig) -> None:
  if size > config.model.vocabulary_size:
    raise InputError(
      f"Model.vocabulary_size: got {config.model.vocabulary_size}, expected at least "
      f"{size}, the ids of the tokenizer of the store {config.data.store}"
    )


def _another(data: DataConfig, how: str) -> InputError:
  return InputError(
    f"Data.store: {data.store} was built {how}; name another folder, or delete this "
    "one to build it anew"
  )


def _check_tokenizer(store: TokenStore, data: DataConfig) -> None:
  theirs = store.manifest["tokenizer"]
  name, size = theirs["name"], theirs["vocabulary_size"]
  if data.tokenizer == "train":
    same = (name, size) == ("train", data.trained_vocabulary_size)
    wanted = f"one trained on it with {data.trained_vocabulary_size} ids"
  else:
    same = theirs["digest"] == tokenizer.load(data.tokenizer).digest
    wanted = repr(data.tokenizer)
  if not same:
    got = f"got {name!r} with {size} ids, expected {wanted}"
    raise _another(data, f"with another tokenizer: {got}")
  path = store.directory / tokenizer.FILE_NAME
  if not path.is_file() or tokenizer.load(str(path)).digest != theirs["digest"]:
    raise InputError(
      f"{path}: missing, or not the tokenizer that the store was made with; copy it "
      "back, or build the store again with `python -m phi1_jax.prepare`"
    )


def check_current(store: TokenStore, run: Setup) -> None:
  """Refuse to begin a run on a store whose sources have changed since.

  As far as can be told without TensorFlow, and where the sets lie on this machine: with
  a `curated_directory` that holds none of them, a store is taken as it is. A run that
  goes on keeps its store. Another version of the grammar teacher is only said.

  Raises:
    InputError: a set has another version or content than the store was built from.
  """
  data = run.config.data
  _check_files(store, data)
  if manager.holds_checkpoint(run.workdir) or run.config.checkpoint.resume_from:
    return
  for task in store.manifest["tasks"].values():
    for source in task.get("sources", ()):
      name, built = source["name"], (source.get("version"), source.get("content"))
      if name == grammar.NAME and built[0] != str(grammar.VERSION):
        log.warning(
          "%s was built by version %s of the grammar teacher; this is version %d",
          *(data.store, built[0], grammar.VERSION),
        )
      if name == grammar.NAME and "exercises" in source and not data.modules:
        _check_exercises(source, data)
      if data.curated_directory and built[1]:
        now = _curated_now(storage.parse(data.curated_directory) / name) or built
        if now != built:
          raise InputError(
            f"Data.store: {data.store} was built from {name} {built[0]}, now there is "
            f"{now[0]}{' with other content' * (now[0] == built[0])}; name another "
            "store to build it anew, or the folder that holds the old set with "
            "Data.curated_directory"
          )


def _check_exercises(built: Mapping[str, Any], data: DataConfig) -> None:
  """Refuse a store of other exercises of the grammar teacher."""
  number = data.grammar_exercises
  if built["exercises"] != number:
    got = f"{built['exercises']:,} exercises"
    raise _another(data, f"with {got}, expected Data.grammar_exercises={number:,}")
  if data.verify and built.get("tables") != rows.digest(data.grammar_tables):
    raise _another(data, "from other tables than Data.grammar_tables has now")


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
  if not data.files:
    return
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
  if (built["files"], built["bytes"]) != (count, size):
    got = f"{built['files']:,} files of {built['bytes']:,} bytes"
    raise _another(data, f"from {got}, Data.files are {count:,} of {size:,}")
  if (columns := built.get("columns", [])) != list(data.columns):
    raise _another(data, f"with Data.columns {columns}, expected {list(data.columns)}")
  finished = storage.stat(storage.parse(data.store) / "COMPLETED")[1]
  if source.newest() > finished and source.describe() != [built]:
    raise _another(data, "from Data.files, of which some have changed since")
