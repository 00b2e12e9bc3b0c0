"""What every Beam pipeline of curation shares: where it runs, how it reads and writes.

Locally that is FnApiRunner in this process, on a cluster any other runner by name. A
pipeline's files do not depend on the runner: a document goes to the shard that its id
names, and a shard is written in the order of the ids.
"""

from __future__ import annotations

import dataclasses
import functools
import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pvalue import PBegin, PCollection

from phi1_jax import InputError
from phi1_jax.curation import folder as folders
from phi1_jax.curation import read
from phi1_jax.curation.document import Decision, Tally

LOCAL = "FnApiRunner"


@dataclasses.dataclass(frozen=True)
class Runner:
  """Where a pipeline runs.

  Attributes:
    name: Beam's name of the runner. `DirectRunner` would look for a binary on the
      network first; FnApiRunner is what it falls back to.
    options: further pipeline options, such as "--region=europe-west4".
  """

  name: str = LOCAL
  options: tuple[str, ...] = ()

  def pipeline(self) -> beam.Pipeline:
    """A new pipeline.

    Raises:
      InputError: Beam knows no such runner, or its package is not installed.
    """
    try:
      flags = [f"--runner={self.name}", *self.options]
      return beam.Pipeline(options=PipelineOptions(flags))
    except (ValueError, ImportError, AttributeError) as error:
      raise InputError(f"--runner: got {self.name!r} ({error})") from None


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
  return int(decision.document.id[:8], 16) % shards


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
