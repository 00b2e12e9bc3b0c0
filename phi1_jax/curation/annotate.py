"""Educational value of a sample of raw code, as the paper had GPT-4 annotate it.

A judge gives each document a score from 0 to 5; a second pass over some of them, and
another judge's labels where there are any, say how far the scores can be trusted. The
second pass of an LLM asks the same at `Annotate.second_temperature`: at 0 it would
measure how far the server repeats itself, and nothing else.
"""

from __future__ import annotations

import dataclasses
import heapq
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from phi1_jax import InputError
from phi1_jax.curation import folder as folders
from phi1_jax.curation import local_judge, read
from phi1_jax.curation.config import AnnotateConfig
from phi1_jax.curation.desk import Desk
from phi1_jax.curation.document import Decision, Document, Drop, Keep
from phi1_jax.curation.prompt import Prompt
from phi1_jax.llm.conversation import Answered, Malformed
from phi1_jax.llm.request import Request

STAGE, VERSION = "annotate", 1
PLACES = frozenset(("code", "cut"))
SCALE = "0 (of no use) to 5 (like a page of a good textbook)"


@dataclasses.dataclass(frozen=True)
class Judgement:
  """What a judge says of a document.

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
    """Whether a second pass may say something else."""
    ...

  def identity(self) -> dict[str, Any]:
    """What decides the scores beside the stage's own settings."""
    ...

  def facts(self) -> dict[str, Any]:
    """What stats and cards say: "models", "prompts", "cost"."""
    ...

  def scores(self, documents: Sequence[Document], sample: int) -> Iterator[Judgement]:
    """One judgement per document, in order; another sample is another try."""
    ...


def run(config: AnnotateConfig, folder: Path, judge: Judge) -> dict[str, Any]:
  """Scores a sample; gives the stats.

  Args:
    config: what is read, and how much of it.
    folder: the stage's folder; complete, it is only read.
    judge: who gives the scores.

  Raises:
    InputError: an input is not there, the folder was begun with other settings, or
      `compare_with` has no labels.
  """
  settings = {**dataclasses.asdict(config), "version": VERSION, **judge.identity()}
  settings["read"] = read.identity(config.inputs)
  if config.compare_with:  # not only after all was judged, and paid for
    labelled("Annotate.compare_with", config.compare_with)
  if folders.begin(folder, STAGE, settings):
    return folders.read_stats(folder)
  facts: dict[str, Any] = {}
  with folders.measured(facts):
    documents, drops = sampled(read.read(config.inputs), config.sample)
    if not documents:
      raise InputError(f"Annotate.inputs: {config.inputs} hold no document to judge")
    first = list(judge.scores(documents, 0))
    again = documents[: config.second_pass]
    second = list(judge.scores(again, 1)) if judge.varies else []
    counts = folders.write(folder, [*drops, *_decisions(documents, first, second)])
    facts |= {
      "scale": SCALE,
      "scores": _histogram(first),
      "second_pass": _second_pass(first, second, judge),
      **judge.facts(),
      "lineage": read.lineage(config.inputs),
    }
    if config.compare_with:
      facts["other_judge"] = compare(config.compare_with, documents, first)
  return folders.finish(folder, STAGE, counts.stats(), facts)


def sampled(
  decisions: Iterable[Decision], number: int
) -> tuple[list[Document], list[Drop]]:
  """The documents whose ids come first, and what could not be read.

  An id is a hash, so the sample is random, and a larger one holds a smaller one.
  """
  drops: list[Drop] = []
  seen: set[str] = set()

  def documents() -> Iterator[Document]:
    for decision in decisions:
      document = decision.document
      if isinstance(decision, Drop):
        drops.append(decision)
      elif not document.text.strip():
        drops.append(Drop(document, "empty"))
      elif document.id in seen:
        drops.append(Drop(document, "read twice"))
      else:
        seen.add(document.id)
        yield document

  chosen = heapq.nsmallest(number, documents(), key=lambda document: document.id)
  return chosen, drops


def agreement(first: Sequence[float], second: Sequence[float]) -> dict[str, Any]:
  """How far two series of scores of the same documents agree.

  Returns:
    `documents`; `exact` and `within_one`: shares after rounding; `spearman`: rank
    correlation, None where a series is constant; `mean_difference`: second - first.
  """
  a, b = np.asarray(first, float), np.asarray(second, float)
  if not len(a):
    return {"documents": 0}
  apart = np.abs(np.rint(a) - np.rint(b))
  constant = a.std() == 0 or b.std() == 0
  spearman = None if constant else float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])
  return {
    "documents": len(a),
    "exact": round(float((apart == 0).mean()), 4),
    "within_one": round(float((apart <= 1).mean()), 4),
    "spearman": None if spearman is None else round(spearman, 4),
    "mean_difference": round(float((b - a).mean()), 4),
  }


