"""The stages that write texts: a teacher, its subject, and the check of its code."""

import contextlib
import dataclasses
import functools
import itertools
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from phi1_jax import storage
from phi1_jax.curation import prompt
from phi1_jax.curation.deduplicate import sample
from phi1_jax.curation.document import Decision, Document, Drop, Keep, Tally, identify
from phi1_jax.curation.engine import Job, Task
from phi1_jax.grammar import teacher
from phi1_jax.llm.client import Client
from phi1_jax.llm.request import Request
from phi1_jax.sandbox.program import Program, Verdict
from phi1_jax.sandbox.sandbox import Sandbox
from phi1_jax.text import diversity

VERSION = 2
_TASK = 2500  # texts of the grammar in a task
_SANDBOX = "sandbox.json"
_WINDOW = 1024  # texts whose code is run before the next are taken
# Trusted programs that share a process: starting one costs as much as running many.
_TOGETHER = 32
_LONGEST = 100_000  # characters; a longer program is not an exercise
# Runs (code, tests) pairs, each in names of its own; tests see the names of their code.
_JOINT = """
programs = {pairs!r}
passed = 0
for code, tests in programs:
  names = {{"__name__": __name__}}
  exec(compile(code, "<code>", "exec", dont_inherit=True), names)
  names = dict(names)
  for test in tests:
    exec(compile(test, "<test>", "exec", dont_inherit=True), names)
  passed += 1
"""


# Topics, professions, audiences and function names for an LLM's prompts. The paper got
# diversity from such constraints (section 2.2); its lists are not published. A choice
# follows from seed and index, so a larger set holds a smaller one.
_TEXT = (Path(__file__).parent / "ideas.txt").read_text(encoding="utf-8")
_PARTS = (part.strip().split("\n") for part in _TEXT.split("[") if part.strip())
_LISTS = {head.rstrip("]"): tuple(items) for head, *items in _PARTS}
TOPICS, PROFESSIONS = _LISTS["topics"], _LISTS["professions"]
AUDIENCES, WORDS = _LISTS["audiences"], _LISTS["words"]


@dataclasses.dataclass(frozen=True)
class Written:
  """A teacher's text."""

  text: str
  code: str  # the program to run
  # Statements that must pass after it; () if running to the end is enough.
  tests: tuple[str, ...] = ()
  # Texts of the grammar with one idea are held out together.
  idea: str = ""
  facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # for provenance


_Text = tuple[Document, Written]


@dataclasses.dataclass(frozen=True)
class Subject:
  """The subject of a stage whose texts a teacher writes."""

  stage: str
  kind: str  # of the documents
  config: Any
  number: int  # of texts
  compose: Callable[[int, int], Iterator[Written]]  # texts of the grammar for a range
  places: Callable[[int], dict[str, str]]  # values for an LLM's prompt, by index
  read: Callable[[str], Written]  # the text in an LLM's reply; raises Malformed
  grouped_by: str  # the place by which an LLM's documents are held out
  together: bool = False  # run programs in one process: code that this project wrote
  mark: bool = False  # keep texts whose code fails, marked
  cpu_seconds: float = 3.0  # for the code and tests of one text

  def llm(self, client: Client) -> prompt.Asker:
    """Return an LLM as its teacher."""
    return prompt.Asker(self.config, frozenset(self.places(0)), client)

  def request(self, llm: prompt.Asker, index: int) -> Request:
    """Return the request for a text."""
    limits = self.config.max_tokens, self.config.temperature
    return llm.prompt.request(self.places(index), *limits, index)

  def composed(self, start: int, stop: int) -> Iterator[_Text]:
    """Yield texts of the grammar: no model, no network, no cost."""
    name, seed = "grammar", self.config.seed
    facts = {"teacher": name, "grammar": teacher.VERSION, "seed": seed}
    for index, written in enumerate(self.compose(start, stop), start):
      id_, group = identify(name, written.text), identify(name, written.idea)
      noted = {self.stage: {**facts, "index": index, **written.facts}}
      texts = id_, written.text, name, "MIT", self.kind, group
      yield Document(*texts, noted), written

  def asked(self, llm: prompt.Asker, start: int, stop: int) -> Iterator[_Text | Drop]:
    """Yield a text per reply of an LLM, or why it cannot be used."""
    request = functools.partial(self.request, llm)
    answers = llm.ask(range(start, stop), request, self.read, stop - start)
    source, name = f"llm:{llm.client.model}", self.grouped_by
    for index, written, why, facts in answers:
      places, key = self.places(index), facts["request"]
      more, text = (written.facts, written.text) if written else ({}, "")
      noted = {self.stage: {"teacher": "llm", **places, **facts, **more}}
      id_, group = identify("llm" if text else key, text), identify(name, places[name])
      document = Document(id_, text, source, "unknown", self.kind, group, noted)
      if written:
        yield document, written
      else:
        yield Drop(document, "no usable answer", {"reason": why, "request": key})


def run(subject_of: Callable[[Any], Subject], job: Job) -> dict[str, Any]:
  """Have a teacher write, check the code, keep the texts that pass; return the stats.

  An LLM is asked from this process.

  Raises:
    InputError: the folder was begun with other settings.
    EmptyError: nothing was kept.
  """
  subject = subject_of(job.config)
  with job.client() if job.needs_llm else contextlib.nullcontext() as client:
    llm = subject.llm(client) if client else None
    decides = llm.identity() if llm else {"grammar": teacher.VERSION}
    work = functools.partial(_run, job, subject, llm)
    return job.run(subject.stage, {"version": VERSION, **decides}, work)


