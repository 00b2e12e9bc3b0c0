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
import pickle
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pvalue import PBegin, PCollection

from phi1_jax import InputError
from phi1_jax.curation import folder as folders
from phi1_jax.curation import read
from phi1_jax.curation.document import Decision, Tally

LOCAL = "FnApiRunner"
# Beam finds a runner of its own by a short name; this one it does not.
_LONG_NAMES = {"DaskRunner": "apache_beam.runners.dask.dask_runner.DaskRunner"}
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
      InputError: Beam knows no such runner, or its package is not installed.
    """
    try:
      flags = [f"--runner={_LONG_NAMES.get(self.name, self.name)}", *self.options]
      made = beam.Pipeline(options=PipelineOptions(flags))
    except (ValueError, ImportError, AttributeError) as error:
      raise InputError(f"--runner: got {self.name!r} ({error})") from None
    with _shown(self.bar), made:
      yield made


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
  """How many documents have come to the end of a pipeline in this process."""

  documents = 0


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


class Write(beam.PTransform):
  """Decisions to the files of a stage; `total` counts them afterwards.

  Args:
    folder: the stage's folder, which every worker can write to.
    shards: number of files.
  """

  def __init__(self, folder: Path, shards: int):
    super().__init__()
    self._folder, self._shards = folder, shards

  def expand(self, pcoll: PCollection[Decision]) -> Any:
    """Groups by shard, sorts, writes."""
    shards = self._shards
    empty = pcoll.pipeline | "EveryShard" >> beam.Create(
      [(n, b"") for n in range(shards)]
    )
    keyed = pcoll | "Shard" >> beam.Map(lambda d: (_shard(d, shards), pickle.dumps(d)))
    return (
      (keyed, empty)
      | beam.Flatten()
      | beam.GroupByKey()
      | beam.Map(functools.partial(_write, self._folder, shards))
    )


def _shard(decision: Decision, shards: int) -> int:
  _Through.documents += 1
  digest = hashlib.sha256(decision.document.id.encode("utf-8", "surrogatepass"))
  return int.from_bytes(digest.digest()[:8], "big") % shards


def _write(folder: Path, shards: int, keyed: tuple[int, Iterable[bytes]]) -> int:
  shard, pickled = keyed
  decisions = [pickle.loads(content) for content in pickled if content]
  counts = folders.write(folder, sorted(decisions, key=order), shard, shards)
  _counts(folder, shard).write_bytes(pickle.dumps(counts))
  return len(decisions)


def total(folder: Path, shards: int) -> Tally:
  """The counts of what `Write` wrote, which it left beside its files."""
  counts = Tally()
  for shard in range(shards):
    counts.add_all(pickle.loads(_counts(folder, shard).read_bytes()))
    _counts(folder, shard).unlink()
  return counts


def _counts(folder: Path, shard: int) -> Path:
  return folder / f".counts-{shard:05d}.pickle"


def order(decision: Decision) -> tuple[str, str, str]:
  """Sorts decisions alike on every runner, also those about copies of one document."""
  document, reason = decision.document, getattr(decision, "reason", "")
  return document.id, reason, repr(document.provenance)
