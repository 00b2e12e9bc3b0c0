"""What is too close to a benchmark goes; the paper's study of tau.

  document -> evidence (references.py) -> rules (verdict.py) -> decision

Evidence does not depend on tau, so the study collects it once and decides for every
tau. Its folders `pruned-TAU` are equal to those of the stage.
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from phi1_jax import InputError, storage
from phi1_jax.curation import card, inputs, pieces, verdict
from phi1_jax.curation import folder as folders
from phi1_jax.curation.config import DecontaminateConfig
from phi1_jax.curation.document import Decision, Document, Drop, Keep, Tally
from phi1_jax.curation.engine import Engine, Ticker
from phi1_jax.curation.read import Read
from phi1_jax.curation.references import Index
from phi1_jax.curation.verdict import Evidence
from phi1_jax.storage import AnyPath

STAGE, VERSION = verdict.STAGE, 6
STUDY, TABLE = "study.json", "study.md"
_BATCH = 64


@dataclasses.dataclass(frozen=True)
class CheckpointEmbed:
  """Embeds with a model that is opened once in a process.

  Attributes:
    checkpoint: a work directory, a checkpoints folder or one step folder.
    pooling: "mean" over the tokens, or "last".
    max_length: tokens of a text that count.
  """

  checkpoint: str
  pooling: str = "mean"
  max_length: int = 512

  def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.floating]:
    """Return embeddings [texts, width]."""
    return _opened(self).embed(texts)

  @property
  def digest(self) -> str:
    """Digest of the model."""
    return _opened(self).digest


@functools.lru_cache(maxsize=1)
def _opened(named: CheckpointEmbed) -> Any:
  from phi1_jax.curation.embedding import Embedder  # it loads JAX

  return Embedder(named.checkpoint, named.pooling, named.max_length)


@functools.lru_cache(maxsize=2)
def index(benchmarks: tuple[str, ...], ngram: int, embed: Any = None) -> Index:
  """Return the index of some task sets, made once in a process."""
  return Index.of(benchmarks, ngram, embed)


def run(
  config: DecontaminateConfig,
  folder: AnyPath,
  engine: Engine,
  embed: Any = None,
  taus: Sequence[float] | None = None,
) -> dict[str, Any]:
  """Run the stage, or the paper's pruning study (section 5.2, table 3).

  Args:
    config: the settings.
    folder: the stage's folder. With `taus` it gets study.json, study.md, and a stage's
      folder `pruned-TAU` for each tau.
    engine: where the tasks run; with embeddings in this process.
    embed: texts to embeddings [texts, dimensions], such as `CheckpointEmbed`.
    taus: AST match rates of the study; None runs the stage.

  Returns:
    The content of stats.json. That of a study has `rows`: for each tau `tau`, `read`,
    `removed`, `share`, `reasons`, and under `benchmarks` for each task set the ids of
    the problems with a close match (`similar`) and how many have none (`non_similar`).

  Raises:
    InputError: the folder is of something else, an input or a benchmark cannot be read,
      or a tau is no share, or there twice.
  """
  if embed is not None and config.distance is None:
    raise InputError(
      "Decontaminate.distance: got None, expected the largest distance of a candidate; "
      "a checkpoint to embed with is given, so give a distance too"
    )
  _check_taus(taus)
  settings = _settings(config, embed)
  name = STAGE if taus is None else f"{STAGE}-study"
  if taus is not None:
    settings = {k: v for k, v in settings.items() if k != "tau"} | {"taus": list(taus)}
  if folders.begin(folder, name, settings):
    return folders.read_stats(folder)
  facts: dict[str, Any] = {}
  places = {config.tau: folder}
  if taus is not None:
    places = {tau: folder / f"pruned-{tau:g}" for tau in taus}
    for tau, place in places.items():
      each = dataclasses.replace(config, tau=tau)
      folders.begin(place, STAGE, _settings(each, embed))
  with folders.measured(facts):
    work = folder / folders.ENGINE
    tasks, total = inputs.prepare(
      work, "Decontaminate.inputs", config.inputs, engine.count
    )
    judging = Judging(config, folder, tuple(places.items()), embed)
    steps = [Read(work / "plan"), judging]
    engine.run(folder, "judge", steps, tasks, total, one_process=embed is not None)
    facts["lineage"] = inputs.lineage(config.inputs)
  stats = {t: _finish(work, t, p, tasks, dict(facts)) for t, p in places.items()}
  if taus is None:
    return stats[config.tau]
  found = index(tuple(config.benchmarks), config.ngram, embed)
  rows = [_row(tau, stats[tau], places[tau], found) for tau in taus]
  return _finish_study(folder, name, facts, rows)


def _finish_study(
  folder: AnyPath, name: str, facts: dict[str, Any], rows: list[dict[str, Any]]
) -> dict[str, Any]:
  storage.write_json(folder / STUDY, {"rows": rows})
  storage.write_text(folder / TABLE, table(rows))
  return folders.finish(folder, name, {}, {**facts, "rows": rows})


def _finish(
  work: AnyPath, tau: float, place: AnyPath, tasks: int, facts: dict[str, Any]
) -> dict[str, Any]:
  if storage.exists(place / folders.COMPLETED):  # before a study was killed
    return folders.read_stats(place)
  tally = Tally()
  for rank in range(tasks):
    tally.merge(storage.read_json(work / "tallies" / f"{tau:g}-{rank:05d}.json"))
  return folders.finish(place, STAGE, tally.stats(), facts)


@dataclasses.dataclass(frozen=True)
class Judging:
  """A step: documents to the files of the decisions at each tau.

  Attributes:
    config: the settings.
    folder: the stage's folder.
    places: each tau, and the folder of its files.
    embed: as for `run`.
  """

  config: DecontaminateConfig
  folder: AnyPath
  places: tuple[tuple[float, AnyPath], ...]
  embed: Any

  def __call__(
    self, data: Iterable[Decision], rank: int, world_size: int
  ) -> Iterator[Tally]:
    """Write the files of a task."""
    tick = Ticker(self.folder, "judge", rank)
    found = self._evidence(data)
    work = self.folder / folders.ENGINE
    several = len(self.places) > 1
    judged = list(found) if several else found  # of one task, for several taus
    for tau, place in self.places:
      decided = (self._decide(each, evidence, tau) for each, evidence in judged)
      tally = folders.write(place, decided, rank, world_size, tick)
      (work / "tallies").mkdir(parents=True, exist_ok=True)
      name = f"{tau:g}-{rank:05d}.json"
      storage.write_json(work / "tallies" / name, tally.record())
    tick.flush()
    yield Tally()

  def _index(self) -> Index:
    return index(tuple(self.config.benchmarks), self.config.ngram, self.embed)

  def _evidence(
    self, data: Iterable[Decision]
  ) -> Iterator[tuple[Decision, list[Evidence]]]:
    made, least = self._index(), min(tau for tau, _ in self.places)
    for batch in _batches(data, _BATCH if self.embed else 1):
      near = self._near([each.document.text for each in batch])
      for decision, close in zip(batch, near, strict=True):
        if isinstance(decision, Drop):
          yield decision, []
        else:
          yield decision, made.evidence(decision.document.text, least, close)

  def _near(self, texts: Sequence[str]) -> Sequence[dict[int, float] | None]:
    if self.embed is None:
      return [None] * len(texts)
    return self._index().near(texts, self.embed, self.config.distance or 0.0)

  def _decide(
    self, decision: Decision, evidence: Sequence[Evidence], tau: float
  ) -> Decision:
    if isinstance(decision, Drop):
      return decision
    made = verdict.decide(decision.document, evidence, tau)
    if isinstance(made, Drop) and self.config.cut == "function":
      return self._cut(decision.document, made, tau)
    return made

  def _cut(self, document: Document, dropped: Drop, tau: float) -> Decision:
    """Return the document without the parts that are too close, or the drop."""

    def decided(text: str) -> Decision:
      found = self._index().evidence(text, tau, self._near([text])[0])
      return verdict.decide(dataclasses.replace(document, text=text), found, tau)

    cut = pieces.without(document.text, lambda text: isinstance(decided(text), Drop))
    kept = decided(cut.text) if cut else dropped
    if cut is None or isinstance(kept, Drop):
      return dropped
    facts = {"reason": dropped.reason, "parts": cut.names, **dropped.evidence}
    return Keep(kept.document.noted("cut", facts))


def _batches(data: Iterable[Decision], size: int) -> Iterator[list[Decision]]:
  batch: list[Decision] = []
  for decision in data:
    batch.append(decision)
    if len(batch) == size:
      yield batch
      batch = []
  if batch:
    yield batch


def table(rows: Sequence[dict[str, Any]]) -> str:
  """Return the rows of a study as a Markdown table."""
  names = list(rows[0]["benchmarks"]) if rows else []
  head = ["tau", "removed", "share"]
  head += [f"{name}: {kind}" for name in names for kind in ("similar", "non-similar")]
  lines = []
  for row in rows:
    line = [f"{row['tau']:g}", f"{row['removed']:,} of {row['read']:,}"]
    line.append(f"{row['share']:.1%}")
    for name in names:
      found = row["benchmarks"][name]
      line += [str(len(found["similar"])), str(found["non_similar"])]
    lines.append(line)
  return card.table(head, lines)


def _settings(config: DecontaminateConfig, embed: Any) -> dict[str, Any]:
  return {
    **dataclasses.asdict(config),
    "version": VERSION,
    "problems": index(tuple(config.benchmarks), config.ngram, embed).digest,
    "embedding": getattr(embed, "digest", None),
    "read": inputs.identity(config.inputs),
  }


def _row(
  tau: float, stats: dict[str, Any], folder: AnyPath, found: Index
) -> dict[str, Any]:
  similar = convicting(folder)
  dropped = stats["dropped"].items()
  reasons = {name: count for name, count in dropped if name in verdict.REASONS}
  removed = sum(reasons.values())
  read_in = stats["kept"] + removed
  return {
    "tau": tau,
    "read": read_in,
    "removed": removed,
    "share": removed / read_in if read_in else 0.0,
    "reasons": reasons,
    "benchmarks": {
      name: {
        "similar": sorted(similar & ids),
        "non_similar": len(ids - similar),
      }
      for name, ids in found.ids().items()
    },
  }


def convicting(folder: AnyPath) -> set[str]:
  """Return the ids of all problems because of which a stage dropped something."""
  found: set[str] = set()
  for drop in folders.dropped(folder):
    if drop.reason in verdict.REASONS:
      found.update(drop.evidence["problems"])
  return found


def _check_taus(taus: Sequence[float] | None) -> None:
  if taus is None:
    return
  different = {f"{tau:g}" for tau in taus}  # the names of their folders
  if not taus or len(different) != len(taus) or not all(0 < tau < 1 for tau in taus):
    raise InputError(
      f"--tau: got {', '.join(map(str, taus)) or 'nothing'}, expected different "
      "numbers between 0 and 1, such as 0.95,0.9,0.85,0.8"
    )
