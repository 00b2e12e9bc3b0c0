"""The stages that write texts: a teacher, its subject, and the check of its code."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from phi1_jax import storage
from phi1_jax.curation import folder as folders
from phi1_jax.curation import local_teacher
from phi1_jax.curation.checking import Candidate, Checker
from phi1_jax.curation.config import ExercisesConfig, TextbooksConfig
from phi1_jax.curation.deduplicate import sample
from phi1_jax.curation.document import Decision, Document, Drop, identify
from phi1_jax.curation.engine import Engine, Write
from phi1_jax.curation.prompt import Prompt
from phi1_jax.curation.replies import Replies
from phi1_jax.llm.conversation import Answered
from phi1_jax.llm.request import Request
from phi1_jax.sandbox.sandbox import Sandbox
from phi1_jax.storage import AnyPath
from phi1_jax.text import diversity

VERSION = 2
_TASK = 2500  # texts of the local teacher in a task
_SANDBOX = "sandbox.json"


@dataclasses.dataclass(frozen=True)
class Written:
  """A teacher's text.

  Attributes:
    text: of the document.
    code: the program to run.
    tests: statements that must pass after it.
    idea: what texts have in common that may not be split between training and held-out
      data; for an LLM the place of the prompt that `Subject.grouped_by` names.
    facts: for the provenance.
  """

  text: str
  code: str
  tests: tuple[str, ...] = ()
  idea: str = ""
  facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Subject:
  """What a stage has a teacher write.

  Attributes:
    stage: its name.
    kind: of the documents.
    number: how many.
    seed: of all choices.
    compose: start, stop -> the local teacher's texts.
    places: index -> what an LLM's prompt is filled with.
    grouped_by: the place by which an LLM's documents are grouped.
    read: finds the text in an LLM's reply; raises `Malformed` where there is none.
    checks: arguments of `Checker`.
  """

  stage: str
  kind: str
  number: int
  seed: int
  compose: Callable[[int, int], Iterator[Written]]
  places: Callable[[int], dict[str, str]]
  grouped_by: str
  read: Callable[[str], Written]
  checks: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Teacher(Protocol):
  """Writes candidates: an LLM, or the grammar."""

  @property
  def trusted(self) -> bool:
    """Whether its code may run without isolation, and in any process."""
    ...

  def identity(self) -> dict[str, Any]:
    """Return what decides the texts beside the stage's own settings."""
    ...

  def facts(self) -> dict[str, Any]:
    """Return entries of stats and cards: "models", "prompts", "cost"."""
    ...

  def candidates(self, start: int, stop: int) -> Iterator[Candidate | Drop]:
    """Yield the candidates of a range, in an order that never varies."""
    ...


