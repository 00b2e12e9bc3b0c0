"""Educational value of a sample of raw code, as the paper had GPT-4 annotate it.

  sample   the documents of the least ids, which are hashes, of each task's part
  judge    those of the least ids of all

A judge gives each document a score from 0 to 5. A second pass over some of them, and
labels of another judge, show how far the scores can be trusted. The second pass of an
LLM has the temperature `Annotate.second_temperature`: at 0 it would measure only how
far the server repeats itself.
"""

import contextlib
import dataclasses
import functools
import heapq
import itertools
import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from phi1_jax import InputError, storage
from phi1_jax.curation import folder as folders
from phi1_jax.curation import form, local_judge, prompt
from phi1_jax.curation.config import AnnotateConfig
from phi1_jax.curation.document import Decision, Document, Drop, Keep, Tally
from phi1_jax.curation.engine import Job, Task
from phi1_jax.llm.client import Client
from phi1_jax.llm.conversation import Malformed
from phi1_jax.llm.request import Request
from phi1_jax.storage import AnyPath

STAGE, VERSION = "annotate", 4
PLACES = frozenset(("code", "cut"))
SCALE = "0 (of no use) to 5 (like a page of a good textbook)"
_BATCH = 10_000  # documents that are judged before the next are read
_CHOSEN = "chosen.json"  # id of each document to judge -> the task that read it

# A score from 0 to 5, or None; the judge's own words, or why there is no score; and
# facts for the provenance: judge, model, prompt, request.
Judgement = tuple[float | None, str, dict[str, Any]]


def run(job: Job, judge: Any = None) -> dict[str, Any]:
  """Score a sample; return the stats. An LLM is asked from this process.

  Args:
    job: the run.
    judge: has the methods of `LocalJudge`; None takes the one of the settings.

  Raises:
    InputError: an input is not there, the folder was begun with other settings, or
      `compare_with` has no labels.
    EmptyError: no document got a score.
  """
  config: AnnotateConfig = job.config
  if config.compare_with:  # before anything is judged, and paid for
    labelled("Annotate.compare_with", config.compare_with)
  with contextlib.ExitStack() as opened:
    if judge is None and job.needs_llm:
      judge = LlmJudge(config, PLACES, opened.enter_context(job.client()))
    judge = judge or LocalJudge()
    settings = {"version": VERSION, **judge.identity()}
    return job.run(STAGE, settings, functools.partial(_run, job, judge))


def _run(job: Job, judge: Any) -> tuple[dict[str, Any], dict[str, Any]]:
  config, one, parts = job.config, judge.varies, _sample(job)
  total = len(storage.read_json(job.work / _CHOSEN))
  about = (_judge, config, judge, parts)
  tasks = 1 if one else parts
  counts = job.phase("judge", *about, tasks=tasks, total=total, one_process=one)
  noted = {d.id: d.provenance[STAGE] for d in folders.kept(job.folder)}
  scores = {name: each["score"] for name, each in noted.items()}
  again = {n: each.get("second_score") for n, each in noted.items()}
  rounded = [round(score) for score in scores.values()]
  facts = {"scale": SCALE, "scores": {str(n): rounded.count(n) for n in range(6)}}
  facts["second_pass"] = _compared(scores, again)
  if not one:
    facts["second_pass"]["note"] = "the judge is a function of the text"
  if config.compare_with:
    stats = folders.read_stats(storage.parse(config.compare_with))
    labels = labelled("Annotate.compare_with", config.compare_with)
    other = _compared(scores, {document.id: score for document, score in labels})
    judged = {"labels": config.compare_with, "models": stats.get("models")}
    facts["other_judge"] = {**judged, **other}
  return counts.stats(), {**facts, **judge.facts()}


def _sample(job: Job) -> int:
  """Choose the documents to judge; return the number of tasks that read them.

  An id is a hash, so the sample is random, and a larger one holds a smaller one.
  """
  tasks = job.plan()
  if not storage.exists(job.work / _CHOSEN):
    job.phase("sample", _sample_task, job.config)
    task_of: dict[str, int] = {}
    for rank in range(tasks):
      for row in folders.rows(_sampled(job.work, rank), ["id", "reason"]):
        if not row["reason"]:
          task_of.setdefault(row["id"], rank)
    if not task_of:
      raise InputError(f"Annotate.inputs: {job.config.inputs} hold no code to judge")
    least = heapq.nsmallest(job.config.sample, task_of)
    storage.write_json(job.work / _CHOSEN, {name: task_of[name] for name in least})
  return tasks


def _sampled(work: AnyPath, rank: int) -> AnyPath:
  return work / "sampled" / f"{rank:05d}.parquet"


def _sample_task(config: AnnotateConfig, task: Task) -> None:
  """Write the code of the least ids, and why some could not be read."""
  drops: list[Decision] = []

  def code() -> Iterator[Decision]:
    for decision in task.read():
      if isinstance(decision, Drop):
        drops.append(decision)
      elif decision.document.kind == "code":
        yield decision

  least = heapq.nsmallest(config.sample, code(), key=lambda each: each.document.id)
  folders.spill(_sampled(task.work, task.rank), [*drops, *least])


def _chosen(
  work: AnyPath, task_of: dict[str, int], ranks: Iterable[int]
) -> Iterator[Decision]:
  """Yield the chosen documents of some tasks, those of bad form dropped."""
  seen = set[str]()
  for rank in ranks:
    for decision in folders.spilled(_sampled(work, rank)):
      document = decision.document
      if isinstance(decision, Drop):
        yield decision
      elif document.id in seen or task_of.get(document.id, rank) != rank:
        yield Drop(document, "read twice")
      elif document.id in task_of:
        seen.add(document.id)
        reason = form.problem(document.text)
        yield Drop(document, reason) if reason else decision


