"""Educational value of a sample of raw code, as the paper had GPT-4 annotate it.

  sample   the documents of the least ids, which are hashes, of each task's part
  judge    those of the least ids of all, in chunks

A judge gives each document a score from 0 to 5. A second pass over some of them, and
labels of another judge, show how far the scores can be trusted. The second pass of an
LLM has the temperature `Annotate.second_temperature`: at 0 it would measure only how
far the server repeats itself.
"""

import dataclasses
import heapq
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from phi1_jax import InputError, storage
from phi1_jax.curation import folder as folders
from phi1_jax.curation import form, inputs, local_judge
from phi1_jax.curation.config import AnnotateConfig
from phi1_jax.curation.document import Decision, Document, Drop, Keep, Tally
from phi1_jax.curation.engine import Engine, Ticker, Write
from phi1_jax.curation.prompt import Prompt
from phi1_jax.curation.read import Read
from phi1_jax.curation.replies import Replies
from phi1_jax.llm.conversation import Answered, Malformed
from phi1_jax.llm.request import Request
from phi1_jax.storage import AnyPath

STAGE, VERSION = "annotate", 2
PLACES = frozenset(("code", "cut"))
SCALE = "0 (of no use) to 5 (like a page of a good textbook)"
_CHUNK, _LLM_CHUNK = 250, 10_000  # documents that a task judges


@dataclasses.dataclass(frozen=True)
class Judgement:
  """A judge's score of a document.

  Attributes:
    score: from 0 to 5; None if no usable answer came.
    reason: the judge's own words, or why there is no score.
    facts: for the provenance: judge, model, prompt, request.
  """

  score: float | None
  reason: str
  facts: dict[str, Any]


class Judge(Protocol):
  """Gives scores."""

  @property
  def varies(self) -> bool:
    """Whether a second pass may give other scores, and needs this process."""
    ...

  def identity(self) -> dict[str, Any]:
    """Return what decides the scores beside the stage's own settings."""
    ...

  def facts(self) -> dict[str, Any]:
    """Return entries of stats and cards: "models", "prompts", "cost"."""
    ...

  def scores(self, documents: Sequence[Document], sample: int) -> Iterator[Judgement]:
    """Yield a judgement per document, in order; another sample is another try."""
    ...


def run(
  config: AnnotateConfig, folder: AnyPath, engine: Engine, judge: Judge
) -> dict[str, Any]:
  """Score a sample; return the stats.

  Args:
    config: the inputs, and the size of the sample.
    folder: the stage's folder; complete, it is only read.
    engine: where the tasks run; an LLM is asked from this process.
    judge: gives the scores.

  Raises:
    InputError: an input is not there, the folder was begun with other settings, or
      `compare_with` has no labels.
    EmptyError: no document got a score.
  """
  settings = {**dataclasses.asdict(config), "version": VERSION, **judge.identity()}
  settings["read"] = inputs.identity(config.inputs)
  if config.compare_with:  # before anything is judged, and paid for
    labelled("Annotate.compare_with", config.compare_with)
  if folders.begin(folder, STAGE, settings):
    return folders.read_stats(folder)
  facts: dict[str, Any] = {}
  with folders.measured(facts):
    chunks = sample(config, folder, engine, _LLM_CHUNK if judge.varies else _CHUNK)
    judging = Judging(config, folder, judge, len(chunks))
    steps = [judging, Write(folder, "judge")]
    one = judge.varies
    counts = engine.run(folder, "judge", steps, len(chunks), sum(chunks), one)
    pairs = _pairs(folder)
    facts |= {
      "scale": SCALE,
      "scores": _histogram([first for first, _ in pairs.values()]),
      "second_pass": _second_pass(list(pairs.values()), judge),
      **judge.facts(),
      "lineage": inputs.lineage(config.inputs),
    }
    if config.compare_with:
      facts["other_judge"] = compare(config.compare_with, pairs)
  return folders.finish(folder, STAGE, counts.stats(), facts)