def run(
  config: ExercisesConfig | TextbooksConfig,
  folder: AnyPath,
  engine: Engine,
  subject: Subject,
  teacher: Teacher,
) -> dict[str, Any]:
  """Have a teacher write, check the code, keep what passes; return the stats.

  Args:
    config: part of the folder's settings.
    folder: the stage's folder; complete, it is only read.
    engine: where the tasks run; an LLM is asked from this process.
    subject: what is written.
    teacher: writes it.

  Raises:
    InputError: the folder was begun with other settings.
    EmptyError: nothing was kept.
  """
  settings = {**dataclasses.asdict(config), "version": VERSION, **teacher.identity()}
  if folders.begin(folder, subject.stage, settings):
    return folders.read_stats(folder)
  facts: dict[str, Any] = {}
  with folders.measured(facts):
    tasks = (engine.tasks or -(-subject.number // _TASK)) if teacher.trusted else 1
    work = folder / folders.ENGINE
    noted = work / "plan.json"  # a resumed run has the same tasks
    if not storage.exists(noted):
      work.mkdir(parents=True, exist_ok=True)
      storage.write_json(noted, {"tasks": min(tasks, subject.number)})
    tasks = storage.read_json(noted)["tasks"]
    steps = [Writing(folder, subject, teacher), Write(folder, "write")]
    one = not teacher.trusted
    counts = engine.run(folder, "write", steps, tasks, subject.number, one)
    facts["judged"] = storage.read_json(work / _SANDBOX)
    facts["diversity"] = diversity.figures(sample(folder))
    facts |= teacher.facts()
  return folders.finish(folder, subject.stage, counts.stats(), facts)


@dataclasses.dataclass(frozen=True)
class Writing:
  """A step: a task's range of texts to decisions."""

  folder: AnyPath
  subject: Subject
  teacher: Teacher

  def __call__(self, data: Any, rank: int, world_size: int) -> Iterator[Decision]:
    """Yield the decisions."""
    del data
    subject, trusted = self.subject, self.teacher.trusted
    start = subject.number * rank // world_size
    stop = subject.number * (rank + 1) // world_size
    # An LLM's code may run behind walls only.
    workers = 1 if trusted and world_size > 1 else None
    with Sandbox(workers=workers, require_isolation=not trusted) as sandbox:
      checker = Checker(sandbox, subject.stage, **subject.checks)
      candidates = without_copies(self.teacher.candidates(start, stop))
      yield from checker.decisions(candidates)
      path = self.folder / folders.ENGINE / _SANDBOX
      storage.write_text(path, json.dumps(sandbox.record()))


def without_copies(
  candidates: Iterator[Candidate | Drop],
) -> Iterator[Candidate | Drop]:
  """Drop texts that the task wrote before; `deduplicate` finds those of other tasks."""
  seen: set[str] = set()
  for each in candidates:
    if isinstance(each, Candidate):
      name = each.document.id
      yield Drop(each.document, "written before") if name in seen else each
      seen.add(name)
    else:
      yield each


@dataclasses.dataclass(frozen=True)
class GrammarTeacher:
  """Has `phi1_jax.grammar` write: no model, no network, no cost."""

  subject: Subject
  trusted: bool = True

  def identity(self) -> dict[str, Any]:
    """Return the grammar's version."""
    return {"grammar": local_teacher.VERSION}

  def facts(self) -> dict[str, Any]:
    """Return a model's name that says that no language model wrote."""
    return {"models": [f"grammar teacher, version {local_teacher.VERSION} (no LLM)"]}

  def candidates(self, start: int, stop: int) -> Iterator[Candidate]:
    """Yield a candidate per index."""
    subject = self.subject
    for index, written in enumerate(subject.compose(start, stop), start):
      facts = {"teacher": "grammar", "grammar": local_teacher.VERSION}
      facts |= {"seed": subject.seed, "index": index, **written.facts}
      document = Document(
        id=identify("grammar", written.text),
        text=written.text,
        source="grammar",
        licence="MIT",
        kind=subject.kind,
        repository=identify("grammar", written.idea),
        provenance={subject.stage: facts},
      )
      yield Candidate(document, written.code, written.tests)


@dataclasses.dataclass(frozen=True)
class LlmTeacher:
  """Has an LLM write, every text from other places of one prompt.

  Attributes:
    subject: what it writes.
    config: how long a reply may be, and its temperature.
    replies: requests, counted.
    prompt: with the places of the subject.
  """

  subject: Subject
  config: ExercisesConfig | TextbooksConfig
  replies: Replies
  prompt: Prompt
  trusted: bool = False

  def identity(self) -> dict[str, Any]:
    """Return the model and the prompt."""
    return {**self.replies.identity(), "prompt": self.prompt.version}

  def facts(self) -> dict[str, Any]:
    """Return the model, the prompt, and the cost."""
    return {**self.replies.facts(), "prompts": [self.prompt.record()]}

  def requests(self, start: int, stop: int) -> Iterator[tuple[Request, dict[str, str]]]:
    """Yield requests, each with the places of its prompt."""
    limits = self.config.max_tokens, self.config.temperature
    for index in range(start, stop):
      places = self.subject.places(index)
      yield self.prompt.request(places, *limits, index), places

  def candidates(self, start: int, stop: int) -> Iterator[Candidate | Drop]:
    """Yield a candidate per reply, or why it cannot be used."""
    requests = (request for request, _ in self.requests(start, stop))
    answers = self.replies.ask(requests, self.subject.read, stop - start)
    asked = self.requests(start, stop)
    for (_, places), answer in zip(asked, answers, strict=True):
      facts: dict[str, Any] = {"teacher": "llm", "model": self.replies.model, **places}
      facts["prompt"] = self.prompt.version
      if isinstance(answer, Answered):
        written: Written = answer.value
        facts |= {"request": answer.reply.key, **written.facts}
        document = self._document(written.text, facts)
        yield Candidate(document, written.code, written.tests)
      else:
        facts["request"] = answer.key
        evidence = {"reason": answer.reason, "request": answer.key}
        yield Drop(self._document("", facts), "no usable answer", evidence)

  def _document(self, text: str, facts: dict[str, Any]) -> Document:
    by = self.subject.grouped_by
    return Document(
      id=identify("llm" if text else facts["request"], text),
      text=text,
      source=f"llm:{self.replies.model}",
      licence="unknown",
      kind=self.subject.kind,
      repository=identify(by, facts[by]),
      provenance={self.subject.stage: facts},
    )
