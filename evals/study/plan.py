"""The steps of a study: data, trainings, evaluations; each is a command.

curate/    stages: pool -> raw -> annotate, train-classifier, filter; sections;
           exercises -> pruned, and the sets that are made from them
data/      what is published of them (TFDS), a folder for each set
stores/    their tokens
train/     a work directory of `phi1_jax.train` for every run
judged/    for every run a work directory of `evals` per task set
nearest/   the same for the control that copies
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from evals.study import arms, materials
from evals.study.arms import Arm
from evals.study.config import StudyConfig
from evals.study.graph import Step

# Published set -> the folders of `curate/` that it is made of, if it is more than one.
_SETS = {
  "vocabulary": ("code_sample", "sections", "exercises"),
  "raw": ("raw",),
  "filtered": ("filter", "textbooks"),
}
# Folders of `curate/` that a step of another name makes.
_MADE_BY = {"code_sample": "pool", "leaked": "sets"}
# Text of an arm -> its published set, and the mixture or task of the registry.
_MIXTURES = {
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
  "prepare_vocabulary": 40,
}
_STORE_SECONDS = 20
_STEP_SECONDS = 0.039  # of a training
_JUDGING_SECONDS = {"main": 80, "control": 40, "early": 15}
# The arms of the figure, which are judged on HumanEval and MBPP too.
_BENCHMARKED = ("raw", "textbooks", arms.FULL)


@dataclasses.dataclass(frozen=True)
class Run:
  """A training."""

  arm: Arm  # its training data
  size: str  # name of its model
  seed: int  # of the training

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
    config, trainings = self.config, runs(self.config)
    # The model that makes embeddings for the filter and the study of pruning.
    embedder, taus = trainings[0], ",".join(f"{tau:g}" for tau in config.taus)
    assert embedder.arm.name == "raw"
    early = f"train_{embedder.early}"
    checkpoint = repr(str(self._checkpoint(embedder)))
    trained = {run: list(self._train(run)) for run in trainings}
    # The trainings that others start from come first, so that no core waits for them.
    first, *others = [step for steps in trained.values() for step in steps[:-1]]
    sets = dict.fromkeys(arm.exercises for arm in arms.arms(config.taus))
    return [
      self._function("ruler", materials.test_problems),
      self._function("pool", materials.pool),
      self._composed("sections", "Textbooks.sections", config.sections),
      self._decontaminated("raw", "pool"),
      self._decontaminated("textbooks", "sections"),
      self._publish("raw"),
      self._composed("exercises", "Exercises.exercises", config.exercises),
      self._function("held_out", materials.held_out, "pool", "sections", "exercises"),
      self._publish("vocabulary"),
      self._prepare("vocabulary"),
      self._prepare("raw"),
      first,
      *self._filter(early, checkpoint),
      self._publish("filtered"),
      self._decontaminated(
        "pruned",
        "exercises",
        f"--tau={taus}",
        f"--gin.Decontaminate.checkpoint={checkpoint}",
        f"--gin.Decontaminate.distance={config.distance}",
        needs=[early],
      ),
      self._function("sets", materials.exercise_sets, "pruned", "ruler"),
      self._decontaminated("leak_found", "leaked"),
      self._function("seen", materials.seen, "sets", "ruler"),
      self._prepare("filtered"),
      self._prepare("textbooks"),
      *others,
      *(
        step
        for name in filter(None, sets)
        for step in (self._publish(name), self._prepare(name))
      ),
      *(steps[-1] for steps in trained.values()),
      *self._nearest(),
      *(step for run in trainings for step in self._judge(run)),
    ]

  def _function(self, name: str, function, *needs: str) -> Step:
    """Return a step that calls a function of `materials` in this process."""
    about = dataclasses.asdict(self.config)
    del about["jobs"], about["seeds"]  # change nothing about data
    return Step(
      name, needs, function=lambda: function(self.config, self.folder), about=about
    )

  def _curate(self, name: str, stage: str, needs: Sequence[str], *flags: str) -> Step:
    files = f"--gin_file=gin/curate/{stage}.gin"
    place = f"--workdir={self.folder / 'curate' / name}"
    words = ("phi1_jax.curate", stage, files, place, *flags)
    return Step(name, tuple(needs), words, seconds=_SECONDS.get(name, 10))

  def _composed(self, name: str, number: str, value: int) -> Step:
    """Return a step in which the grammar composes exercises or sections."""
    kind = number.partition(".")[0]
    seed = f"--gin.{kind}.seed={self.config.data_seed}"
    return self._curate(name, kind.lower(), (), f"--gin.{number}={value}", seed)

  def _decontaminated(
    self, name: str, of: str, *flags: str, needs: Sequence[str] = ()
  ) -> Step:
    looked_for = (str(self.folder / materials.PROBLEMS), "humaneval-164")
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

  def _filter(self, early: str, checkpoint: str) -> Iterator[Step]:
    """Yield the steps of filtered code, given the model that makes embeddings."""
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
      ("annotate", early),
      f"--gin.Classifier.checkpoint={checkpoint}",
      "--gin.Classifier.method='forest'",
      "--gin.Classifier.max_length=512",
      "--gin.Classifier.trees=60",
    )
    yield self._curate(
      "filter", "filter", ("train-classifier",), "--gin.Filter.inputs=('raw',)"
    )

  def _publish(self, name: str) -> Step:
    inputs: tuple[str, ...] = _SETS.get(name, (name,))
    needs = ["sets"]
    if name in _SETS:
      needs = [_MADE_BY.get(each, each) for each in inputs]
    paths = tuple(str(self.folder / "curate" / each) for each in inputs)
    return self._curate(
      f"publish_{name}",
      "publish",
      needs,
      f"--gin.Publish.inputs={paths!r}",
      f"--gin.Publish.directory={str(self.folder / 'data' / name)!r}",
    )

  def _prepare(self, name: str) -> Step:
    needs = [f"publish_{_MIXTURES.get(name, (name,))[0]}", "prepare_vocabulary"]
    step, words = f"prepare_{name}", ("phi1_jax.prepare", *self._data(name))
    seconds = _SECONDS.get(step, _STORE_SECONDS)
    return Step(step, tuple(n for n in needs if n != step), words, seconds=seconds)

  def _data(self, name: str) -> tuple[str, ...]:
    """Return the flags of `Data` for a text or a set of exercises."""
    published, mixture = _MIXTURES.get(name, (name, "exercises"))
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
    length, read = run.length(self.config), arm.exercises or arm.text or ""
    needs = [f"prepare_{read}"]
    flags = [f"--gin.Model.vocabulary_size={self.config.vocabulary_size}"]
    if arm.exercises and arm.text:
      before = Run(Arm(arm.text, arm.text, None, ""), run.size, run.seed)
      needs.append(f"train_{before.early}")
      start = self._checkpoint(before)
      flags.append(f"--gin.Checkpoint.init_from={str(start)!r}")
    words = (
      "phi1_jax.train",
      f"--gin_file={self.config.recipe}",
      f"--gin_file={self.config.models[run.size]}",
      f"--workdir={self.folder / 'train' / run.name}",
      *self._data(read),
      *flags,
      f"--gin.Train.total_steps={length}",
      f"--gin.Train.seed={run.seed}",
      f"--gin.Checkpoint.every={early}",
      f"--gin.Checkpoint.keep_every={early}",
    )
    if not arm.exercises:
      stop, seconds = f"--gin.Train.stop_at_step={early}", round(_STEP_SECONDS * early)
      step = Step(f"train_{run.early}", tuple(needs), (*words, stop), seconds=seconds)
      yield step
      needs, length = [step.name], length - early
    seconds = round(_STEP_SECONDS * length)
    yield Step(f"train_{run.name}", tuple(needs), words, seconds=seconds)

  def _checkpoint(self, run: Run, step: int | None = None) -> Path:
    """Return the checkpoint of a step; by default the one that others start from."""
    step = step or run.early_step(self.config)
    return self.folder / "train" / run.name / "checkpoints" / str(step)

  def _judge(self, run: Run) -> Iterator[Step]:
    """Yield evaluations: all task sets at the end, the nearest tier earlier, too."""
    near, main = materials.TIERS[0], run.arm.exercises in (None, "main")
    sets = [*materials.TIERS, *(materials.FAR if main else ())]
    if self.config.benchmarks and run.arm.name in _BENCHMARKED:
      sets += ["humaneval-164"] + ["mbpp-full-500"] * (self.benchmarks is not None)
    flags = [f"--texts={self.folder / materials.TEXTS}"]
    if self.config.sampled and main:
      flags.append(f"--sampled={near}:{self.config.sampled}")
    if self.benchmarks and "mbpp-full-500" in sets:
      flags.append(f"--benchmarks={self.benchmarks}")
    last, early = run.length(self.config), run.early_step(self.config)
    for name, step, of, more, kind in (
      (run.name, last, sets, flags, "main" if main else "control"),
      (run.early, early, [near], [], "early"),
    )[: 2 if main else 1]:
      words = (
        *("evals", "judge", f"--checkpoint={self._checkpoint(run, step)}"),
        f"--workdir={self.folder / 'judged' / name}",
        *(f"--task_set={task_set}" for task_set in of),
        f"--max_new_tokens={self.config.max_new_tokens}",
        *more,
      )
      needs = (f"train_{run.name}", "ruler", "held_out")
      yield Step(f"judge_{name}", needs, words, seconds=_JUDGING_SECONDS[kind])

  def _nearest(self) -> Iterator[Step]:
    """Yield the steps of the control that copies."""
    yield self._function("nearest", materials.nearest, "sets", "ruler")
    for name in materials.TIERS:
      words = (
        *("evals", "exercises", f"--task_set={name}"),
        f"--completions={self.folder / 'nearest' / name}.jsonl",
        f"--workdir={self.folder / 'judged' / 'nearest' / name}",
      )
      yield Step(f"judge_nearest-{name}", ("nearest",), words)
