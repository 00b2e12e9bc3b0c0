"""Checks before the work starts of what would otherwise fail in the middle of it."""

import itertools
import logging
import re
import time

from phi1_jax import InputError, grammar, storage
from phi1_jax.checkpoint import description, manager
from phi1_jax.data import files
from phi1_jax.data.config import CURATED_CONTENT, DataConfig
from phi1_jax.data.loader import train_batches
from phi1_jax.data.token_store import TokenStore
from phi1_jax.parallel import hosts
from phi1_jax.storage import AnyPath, lease
from phi1_jax.text import tokenizer
from phi1_jax.training.setup import RunConfig, Setup

log = logging.getLogger(__name__)


# A network file system may show a new file to other hosts a minute late.
SHARED_SECONDS = 60.0


def check_shared(workdir: AnyPath, token: str | None) -> None:
  """Refuse a work directory that is not the same folder on all hosts.

  Args:
    workdir: the folder, which host 0 has locked.
    token: of host 0's lock; ignored on other hosts.

  Raises:
    InputError: this host, or another one, does not see host 0's lock.
  """
  token = hosts.exchange("the work directory's lock", token)[0]
  with hosts.shared_errors("sharing the work directory"):
    deadline = time.monotonic() + SHARED_SECONDS
    while lease.token(workdir) != token:
      if time.monotonic() > deadline:
        raise InputError(
          f"--workdir: host {hosts.index()} has another {storage.full(workdir)} than "
          "host 0; expected a folder on a file system that all hosts share, or gs://"
        )
      time.sleep(0.1)


def check_same_config(text: str) -> None:
  """Refuse a host that was started with another configuration than host 0."""
  first = hosts.exchange("comparing configurations", text)[0].splitlines()
  with hosts.shared_errors("the configuration"):
    for ours, theirs in itertools.zip_longest(text.splitlines(), first):
      if ours != theirs:
        raise InputError(
          f"host {hosts.index()} was started with {ours}, host 0 with {theirs}; "
          "expected the same gin files and flags on all hosts"
        )


def check_start(setup: Setup) -> None:
  """Refuse a `resume_from` or `init_from` that holds no checkpoint of this model.

  A run that goes on from its own work directory needs neither any more.
  """
  config = setup.config.checkpoint
  if not manager.holds_checkpoint(setup.workdir):
    for place in filter(None, (config.resume_from, config.init_from)):
      found = manager.find(place)
      wanted = {"model_shape": setup.config.model.shape()}
      manager.check_meta(found, description.read_meta(found), wanted)


def check_store(store: TokenStore, config: RunConfig) -> None:
  """Refuse a token store that is not the one that the configuration describes.

  Raises:
    InputError: another mixture, split or tokenizer, ids beyond the model's vocabulary,
      rates of tasks that are not there, or too little text for one window.
  """
  data, train = config.data, config.train
  _check_contents(store, data)
  _check_tokenizer(store, data)
  if store.vocabulary_size > config.model.vocabulary_size:
    raise InputError(
      f"Model.vocabulary_size: got {config.model.vocabulary_size}, but the store "
      f"{data.store} holds ids up to {store.vocabulary_size - 1}; expected at least "
      f"{store.vocabulary_size}"
    )
  train_batches(  # it checks rates and sizes when it is made
    store,
    batch_size=train.batch_size,
    sequence_length=train.sequence_length,
    seed=train.seed,
    rates=data.rates,
    completions_only=data.loss_on == "completions",
    prefetch=0,
  )


