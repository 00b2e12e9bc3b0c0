"""The stages by name: what each is told, what it needs, and how it is called.

Imports of a stage's own are late: scikit-learn, Beam, JAX and TensorFlow take seconds
each, and no stage needs all of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi1_jax.curation import config as configs

if TYPE_CHECKING:
  from phi1_jax.curation.desk import Desk
  from phi1_jax.llm.request import Request

# A bar: made with (total or None, unit, description); a context manager with `update`.
MakeBar = Callable[[int | None, str, str], Any]


@dataclasses.dataclass(frozen=True)
class Work:
  """What one run of a stage is given.

  Attributes:
    config: the stage's.
    folder: where it is to leave what it makes.
    door: opens the way to an LLM; a stage that asks none never does.
    bar: makes a bar for work that no LLM does.
    engine: Beam's name of the runner, and its options.
    taus: match rates of the pruning study, if that is wanted.
  """

  config: Any
  folder: Path
  door: Callable[[], contextlib.AbstractContextManager[Desk]]
  bar: MakeBar
  engine: tuple[str, tuple[str, ...]]
  taus: tuple[float, ...] | None = None

  @property
  def asks(self) -> bool:
    """Whether an LLM is asked."""
    chosen = (getattr(self.config, name, None) for name in ("judge", "teacher"))
    return "llm" in chosen

  def runner(self, doing: str) -> Any:
    """Where Beam runs."""
    from phi1_jax.curation import pipeline

    return pipeline.Runner(*self.engine, lambda: self.bar(None, "documents", doing))


def _annotate(work: Work) -> dict[str, Any]:
  from phi1_jax.curation import annotate

  if not work.asks:
    return annotate.run(work.config, work.folder, annotate.LocalJudge())
  with work.door() as desk:
    return annotate.run(work.config, work.folder, _llm_judge(work, desk))


def _llm_judge(work: Work, desk: Desk) -> Any:
  from phi1_jax.curation import annotate, prompt

  asked = prompt.load(work.config.prompt, annotate.PLACES)
  return annotate.LlmJudge(work.config, desk, asked)


def _train_classifier(work: Work) -> dict[str, Any]:
  from phi1_jax.curation import classifier

  return classifier.run(work.config, work.folder)


def _filter(work: Work) -> dict[str, Any]:
  from phi1_jax.curation import filtering

  return filtering.run(work.config, work.folder, work.runner("filter"))


def _textbooks(work: Work) -> dict[str, Any]:
  from phi1_jax.curation import textbooks

  mark = work.config.failing_code == "mark"
  # Sections are not run together: what they define at top level is theirs.
  return _teach(work, textbooks, work.config.sections, mark=mark)


def _exercises(work: Work) -> dict[str, Any]:
  from phi1_jax.curation import exercises

  limit = work.config.cpu_seconds
  number = work.config.exercises
  return _teach(work, exercises, number, together=not work.asks, cpu_seconds=limit)


def _teach(work: Work, module: Any, total: int, **judging: Any) -> dict[str, Any]:
  from phi1_jax.curation import teachers, teaching
  from phi1_jax.curation.judging import Judge
  from phi1_jax.sandbox.sandbox import Sandbox

  with contextlib.ExitStack() as opened:
    if work.asks:
      teacher = _llm_teacher(work, module, opened.enter_context(work.door()))
    else:
      teacher = teachers.GrammarTeacher(module.lesson(work.config))
      judging["on_decision"] = _counting(opened, work, total, module.STAGE)
    # What this project wrote may run anywhere; what a model wrote, behind walls only.
    sandbox = opened.enter_context(Sandbox(require_isolation=work.asks))
    judge = Judge(sandbox, module.STAGE, **judging)
    return teaching.run(
      module.STAGE, module.VERSION, work.config, work.folder, teacher, judge
    )


def _counting(
  opened: contextlib.ExitStack, work: Work, total: int, name: str
) -> Callable[[], None]:
  """Moves a bar by one; it appears with the first, as there may be nothing to do."""
  bars: list[Any] = []

  def count() -> None:
    if not bars:
      bars.append(opened.enter_context(work.bar(total, name, name)))
    bars[0].update(1)

  return count


def _llm_teacher(work: Work, module: Any, desk: Desk) -> Any:
  from phi1_jax.curation import prompt, teachers

  asked = prompt.load(work.config.prompt, module.PLACES)
  return teachers.LlmTeacher(module.lesson(work.config), work.config, desk, asked)


def _deduplicate(work: Work) -> dict[str, Any]:
  from phi1_jax.curation import deduplicate

  return deduplicate.run(work.config, work.folder, work.runner("deduplicate"))


def _decontaminate(work: Work) -> dict[str, Any]:
  from phi1_jax.curation import decontaminate
  from phi1_jax.curation import folder as folders

  name = work.config.checkpoint
  pooling = work.config.pooling
  embed = None if name is None else decontaminate.CheckpointEmbed(name, pooling)
  runner = work.runner("decontaminate")
  if work.taus is None:
    return decontaminate.run(work.config, work.folder, runner, embed)
  decontaminate.study(work.config, work.folder, work.taus, runner, embed)
  print((work.folder / "study.md").read_text())
  return folders.read_stats(work.folder)


def _publish(work: Work) -> dict[str, Any]:
  from phi1_jax.curation import publish

  return publish.run(work.config, work.folder)


@dataclasses.dataclass(frozen=True)
class Stage:
  """A stage.

  Attributes:
    part: its gin name.
    config: the dataclass of that name.
    run: runs it, and gives its stats.
  """

  part: str
  config: type
  run: Callable[[Work], dict[str, Any]]


# In the order in which they follow each other.
STAGES = {
  "annotate": Stage("Annotate", configs.AnnotateConfig, _annotate),
  "train-classifier": Stage("Classifier", configs.ClassifierConfig, _train_classifier),
  "filter": Stage("Filter", configs.FilterConfig, _filter),
  "textbooks": Stage("Textbooks", configs.TextbooksConfig, _textbooks),
  "exercises": Stage("Exercises", configs.ExercisesConfig, _exercises),
  "deduplicate": Stage("Deduplicate", configs.DeduplicateConfig, _deduplicate),
  "decontaminate": Stage("Decontaminate", configs.DecontaminateConfig, _decontaminate),
  "publish": Stage("Publish", configs.PublishConfig, _publish),
}


def requests(name: str, work: Work, desk: Desk) -> Iterator[Request]:
  """What a stage would ask an LLM; nothing is sent.

  Args:
    name: of the stage, one that asks.
    work: as for its run.
    desk: through which it would ask.
  """
  if name == "annotate":
    from phi1_jax.curation import annotate, read

    judge = _llm_judge(work, desk)
    found, _ = annotate.sampled(read.read(work.config.inputs), work.config.sample)
    yield from judge.requests(found, 0)
    yield from judge.requests(found[: work.config.second_pass], 1)
    return
  from phi1_jax.curation import exercises, textbooks

  module = exercises if name == "exercises" else textbooks
  for request, _ in _llm_teacher(work, module, desk).asked():
    yield request