@dataclasses.dataclass(frozen=True)
class Smallest:
  """A step: the code of the least ids among a task's documents, to a file.

  Attributes:
    folder: the stage's folder.
    number: how many.
  """

  folder: AnyPath
  number: int

  def __call__(
    self, data: Iterable[Decision], rank: int, world_size: int
  ) -> Iterator[Tally]:
    """Write the documents, and the reasons for those that could not be read."""
    del world_size
    tick = Ticker(self.folder, "sample", rank)
    drops: list[Drop] = []

    def documents() -> Iterator[Document]:
      for decision in data:
        tick(1)
        if isinstance(decision, Drop):
          drops.append(decision)
        elif decision.document.kind == "code":
          yield decision.document

    least = heapq.nsmallest(self.number, documents(), key=lambda d: d.id)
    place = self.folder / folders.ENGINE / "sampled"
    folders.spill(place, f"{rank:05d}.parquet", [*drops, *map(Keep, least)])
    tick.flush()
    yield Tally()


def sample(
  config: AnnotateConfig, folder: AnyPath, engine: Engine, chunk: int
) -> list[int]:
  """Choose the documents to judge; return how many rows each chunk has.

  An id is a hash, so the sample is random, and a larger one holds a smaller one.
  """
  work = folder / folders.ENGINE
  if not storage.exists(work / "chunks.json"):
    tasks, total = inputs.prepare(work, "Annotate.inputs", config.inputs, engine.count)
    steps = [Read(work / "plan"), Smallest(folder, config.sample)]
    engine.run(folder, "sample", steps, tasks, total)
    chunks = _write_chunks(work, config.sample, chunk)
    if not chunks:
      raise InputError(f"Annotate.inputs: {config.inputs} hold no code to judge")
    storage.write_json(work / "chunks.json", {"rows": chunks})
  return storage.read_json(work / "chunks.json")["rows"]


def _write_chunks(work: AnyPath, number: int, chunk: int) -> list[int]:
  """Write the least of all tasks in chunks; the last one has the rows to drop."""
  names = storage.names(work / "sampled")
  paths = [work / "sampled" / name for name in names if name.endswith(".parquet")]
  ids = [
    row["id"]
    for path in paths
    for row in folders.rows(path, ["id", "reason"])
    if not row["reason"]
  ]
  least = heapq.nsmallest(number, set(ids))
  if not least:
    return []
  places = {name: n for n, name in enumerate(least)}
  size = -(-len(least) // -(-len(least) // chunk))
  parts: dict[int, list[Decision]] = {}
  seen: set[str] = set()
  for decision in (each for path in paths for each in folders.spilled(path)):
    name = decision.document.id
    if isinstance(decision, Drop):
      parts.setdefault((len(least) - 1) // size, []).append(decision)
    elif name in places:
      again = Drop(decision.document, "read twice")
      parts.setdefault(places[name] // size, []).append(
        again if name in seen else decision
      )
      seen.add(name)
  for place, part in enumerate(parts[n] for n in sorted(parts)):
    part.sort(key=lambda decision: decision.document.id)
    folders.spill(work / "chunks", f"{place:05d}.parquet", part)
  return [len(parts[n]) for n in sorted(parts)]


def chosen(folder: AnyPath, chunk: int) -> Iterator[Decision]:
  """Yield the documents of a chunk, those of bad form dropped."""
  path = folder / folders.ENGINE / "chunks" / f"{chunk:05d}.parquet"
  for decision in folders.spilled(path):
    reason = form.problem(decision.document.text)
    if isinstance(decision, Keep) and reason:
      yield Drop(decision.document, reason)
    else:
      yield decision


@dataclasses.dataclass(frozen=True)
class Judging:
  """A step: a chunk's documents to decisions with scores.

  Attributes:
    config: the settings.
    folder: the stage's folder.
    judge: gives the scores.
    chunks: how many chunks there are.
  """

  config: AnnotateConfig
  folder: AnyPath
  judge: Judge
  chunks: int

  def __call__(self, data: Any, rank: int, world_size: int) -> Iterator[Decision]:
    """Yield the decisions."""
    del data, world_size
    kept: list[Document] = []
    for decision in chosen(self.folder, rank):
      if isinstance(decision, Drop):
        yield decision
      else:
        kept.append(decision.document)
    again = (
      kept[: again_in(self.config, self.chunks, rank)] if self.judge.varies else []
    )
    second = list(self.judge.scores(again, 1)) if again else []
    for place, (document, first) in enumerate(
      zip(kept, self.judge.scores(kept, 0), strict=True)
    ):
      noted = {**first.facts, "score": first.score, "reason": first.reason}
      if place < len(second):
        noted["second_score"] = second[place].score
      document = document.noted(STAGE, noted)
      if first.score is None:
        yield Drop(document, "no usable answer", {"reason": first.reason})
      else:
        yield Keep(document)


def again_in(config: AnnotateConfig, chunks: int, rank: int) -> int:
  """Return how many documents of a chunk are judged a second time."""
  before = config.second_pass * rank // chunks
  return config.second_pass * (rank + 1) // chunks - before


def agreement(first: Sequence[float], second: Sequence[float]) -> dict[str, Any]:
  """Return how far two series of scores of the same documents agree.

  Returns:
    `documents`; `exact` and `within_one`: shares after rounding; `spearman`: rank
    correlation, None where a series is constant; `mean_difference`: second - first.
  """
  a, b = np.asarray(first, float), np.asarray(second, float)
  if not len(a):
    return {"documents": 0}
  apart = np.abs(np.rint(a) - np.rint(b))
  constant = min(len(np.unique(a)), len(np.unique(b))) == 1
  spearman = None if constant else float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])
  return {
    "documents": len(a),
    "exact": round(float((apart == 0).mean()), 4),
    "within_one": round(float((apart <= 1).mean()), 4),
    "spearman": None if spearman is None else round(spearman, 4),
    "mean_difference": round(float((b - a).mean()), 4),
  }


