"""The stages by name, in the order of `curate all`."""

import dataclasses
import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from phi1_jax.curation import config as configs

if TYPE_CHECKING:
  from phi1_jax.curation.engine import Job
  from phi1_jax.curation.replies import Replies
  from phi1_jax.llm.request import Request


@dataclasses.dataclass(frozen=True)
class Stage:
  """A stage.

  Attributes:
    module: its module, imported when it runs: scikit-learn, JAX and TensorFlow take
      seconds each, and no stage needs all of them.
    config: the dataclass of its settings.
  """

  module: str
  config: Any

  @property
  def part(self) -> str:
    """Its gin name."""
    return self.config.gin_name

  def run(self, job: "Job") -> dict[str, Any]:
    """Run it, or find it complete; return its stats."""
    return self._imported().run(job)

  def requests(self, job: "Job", replies: "Replies") -> Iterator["Request"]:
    """Yield the requests of a job that needs an LLM; nothing is sent."""
    return self._imported().requests(job, replies)

  def _imported(self) -> Any:
    return importlib.import_module(f"phi1_jax.curation.{self.module}")


STAGES = {
  "textbooks": Stage("textbooks", configs.TextbooksConfig),
  "exercises": Stage("exercises", configs.ExercisesConfig),
  "deduplicate": Stage("deduplicate", configs.DeduplicateConfig),
  "annotate": Stage("annotate", configs.AnnotateConfig),
  "train-classifier": Stage("classifier", configs.ClassifierConfig),
  "filter": Stage("filtering", configs.FilterConfig),
  "decontaminate": Stage("decontaminate", configs.DecontaminateConfig),
  "publish": Stage("publish", configs.PublishConfig),
}
