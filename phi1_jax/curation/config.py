"""Settings of the stages of curation: one frozen dataclass each."""

import dataclasses
import math
from typing import Any

from phi1_jax import InputError
from phi1_jax.curation.local_teacher import MENUS
from phi1_jax.problems import humaneval, mbpp, written

# Licences that allow training on and passing on the text, as SPDX identifiers: the
# permissive ones of The Stack's list (arXiv 2211.15533, section 3.1) and Python's own.
PERMISSIVE = (
  "0BSD",
  "Apache-2.0",
  "BSD-2-Clause",
  "BSD-3-Clause",
  "BSL-1.0",
  "CC0-1.0",
  "ISC",
  "MIT",
  "MIT-0",
  "PSF-2.0",
  "Python-2.0",
  "Unlicense",
  "Zlib",
)


@dataclasses.dataclass(frozen=True)
class AnnotateConfig:
  """Educational value of a sample of the raw code (gin name: `Annotate`).

  Attributes:
    inputs: "embedded", folders of stages, of code or of data sets, files or patterns.
    judge: "local" (documented features, no network) or "llm" (`Llm.model`).
    sample: number of documents, chosen by hash; the paper labelled about 100,000.
    second_pass: how many of them are judged again, to measure agreement.
    second_temperature: temperature of an LLM's second pass; that of the first is 0.
    maximum_characters: how much of a document an LLM sees.
    max_tokens: the longest answer of an LLM.
    prompt: "annotate", which comes with the project, or a file of your own.
    compare_with: folder of another annotate run, whose labels of the same documents are
      compared with these.
  """

  inputs: tuple[str, ...]
  judge: str = "local"
  sample: int = 1000
  second_pass: int = 200
  second_temperature: float = 0.7
  maximum_characters: int = 8000
  max_tokens: int = 200
  prompt: str = "annotate"
  compare_with: str | None = None

  def __post_init__(self):
    """Refuse wrong settings."""
    _check_inputs("Annotate", self.inputs)
    _check_choice("Annotate.judge", self.judge, ("local", "llm"))
    for name in ("sample", "maximum_characters", "max_tokens"):
      _check_least(f"Annotate.{name}", getattr(self, name), 1)
    _check_least("Annotate.second_pass", self.second_pass, 0)
    _check_temperature("Annotate", self.second_temperature, "second_temperature")
    if self.judge != "llm":
      names = ("second_temperature", "max_tokens", "prompt")
      _check_unused("Annotate", self, names, 'judge = "llm"')


METHODS = ("tfidf", "forest", "transformer")


@dataclasses.dataclass(frozen=True)
class ClassifierConfig:
  """A classifier that predicts the judge's scores (gin name: `Classifier`).

  Attributes:
    labels: folder of the annotate stage.
    method: "tfidf" (words and pairs of words, logistic regression), "forest" (the
      paper's random forest on embeddings of `checkpoint`) or "transformer" (a text
      classifier in Hugging Face's format, `model`).
    compare: further methods that the report measures on the same split.
    positive_score: scores from here on count as of high educational value.
    test_fraction: share of the labels that reports are made on; repositories are whole.
    features: most words and pairs of words of "tfidf".
    checkpoint: model for embeddings: a work directory of a training, or a converted
      CodeGen-350M-mono, which is the paper's.
    pooling: "mean" or "last": which final hidden states make the embedding.
    trees: number of trees.
    minimum_leaf: fewest documents in a leaf.
    model: folder of a text classifier, such as python-edu-scorer.
    max_length: tokens of a document that a model reads; the rest is cut.
    batch_size: documents that a model reads at once.
    seed: decides the forest.
  """

  labels: str
  method: str = "tfidf"
  compare: tuple[str, ...] = ()
  positive_score: float = 3.0
  test_fraction: float = 0.25
  features: int = 1 << 17
  checkpoint: str | None = None
  pooling: str = "mean"
  trees: int = 300
  minimum_leaf: int = 2
  model: str | None = None
  max_length: int = 1024
  batch_size: int = 16
  seed: int = 0

  def __post_init__(self):
    """Refuse wrong settings."""
    methods = (self.method, *self.compare)
    for method in methods:
      _check_choice("Classifier.method", method, METHODS)
    _check_choice("Classifier.pooling", self.pooling, ("mean", "last"))
    for name in ("max_length", "trees", "minimum_leaf", "batch_size", "features"):
      _check_least(f"Classifier.{name}", getattr(self, name), 1)
    _check_share("Classifier.test_fraction", self.test_fraction)
    for method, name in (("forest", "checkpoint"), ("transformer", "model")):
      if method in methods and getattr(self, name) is None:
        raise _error(f"Classifier.{name}", None, f'a folder, as method = "{method}"')