def _ranks(values: np.ndarray) -> np.ndarray:
  """Return ranks from 0; equal values share the mean of theirs."""
  _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
  ends = np.cumsum(counts)
  return ((ends - counts + ends - 1) / 2)[inverse]


def labelled(name: str, place: str) -> list[tuple[Document, float]]:
  """Return the documents of a complete stage, each with its score.

  Args:
    name: of the setting, for the error.
    place: folder of an annotate run, or of a stage that read its documents.

  Raises:
    InputError: the stage is not complete, was changed, or a document has no score.
  """
  folder = storage.parse(place)
  folders.kept_files(folder)  # refuses changed files
  found = []
  for document in folders.kept(folder):
    noted = document.provenance.get(STAGE)
    score = noted.get("score") if isinstance(noted, Mapping) else None
    if not isinstance(score, (int, float)):
      stage = folders.read_stats(folder)["stage"]
      raise InputError(
        f"{name}: got {place}, a folder of {stage} whose document {document.id} has no "
        f"score; expected the folder of an {STAGE} run"
      )
    found.append((document, float(score)))
  return found


_Pair = tuple[float, float | None]


def _pairs(folder: AnyPath) -> dict[str, _Pair]:
  """Return id -> score and second score, None where there is none."""
  return {
    document.id: (noted["score"], noted.get("second_score"))
    for document in folders.kept(folder)
    if (noted := document.provenance[STAGE])
  }


def compare(other: str, pairs: Mapping[str, _Pair]) -> dict[str, Any]:
  """Return the agreement with another judge's labels, in another stage's folder."""
  stats = folders.read_stats(storage.parse(other))
  labels = labelled("Annotate.compare_with", other)
  both = [(pairs[d.id][0], score) for d, score in labels if d.id in pairs]
  judge = {"labels": other, "models": stats.get("models")}
  return {**judge, **agreement([a for a, _ in both], [b for _, b in both])}


def _histogram(scores: Sequence[float]) -> dict[str, int]:
  rounded = [round(score) for score in scores]
  return {str(score): rounded.count(score) for score in range(6)}


