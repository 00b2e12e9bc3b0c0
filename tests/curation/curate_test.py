"""The command `curate`: stages in a row, and errors for wrong input."""

import subprocess
import sys

import pytest

from phi1_jax import InputError, curate, storage
from phi1_jax.curation import decontaminate, folder
from phi1_jax.problems import mbpp
from tests.curation import samples

SMALL = (
  "--gin.Annotate.sample=150",
  "--gin.Classifier.positive_score=2.0",
  "--gin.Textbooks.sections=12",
  "--gin.Exercises.exercises=60",
  "--gin.Filter.threshold=0.0",
  "--gin.Decontaminate.benchmarks=('humaneval-164',)",
)


@pytest.fixture
def raw(tmp_path):
  made = [make(i) for make in (samples.algorithm, samples.settings) for i in range(75)]
  rows = [{"text": text, "license": "MIT"} for text in made]
  return samples.write(tmp_path / "raw.jsonl", rows)


@pytest.fixture
def every(tmp_path):
  """The words of a command that runs all stages, without its inputs."""
  words = ["all", "--gin_file=gin/curate/all.gin", f"--workdir={tmp_path / 'curate'}"]
  return [*words, f"--gin.Publish.directory={tmp_path / 'curated'}"]


def test_all_stages_from_raw_code_to_published_sets(
  raw, every, tmp_path, monkeypatch, capsys
):
  # MBPP is not looked for, as the benchmarks are named.
  monkeypatch.setenv(mbpp.ENVIRONMENT, str(tmp_path))
  root = tmp_path / "curate"
  inputs = f"--gin.Deduplicate.inputs=('{raw}', 'textbooks', 'exercises')"
  words = [*every, *SMALL, inputs, "--gin.Deduplicate.similarity=0.99"]
  assert curate.main(words) == 0
  for stage in curate.STAGES:
    assert (root / stage / "COMPLETED").is_file()
    assert (root / stage / "README.md").is_file()
  published = folder.read_stats(root / "publish")
  assert sorted(published["datasets"]) == ["code_filtered", "exercises", "textbooks"]
  assert "exercises: read 60, kept" in capsys.readouterr().out
  before = sorted(p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file())
  assert curate.main(words) == 0  # complete already: nothing is written again
  after = sorted(p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file())
  assert before == after


def test_all_leaves_out_stages_that_no_other_one_reads(raw, every, tmp_path):
  words = [f"--gin.Deduplicate.inputs=('{raw}',)", "--gin.Filter.classifier=None"]
  assert curate.main([*every, *words]) == 0
  made = {path.name for path in (tmp_path / "curate").iterdir()}
  assert made == {"deduplicate", "filter", "decontaminate", "publish"}
  assert (tmp_path / "curated" / "code_filtered").is_dir()