def _judge(config: AnnotateConfig, judge: Any, parts: int, task: Task) -> Tally:
  task_of = storage.read_json(task.work / _CHOSEN)
  again = _twice(config, task_of) if judge.varies else set[str]()

  def decisions() -> Iterator[Decision]:
    found = _chosen(task.work, task_of, range(task.rank, parts, task.tasks))
    while batch := list(itertools.islice(found, _BATCH)):
      yield from (each for each in batch if isinstance(each, Drop))
      kept = [each.document for each in batch if isinstance(each, Keep)]
      twice = [document for document in kept if document.id in again]
      second = judge.scores(twice, 1) if twice else ()
      scores = {d.id: each[0] for d, each in zip(twice, second, strict=True)}
      for document, judged in zip(kept, judge.scores(kept, 0), strict=True):
        score, reason, facts = judged
        noted = {**facts, "score": score, "reason": reason}
        if document.id in scores:
          noted["second_score"] = scores[document.id]
        document = document.noted(STAGE, noted)
        if score is None:
          yield Drop(document, "no usable answer", {"reason": reason})
        else:
          yield Keep(document)

  return task.write(decisions())


def _twice(config: AnnotateConfig, task_of: Iterable[str]) -> set[str]:
  """Return the ids of the documents that are judged twice: the least."""
  return set(heapq.nsmallest(config.second_pass, task_of))


def _compared(
  first: Mapping[str, float], second: Mapping[str, float | None]
) -> dict[str, Any]:
  """Return the agreement of two series of scores on the documents that both have."""
  both = [(a, b) for n, a in first.items() if (b := second.get(n)) is not None]
  return agreement([a for a, _ in both], [b for _, b in both])


def agreement(
  first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray
) -> dict[str, Any]:
  """Return how far two series of scores of the same documents agree.

  Returns:
    `documents`; `exact` and `within_one`: shares after rounding; `spearman`: rank
    correlation, None where a series is constant; `mean_difference`: second - first.
  """
  a, b = np.asarray(first, float), np.asarray(second, float)
  if not len(a):
    return {"documents": 0}
  from scipy import stats

  apart = np.abs(np.rint(a) - np.rint(b))
  constant = min(len(np.unique(a)), len(np.unique(b))) == 1
  ranks: Any = None if constant else stats.spearmanr(a, b)
  return {
    "documents": len(a),
    "exact": round(float((apart == 0).mean()), 4),
    "within_one": round(float((apart <= 1).mean()), 4),
    "spearman": None if constant else round(float(ranks.statistic), 4),
    "mean_difference": round(float((b - a).mean()), 4),
  }


def labelled(name: str, place: str) -> list[tuple[Document, float]]:
  """Return the documents of an annotate run, or of a stage after it, with their scores.

  `name` is that of the setting, for the error.

  Raises:
    InputError: the stage is not complete, was changed, or a document has no score.
  """
  folder = storage.parse(place)
  with folders.naming(name):
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


class LocalJudge:
  """The features of `local_judge`, in place of an LLM."""

  varies = False  # whether a second pass may give other scores, and needs this process

  def identity(self) -> dict[str, Any]:
    """Return the settings that decide the scores beside the stage's own."""
    return {"local_judge": local_judge.VERSION}

  def facts(self) -> dict[str, Any]:
    """Return a model's name that says that no language model judged."""
    version = local_judge.VERSION
    name = f"local judge, version {version}: features of the code (no LLM)"
    return {"models": [name]}

  def scores(self, documents: Sequence[Document], sample: int) -> Iterator[Judgement]:
    """Yield a judgement per document, in order; another sample is another try."""
    del sample
    facts = {"judge": "local", "version": local_judge.VERSION}
    for document in documents:
      found = local_judge.features(document.text)
      if found is None:
        yield None, "this interpreter cannot parse it", facts
      else:
        yield local_judge.weigh(found), found.brief(), facts


class LlmJudge(prompt.Asker):
  """Sends the paper's question to an LLM."""

  varies = True

  def request(self, document: Document, sample: int) -> Request:
    """Return the request about a document; another sample is another try."""
    most, limit = self.config.maximum_characters, self.config.max_tokens
    cut = f" (its first {most:,} characters)" if len(document.text) > most else ""
    places = {"code": document.text[:most], "cut": cut}
    temperature = self.config.second_temperature if sample else 0.0
    return self.prompt.request(places, limit, temperature, sample)

  def scores(self, documents: Sequence[Document], sample: int) -> Iterator[Judgement]:
    """Yield judgements from the replies, in order."""
    request = functools.partial(self.request, sample=sample)
    found = self.ask(documents, request, read_reply, len(documents))
    for _, value, why, facts in found:
      score, reason = value or (None, why)
      yield score, reason, {"judge": "llm", **facts}


def requests(job: Job, client: Client) -> Iterator[Request]:
  """Yield the requests of a job, to estimate their cost."""
  judge = LlmJudge(job.config, PLACES, client)
  with tempfile.TemporaryDirectory() as scratch:
    job = dataclasses.replace(job, folder=Path(scratch), executor="local")
    parts, task_of = range(_sample(job)), storage.read_json(job.work / _CHOSEN)
    again = _twice(job.config, task_of)
    for decision in _chosen(job.work, task_of, parts):
      if isinstance(decision, Keep):
        for sample in range(1 + (decision.document.id in again)):
          yield judge.request(decision.document, sample)


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