@dataclasses.dataclass(frozen=True)
class FilterConfig:
  """Form check, masks and classifier for raw code (gin name: `Filter`).

  Textbooks and exercises among the inputs pass.

  Attributes:
    inputs: "embedded", folders of stages, of code or of data sets, files or patterns.
    classifier: folder of the train-classifier stage; None keeps whatever has the form.
    threshold: probability of high value from which on code is kept; None is the
      threshold of the best F1 in the classifier's report.
    licences: SPDX identifiers; a document is kept if its expression can be fulfilled
      with them. () keeps all.
    mask: replace keys, secrets and e-mail addresses.
  """

  inputs: tuple[str, ...]
  classifier: str | None = "train-classifier"
  threshold: float | None = None
  licences: tuple[str, ...] = PERMISSIVE
  mask: bool = True

  def __post_init__(self):
    """Refuse wrong settings."""
    _check_inputs("Filter", self.inputs)
    if self.threshold is not None and not 0 <= self.threshold <= 1:
      raise _error("Filter.threshold", self.threshold, "a probability, or None")


@dataclasses.dataclass(frozen=True)
class TextbooksConfig:
  """Synthetic textbook sections (gin name: `Textbooks`).

  Attributes:
    teacher: "grammar" (composes them here) or "llm" (asks `Llm.model`).
    sections: number of sections to write.
    seed: decides topics, audiences and seed words.
    failing_code: "drop" or "mark": what happens to a section whose code does not run.
    temperature: of an LLM.
    max_tokens: the longest section of an LLM.
    prompt: "textbook", which comes with the project, or a file of your own.
  """

  teacher: str = "grammar"
  sections: int = 2000
  seed: int = 0
  failing_code: str = "drop"
  temperature: float = 1.0
  max_tokens: int = 1500
  prompt: str = "textbook"

  def __post_init__(self):
    """Refuse wrong settings."""
    _check_choice("Textbooks.teacher", self.teacher, ("grammar", "llm"))
    _check_choice("Textbooks.failing_code", self.failing_code, ("drop", "mark"))
    _check_least("Textbooks.sections", self.sections, 1)
    _check_least("Textbooks.max_tokens", self.max_tokens, 1)
    _check_temperature("Textbooks", self.temperature)
    if self.teacher != "llm":
      names = ("temperature", "max_tokens", "prompt")
      _check_unused("Textbooks", self, names, 'teacher = "llm"')


@dataclasses.dataclass(frozen=True)
class ExercisesConfig:
  """Synthetic exercises whose solutions pass their tests (gin name: `Exercises`).

  Attributes:
    teacher: "grammar" (composes them here) or "llm" (asks `Llm.model`).
    exercises: number of exercises to write.
    seed: decides names, topics and professions.
    menu: of the grammar: "all", or short tasks about one or two values that a small
      model learns sooner: "first" (numbers and words), "numbers".
    minimum_asserts: an exercise with fewer checks of its solution is dropped.
    cpu_seconds: CPU time that a solution and its checks may take.
    temperature: of an LLM.
    max_tokens: the longest answer of an LLM.
    prompt: "exercise", which comes with the project, or a file of your own.
  """

  teacher: str = "grammar"
  exercises: int = 20_000
  seed: int = 0
  menu: str = "all"
  minimum_asserts: int = 2
  cpu_seconds: float = 3.0
  temperature: float = 1.0
  max_tokens: int = 800
  prompt: str = "exercise"

  def __post_init__(self):
    """Refuse wrong settings."""
    _check_choice("Exercises.teacher", self.teacher, ("grammar", "llm"))
    _check_choice("Exercises.menu", self.menu, tuple(MENUS))
    for name in ("exercises", "minimum_asserts", "max_tokens"):
      _check_least(f"Exercises.{name}", getattr(self, name), 1)
    _check_temperature("Exercises", self.temperature)
    if self.teacher == "llm":
      _check_unused("Exercises", self, ("menu",), 'teacher = "grammar"')
    else:
      names = ("temperature", "max_tokens", "prompt")
      _check_unused("Exercises", self, names, 'teacher = "llm"')
    if not 0 < self.cpu_seconds <= 600:
      raise _error("Exercises.cpu_seconds", self.cpu_seconds, "above 0, at most 600")


@dataclasses.dataclass(frozen=True)
class DeduplicateConfig:
  """Near-duplicates (gin name: `Deduplicate`).

  Attributes:
    inputs: "embedded", folders of stages, of code or of data sets, files or patterns.
    against: inputs whose documents stay as they are, and make others go.
    shingle: words and identifiers per shingle.
    permutations: length of a MinHash signature.
    bands: a pair whose signatures agree in one band is a candidate: at a similarity s
      with probability 1 - (1 - s^r)^bands, where r = permutations / bands. The
      defaults find 95% of the pairs at 0.7, 99.8% at 0.8.
    similarity: true Jaccard similarity from which on two documents are duplicates.
      Licence headers and imports do not count.
    comparisons: how many of a bucket's first members the others are compared with.
    prefer: sources whose documents stay rather than those of others, first ones first;
      within a source the smaller id stays.
    maximum_loss: the stage stops if a source loses more than this share.
  """

  inputs: tuple[str, ...]
  against: tuple[str, ...] = ()
  shingle: int = 5
  permutations: int = 144
  bands: int = 24
  similarity: float = 0.7
  comparisons: int = 32
  prefer: tuple[str, ...] = ()
  maximum_loss: float = 0.5

  def __post_init__(self):
    """Refuse wrong settings."""
    _check_inputs("Deduplicate", self.inputs)
    for name in ("shingle", "permutations", "bands", "comparisons"):
      _check_least(f"Deduplicate.{name}", getattr(self, name), 1)
    if self.permutations % self.bands:
      raise _error("Deduplicate.bands", self.bands, f"a divisor of {self.permutations}")
    if len(self.prefer) > 13:
      raise _error("Deduplicate.prefer", self.prefer, "at most 13 sources")
    _check_share("Deduplicate.similarity", self.similarity)
    if not 0 <= self.maximum_loss <= 1:
      raise _error("Deduplicate.maximum_loss", self.maximum_loss, "a share, 0 to 1")