def _second_pass(pairs: Sequence[_Pair], judge: Judge) -> dict[str, Any]:
  if not judge.varies:
    return {"documents": 0, "note": "the judge is a function of the text"}
  both = [(a, b) for a, b in pairs if b is not None]
  return agreement([a for a, _ in both], [b for _, b in both])


@dataclasses.dataclass(frozen=True)
class LocalJudge:
  """The features of `local_judge`, in place of an LLM."""

  varies: bool = False

  def identity(self) -> dict[str, Any]:
    """Return the version of the features."""
    return {"local_judge": local_judge.VERSION}

  def facts(self) -> dict[str, Any]:
    """Return a model's name that says that no language model judged."""
    version = local_judge.VERSION
    return {
      "models": [f"local judge, version {version}: features of the code (no LLM)"]
    }

  def scores(self, documents: Sequence[Document], sample: int) -> Iterator[Judgement]:
    """Yield scores, with the features for a reason."""
    del sample
    facts = {"judge": "local", "version": local_judge.VERSION}
    for document in documents:
      found = local_judge.features(document.text)
      if found is None:
        yield Judgement(None, "this interpreter cannot parse it", facts)
      else:
        yield Judgement(local_judge.weigh(found), _brief(found), facts)


def _brief(found: local_judge.Features) -> str:
  parts = dataclasses.asdict(found).items()
  return ", ".join(
    f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in parts
  )


@dataclasses.dataclass(frozen=True)
class LlmJudge:
  """Sends the paper's question to an LLM.

  Attributes:
    config: how much of a document is shown, and how long an answer may be.
    replies: requests, counted.
    prompt: with the places `PLACES`.
  """

  config: AnnotateConfig
  replies: Replies
  prompt: Prompt
  varies: bool = True

  def identity(self) -> dict[str, Any]:
    """Return the model and the prompt."""
    return {**self.replies.identity(), "prompt": self.prompt.version}

  def facts(self) -> dict[str, Any]:
    """Return the model, the prompt, and the cost."""
    return {**self.replies.facts(), "prompts": [self.prompt.record()]}

  def requests(self, documents: Iterable[Document], sample: int) -> Iterator[Request]:
    """Yield a request per document."""
    most = self.config.maximum_characters
    for document in documents:
      cut = f" (its first {most:,} characters)" if len(document.text) > most else ""
      places = {"code": document.text[:most], "cut": cut}
      temperature = self.config.second_temperature if sample else 0.0
      yield self.prompt.request(places, self.config.max_tokens, temperature, sample)

  def scores(self, documents: Sequence[Document], sample: int) -> Iterator[Judgement]:
    """Yield scores from the replies, in order."""
    facts = {"judge": "llm", "model": self.replies.model, "prompt": self.prompt.version}
    requests = self.requests(documents, sample)
    for answer in self.replies.ask(requests, read_reply, len(documents)):
      if isinstance(answer, Answered):
        yield Judgement(*answer.value, {**facts, "request": answer.reply.key})
      else:
        yield Judgement(None, answer.reason, {**facts, "request": answer.key})


_SCORE = re.compile(r"[\"']?score[\"']?\s*[:=]\s*[\"']?(\d+(?:\.\d+)?)", re.IGNORECASE)


def read_reply(reply: str) -> tuple[float, str]:
  """Return the last score in an answer, and its reason.

  Raises:
    Malformed: there is no score in it, or none from 0 to 5.
  """
  for candidate in reversed(re.findall(r"\{[^{}]*\}", reply)):
    try:
      found = json.loads(candidate)
      score, reason = float(found["score"]), str(found.get("reason", ""))
    except (ValueError, KeyError, TypeError):
      continue
    return _scored(score), reason[:500]
  if scores := _SCORE.findall(reply):
    return _scored(float(scores[-1])), ""
  raise Malformed('there is no {"reason": ..., "score": ...} in it')


def _scored(score: float) -> float:
  if not 0 <= score <= 5:
    raise Malformed(f"got the score {score:g}, expected 0 to 5")
  return score
