"""What every Beam pipeline of curation shares: where it runs, how it reads and writes.

Locally that is FnApiRunner in this process, on a cluster any other runner by name. A
pipeline's files do not depend on the runner: a document goes to the shard that its id
names, and a shard is written in the order of the ids.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import logging
import pickle
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pvalue import PBegin, PCollection

from phi1_jax import InputError, storage
from phi1_jax.curation import folder as folders
from phi1_jax.curation import read
from phi1_jax.curation.document import Decision, Drop, Tally

LOCAL = "FnApiRunner"
# Beam finds a runner of its own by a short name; this one it does not.
_LONG_NAMES = {"DaskRunner": "apache_beam.runners.dask.dask_runner.DaskRunner"}
# What Beam adds to the message of an error.
_STEP = re.compile(r"(?: \[while running '[^']*'\])+$")
_PARTS = 16  # of a shard, each of which a worker holds while it makes batches
_SECONDS = 1.0  # between two looks at how many documents are through


class Bar(Protocol):
  """What counts documents before a person's eyes; a context manager."""

  def __enter__(self) -> Bar:
    """Begins."""
    ...

  def __exit__(self, *exception: object) -> None:
    """Ends."""
    ...

  def update(self, count: int) -> None:
    """So many more are through."""
    ...


@dataclasses.dataclass(frozen=True)
class Runner:
  """Where a pipeline runs.

  Attributes:
    name: Beam's name of the runner. `DirectRunner` would look for a binary on the
      network first; FnApiRunner is what it falls back to.
    options: further pipeline options, such as "--region=europe-west4".
    bar: makes a bar that shows how many documents are through; workers elsewhere do
      not move it.
  """

  name: str = LOCAL
  options: tuple[str, ...] = ()
  bar: Callable[[], Bar] | None = None

  @contextlib.contextmanager
  def pipeline(self) -> Iterator[beam.Pipeline]:
    """A new pipeline, which runs when the context ends.

    Raises:
      InputError: Beam knows no such runner or no such option, or the runner's package
        is not installed; or a step of the pipeline raised it.
    """
    flags = [f"--runner={_LONG_NAMES.get(self.name, self.name)}", *self.options]
    with _told_once():
      try:
        with _refused_options(flags):
          made = beam.Pipeline(options=PipelineOptions(flags))
          unknown = _unknown(made, self.options)
      except (ValueError, ImportError, AttributeError) as error:
        if isinstance(error, InputError):
          raise
        raise InputError(f"--runner: got {self.name!r} ({error})") from None
      if unknown:
        raise InputError(
          f"--beam_option: got {', '.join(unknown)}, expected --NAME=VALUE with the "
          f"name of an option that Beam's {self.name} has"
        )
      with _shown(self.bar), made:
        yield made


def _unknown(made: beam.Pipeline, flags: Sequence[str]) -> list[str]:
  """The options that Beam would leave out without a word."""
  from apache_beam.runners.portability.portable_runner import PortableRunner

  wrong = [flag for flag in flags if not flag.startswith("--")]
  if isinstance(made.runner, PortableRunner):
    return wrong  # its job server has options of its own
  # Known by now are those that the runner's module brought along.
  known = PipelineOptions([]).get_all_options()
  given = PipelineOptions(list(flags)).get_all_options(retain_unknown_options=True)
  return [*wrong, *(f"--{name}" for name in sorted(given.keys() - known.keys()))]


@contextlib.contextmanager
def _refused_options(flags: Sequence[str]) -> Iterator[None]:
  """Turns what Beam's parser exits with into one line, without Beam's usage."""
  said = io.StringIO()
  try:
    with contextlib.redirect_stderr(said):
      yield
  except SystemExit as error:
    if not error.code:  # it was asked for --help
      raise
    why = said.getvalue().strip().rpartition("error: ")[2]
    raise InputError(f"--beam_option: got {' '.join(flags[1:])} ({why})") from None


@contextlib.contextmanager
def _told_once() -> Iterator[None]:
  """Lets an InputError of a step out as it was raised, and Beam not log it."""
  log = logging.getLogger("apache_beam.runners.common")

  def keep(record: logging.LogRecord) -> bool:
    return not isinstance(record.msg, InputError)

  log.addFilter(keep)
  try:
    yield
  except InputError as error:
    raise InputError(_STEP.sub("", str(error))) from None
  finally:
    log.removeFilter(keep)


@contextlib.contextmanager
def _shown(make: Callable[[], Bar] | None) -> Iterator[None]:
  """Moves a bar while this process writes documents."""
  if make is None:
    yield
    return
  ended = threading.Event()
  with make() as bar:

    def watch() -> None:
      seen, last = _Through.documents, False
      while not last:
        last = ended.wait(_SECONDS)
        now = _Through.documents
        bar.update(now - seen)
        seen = now

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
      yield
    finally:
      ended.set()
      watcher.join()


