"""Settings of the stages of curation: one frozen dataclass each.

The gin name of `AnnotateConfig` is `Annotate`. `inputs` are "embedded", folders of
stages, of code or of data sets, files or patterns.
"""

import dataclasses
from typing import Annotated, Any, Literal

from phi1_jax import InputError
from phi1_jax.problems import humaneval, mbpp, written
from phi1_jax.settings import Count, PositiveInt, Range, Settings

# Licences that allow training on and passing on the text, as SPDX identifiers: the
# permissive ones of The Stack's list (arXiv 2211.15533, section 3.1) and Python's own.
PERMISSIVE = (
  *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "ISC"),
  *("MIT", "MIT-0", "PSF-2.0", "Python-2.0", "Unlicense", "Zlib"),
)
EXECUTORS = ("local", "ray", "slurm")
PROBLEM_FILES = (".jsonl", ".jsonl.gz")  # in HumanEval's format

_Temperature = Annotated[float, Range(least=0, most=2)]
_Share = Annotated[float, Range(above=0, below=1)]
_Probability = Annotated[float, Range(least=0, most=1)]
_Pooling = Literal["mean", "last"]
_Method = Literal["tfidf", "forest", "transformer"]


class _StageSettings(Settings):
  """Settings of a stage."""

  def __post_init__(self):
    super().__post_init__()
    if getattr(self, "inputs", None) == ():
      raise self.wrong("inputs", "at least one input")

  def refuse_unused(self, names: tuple[str, ...], needs: str) -> None:
    """Refuse settings without effect."""
    defaults = {field.name: field.default for field in dataclasses.fields(self)}  # pyright: ignore[reportArgumentType]
    for name in names:
      if getattr(self, name) != defaults[name]:
        raise InputError(
          f"{self.gin_name}.{name}: got {getattr(self, name)!r}, which does nothing "
          f"without {self.gin_name}.{needs}; leave it out, or set that"
        )


@dataclasses.dataclass(frozen=True)
class AnnotateConfig(_StageSettings):
  """Educational value of a sample of the raw code."""

  inputs: tuple[str, ...]
  # "local" judges by documented features, without network; "llm" asks `Llm.model`.
  judge: Literal["local", "llm"] = "local"
  # Number of documents, chosen by hash; the paper labelled about 100,000.
  sample: PositiveInt = 1000
  # How many of them an LLM judges again, to measure agreement, and the temperature of
  # that pass; that of the first is 0.
  second_pass: Count = 200
  second_temperature: _Temperature = 0.7
  maximum_characters: PositiveInt = 8000  # of a document that an LLM sees
  max_tokens: PositiveInt = 200  # the longest answer of an LLM
  prompt: str = "annotate"  # which comes with the project, or a file of your own
  # Folder of another annotate run, whose labels are compared with these.
  compare_with: str | None = None

  def __post_init__(self):
    super().__post_init__()
    if self.judge != "llm":
      names = ("second_temperature", "max_tokens", "prompt")
      self.refuse_unused(names, 'judge = "llm"')


@dataclasses.dataclass(frozen=True)
class ClassifierConfig(_StageSettings):
  """A classifier that predicts the judge's scores."""

  labels: str  # folder of the annotate stage
  # "tfidf": words and pairs of words, logistic regression; "forest": the paper's random
  # forest on embeddings of `checkpoint`; "transformer": a text classifier in Hugging
  # Face's format, `model`.
  method: _Method = "tfidf"
  compare: tuple[_Method, ...] = ()  # methods that the report measures too
  positive_score: float = 3.0  # scores from here on count as of high value
  test_fraction: _Share = 0.25  # of the labels, for the report; whole repositories
  features: PositiveInt = 1 << 17  # most words and pairs of words of "tfidf"
  # Model for embeddings: a work directory of a training, or a converted
  # CodeGen-350M-mono, which is the paper's.
  checkpoint: str | None = None
  pooling: _Pooling = "mean"  # which final hidden states make the embedding
  trees: PositiveInt = 300
  minimum_leaf: PositiveInt = 2  # fewest documents in a leaf
  model: str | None = None  # folder of a text classifier, such as python-edu-scorer
  max_length: PositiveInt = 1024  # tokens of a document that a model reads
  batch_size: PositiveInt = 16  # documents that a model reads at once
  seed: int = 0  # decides the forest

  def __post_init__(self):
    super().__post_init__()
    for method, name in (("forest", "checkpoint"), ("transformer", "model")):
      if method in (self.method, *self.compare) and getattr(self, name) is None:
        raise self.wrong(name, f'a folder, as method = "{method}"')


@dataclasses.dataclass(frozen=True)
class FilterConfig(_StageSettings):
  """Form check, masks and classifier for raw code; textbooks and exercises pass."""

  inputs: tuple[str, ...]
  # Folder of the train-classifier stage; None keeps all code of good form.
  classifier: str | None = "train-classifier"
  # Probability of high value from which on code is kept; None is the threshold of the
  # best F1 in the classifier's report.
  threshold: _Probability | None = None
  # SPDX identifiers; a document is kept if its expression can be fulfilled with them.
  # () keeps all.
  licences: tuple[str, ...] = PERMISSIVE
  mask: bool = True  # replace keys, secrets and e-mail addresses

  def __post_init__(self):
    super().__post_init__()
    if self.classifier is None:
      self.refuse_unused(("threshold",), "classifier")