HIDDEN = """
import runpy, sys
for package in ("datatrove", "loguru", "pyarrow", "rapidfuzz", "sklearn"):
  sys.modules[package] = None
runpy.run_module("phi1_jax.curate", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
  ("flag", "code", "says"),
  [("--help", 0, "Decontaminate.{inputs"), ("filter", 2, "error: this needs")],
)
def test_help_needs_no_extra_and_a_run_says_which(flag, code, says):
  command = [sys.executable, "-c", HIDDEN, flag]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == code, done.stderr
  assert says in done.stdout + done.stderr
  assert code == 0 or (done.stderr.count("\n") == 1 and "[curate]" in done.stderr)


LLM = "exercises --gin.Exercises.teacher=llm"
ANNOTATE = "annotate --gin.Annotate."
TRAIN = "train-classifier --gin.Classifier."
SEARCH = "decontaminate --gin.Decontaminate."
PRICED = "--gin.Llm.model=m --gin.Llm.journal=OUT/j --gin.Llm.budget_usd=1.0"
PRICED += " --gin.Llm.input_usd_per_million=0.0 --gin.Llm.output_usd_per_million=0.0"
TAU = "expected different numbers between 0 and 1"


@pytest.mark.parametrize(
  ("flags", "says"),
  [
    ("exercises --gin.Exercises.teacher=gpt", "expected one of grammar, llm"),
    ("exercises --tau=0.9", "--tau: got it for exercises"),
    ("exercises --executor=beam", "--executor: got 'beam', expected one of local"),
    ("exercises --against=x", "--against: got it for exercises"),
    ("exercises --workdir=s3://bucket/x", "got s3://, expected a local path or gs"),
    (f"{LLM} --gin.Exercises.menu=plain {PRICED}", 'without Exercises.teacher = "gram'),
    (
      f"{LLM} --gin.Exercises.prompt=gone {PRICED}",
      "Exercises.prompt: gone: not read",
    ),
    (LLM, "Llm.model: required"),
    (f"{ANNOTATE}max_tokens=9", 'without Annotate.judge = "llm"'),
    (f"{ANNOTATE}inputs=('gone/*.parquet',)", "nothing there"),
    (f"{ANNOTATE}inputs=('hf://x',)", "Annotate.inputs: hf://x: got hf://, expected"),
    ("annotate", "Annotate.inputs: OUT/deduplicate: no such folder; make it with"),
    (f"{TRAIN}checkpoint=gone", "quickstart_pretrain"),
    (f"{TRAIN}method='forest'", 'expected a folder, as method = "forest"'),
    ("train-classifier", "Classifier.labels: OUT/annotate: no such folder"),
    ("filter", "(Filter.classifier=None does without): OUT/train-classifier: no such"),
    (f"decontaminate {SMALL[-1]}", "Decontaminate.inputs: OUT/filter: no such folder"),
    *((f"decontaminate --tau={taus}", TAU) for taus in ("high", "2", "0.95,0.9500001")),
    (f"decontaminate {SMALL[-1][:-16]}gone.jsonl',)", "gone.jsonl: cannot be read"),
    ("all --benchmarks=OUT", "mbpp.jsonl: no such file"),  # before it begins
    ("publish", "phi1_jax.curate decontaminate --workdir=OUT/decontaminate"),
    ("deduplicate --gin.Deduplicate.bands=7", "a divisor of 1"),
    (
      f"{SEARCH}benchmarks=('humaneval',)",
      "expected at least one of humaneval",
    ),
    (f"{SEARCH}checkpoint=gone", "a distance, as there is a checkpoint"),
    (f"{SEARCH}distance=0.3", "does nothing without Decontaminate.checkpoint"),
    (f"{ANNOTATE}inputs=()", "expected at least one input"),
    ("publish --gin.Publish.version=2.0.0", 'expected "1.MINOR.PATCH"'),
    ("deduplicate --against=OUT/gone", "--against: OUT/gone: no such file or fold"),
  ],
)
def test_wrong_input_is_refused_in_a_line(flags, says, tmp_path, monkeypatch, capsys):
  monkeypatch.setenv(mbpp.ENVIRONMENT, "")
  words = flags.replace("OUT", str(tmp_path)).split(" ")
  if "--workdir" not in flags:
    words.append(f"--workdir={tmp_path / 'out'}")
  with pytest.raises((InputError, SystemExit)) as caught:
    curate.main(words)
  message = str(caught.value) + capsys.readouterr().err
  assert says.replace("OUT", str(tmp_path)) in message
  assert message.count("\n") <= 1
  assert not (tmp_path / "out" / "textbooks").exists()


def test_the_study_of_tau_costs_nothing(raw, tmp_path, capsys):
  words = ["decontaminate", SMALL[-1], f"--gin.Decontaminate.inputs=('{raw}',)"]
  words += ["--tau=0.95,0.8", f"--workdir={tmp_path / 'out'}"]
  assert curate.main([*words, "--estimate"]) == 0
  assert "costs nothing" in capsys.readouterr().out
  assert curate.main(words) == 0
  assert "tau 0.8: removed 0 of 150 (0.0%)" in capsys.readouterr().out
  assert (tmp_path / "out" / decontaminate.STUDY).is_file()


def test_another_process_in_the_folder_is_waited_for(tmp_path):
  out = tmp_path / "out"
  with storage.Lease(out, "running"), pytest.raises(InputError, match="another proc"):
    curate.main(["exercises", f"--workdir={out}", "--gin.Exercises.exercises=3"])


def test_a_full_disk_ends_the_stage_and_the_same_command_goes_on(
  tmp_path, monkeypatch, capsys
):
  def full(record):
    raise OSError(28, "No space left on device")

  flags = ["exercises", f"--workdir={tmp_path / 'out'}", "--gin.Exercises.exercises=50"]
  with monkeypatch.context() as patched:
    patched.setattr(folder, "compact", full)
    assert curate.main([*flags, "--workers=1"]) == 1
  assert "the disk is full" in capsys.readouterr().err
  assert not (tmp_path / "out" / "COMPLETED").exists()
  assert curate.main(flags) == 0
  assert folder.read_stats(tmp_path / "out")["kept"] > 40