def requests(
  subject_of: Callable[[Any], Subject], job: Job, client: Client
) -> Iterator[Request]:
  """Yield the requests of a job, to estimate their cost."""
  subject = subject_of(job.config)
  llm = subject.llm(client)
  return (subject.request(llm, index) for index in range(subject.number))


def _run(
  job: Job, subject: Subject, llm: prompt.Asker | None
) -> tuple[dict[str, Any], dict[str, Any]]:
  noted = job.work / "plan.json"  # a resumed run has the same tasks
  if not storage.exists(noted):
    tasks = 1 if llm else job.tasks or -(-subject.number // _TASK)
    job.work.mkdir(parents=True, exist_ok=True)
    storage.write_json(noted, {"tasks": min(tasks, subject.number)})
  sizes = {"tasks": storage.read_json(noted)["tasks"], "total": subject.number}
  one = llm is not None
  counts = job.phase("write", _write, subject, llm, **sizes, one_process=one)
  model = f"grammar teacher, version {teacher.VERSION} (no LLM)"
  facts: dict[str, Any] = llm.facts() if llm else {"models": [model]}
  facts["judged"] = storage.read_json(job.work / _SANDBOX)
  return counts.stats(), facts | {"diversity": diversity.figures(sample(job.folder))}


def _write(subject: Subject, llm: prompt.Asker | None, task: Task) -> Tally:
  span = [subject.number * n // task.tasks for n in (task.rank, task.rank + 1)]
  written = subject.asked(llm, *span) if llm else subject.composed(*span)
  workers = 1 if llm is None and task.tasks > 1 else None
  # Code of an LLM runs in isolation only.
  with Sandbox(workers=workers, require_isolation=llm is not None) as sandbox:
    tally = task.write(checked(_without_copies(written), sandbox, subject))
    storage.write_text(task.work / _SANDBOX, json.dumps(sandbox.record()))
  return tally


def _without_copies(written: Iterable[_Text | Drop]) -> Iterator[_Text | Drop]:
  """Drop texts that the task wrote before; `deduplicate` finds those of other tasks."""
  seen: set[str] = set()
  for each in written:
    if isinstance(each, Drop) or each[0].id not in seen:
      yield each
    else:
      yield Drop(each[0], "written before")
    if not isinstance(each, Drop):
      seen.add(each[0].id)


def checked(
  written: Iterable[_Text | Drop], sandbox: Sandbox, subject: Subject
) -> Iterator[Decision]:
  """Run the code of texts; yield the decisions, in order; drops pass."""
  iterator = iter(written)
  while window := list(itertools.islice(iterator, _WINDOW)):
    texts = {each[0].id: each[1] for each in window if not isinstance(each, Drop)}
    verdicts = _verdicts(texts, sandbox, subject)
    for each in window:
      if isinstance(each, Drop):
        yield each
      elif verdict := verdicts.get(each[0].id):
        facts = each[0].provenance.get(subject.stage, {})
        document = each[0].noted(subject.stage, {**facts, "verdict": verdict.outcome})
        evidence = {"detail": verdict.detail, "failed_test": verdict.failed_test}
        good = verdict.passed or subject.mark
        why = f"code: {verdict.outcome}"
        yield Keep(document) if good else Drop(document, why, evidence)
      else:
        yield Drop(each[0], "too long to run")


def _verdicts(
  texts: Mapping[str, Written], sandbox: Sandbox, subject: Subject
) -> dict[str, Verdict]:
  """Return the verdicts by the documents' ids; programs that are too long have none."""
  alone = {n: w for n, w in texts.items() if len(w.code + "".join(w.tests)) <= _LONGEST}
  seconds, verdicts = subject.cpu_seconds, dict[str, Verdict]()
  if subject.together:
    names = list(alone)
    groups = [names[n : n + _TOGETHER] for n in range(0, len(names), _TOGETHER)]
    programs = []
    for key, group in enumerate(groups):
      pairs = [(alone[name].code, alone[name].tests) for name in group]
      code, tests = _JOINT.format(pairs=pairs), (f"assert passed == {len(group)}",)
      programs.append(Program(str(key), code, tests, seconds * len(group)))
    for verdict in filter(lambda each: each.passed, sandbox.run(programs)):
      for name in groups[int(verdict.key)]:
        verdicts[name] = dataclasses.replace(verdict, key=name)
        del alone[name]
  for verdict in sandbox.run(
    Program(name, each.code, each.tests or ("pass",), seconds)
    for name, each in alone.items()
  ):
    verdicts[verdict.key] = verdict
  return verdicts


def function_name(chance: random.Random) -> str:
  """Return a name such as "count_rising_scores"; there are 30,720."""
  return "_".join(chance.choice(_LISTS[n]) for n in ("verbs", "qualities", "things"))


def two_topics(chance: random.Random) -> tuple[str, str]:
  """Return two different topics."""
  first = chance.randrange(len(TOPICS))
  second = (first + 1 + chance.randrange(len(TOPICS) - 1)) % len(TOPICS)
  return TOPICS[first], TOPICS[second]


def some(chance: random.Random, of: Sequence[str], number: int) -> list[str]:
  """Return different items in random order."""
  left = list(of)
  return [left.pop(chance.randrange(len(left))) for _ in range(number)]


def dice(seed: int, index: int) -> random.Random:
  """Return random numbers that follow from seed and index, on every machine."""
  return random.Random(f"ideas {seed} {index}")
