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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from evals.study import materials
from evals.study.config import FULL, Arm, StudyConfig, arms
from evals.study.graph import Step

# Published set -> the folders of `curate/` that it is made of, if not that of its name.
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
  **{"raw": 20, "filter": 70, "train-classifier": 50, "exercises": 30, "pruned": 200},
  **{"leak_found": 40, "prepare_vocabulary": 40},
}
_STORE_SECONDS, _STEP_SECONDS = 20, 0.039  # of a token store; of a training's step
_JUDGING_SECONDS = {True: 80, False: 40}  # of a main arm, of a control
# The arms of the figure, which are judged on HumanEval and MBPP too.
_BENCHMARKED = ("raw", "textbooks", FULL)
_CLASSIFIER = (
  "--gin.Classifier.method='forest'",
  "--gin.Classifier.max_length=512",
  "--gin.Classifier.trees=60",
)


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

  def before(self, config: StudyConfig) -> int:
    """Return the steps on text before it, which another run has made."""
    return config.text_steps if self.arm.exercises and self.arm.text else 0

  def length(self, config: StudyConfig) -> int:
    """Return the number of its own steps."""
    return config.steps - (config.text_steps if self.arm.exercises else 0)


def runs(config: StudyConfig) -> list[Run]:
  """Return every training of a study, seed after seed."""
  found = arms(config.taus)
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
    early = f"train_{embedder.name}-early"
    checkpoint = repr(str(self._checkpoint(embedder, config.text_steps)))
    trained = [list(self._train(run)) for run in trainings]
    # The trainings that others start from come first, so that no core waits for them.
    first, *others = [step for steps in trained for step in steps[:-1]]
    sets = dict.fromkeys(filter(None, (a.exercises for a in arms(config.taus))))
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
      *(step for n in sets for step in (self._publish(n), self._prepare(n))),
      *(steps[-1] for steps in trained),
      *self._nearest(),
      *map(self._judge, trainings),
    ]

  def _function(self, name: str, function: Callable[..., object], *needs: str) -> Step:
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
    kind = number.partition(".")[0]
    flags = f"--gin.{number}={value}", f"--gin.{kind}.seed={self.config.data_seed}"
    return self._curate(name, kind.lower(), (), *flags)

  def _decontaminated(
    self, name: str, of: str, *flags: str, needs: Sequence[str] = ()
  ) -> Step:
    looked_for = (str(self.folder / materials.PROBLEMS), "humaneval-164")
    if self.benchmarks:
      flags += (f"--benchmarks={self.benchmarks}",)
      looked_for += ("mbpp-full-974",)
    flags = (
      f"--gin.Decontaminate.inputs={(of,)!r}",
      f"--gin.Decontaminate.benchmarks={looked_for!r}",
      *flags,
    )
    after = ("ruler", _MADE_BY.get(of, of), *needs)
    return self._curate(name, "decontaminate", after, *flags)

  def _filter(self, early: str, checkpoint: str) -> Iterator[Step]:
    """Yield the steps of filtered code, given the model that makes embeddings."""
    sample = f"--gin.Annotate.sample={self.config.raw_documents * 2 // 3}"
    inputs = "--gin.Annotate.inputs=('raw',)"
    yield self._curate("annotate", "annotate", ("raw",), inputs, sample)
    name, model = "train-classifier", f"--gin.Classifier.checkpoint={checkpoint}"
    yield self._curate(name, name, ("annotate", early), model, *_CLASSIFIER)
    yield self._curate("filter", "filter", (name,), "--gin.Filter.inputs=('raw',)")

  def _publish(self, name: str) -> Step:
    inputs: tuple[str, ...] = _SETS.get(name, (name,))
    needs = [_MADE_BY.get(n, n) for n in inputs] if name in _SETS else ["sets"]
    if name.startswith("pruned_"):  # a folder of the step "pruned"
      inputs = (f"pruned/{name.replace('_', '-')}",)
    paths = tuple(str(self.folder / "curate" / each) for each in inputs)
    target = str(self.folder / "data" / name)
    flags = f"--gin.Publish.inputs={paths!r}", f"--gin.Publish.directory={target!r}"
    return self._curate(f"publish_{name}", "publish", needs, *flags)

  def _prepare(self, name: str) -> Step:
    needs = [f"publish_{_MIXTURES.get(name, (name,))[0]}", "prepare_vocabulary"]
    step, words = f"prepare_{name}", ("phi1_jax.prepare", *self._data(name))
    seconds = _SECONDS.get(step, _STORE_SECONDS)
    return Step(step, tuple(n for n in needs if n != step), words, seconds=seconds)

  def _data(self, name: str) -> tuple[str, ...]:
    """Return the flags of `Data` for a text or a set of exercises."""
    published, mixture = _MIXTURES.get(name, (name, "exercises"))
    own = name == "vocabulary"
    flags = {
      "mixture": mixture,
      "curated_directory": str(self.folder / "data" / published),
      "store": str(self.folder / "stores" / name),
      "tokenizer": "train" if own else str(self.folder / "stores" / "vocabulary"),
      "held_out_fraction": 0.02,
    }
    if own:
      flags["trained_vocabulary_size"] = self.config.vocabulary_size
    return tuple(f"--gin.Data.{key}={value!r}" for key, value in flags.items())

  def _train(self, run: Run) -> Iterator[Step]:
    """Yield a training, in two steps if others start from its earlier checkpoint."""
    arm, length, text = run.arm, run.length(self.config), self.config.text_steps
    early = length // 2 if arm.exercises else text
    read = arm.exercises or arm.text or ""
    needs = [f"prepare_{read}"]
    flags = [f"--gin.Model.vocabulary_size={self.config.vocabulary_size}"]
    if arm.exercises and arm.text:
      before = Run(Arm(arm.text, arm.text, None, ""), run.size, run.seed)
      needs.append(f"train_{before.name}-early")
      start = str(self._checkpoint(before, text))
      flags.append(f"--gin.Checkpoint.init_from={start!r}")
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
    name = f"train_{run.name}"
    if not arm.exercises:
      stop, seconds = f"--gin.Train.stop_at_step={early}", round(_STEP_SECONDS * early)
      yield Step(f"{name}-early", tuple(needs), (*words, stop), seconds=seconds)
      needs, length = [f"{name}-early"], length - early
    yield Step(name, tuple(needs), words, seconds=round(_STEP_SECONDS * length))

  def _checkpoint(self, run: Run, step: int) -> Path:
    return self.folder / "train" / run.name / "checkpoints" / str(step)

  def _judge(self, run: Run) -> Step:
    """Return the evaluation of a run on all task sets."""
    near, main = materials.TIERS[0], run.arm.exercises in (None, "main")
    sets = [*materials.TIERS, *(materials.FAR if main else ())]
    flags = [f"--texts={self.folder / materials.TEXTS}"]
    if self.config.sampled and main:
      flags.append(f"--sampled={near}:{self.config.sampled}")
    if self.config.benchmarks and run.arm.name in _BENCHMARKED:
      sets.append("humaneval-164")
      if self.benchmarks:
        sets.append("mbpp-full-500")
        flags.append(f"--benchmarks={self.benchmarks}")
    checkpoint = self._checkpoint(run, run.length(self.config))
    words = (
      *("evals", "judge", f"--checkpoint={checkpoint}"),
      f"--workdir={self.folder / 'judged' / run.name}",
      *(f"--task_set={task_set}" for task_set in sets),
      f"--max_new_tokens={self.config.max_new_tokens}",
      *flags,
    )
    needs = (f"train_{run.name}", "ruler", "held_out")
    return Step(f"judge_{run.name}", needs, words, seconds=_JUDGING_SECONDS[main])

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
