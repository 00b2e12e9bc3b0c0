"""Test problems of a study, and data that it makes from the results of curation.

Each function writes folders of stages (see `curation.folder`), which the next stage
reads like any other, and may be called again.

The tiers of test problems are reported apart (but for the table of pruning, which needs
many problems). From near to far: compositions of three parts of which only pairs are
trained on, pairs that are not, wordings that are not, compositions of four parts, and
problems that people wrote in free wording.
"""

import ast
import dataclasses
import itertools
import json
import random
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evals import mutants, task_sets
from evals.study.config import THINNED, StudyConfig
from phi1_jax import InputError, storage
from phi1_jax.curation import folder as folders
from phi1_jax.curation import read
from phi1_jax.curation.document import Decision, Document, Drop, Keep, identify
from phi1_jax.grammar import teacher
from phi1_jax.problems import written
from phi1_jax.problems.problem import Problem
from phi1_jax.text import settings_file, source

# Raise it when the data change: a study that was begun with another version cannot be
# resumed.
VERSION = 2
TIERS = (*task_sets.TIERS, task_sets.HANDWRITTEN)  # from near to far
# Judged beyond the tiers; nothing that is trained on resembles them.
FAR = (task_sets.DOCTESTS, written.UNCONVENTIONAL)
LEAKED_FROM = TIERS[-1]  # the tier whose problems are planted
# Test problems in HumanEval's format, for decontamination; held-out texts; the problems
# whose function is in training.
PROBLEMS, TEXTS, SEEN = "ruler.jsonl", "held_out.jsonl", "seen.json"
# Of the documents that are set aside to measure loss on, and how much of each is read.
HELD_OUT, HELD_OUT_EXERCISES, HELD_OUT_CHARACTERS = 60, 180, 6_000
_NOT_DRAWN = "not drawn"  # a reason
# Modules that the vocabulary is learnt from; more would leave less of it to the others.
_SAMPLE = 100
# Reasons of decontamination that mean a copy. What has only the shape of a problem is
# the subject of the study of tau, and stays in the exercises that all arms read.
STAGE = "variant"  # whose provenance says how an exercise was changed
_TRAINED = "planted"  # a group that `data.documents.held_out` leaves in training
_COPIES = ("exact solution", "text", "solution words")


def problems() -> dict[str, list[Problem]]:
  """Return the problems of each task set that training data must not contain."""
  return {name: task_sets.load(name) for name in (*TIERS, *FAR)}


def test_problems(config: StudyConfig, folder: Path) -> None:
  """Write the test problems in the format of `Decontaminate.benchmarks`."""
  rows = [row(problem) for each in problems().values() for problem in each]
  _write_lines(folder / PROBLEMS, rows)


def row(problem: Problem) -> dict[str, str]:
  """Return a problem in HumanEval's format; tests call the function by its name."""
  lines = [line for test in problem.tests for line in test.strip("\n").split("\n")]
  check = "\n".join(["def check(candidate):", *(f"    {line}" for line in lines)])
  return {
    "task_id": problem.id,
    "prompt": problem.prompt,
    "entry_point": problem.entry_point,
    "canonical_solution": problem.reference,
    "test": check + "\n",
  }