class _Through:
  """How many documents the slowest part of a pipeline has seen in this process."""

  documents = 0


def through(count: int) -> None:
  """Moves the bar: so many more documents are through the slowest part."""
  _Through.documents += count


class Read(beam.PTransform):
  """Inputs to decisions: what can be read, and why the rest cannot.

  Args:
    inputs: as `read.places` takes them.
  """

  def __init__(self, inputs: Sequence[str]):
    super().__init__()
    self._places = [place for wanted in inputs for place in read.places(wanted)]

  def expand(self, pbegin: PBegin) -> Any:
    """One element per place, spread over the workers, then read."""
    return (
      pbegin
      | "Places" >> beam.Create(self._places)
      | "Spread" >> beam.Reshuffle()
      | "Documents" >> beam.FlatMap(read.documents)
    )


class Batches(beam.PTransform):
  """Decisions to lists of decisions that depend on the input alone, on no runner.

  What a model computes for a document depends in its last digits on the batch, so one
  result everywhere needs the same batches everywhere. A worker holds a part of a shard
  in memory.

  Args:
    size: most decisions in a list.
    shards: files of the result; one of them makes 16 parts.
  """

  def __init__(self, size: int, shards: int):
    super().__init__()
    self._size, self._parts = size, shards * _PARTS

  def expand(self, pcoll: PCollection[Decision]) -> Any:
    """Groups by part, sorts, cuts."""
    parts = self._parts
    return (
      pcoll
      | "Part" >> beam.Map(lambda d: (_place(d) % parts, pickle.dumps(d)))
      | "Parts" >> beam.GroupByKey()
      | "Cut" >> beam.FlatMap(_cut, self._size)
    )


def _cut(part: tuple[int, Iterable[bytes]], size: int) -> Iterator[list[Decision]]:
  ordered = sorted(map(pickle.loads, part[1]), key=order)
  for start in range(0, len(ordered), size):
    yield ordered[start : start + size]


class Write(beam.PTransform):
  """Decisions to the files of a stage; `total` counts them afterwards.

  A worker sorts a shard in memory: it holds all documents of one shard at once, and
  once more pickled, about twice the size of the input by the number of shards.

  Args:
    folder: the stage's folder, which every worker can write to.
    shards: number of files.
    slowest: whether what comes before takes the time; else who takes it says `through`.
  """

  def __init__(self, folder: Path, shards: int, slowest: bool = True):
    super().__init__()
    self._folder, self._shards, self._slowest = folder, shards, slowest

  def expand(self, pcoll: PCollection[Decision]) -> Any:
    """Groups by shard, sorts, writes."""
    shards, count = self._shards, int(self._slowest)
    empty = pcoll.pipeline | "EveryShard" >> beam.Create(
      [(n, b"") for n in range(shards)]
    )
    keyed = pcoll | "Shard" >> beam.Map(functools.partial(_keyed, shards, count))
    return (
      (keyed, empty)
      | beam.Flatten()
      | beam.GroupByKey()
      | beam.Map(functools.partial(_write, self._folder, shards))
    )


def _keyed(shards: int, count: int, decision: Decision) -> tuple[int, bytes]:
  through(count)
  return _place(decision) % shards, pickle.dumps(decision)


def _place(decision: Decision) -> int:
  digest = hashlib.sha256(decision.document.id.encode("utf-8", "surrogatepass"))
  return int.from_bytes(digest.digest()[:8], "big")


def _write(folder: Path, shards: int, keyed: tuple[int, Iterable[bytes]]) -> int:
  shard, pickled = keyed
  decisions = [pickle.loads(content) for content in pickled if content]
  counts = folders.write(folder, sorted(decisions, key=order), shard, shards)
  storage.write_json(_counts(folder, shard), _as_record(counts))
  return len(decisions)


def total(folder: Path, shards: int) -> Tally:
  """The counts of what `Write` wrote, which it left beside its files."""
  counts = Tally()
  for shard in range(shards):
    counts.add_all(_as_tally(storage.read_json(_counts(folder, shard))))
    _counts(folder, shard).unlink()
  return counts


def _counts(folder: Path, shard: int) -> Path:
  return folder / f".counts-{shard:05d}.json"


def _as_record(counts: Tally) -> dict[str, Any]:
  dropped = [[*names, count] for names, count in counts.dropped.items()]
  return {**vars(counts), "dropped": dropped}


def _as_tally(record: dict[str, Any]) -> Tally:
  counts = Tally()
  for name in ("kept", "licences", "kinds"):
    getattr(counts, name).update(record[name])
  for source, reason, count in record["dropped"]:
    counts.dropped[source, reason] += count
  counts.characters = record["characters"]
  return counts


def order(decision: Decision) -> tuple[str, bytes]:
  """Sorts decisions alike on every runner, also those about copies of one document."""
  dropped = isinstance(decision, Drop)
  record = decision.record() if dropped else decision.document.record()
  return decision.document.id, folders.line(record)