@dataclasses.dataclass(frozen=True)
class _TeacherSettings(_StageSettings):
  """Settings of a stage that writes texts."""

  # "grammar" composes them here, "llm" has `Llm.model` write them.
  teacher: Literal["grammar", "llm"] = "grammar"
  seed: int = 0  # decides all choices, such as topics, names and professions
  temperature: _Temperature = 1.0  # of an LLM
  max_tokens: PositiveInt = 1500  # the longest answer of an LLM
  prompt: str = ""  # one that comes with the project, or a file of your own

  def __post_init__(self):
    super().__post_init__()
    if self.teacher != "llm":
      self.refuse_unused(("temperature", "max_tokens", "prompt"), 'teacher = "llm"')


@dataclasses.dataclass(frozen=True)
class TextbooksConfig(_TeacherSettings):
  """Synthetic textbook sections."""

  prompt: str = "textbook"
  sections: PositiveInt = 2000  # number of sections to write
  failing_code: Literal["drop", "mark"] = "drop"  # for sections whose code fails


@dataclasses.dataclass(frozen=True)
class ExercisesConfig(_TeacherSettings):
  """Synthetic exercises whose solutions pass their tests."""

  max_tokens: PositiveInt = 800
  prompt: str = "exercise"
  exercises: PositiveInt = 20_000  # number of exercises to write
  menu: Literal["all", "plain", "composed"] = "all"  # tasks of the grammar
  minimum_asserts: PositiveInt = 2  # an exercise with fewer checks is dropped
  # CPU time that a solution and its checks may take.
  cpu_seconds: Annotated[float, Range(above=0, most=600)] = 3.0

  def __post_init__(self):
    super().__post_init__()
    if self.teacher == "llm":
      self.refuse_unused(("menu",), 'teacher = "grammar"')


@dataclasses.dataclass(frozen=True)
class DeduplicateConfig(_StageSettings):
  """Near-duplicates; licence headers and imports do not count."""

  inputs: tuple[str, ...]
  # Inputs whose documents stay as they are, and make others go.
  against: tuple[str, ...] = ()
  shingle: PositiveInt = 5  # words and identifiers per shingle
  # Length of a MinHash signature, and its bands. A pair whose signatures agree in one
  # band is a candidate: at a similarity s with probability 1 - (1 - s^r)^bands, where
  # r = permutations / bands. The defaults find 95% of the pairs at 0.7, 99.8% at 0.8.
  permutations: PositiveInt = 144
  bands: PositiveInt = 24
  similarity: _Share = 0.7  # true Jaccard similarity from which on documents go
  comparisons: PositiveInt = 32  # members of a bucket that the others are compared with
  # Sources whose documents stay rather than those of others, first ones first; within a
  # source the smaller id stays.
  prefer: tuple[str, ...] = ()
  maximum_loss: _Probability = 0.5  # the stage stops if a source loses a larger share

  def __post_init__(self):
    super().__post_init__()
    if self.permutations % self.bands:
      raise self.wrong("bands", f"a divisor of {self.permutations}")
    if len(self.prefer) > 13:
      raise self.wrong("prefer", "at most 13 sources")


@dataclasses.dataclass(frozen=True)
class DecontaminateConfig(_StageSettings):
  """Removal of text that is too close to a benchmark."""

  inputs: tuple[str, ...]
  # Names of task sets that training data must not hold, or files of problems in
  # HumanEval's format (.jsonl or .jsonl.gz, also on gs://).
  benchmarks: tuple[str, ...] = ("humaneval-164", "mbpp-full-974")
  ngram: PositiveInt = 13  # words of a run that counts as shared; 13 is the paper's
  # AST match rate from which on a function is a copy of a reference; the paper studies
  # 0.95, 0.9, 0.85 and 0.8.
  tau: _Share = 0.95
  # L2 distance of normalised embeddings up to which a pair is looked at.
  distance: Annotated[float, Range(above=0, most=2)] | None = None
  checkpoint: str | None = None  # model for embeddings; None = no embeddings
  pooling: _Pooling = "last"  # which final hidden states make an embedding

  def __post_init__(self):
    super().__post_init__()
    known = (humaneval.TASK_SET, *mbpp.TASK_SETS, *written.TASK_SETS)
    for name in self.benchmarks or ("",):
      if not name.endswith(PROBLEM_FILES) and name not in known:
        expected = f"at least one of {', '.join(known)}, FILE.jsonl or FILE.jsonl.gz"
        raise self.wrong("benchmarks", expected)
    if self.checkpoint is None:
      self.refuse_unused(("distance", "pooling"), "checkpoint")
    elif self.distance is None:
      raise self.wrong("distance", "a distance, as there is a checkpoint")


@dataclasses.dataclass(frozen=True)
class PublishConfig(_StageSettings):
  """The curated sets as TFDS and parquet data sets."""

  inputs: tuple[str, ...]  # whose documents are published by kind
  # TFDS folder, which `Data.curated_directory` reads; `datasets` reads the folder
  # `parquet` of each set.
  directory: str = "curated"
  version: str = "1.0.0"  # of the data sets, "1.MINOR.PATCH"

  def __post_init__(self):
    super().__post_init__()
    numbers = self.version.split(".")
    if numbers[0] != "1" or len(numbers) != 3 or not all(n.isdigit() for n in numbers):
      raise self.wrong("version", '"1.MINOR.PATCH"')


# The stages in the order of `curate all`, each with its module in this folder, which is
# imported when it runs: scikit-learn, JAX and TensorFlow take seconds each.
STAGES: dict[str, tuple[str, Any]] = {
  "textbooks": ("textbooks", TextbooksConfig),
  "exercises": ("exercises", ExercisesConfig),
  "deduplicate": ("deduplicate", DeduplicateConfig),
  "annotate": ("annotate", AnnotateConfig),
  "train-classifier": ("classifier", ClassifierConfig),
  "filter": ("filtering", FilterConfig),
  "decontaminate": ("decontaminate", DecontaminateConfig),
  "publish": ("publish", PublishConfig),
}