def pool(config: StudyConfig, folder: Path) -> None:
  """Write the raw code: modules of the embedded corpora, by hash.

  more-itertools is left out, whose doctests are test problems.

  Raises:
    InputError: there are not so many modules.
  """
  found, decisions = [], []
  for decision in read.read(("embedded",)):
    document = decision.document
    if isinstance(decision, Drop):
      decisions.append(decision)
    elif document.source == "more-itertools":
      decisions.append(Drop(document, "test problems are made of it"))
    else:
      found.append(document)
  most = len(found) - HELD_OUT
  if config.raw_documents > most:
    raise InputError(
      f"Study.raw_documents: got {config.raw_documents}, expected at most {most}: the "
      f"embedded corpora's modules, but for {HELD_OUT} that are held out; give it with "
      "a new --workdir"
    )
  found.sort(key=lambda d: d.id)
  chosen, rest = found[: config.raw_documents], found[config.raw_documents :]
  decisions += [Keep(document) for document in chosen]
  decisions += [Drop(document, _NOT_DRAWN) for document in rest]
  _write(folder / "curate" / "pool", "pool", config, decisions, {})
  size = min(_SAMPLE, len(chosen))
  sample = [Keep(chosen[place * len(chosen) // size]) for place in range(size)]
  _write(folder / "curate" / "code_sample", "code-sample", config, sample, {})


def held_out(config: StudyConfig, folder: Path) -> None:
  """Write texts that no arm reads: modules, textbook sections and exercises.

  Exercises have neither the text nor the name of one that was composed for training.
  Sections are new as a whole; a paragraph may be found in another.
  """
  curate, seed = folder / "curate", config.data_seed
  rest = folders.dropped(curate / "pool")
  modules = [each.document for each in rest if each.reason == _NOT_DRAWN]
  modules.sort(key=lambda d: d.id)
  read = {document.text for document in folders.kept(curate / "sections")}
  sections = (teacher.section(seed, n).text for n in itertools.count(config.sections))
  names = {_name(document.text) for document in folders.kept(curate / "exercises")}
  numbers = itertools.count(config.exercises)
  exercises = (teacher.exercise(seed, number) for number in numbers)
  texts = {
    "raw code": (HELD_OUT, (module.text[:HELD_OUT_CHARACTERS] for module in modules)),
    "textbook": (HELD_OUT, (text for text in sections if text not in read)),
    "exercise": (
      HELD_OUT_EXERCISES,
      (exercise.text for exercise in exercises if exercise.name not in names),
    ),
  }
  rows = [
    {"kind": kind, "text": text}
    for kind, (number, found) in texts.items()
    for text in itertools.islice(found, number)
  ]
  _write_lines(folder / TEXTS, rows)


def _name(program: str) -> str:
  """Return the name of the function that a program defines last."""
  return program.rpartition("\ndef ")[2].removeprefix("def ").partition("(")[0]


def exercise_sets(config: StudyConfig, folder: Path) -> None:
  """Write the set of all arms, without copies of test problems, and its variants."""
  curate = folder / "curate"
  widest = curate / "pruned" / f"pruned-{max(config.taus):g}"
  every = list(folders.dropped(widest))
  dropped = [each for each in every if is_copy(each.evidence)]
  alike = [each.document for each in every if not is_copy(each.evidence)]
  kept = sorted([*folders.kept(widest), *alike], key=lambda d: d.id)
  seed = config.data_seed
  planted = leaked_problems(config)
  strictest = curate / "pruned" / f"pruned-{min(config.taus):g}"
  left = sum(1 for _ in folders.kept(strictest))
  made: dict[str, list[Document]] = {
    "main": kept,
    "shuffled": wrong(kept, 1, seed, "shuffled"),
    "wrong": wrong(kept, config.wrong_share, seed),
    "few": few(kept, config.few),
    "leaked": leaked(kept, planted, config.leak_copies),
    THINNED: few(kept, left),
  }
  lineage = {"lineage": [folders.read_stats(curate / "exercises")]}
  for name, documents in made.items():
    decisions: list[Decision] = [Keep(document) for document in documents]
    decisions += dropped if name == "main" else []
    _write(curate / name, f"study-{name}", config, decisions, lineage)


def is_copy(evidence: Mapping[str, Any]) -> bool:
  """Return whether any evidence says that a document is a copy of a problem."""
  pairs = evidence["pairs"]
  return any(pair["reason"] in _COPIES or pair.get("exact") for pair in pairs)


def leaked_problems(config: StudyConfig) -> list[Problem]:
  """Return the problems to plant, drawn from a tier that no arm should solve."""
  found = task_sets.load(LEAKED_FROM)
  return random.Random(f"leak {config.data_seed}").sample(found, config.leaks)


def seen(config: StudyConfig, folder: Path) -> None:
  """Write the problems whose function some exercise computes too.

  Another composition may come to the same: adding 2 and then 1 is adding 3.
  """
  known = {
    _behaviour(document.text) for document in folders.kept(folder / "curate" / "main")
  }
  found: dict[str, dict[str, list[str]]] = {}
  for name, tier in problems().items():
    if name in TIERS:
      found[name] = {"seen": [], "new": [], "not comparable": []}
      for problem in tier:
        behaviour = _behaviour(problem.solution)
        kind = "seen" if behaviour in known else "new"
        found[name][kind if behaviour else "not comparable"].append(problem.id)
  storage.write_json(folder / SEEN, found)


def _behaviour(program: str) -> str | None:
  """Return a digest of the outputs of a function of one argument; None of others."""
  cut, name = parts(program), _name(program)
  if cut is None or len(cut.arguments) != 1 or not mutants.ends(program, name):
    return None
  inputs = (*mutants.NUMBERS, *mutants.WORDS)
  return settings_file.digest(
    [repr(each) for each in mutants.outcomes(program, name, inputs)]
  )


def nearest(config: StudyConfig, folder: Path) -> None:
  """Write completions that copy the body under the nearest training docstring."""
  documents = list(folders.kept(folder / "curate" / "main"))
  (folder / "nearest").mkdir(exist_ok=True)
  for name in TIERS:
    rows = copied(documents, task_sets.load(name))
    _write_lines(folder / "nearest" / f"{name}.jsonl", rows)


def _write_lines(place: Path, rows: Iterable[Mapping[str, Any]]) -> None:
  storage.write_text(place, "".join(json.dumps(row) + "\n" for row in rows))


def _write(
  place: Path,
  stage: str,
  config: StudyConfig,
  decisions: Iterable[Decision],
  facts: Mapping[str, Any],
) -> None:
  """Write a stage's folder; replace one that is incomplete."""
  if place.exists() and not (place / folders.COMPLETED).exists():
    shutil.rmtree(place)
  place.mkdir(parents=True, exist_ok=True)
  settings = {"version": VERSION, "seed": config.data_seed}
  if folders.begin(place, stage, settings):
    return
  tally = folders.write(place, decisions)
  folders.finish(place, stage, tally.stats(), dict(facts))


@dataclasses.dataclass(frozen=True)
class Parts:
  """The lines of an exercise, divided by its docstring."""

  head: str  # imports, helpers and the `def` line
  docstring: str  # with its quotes
  body: str  # the solution
  arguments: tuple[str, ...]  # names of the function's arguments


def parts(text: str) -> Parts | None:
  """Divide an exercise; None if its last function has no docstring or no body."""
  tree = source.parse(text)
  functions = [n for n in tree.body if isinstance(n, ast.FunctionDef)] if tree else []
  if not functions or len(functions[-1].body) < 2:
    return None
  function = functions[-1]
  if ast.get_docstring(function, clean=False) is None:
    return None
  lines = text.splitlines(keepends=True)
  start, end = function.body[0].lineno - 1, function.body[0].end_lineno or 0
  cut = (lines[:start], lines[start:end], lines[end:])
  names = tuple(argument.arg for argument in function.args.args)
  return Parts(*map("".join, cut), arguments=names)


def renamed(text: str, old: Sequence[str], new: Sequence[str]) -> str:
  """Return text with names replaced pair by pair, whole words only and all at once."""
  names = dict(zip(old, new, strict=False))
  if not names:
    return text
  pattern = r"\b(" + "|".join(map(re.escape, names)) + r")\b"
  return re.sub(pattern, lambda match: names[match[1]], text)


def wrong(
  documents: Sequence[Document], share: float, seed: int, kind: str = "wrong"
) -> list[Document]:
  """Return exercises of which a share has the solution of another.

  It is about their own arguments. With share 1 and kind "shuffled" all have it, and a
  model can learn the form of an exercise and the language of solutions from them, but
  not the meaning of a docstring or a name.
  """
  cut = [(document, parts(document.text)) for document in documents]
  known = [(document, of) for document, of in cut if of is not None]
  places = list(range(len(known)))
  random.Random(f"derangement {seed}").shuffle(places)
  # One cycle through all of them: each gets the body of the next.
  following = dict(zip(places, [*places[1:], *places[:1]], strict=True))
  chance, found = random.Random(f"wrong {seed}"), []
  for place, (document, of) in enumerate(known):
    lender = known[following[place]][1]
    body = renamed(lender.body, lender.arguments, of.arguments)
    if share == 1 or (chance.random() < share and body != of.body):
      text = of.head + of.docstring + body
      changed = document.noted(STAGE, {"kind": kind, "of": document.id})
      document = dataclasses.replace(changed, id=identify(kind, text), text=text)
    found.append(document)
  return found


def few(documents: Sequence[Document], number: int) -> list[Document]:
  """Return the first `number` exercises by hash."""
  return sorted(documents, key=lambda d: d.id)[:number]


def leaked(
  documents: Sequence[Document], problems: Sequence[Problem], copies: int
) -> list[Document]:
  """Return the exercises with several copies of solved test problems among them."""
  planted = [
    Document(
      id=identify(f"leak {copy}", problem.solution),
      text=problem.solution,
      source="leak",
      licence="MIT",
      kind="exercise",
      repository=_TRAINED,
      provenance={STAGE: {"kind": "leaked", "problem": problem.id}},
    )
    for problem in problems
    for copy in range(copies)
  ]
  return sorted([*documents, *planted], key=lambda d: d.id)


def copied(
  documents: Sequence[Document], problems: Sequence[Problem]
) -> list[dict[str, str]]:
  """Return completions that copy the body under the most similar training docstring.

  A model may have solved by retrieval what this control solves. Similarity is the
  cosine of TF-IDF weights of the docstrings' words and pairs of words; the body's
  arguments get the names of the problem's.

  Returns:
    A line of `--completions` for each problem.
  """
  from sklearn.feature_extraction.text import TfidfVectorizer

  taught = [found for d in documents if (found := parts(d.text))]
  asked = [
    parts(problem.prompt + "    pass\n") or Parts("", problem.prompt, "", ())
    for problem in problems
  ]
  vectorizer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+", min_df=1)
  known = vectorizer.fit_transform([each.docstring for each in taught])
  closeness = vectorizer.transform([each.docstring for each in asked]) @ known.T
  rows = []
  for problem, to, row in zip(problems, asked, closeness, strict=True):
    of = taught[int(row.argmax())]
    body = renamed(of.body, of.arguments, to.arguments)
    rows.append({"task_id": problem.id, "completion": body})
  return rows