@dataclasses.dataclass(frozen=True)
class DecontaminateConfig:
  """Removal of text that is too close to a benchmark (gin name: `Decontaminate`).

  Attributes:
    inputs: folders of stages, of code or of data sets, files or patterns.
    benchmarks: names of task sets that training data must not hold, or files of
      problems in HumanEval's format (.jsonl).
    ngram: words of a run that counts as shared; the paper's is 13.
    tau: AST match rate from which on a function is a copy of a reference; the paper
      studies 0.95, 0.9, 0.85 and 0.8.
    cut: "document" drops the document; "function" cuts the functions or notebook cells
      that are too close, and drops the document only if that is not enough.
    distance: L2 distance of normalised embeddings up to which a pair is looked at;
      None, or no checkpoint, uses no embeddings.
    checkpoint: model for embeddings; None = no embeddings.
    pooling: "mean" or "last": which final hidden states make an embedding.
  """

  inputs: tuple[str, ...]
  benchmarks: tuple[str, ...] = ("humaneval-164", "mbpp-full-974")
  ngram: int = 13
  tau: float = 0.95
  cut: str = "document"
  distance: float | None = None
  checkpoint: str | None = None
  pooling: str = "last"

  def __post_init__(self):
    """Refuse wrong settings."""
    _check_inputs("Decontaminate", self.inputs)
    _check_choice("Decontaminate.pooling", self.pooling, ("mean", "last"))
    _check_choice("Decontaminate.cut", self.cut, ("document", "function"))
    if not self.benchmarks:
      raise _error("Decontaminate.benchmarks", self.benchmarks, "at least one task set")
    for name in self.benchmarks:
      known = (humaneval.TASK_SET, *mbpp.TASK_SETS, *written.TASK_SETS, "FILE.jsonl")
      if not name.endswith(".jsonl"):
        _check_choice("Decontaminate.benchmarks", name, known)
    _check_least("Decontaminate.ngram", self.ngram, 1)
    _check_share("Decontaminate.tau", self.tau)
    if self.distance is not None and not 0 < self.distance <= 2:
      raise _error("Decontaminate.distance", self.distance, "above 0 and at most 2")
    if self.checkpoint is not None and self.distance is None:
      raise _error(
        "Decontaminate.distance", None, "a distance, as there is a checkpoint"
      )


@dataclasses.dataclass(frozen=True)
class PublishConfig:
  """The curated sets as TFDS and parquet data sets (gin name: `Publish`).

  Attributes:
    inputs: folders of stages, whose documents are published by kind.
    directory: TFDS folder, which `Data.curated_directory` reads; `datasets` reads the
      parquet files in its folder `parquet`.
    version: of the data sets, "1.MINOR.PATCH".
  """

  inputs: tuple[str, ...]
  directory: str = "curated"
  version: str = "1.0.0"

  def __post_init__(self):
    """Refuse wrong settings."""
    _check_inputs("Publish", self.inputs)
    numbers = self.version.split(".")
    if numbers[0] != "1" or len(numbers) != 3 or not all(n.isdigit() for n in numbers):
      raise _error("Publish.version", self.version, '"1.MINOR.PATCH"')


def _check_inputs(part: str, inputs: tuple[str, ...]) -> None:
  if not inputs:
    raise _error(f"{part}.inputs", inputs, "at least one input")


def _check_temperature(part: str, value: float, name: str = "temperature") -> None:
  if not (math.isfinite(value) and 0 <= value <= 2):
    raise _error(f"{part}.{name}", value, "a number from 0 to 2")


def _check_unused(part: str, config: Any, names: tuple[str, ...], needs: str) -> None:
  """Refuse a setting without effect."""
  defaults = {field.name: field.default for field in dataclasses.fields(config)}
  for name in names:
    if getattr(config, name) != defaults[name]:
      raise InputError(
        f"{part}.{name}: got {getattr(config, name)!r}, which does nothing without "
        f"{part}.{needs}; leave it out, or set that"
      )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
  if value not in choices:
    raise _error(name, value, f"one of {', '.join(choices)}")


def _check_least(name: str, value: int, least: int) -> None:
  if value < least:
    raise _error(name, value, f"at least {least}")


def _check_share(name: str, value: float) -> None:
  if not (math.isfinite(value) and 0 < value < 1):
    raise _error(name, value, "a number between 0 and 1")


def _error(name: str, got: Any, expected: str) -> InputError:
  return InputError(f"{name}: got {got!r}, expected {expected}")
