"""Settings of the stages of curation: one frozen dataclass each."""

import dataclasses
from typing import Annotated, Literal

from phi1_jax import InputError
from phi1_jax.problems import humaneval, mbpp, written
from phi1_jax.settings import Count, PositiveInt, Range, Settings

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

PROBLEM_FILES = (".jsonl", ".jsonl.gz")  # in HumanEval's format

_Temperature = Annotated[float, Range(least=0, most=2)]
_Share = Annotated[float, Range(above=0, below=1)]
_Teacher = Literal["grammar", "llm"]
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
  judge: Literal["local", "llm"] = "local"
  sample: PositiveInt = 1000
  second_pass: Count = 200
  second_temperature: _Temperature = 0.7
  maximum_characters: PositiveInt = 8000
  max_tokens: PositiveInt = 200
  prompt: str = "annotate"
  compare_with: str | None = None

  def __post_init__(self):
    super().__post_init__()
    if self.judge != "llm":
      names = ("second_temperature", "max_tokens", "prompt")
      self.refuse_unused(names, 'judge = "llm"')


@dataclasses.dataclass(frozen=True)
class ClassifierConfig(_StageSettings):
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
  method: _Method = "tfidf"
  compare: tuple[_Method, ...] = ()
  positive_score: float = 3.0
  test_fraction: _Share = 0.25
  features: PositiveInt = 1 << 17
  checkpoint: str | None = None
  pooling: _Pooling = "mean"
  trees: PositiveInt = 300
  minimum_leaf: PositiveInt = 2
  model: str | None = None
  max_length: PositiveInt = 1024
  batch_size: PositiveInt = 16
  seed: int = 0

  def __post_init__(self):
    super().__post_init__()
    for method, name in (("forest", "checkpoint"), ("transformer", "model")):
      if method in (self.method, *self.compare) and getattr(self, name) is None:
        raise self.wrong(name, f'a folder, as method = "{method}"')


@dataclasses.dataclass(frozen=True)
class FilterConfig(_StageSettings):
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
  threshold: Annotated[float, Range(least=0, most=1)] | None = None
  licences: tuple[str, ...] = PERMISSIVE
  mask: bool = True


@dataclasses.dataclass(frozen=True)
class TextbooksConfig(_StageSettings):
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

  teacher: _Teacher = "grammar"
  sections: PositiveInt = 2000
  seed: int = 0
  failing_code: Literal["drop", "mark"] = "drop"
  temperature: _Temperature = 1.0
  max_tokens: PositiveInt = 1500
  prompt: str = "textbook"

  def __post_init__(self):
    super().__post_init__()
    if self.teacher != "llm":
      self.refuse_unused(("temperature", "max_tokens", "prompt"), 'teacher = "llm"')


@dataclasses.dataclass(frozen=True)
class ExercisesConfig(_StageSettings):
  """Synthetic exercises whose solutions pass their tests (gin name: `Exercises`).

  Attributes:
    teacher: "grammar" (composes them here) or "llm" (asks `Llm.model`).
    exercises: number of exercises to write.
    seed: decides names, topics and professions.
    menu: of the grammar: "all" tasks, or only "plain" or only "composed" ones.
    minimum_asserts: an exercise with fewer checks of its solution is dropped.
    cpu_seconds: CPU time that a solution and its checks may take.
    temperature: of an LLM.
    max_tokens: the longest answer of an LLM.
    prompt: "exercise", which comes with the project, or a file of your own.
  """

  teacher: _Teacher = "grammar"
  exercises: PositiveInt = 20_000
  seed: int = 0
  menu: Literal["all", "plain", "composed"] = "all"
  minimum_asserts: PositiveInt = 2
  cpu_seconds: Annotated[float, Range(above=0, most=600)] = 3.0
  temperature: _Temperature = 1.0
  max_tokens: PositiveInt = 800
  prompt: str = "exercise"

  def __post_init__(self):
    super().__post_init__()
    if self.teacher == "llm":
      self.refuse_unused(("menu",), 'teacher = "grammar"')
    else:
      self.refuse_unused(("temperature", "max_tokens", "prompt"), 'teacher = "llm"')


@dataclasses.dataclass(frozen=True)
class DeduplicateConfig(_StageSettings):
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
  shingle: PositiveInt = 5
  permutations: PositiveInt = 144
  bands: PositiveInt = 24
  similarity: _Share = 0.7
  comparisons: PositiveInt = 32
  prefer: tuple[str, ...] = ()
  maximum_loss: Annotated[float, Range(least=0, most=1)] = 0.5

  def __post_init__(self):
    super().__post_init__()
    if self.permutations % self.bands:
      raise self.wrong("bands", f"a divisor of {self.permutations}")
    if len(self.prefer) > 13:
      raise self.wrong("prefer", "at most 13 sources")


@dataclasses.dataclass(frozen=True)
class DecontaminateConfig(_StageSettings):
  """Removal of text that is too close to a benchmark (gin name: `Decontaminate`).

  Attributes:
    inputs: folders of stages, of code or of data sets, files or patterns.
    benchmarks: names of task sets that training data must not hold, or files of
      problems in HumanEval's format (.jsonl or .jsonl.gz, also on gs://).
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
  ngram: PositiveInt = 13
  tau: _Share = 0.95
  cut: Literal["document", "function"] = "document"
  distance: Annotated[float, Range(above=0, most=2)] | None = None
  checkpoint: str | None = None
  pooling: _Pooling = "last"

  def __post_init__(self):
    super().__post_init__()
    known = (humaneval.TASK_SET, *mbpp.TASK_SETS, *written.TASK_SETS)
    for name in self.benchmarks or ("",):
      if not name.endswith(PROBLEM_FILES) and name not in known:
        expected = f"at least one of {', '.join(known)}, FILE.jsonl or FILE.jsonl.gz"
        raise self.wrong("benchmarks", expected)
    if self.checkpoint is not None and self.distance is None:
      raise self.wrong("distance", "a distance, as there is a checkpoint")


@dataclasses.dataclass(frozen=True)
class PublishConfig(_StageSettings):
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
    super().__post_init__()
    numbers = self.version.split(".")
    if numbers[0] != "1" or len(numbers) != 3 or not all(n.isdigit() for n in numbers):
      raise self.wrong("version", '"1.MINOR.PATCH"')