def check_current(store: TokenStore, setup: Setup) -> None:
  """Refuse to begin a run on a store whose sources have changed since.

  As far as can be told without TensorFlow, and where the sets lie on this machine: with
  a `curated_directory` that holds none of them, a store is taken as it is. A run that
  goes on keeps its store. Another version of the grammar teacher is only said.

  Raises:
    InputError: a set has another version or content than the store was built from.
  """
  data = setup.config.data
  _check_files(store, data)
  if manager.holds_checkpoint(setup.workdir) or setup.config.checkpoint.resume_from:
    return
  for task in store.manifest["tasks"].values():
    for source in task.get("sources", ()):
      name, built = source["name"], (source.get("version"), source.get("content"))
      if name == grammar.NAME and built[0] != str(grammar.VERSION):
        log.warning(
          "%s was built by version %s of the grammar teacher; this is version %d",
          *(data.store, built[0], grammar.VERSION),
        )
      if data.curated_directory and built[1]:
        now = _curated_now(storage.parse(data.curated_directory) / name) or built
        if now != built:
          raise InputError(
            f"Data.store: {data.store} was built from {name} {built[0]}, now there is "
            f"{now[0]}{' with other content' * (now[0] == built[0])}; name another "
            "store to build it anew, or the folder that holds the old set with "
            "Data.curated_directory"
          )


def _check_files(store: TokenStore, data: DataConfig) -> None:
  """Refuse a store of other files than `Data.files`.

  Their number and size tell; contents are read only of files changed since the build.
  """
  if not data.files:
    return
  try:
    source = files.FileSource(data.files, data.columns)
    now = source.size()
  except InputError as error:
    if data.verify:
      raise InputError(
        f"{error}; or give --gin.Data.verify=False to train on the store {data.store} "
        "as it is, without its files"
      ) from None
    log.warning("%s; the store %s is taken as it is", error, data.store)
    return
  (built,) = store.manifest["tasks"]["files"]["sources"]
  if (built["files"], built["bytes"]) != now:
    raise InputError(
      f"Data.store: {data.store} was built from {built['files']:,} files of "
      f"{built['bytes']:,} bytes, Data.files are {now[0]:,} of {now[1]:,}; name "
      "another folder, or delete this one to build it anew"
    )
  if built.get("columns", []) != list(data.columns):
    raise InputError(
      f"Data.columns: {data.store} was built with {built.get('columns', [])}, got "
      f"{list(data.columns)}; name another store, or delete this one to build it anew"
    )
  finished = storage.stat(storage.parse(data.store) / "COMPLETED")[1]
  if source.newest() > finished and source.describe() != [built]:
    raise InputError(
      f"Data.store: {data.store} was built from Data.files, of which some have changed "
      "since; name another folder, or delete this one to build it anew"
    )


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


def _check_contents(store: TokenStore, data: DataConfig) -> None:
  wanted = {
    "mixture": data.mixture,
    "held_out_fraction": data.held_out_fraction,
    "shards_per_task": data.shards,
    "curated": data.curated_directory is not None,
  }
  for name, value in wanted.items():
    if store.manifest.get(name) != value:
      raise InputError(
        f"Data.store: {data.store} was built with {name} = "
        f"{store.manifest.get(name)!r}, expected {value!r}; name another folder, or "
        "delete this one to build it anew"
      )


def _check_tokenizer(store: TokenStore, data: DataConfig) -> None:
  theirs = store.manifest["tokenizer"]
  if data.tokenizer == "train":
    size = data.trained_vocabulary_size
    same = theirs["name"] == "train" and theirs["vocabulary_size"] == size
    wanted = f"one trained on it with {size} ids"
  else:
    same = theirs["digest"] == tokenizer.load(data.tokenizer).digest
    wanted = repr(data.tokenizer)
  if not same:
    raise InputError(
      f"Data.store: {data.store} was made with another tokenizer: got "
      f"{theirs['name']!r} with {theirs['vocabulary_size']} ids, expected {wanted}"
    )
  path = store.directory / tokenizer.FILE_NAME
  if not path.is_file() or tokenizer.load(str(path)).digest != theirs["digest"]:
    raise InputError(
      f"{path}: missing, or not the tokenizer that the store was made with; copy it "
      "back, or build the store again with `python -m phi1_jax.prepare`"
    )