def labelled(name: str, place: str) -> list[tuple[Document, float]]:
  """The documents that a complete stage kept, each with the score that a judge gave it.

  Args:
    name: of the setting, for the error.
    place: folder of an annotate run, or of a stage that read what one kept.

  Raises:
    InputError: the stage is not complete, was changed, or a document has no score.
  """
  folders.kept_files(Path(place))  # refuses what is not as the stage left it
  found = []
  for document in folders.kept(Path(place)):
    noted = document.provenance.get(STAGE)
    score = noted.get("score") if isinstance(noted, Mapping) else None
    if not isinstance(score, (int, float)):
      stage = folders.read_stats(Path(place))["stage"]
      raise InputError(
        f"{name}: got {place}, a folder of {stage} whose document {document.id} has no "
        f"score; expected the folder of an {STAGE} run"
      )
    found.append((document, float(score)))
  return found


def compare(
  other: str, documents: Sequence[Document], judgements: Sequence[Judgement]
) -> dict[str, Any]:
  """Agreement with the labels that another judge gave, in another stage's folder."""
  stats = folders.read_stats(Path(other))
  labels = labelled("Annotate.compare_with", other)
  theirs = {document.id: score for document, score in labels}
  pairs = [
    (judgement.score, theirs[document.id])
    for document, judgement in zip(documents, judgements, strict=True)
    if judgement.score is not None and document.id in theirs
  ]
  judge = {"labels": other, "models": stats.get("models")}
  return {**judge, **agreement([a for a, _ in pairs], [b for _, b in pairs])}


def _ranks(values: np.ndarray) -> np.ndarray:
  """Ranks from 0; equal values share the mean of theirs."""
  _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
  ends = np.cumsum(counts)
  return ((ends - counts + ends - 1) / 2)[inverse]


def _decisions(
  documents: Sequence[Document],
  first: Sequence[Judgement],
  second: Sequence[Judgement],
) -> Iterator[Decision]:
  for index, (document, judgement) in enumerate(zip(documents, first, strict=True)):
    noted = {**judgement.facts, "score": judgement.score, "reason": judgement.reason}
    if index < len(second):
      noted["second_score"] = second[index].score
    document = document.noted(STAGE, noted)
    if judgement.score is None:
      yield Drop(document, "no usable answer", {"reason": judgement.reason})
    else:
      yield Keep(document)


def _histogram(judgements: Sequence[Judgement]) -> dict[str, int]:
  scores = [round(j.score) for j in judgements if j.score is not None]
  return {str(score): scores.count(score) for score in range(6)}


def _second_pass(
  first: Sequence[Judgement], second: Sequence[Judgement], judge: Judge
) -> dict[str, Any]:
  if not judge.varies:
    return {
      "documents": 0,
      "note": "the judge is a function of the text: no second one",
    }
  scored = [(a.score, b.score) for a, b in zip(first, second, strict=False)]
  pairs = [(a, b) for a, b in scored if a is not None and b is not None]
  return agreement([a for a, _ in pairs], [b for _, b in pairs])


@dataclasses.dataclass(frozen=True)
class LocalJudge:
  """The features of `local_judge`, in place of an LLM.

  Attributes:
    varies: False: a second pass would say the same.
  """

  varies: bool = False

  def identity(self) -> dict[str, Any]:
    """The version of the features."""
    return {"local_judge": local_judge.VERSION}

  def facts(self) -> dict[str, Any]:
    """Says that no language model judged."""
    version = local_judge.VERSION
    return {
      "models": [f"local judge, version {version}: features of the code (no LLM)"]
    }

  def scores(self, documents: Sequence[Document], sample: int) -> Iterator[Judgement]:
    """Scores, with the features for a reason."""
    del sample
    for document in documents:
      found = local_judge.features(document.text)
      score = 0.0 if found is None else local_judge.weigh(found)
      reason = "not Python 3" if found is None else _brief(found)
      yield Judgement(score, reason, {"judge": "local", "version": local_judge.VERSION})


def _brief(found: local_judge.Features) -> str:
  parts = dataclasses.asdict(found).items()
  return ", ".join(
    f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in parts
  )


@dataclasses.dataclass(frozen=True)
class LlmJudge:
  """Asks an LLM the paper's question.

  Attributes:
    config: how much of a document is shown, and how long an answer may be.
    desk: pays for the answers, and keeps them.
    prompt: with the places `PLACES`.
    varies: True.
  """

  config: AnnotateConfig
  desk: Desk
  prompt: Prompt
  varies: bool = True

  def identity(self) -> dict[str, Any]:
    """The model and the prompt."""
    return {**self.desk.identity(), "prompt": self.prompt.version}

  def facts(self) -> dict[str, Any]:
    """The model, the prompt, and what was paid."""
    return {**self.desk.facts(), "prompts": [self.prompt.record()]}

  def requests(self, documents: Iterable[Document], sample: int) -> Iterator[Request]:
    """One question per document."""
    most = self.config.maximum_characters
    for document in documents:
      cut = f" (its first {most:,} characters)" if len(document.text) > most else ""
      places = {"code": document.text[:most], "cut": cut}
      temperature = self.config.second_temperature if sample else 0.0
      yield self.prompt.request(places, self.config.max_tokens, temperature, sample)

  def scores(self, documents: Sequence[Document], sample: int) -> Iterator[Judgement]:
    """Scores from the answers, in order."""
    facts = {"judge": "llm", "model": self.desk.model, "prompt": self.prompt.version}
    requests = self.requests(documents, sample)
    for answer in self.desk.ask(requests, read_reply, len(documents)):
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
