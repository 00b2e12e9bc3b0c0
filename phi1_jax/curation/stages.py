"""The stages by name, in the order of `curate all`.

Imports are late: scikit-learn, JAX and TensorFlow take seconds each, and no stage needs
all of them.
"""

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi1_jax.curation import config as configs
from phi1_jax.curation.engine import Engine
from phi1_jax.storage import AnyPath

if TYPE_CHECKING:
  from phi1_jax.curation.replies import Replies
  from phi1_jax.llm.request import Request


@dataclasses.dataclass(frozen=True)
class Context:
  """What a run of a stage gets.

  Attributes:
    config: the stage's settings.
    folder: the stage's folder.
    engine: where its tasks run.
    client: opens a client of an LLM; a stage that needs none never does.
    taus: match rates of the pruning study.
  """

  config: Any
  folder: AnyPath
  engine: Engine
  client: Callable[[], contextlib.AbstractContextManager["Replies"]]
  taus: tuple[float, ...] | None = None

  @property
  def needs_llm(self) -> bool:
    """Whether the stage sends requests to an LLM."""
    chosen = (getattr(self.config, name, None) for name in ("judge", "teacher"))
    return "llm" in chosen


def _annotate(context: Context) -> dict[str, Any]:
  from phi1_jax.curation import annotate

  def run(judge: annotate.Judge) -> dict[str, Any]:
    return annotate.run(context.config, context.folder, context.engine, judge)

  if not context.needs_llm:
    return run(annotate.LocalJudge())
  with context.client() as replies:
    return run(_llm_judge(context, replies))


def _llm_judge(context: Context, replies: "Replies") -> Any:
  from phi1_jax.curation import annotate, prompt

  loaded = prompt.load(context.config.prompt, annotate.PLACES)
  return annotate.LlmJudge(context.config, replies, loaded)


def _train_classifier(context: Context) -> dict[str, Any]:
  from phi1_jax.curation import classifier

  return classifier.run(context.config, context.folder)


def _filter(context: Context) -> dict[str, Any]:
  from phi1_jax.curation import filtering

  return filtering.run(context.config, context.folder, context.engine)


def _textbooks(context: Context) -> dict[str, Any]:
  from phi1_jax.curation import textbooks

  return _teach(context, textbooks)


def _exercises(context: Context) -> dict[str, Any]:
  from phi1_jax.curation import exercises

  return _teach(context, exercises)


def _teach(context: Context, module: Any) -> dict[str, Any]:
  from phi1_jax.curation import teaching

  subject = module.subject(context.config)

  def run(teacher: teaching.Teacher) -> dict[str, Any]:
    return teaching.run(
      context.config, context.folder, context.engine, subject, teacher
    )

  if not context.needs_llm:
    return run(teaching.GrammarTeacher(subject))
  with context.client() as replies:
    return run(_llm_teacher(context, module, replies))


def _llm_teacher(context: Context, module: Any, replies: "Replies") -> Any:
  from phi1_jax.curation import prompt, teaching

  loaded = prompt.load(context.config.prompt, module.PLACES)
  subject = module.subject(context.config)
  return teaching.LlmTeacher(subject, context.config, replies, loaded)


def _deduplicate(context: Context) -> dict[str, Any]:
  from phi1_jax.curation import deduplicate

  return deduplicate.run(context.config, context.folder, context.engine)


def _decontaminate(context: Context) -> dict[str, Any]:
  from phi1_jax.curation import decontaminate

  config = context.config
  name = config.checkpoint
  embed = None if name is None else decontaminate.CheckpointEmbed(name, config.pooling)
  stats = decontaminate.run(config, context.folder, context.engine, embed, context.taus)
  if context.taus is not None:
    print((context.folder / decontaminate.TABLE).read_text())
  return stats


def _publish(context: Context) -> dict[str, Any]:
  from phi1_jax.curation import publish

  return publish.run(context.config, context.folder, context.engine)


@dataclasses.dataclass(frozen=True)
class Stage:
  """A stage.

  Attributes:
    part: its gin name.
    config: the dataclass of that name.
    run: runs it, and returns its stats.
  """

  part: str
  config: type
  run: Callable[[Context], dict[str, Any]]


STAGES = {
  "textbooks": Stage("Textbooks", configs.TextbooksConfig, _textbooks),
  "exercises": Stage("Exercises", configs.ExercisesConfig, _exercises),
  "deduplicate": Stage("Deduplicate", configs.DeduplicateConfig, _deduplicate),
  "annotate": Stage("Annotate", configs.AnnotateConfig, _annotate),
  "train-classifier": Stage("Classifier", configs.ClassifierConfig, _train_classifier),
  "filter": Stage("Filter", configs.FilterConfig, _filter),
  "decontaminate": Stage("Decontaminate", configs.DecontaminateConfig, _decontaminate),
  "publish": Stage("Publish", configs.PublishConfig, _publish),
}


def requests(name: str, context: Context, replies: "Replies") -> Iterator["Request"]:
  """Yield the requests of a stage; nothing is sent.

  Args:
    name: of the stage, one that needs an LLM.
    context: as for its run.
    replies: as for its run.
  """
  if name == "annotate":
    from phi1_jax.curation import annotate
    from phi1_jax.curation.document import Keep

    with tempfile.TemporaryDirectory() as scratch:
      config, folder = context.config, Path(scratch)
      engine = dataclasses.replace(context.engine, executor="local")
      chunks = annotate.sample(config, folder, engine, config.sample)
      judge = _llm_judge(context, replies)
      for chunk in range(len(chunks)):
        decisions = annotate.chosen(folder, chunk)
        found = [d.document for d in decisions if isinstance(d, Keep)]
        yield from judge.requests(found, 0)
        yield from judge.requests(found[: config.second_pass], 1)
    return
  from phi1_jax.curation import exercises, textbooks

  module = exercises if name == "exercises" else textbooks
  teacher = _llm_teacher(context, module, replies)
  for request, _ in teacher.requests(0, teacher.subject.number):
    yield request
