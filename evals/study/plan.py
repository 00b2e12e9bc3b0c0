"""The steps of a study: data, trainings, evaluations; each is a command.

curate/    stages: pool -> raw -> annotate, train-classifier, filter; sections;
           exercises -> pruned, and the sets that are made from them
data/      what is published of them (TFDS), a folder for each set
stores/    their tokens
train/     a work directory of `phi1_jax.train` for every run
judged/    for every run a work directory of `evals` per task set
nearest/   the same for the control that copies
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from evals.study import arms, materials, ruler
from evals.study.arms import Arm
from evals.study.config import StudyConfig
from evals.study.graph import Step

# Folder of `curate/` -> the sets of text that are published together.
TEXT_SETS = {
  "vocabulary": ("code_sample", "sections", "exercises"),
  "raw": ("raw",),
  "filtered": ("filter", "textbooks"),
}
# Folders of `curate/` that a step of another name makes.
_MADE_BY = {"code_sample": "pool", "leaked": "sets"}
# Text of an arm -> where it is published, and the mixture or task of the registry.
MIXTURES = {
  "vocabulary": ("vocabulary", "code_all"),
  "raw": ("raw", "code_filtered"),
  "filtered": ("filtered", "code_filtered"),
  "textbooks": ("filtered", "code_textbook"),
}
# About how many seconds one core of an AMD EPYC takes for a step of study.gin
# (gin/evals), where it is not the default of `Step`; trainings by their length.
_SECONDS = {
  "raw": 20,
  "filter": 70,
  "train-classifier": 50,
  "exercises": 30,
  "pruned": 200,
  "leak_found": 40,
  "vocabulary": 40,
}
_STORE_SECONDS = 20
_STEP_SECONDS = 0.039  # of a training
_JUDGING_SECONDS = {"main": 80, "control": 40, "early": 15}
# The arms of the figure, which are judged on HumanEval and MBPP too.
BENCHMARKED = ("raw", "textbooks", arms.FULL)


@dataclasses.dataclass(frozen=True)
class Run:
  """One training.

  Attributes:
    arm: what it is trained on.
    size: name of its model.
    seed: of the training.
  """

  arm: Arm
  size: str
  seed: int

  @property
  def name(self) -> str:
    """Name of its folders."""
    return f"{self.arm.name}-{self.size}-{self.seed}"

  @property
  def early(self) -> str:
    """Name of the results of its earlier checkpoint."""
    return f"{self.name}-early"

  def before(self, config: StudyConfig) -> int:
    """Return the steps on text before it, which another run has made."""
    return config.text_steps if self.arm.exercises and self.arm.text else 0

  def length(self, config: StudyConfig) -> int:
    """Return the number of its own steps."""
    return config.steps - (config.text_steps if self.arm.exercises else 0)

  def early_step(self, config: StudyConfig) -> int:
    """Return the step of its earlier checkpoint, from which exercises start."""
    return self.length(config) // 2 if self.arm.exercises else config.text_steps


def runs(config: StudyConfig) -> list[Run]:
  """Return every training of a study, seed after seed."""
  found = arms.arms(config.taus)
  return [
    Run(arm, size, seed)
    for seed in config.seeds
    for size in config.models
    for arm in found
  ]


class Plan:
  """The steps of a study.

  Args:
    config: the settings.
    folder: the local work directory.
    benchmarks: the folder of MBPP; None leaves it out.
  """

  def __init__(self, config: StudyConfig, folder: Path, benchmarks: str | None):
    self.config, self.folder, self.benchmarks = config, folder, benchmarks

  def steps(self) -> list[Step]:
    """Return the steps in an order in which they could run one by one."""
    first, *others = runs(self.config)
    assert first.arm.name == "raw"  # whose embeddings the filter uses
    trained = {run: list(self._train(run)) for run in (first, *others)}
    # What others start from comes first, so that no core waits for it.
    early = [step for steps in trained.values() for step in steps[:-1]]
    return [
      *self._raw(),
      self._composed(),
      self._made("held_out", ("pool", "sections", "exercises"), materials.held_out),
      *self._vocabulary(),
      *self._store("raw"),
      *early[:1],
      *self._filtered(first),
      *self._exercises(first),
      *self._store("filtered"),
      *self._store("textbooks"),
      *early[1:],
      *(step for name in self._sets() for step in self._exercise_store(name)),
      *(steps[-1] for steps in trained.values()),
      *self._nearest(),
      *(step for run in (first, *others) for step in self._judge(run)),
    ]

  def _sets(self) -> list[str]:
    named = (arm.exercises for arm in arms.arms(self.config.taus))
    return list(dict.fromkeys(name for name in named if name))

  def _made(self, name: str, needs: Sequence[str], function) -> Step:
    about = dataclasses.asdict(self.config)
    del about["jobs"], about["seeds"]  # change nothing about data
    return Step(
      name,
      tuple(needs),
      function=lambda: function(self.config, self.folder),
      about=about,
    )

  def _curate(
    self, name: str, stage: str, needs: Sequence[str], *flags: str, gin: bool = True
  ) -> Step:
    files = (f"--gin_file=gin/curate/{stage}.gin",) if gin else ()
    place = f"--workdir={self.folder / 'curate' / name}"
    words = ("phi1_jax.curate", stage, *files, place, *flags)
    return Step(name, tuple(needs), words, seconds=_SECONDS.get(name, 10))

  def _decontaminated(
    self, name: str, of: str, *flags: str, needs: Sequence[str] = ()
  ) -> Step:
    looked_for = (str(self.folder / ruler.FILE), "humaneval-164")
    flags += (f"--benchmarks={self.benchmarks}",) if self.benchmarks else ()
    looked_for += ("mbpp-full-974",) if self.benchmarks else ()
    return self._curate(
      name,
      "decontaminate",
      ("ruler", _MADE_BY.get(of, of), *needs),
      f"--gin.Decontaminate.inputs={(of,)!r}",
      f"--gin.Decontaminate.benchmarks={looked_for!r}",
      *flags,
    )

  def _raw(self) -> Iterator[Step]:
    """Yield the steps of raw code and textbooks without text close to test problems."""
    config = self.config
    yield self._made("ruler", (), ruler.write)
    yield self._made("pool", (), materials.pool)
    yield self._curate(
      "sections",
      "textbooks",
      (),
      f"--gin.Textbooks.sections={config.sections}",
      f"--gin.Textbooks.seed={config.data_seed}",
    )
    yield self._decontaminated("raw", "pool")
    yield self._decontaminated("textbooks", "sections")
    yield self._publish("raw")

  def _filtered(self, embedder: Run) -> Iterator[Step]:
    """Yield the steps of filtered code; the first run's model makes embeddings."""
    yield self._curate(
      "annotate",
      "annotate",
      ("raw",),
      "--gin.Annotate.inputs=('raw',)",
      f"--gin.Annotate.sample={self.config.raw_documents * 2 // 3}",
    )
    yield self._curate(
      "train-classifier",
      "train-classifier",
      ("annotate", _early(embedder)),
      f"--gin.Classifier.checkpoint={str(self._early_checkpoint(embedder))!r}",
      "--gin.Classifier.method='forest'",
      "--gin.Classifier.max_length=512",
      "--gin.Classifier.trees=60",
    )
    yield self._curate(
      "filter", "filter", ("train-classifier",), "--gin.Filter.inputs=('raw',)"
    )
    yield self._publish("filtered")

  def _composed(self) -> Step:
    return self._curate(
      "exercises",
      "exercises",
      (),
      f"--gin.Exercises.exercises={self.config.exercises}",
      f"--gin.Exercises.seed={self.config.data_seed}",
    )

  def _vocabulary(self) -> Iterator[Step]:
    """Yield the steps of the tokenizer of all arms."""
    yield self._publish("vocabulary")
    yield from self._store("vocabulary")

  def _exercises(self, embedder: Run) -> Iterator[Step]:
    """Yield the steps of the pruning study and of the sets of the controls."""
    taus = ",".join(f"{tau:g}" for tau in self.config.taus)
    yield self._decontaminated(
      "pruned",
      "exercises",
      f"--tau={taus}",
      f"--gin.Decontaminate.checkpoint={str(self._early_checkpoint(embedder))!r}",
      f"--gin.Decontaminate.distance={self.config.distance}",
      needs=[_early(embedder)],
    )
    yield self._made("sets", ("pruned", "ruler"), materials.exercise_sets)
    yield self._decontaminated("leak_found", "leaked")
    yield self._made("seen", ("sets", "ruler"), materials.seen)

  def _exercise_store(self, name: str) -> Iterator[Step]:
    yield self._publish(name)
    yield self._prepare(name, name, "exercises")

  def _publish(self, name: str) -> Step:
    inputs: tuple[str, ...] = TEXT_SETS.get(name, (name,))
    needs = ["sets"]
    if name in TEXT_SETS:
      needs = [_MADE_BY.get(each, each) for each in inputs]
    paths = tuple(str(self.folder / "curate" / each) for each in inputs)
    return self._curate(
      f"publish_{name}",
      "publish",
      needs,
      f"--gin.Publish.inputs={paths!r}",
      f"--gin.Publish.directory={str(self.folder / 'data' / name)!r}",
    )

  def _store(self, text: str) -> Iterator[Step]:
    published, mixture = MIXTURES[text]
    yield self._prepare(text, published, mixture)

  def _prepare(self, name: str, published: str, mixture: str) -> Step:
    first = name == "vocabulary"
    needs = (
      (f"publish_{published}",)
      if first
      else (f"publish_{published}", "prepare_vocabulary")
    )
    words = ("phi1_jax.prepare", *self._data(name))
    seconds = _SECONDS.get(name, _STORE_SECONDS)
    return Step(f"prepare_{name}", needs, words, seconds=seconds)

  def _data(self, name: str) -> tuple[str, ...]:
    """Return the flags of `Data` for a text or a set of exercises."""
    published, mixture = MIXTURES.get(name, (name, "exercises"))
    tokenizer = str(self.folder / "stores" / "vocabulary")
    flags = {
      "mixture": mixture,
      "curated_directory": str(self.folder / "data" / published),
      "store": str(self.folder / "stores" / name),
      "tokenizer": "train" if name == "vocabulary" else tokenizer,
      "held_out_fraction": 0.02,
    }
    if name == "vocabulary":
      flags["trained_vocabulary_size"] = self.config.vocabulary_size
    return tuple(f"--gin.Data.{key}={value!r}" for key, value in flags.items())

  def _train(self, run: Run) -> Iterator[Step]:
    """Yield a training, in two steps if others start from its earlier checkpoint."""
    arm, early = run.arm, run.early_step(self.config)
    read = arm.exercises or arm.text
    assert read
    needs = [f"prepare_{read}"]
    flags = [f"--gin.Model.vocabulary_size={self.config.vocabulary_size}"]
    if arm.exercises and arm.text:
      before = Run(Arm(arm.text, arm.text, None, ""), run.size, run.seed)
      needs.append(_early(before))
      start = self._early_checkpoint(before)
      flags.append(f"--gin.Checkpoint.init_from={str(start)!r}")
    words = (
      "phi1_jax.train",
      f"--gin_file={self.config.recipe}",
      f"--gin_file={self.config.models[run.size]}",
      f"--workdir={self.folder / 'train' / run.name}",
      *self._data(read),
      *flags,
      f"--gin.Train.total_steps={run.length(self.config)}",
      f"--gin.Train.seed={run.seed}",
      f"--gin.Checkpoint.every={early}",
      f"--gin.Checkpoint.keep_every={early}",
    )
    length = run.length(self.config)
    if not arm.exercises:
      stop = f"--gin.Train.stop_at_step={early}"
      seconds = round(_STEP_SECONDS * early)
      yield Step(_early(run), tuple(needs), (*words, stop), seconds=seconds)
      needs, length = [_early(run)], length - early
    seconds = round(_STEP_SECONDS * length)
    yield Step(_train(run), tuple(needs), words, seconds=seconds)

  def _early_checkpoint(self, run: Run) -> Path:
    return self._checkpoint(run, run.early_step(self.config))

  def _checkpoint(self, run: Run, step: int) -> Path:
    return self.folder / "train" / run.name / "checkpoints" / str(step)

  def _judge(self, run: Run) -> Iterator[Step]:
    """Yield evaluations: all task sets at the end, the nearest tier earlier, too."""
    tiers = ruler.TIERS
    main = not run.arm.exercises or run.arm.exercises == "main"
    more = list(ruler.FAR) if main else []
    if self.config.benchmarks and run.arm.name in BENCHMARKED:
      more += ["humaneval-164"] + ["mbpp-full-500"] * (self.benchmarks is not None)
    end = self._checkpoint(run, run.length(self.config))
    wanted = [
      (run.name, end, [*tiers, *more]),
      (run.early, self._early_checkpoint(run), tiers[:1]),
    ]
    for name, checkpoint, sets in wanted if main else wanted[:1]:
      last = checkpoint == end
      kind = ("main" if main else "control") if last else "early"
      flags = [f"--task_set={name}" for name in sets]
      flags.append(f"--max_new_tokens={self.config.max_new_tokens}")
      if last:
        flags.append(f"--texts={self.folder / ruler.TEXTS}")
        if self.config.sampled and main:
          flags.append(f"--sampled={tiers[0]}:{self.config.sampled}")
      if self.benchmarks and "mbpp-full-500" in sets:
        flags.append(f"--benchmarks={self.benchmarks}")
      yield Step(
        f"judge_{name}",
        (_train(run), "ruler", "held_out"),
        (
          "evals",
          "judge",
          f"--checkpoint={checkpoint}",
          f"--workdir={self.folder / 'judged' / name}",
          *flags,
        ),
        seconds=_JUDGING_SECONDS[kind],
      )

  def _nearest(self) -> Iterator[Step]:
    """Yield the steps of the control that copies."""
    yield self._made("nearest", ("sets", "ruler"), materials.nearest)
    for name in ruler.TIERS:
      yield Step(
        f"judge_nearest-{name}",
        ("nearest",),
        (
          "evals",
          "exercises",
          f"--task_set={name}",
          f"--completions={self.folder / 'nearest' / name}.jsonl",
          f"--workdir={self.folder / 'judged' / 'nearest' / name}",
        ),
      )


def _train(run: Run) -> str:
  return f"train_{run.name}"


def _early(run: Run) -> str:
  """Return the name of the step that makes a text's earlier checkpoint."""
  return f"train_{run.early}"
