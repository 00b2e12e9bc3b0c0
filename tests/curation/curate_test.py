"""The command `curate`: stages in a row, and errors for wrong input."""

import os
import subprocess
import sys

import pytest

from phi1_jax import InputError, curate, storage
from phi1_jax.curation import decontaminate, folder
from phi1_jax.problems import humaneval, mbpp
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


def test_all_stages_from_raw_code_to_published_sets(raw, tmp_path, capsys):
  root = tmp_path / "curate"
  flags = [
    *("all", "--gin_file=gin/curate/all.gin", f"--workdir={root}", *SMALL),
    f"--gin.Deduplicate.inputs=('{raw}', 'textbooks', 'exercises')",
    "--gin.Deduplicate.similarity=0.99",
    f"--gin.Publish.directory={tmp_path / 'curated'}",
  ]
  assert curate.main(flags) == 0
  for stage in curate.STAGES:
    assert (root / stage / "COMPLETED").is_file()
    assert (root / stage / "README.md").is_file()
  published = folder.read_stats(root / "publish")
  assert sorted(published["datasets"]) == ["code_filtered", "exercises", "textbooks"]
  assert "exercises: read 60, kept" in capsys.readouterr().out
  before = sorted(p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file())
  assert curate.main(flags) == 0  # complete already: nothing is written again
  after = sorted(p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file())
  assert before == after


def test_all_leaves_out_stages_that_no_other_one_reads(raw, tmp_path):
  root = tmp_path / "curate"
  flags = [
    *("all", "--gin_file=gin/curate/all.gin", f"--workdir={root}"),
    *("--gin.Filter.classifier=None", f"--gin.Deduplicate.inputs=('{raw}',)"),
    f"--gin.Publish.directory={tmp_path / 'curated'}",
  ]
  assert curate.main(flags) == 0
  made = {path.name for path in root.iterdir()}
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


@pytest.fixture
def small_mbpp(monkeypatch):
  """Three problems stand in for MBPP's; the environment is as it was afterwards."""
  monkeypatch.setenv(mbpp.ENVIRONMENT, "")

  def load(name):
    if not os.environ[mbpp.ENVIRONMENT]:
      raise InputError("MBPP cannot be downloaded")
    return humaneval.load()[:3]

  monkeypatch.setattr(mbpp, "load", load)
  return monkeypatch


def looked_for(monkeypatch, *flags):
  """The benchmarks and taus that decontaminate gets; no stage runs."""
  found = []

  class Fake:
    @staticmethod
    def run(job, taus=()):
      if hasattr(job.config, "benchmarks"):
        found.append((*job.config.benchmarks, *map(str, taus)))
      return {"read": 0, "kept": 0, "dropped": {}}

  monkeypatch.setattr(curate, "_module", lambda stage: Fake)
  monkeypatch.setattr(
    decontaminate, "study", lambda job, taus: Fake.run(job, taus) and []
  )
  assert curate.main(list(map(str, flags))) == 0
  (wanted,) = found
  return wanted


HUMANEVAL, MBPP = "humaneval-164", "mbpp-full-974"


@pytest.mark.parametrize(
  ("flags", "wanted"),
  [
    (["all"], (HUMANEVAL,)),
    (["all", "--benchmarks=F"], (HUMANEVAL, MBPP)),
    (["all", "environment"], (HUMANEVAL, MBPP)),
    (["all", "--benchmarks=F", f"--gin.Decontaminate.benchmarks=('{HUMANEVAL}',)"],
     (HUMANEVAL,)),
    (["decontaminate"], (HUMANEVAL, MBPP)),
    (["decontaminate", "--gin_file=gin/curate/all.gin", "--tau=0.9", "--benchmarks=F"],
     (HUMANEVAL, MBPP, "0.9")),
    (["decontaminate", "--gin_file=FILE", "--benchmarks=F"], ("mbpp-full-500",)),
  ],
)  # fmt: skip
def test_mbpp_is_looked_for_where_its_folder_is_named(
  flags, wanted, small_mbpp, tmp_path
):
  own = tmp_path / "own.gin"
  own.write_text(
    "include 'gin/curate/decontaminate.gin'\n"
    "Decontaminate.benchmarks = ('mbpp-full-500',)\n"
  )
  if "environment" in flags:
    flags = [flag for flag in flags if flag != "environment"]
    small_mbpp.setenv(mbpp.ENVIRONMENT, "F")
  flags = [flag.replace("FILE", str(own)) for flag in flags]
  flags += [f"--workdir={tmp_path / 'out'}"]
  assert looked_for(small_mbpp, *flags) == wanted


def test_a_folder_begun_without_mbpp_is_refused_with_it(small_mbpp, tmp_path, raw):
  flags = ["decontaminate", "--gin_file=gin/curate/all.gin"]
  flags += [f"--workdir={tmp_path / 'out'}", f"--gin.Decontaminate.inputs=('{raw}',)"]
  assert curate.main(flags) == 0
  with pytest.raises(InputError, match=r"begun with benchmarks .* now it is .*mbpp-f"):
    curate.main([*flags, "--benchmarks=F"])


def test_all_refuses_benchmarks_that_cannot_be_read_before_it_begins(
  tmp_path, monkeypatch
):
  monkeypatch.setenv(mbpp.ENVIRONMENT, "")
  flags = ["all", f"--workdir={tmp_path / 'out'}", f"--benchmarks={tmp_path}"]
  with pytest.raises(InputError, match=r"mbpp\.jsonl: no such file"):
    curate.main(flags)
  assert not (tmp_path / "out").exists()


LLM = "exercises --gin.Exercises.teacher=llm"
HUMANEVAL_ONLY = "decontaminate --gin.Decontaminate.benchmarks=('humaneval-164',)"


@pytest.mark.parametrize(
  ("flags", "says"),
  [
    ("exercises --gin.Exercises.teacher=gpt", "expected one of grammar, llm"),
    ("exercises --gin.Exercises.exercises=0", "expected an integer >= 1"),
    ("exercises --gin.Exercises.execises=9", "no such parameter"),
    ("exercises --gin_file=gone.gin", "no such gin file"),
    ("exercises --tau=0.9", "--tau: got it for exercises"),
    ("exercises --executor=beam", "--executor: got 'beam', expected one of local"),
    ("exercises --tasks=0", "--tasks: got 0, expected an integer >= 1"),
    ("exercises --against=x", "--against: got it for exercises"),
    ("exercises --gin.Exercises.prompt=mine.txt", "does nothing without"),
    ("annotate --gin.Annotate.max_tokens=9", 'without Annotate.judge = "llm"'),
    (
      f"{LLM} --gin.Exercises.menu=plain --gin.Llm.model=m --gin.Llm.journal=j "
      "--gin.Llm.budget_usd=1.0",
      'without Exercises.teacher = "grammar"',
    ),
    (LLM, "Llm.model: required"),
    (
      "decontaminate --gin.Decontaminate.benchmarks=('gone.jsonl',)",
      "gone.jsonl: cannot be read",
    ),
    ("train-classifier --gin.Classifier.checkpoint=gone", "quickstart_pretrain"),
    (
      "train-classifier --gin.Classifier.method='forest'",
      'expected a folder, as method = "forest"',
    ),
    (
      "decontaminate --gin.Decontaminate.benchmarks=('humaneval',)",
      "expected at least one of humaneval-164, mbpp-full-974",
    ),
    *(
      (f"decontaminate --tau={taus}", "expected different numbers between 0 and 1")
      for taus in ("high", "2", "0.9,0.9", "0.95,0.9500001")
    ),
    ("annotate --gin.Annotate.inputs=()", "expected at least one input"),
    ("annotate --gin.Annotate.inputs=('gone/*.parquet',)", "nothing there"),
    ("annotate", "Annotate.inputs: OUT/deduplicate: no such folder; make it with"),
    ("train-classifier", "Classifier.labels: OUT/annotate: no such folder"),
    (
      "filter",
      "(Filter.classifier=None does without): OUT/train-classifier: no such f",
    ),
    (
      "filter --gin.Filter.classifier=None --gin.Filter.threshold=0.5",
      "Filter.threshold: got 0.5, which does nothing without Filter.classifier",
    ),
    (HUMANEVAL_ONLY, "Decontaminate.inputs: OUT/filter: no such folder"),
    ("publish", "phi1_jax.curate decontaminate --workdir=OUT/decontaminate"),
    ("deduplicate --against=OUT/gone", "--against: OUT/gone: no such file or fold"),
    (
      f"{LLM} --gin.Exercises.prompt=gone.txt --gin.Llm.model=m --gin.Llm.journal=OUT/j"
      " --gin.Llm.budget_usd=1.0 --gin.Llm.input_usd_per_million=0.0"
      " --gin.Llm.output_usd_per_million=0.0",
      "Exercises.prompt: gone.txt: not readable",
    ),
    ("deduplicate --gin.Deduplicate.bands=7", "a divisor of 1"),
    ("publish --gin.Publish.version=2.0.0", 'expected "1.MINOR.PATCH"'),
    ("publish --gin.Publish.inputs=('gin/pretrain.gin',)", "another kind of file"),
    ("exercises --workdir=s3://bucket/x", "got s3://, expected a local path or gs"),
    (
      "annotate --gin.Annotate.inputs=('hf://datasets/x',)",
      "Annotate.inputs: hf://datasets/x: got hf://, expected",
    ),
  ],
)
def test_wrong_input_is_refused_in_a_line(flags, says, tmp_path, capsys):
  says = says.replace("OUT", str(tmp_path))
  words = flags.replace("OUT", str(tmp_path)).split(" ")
  if "--workdir" not in flags:
    words.append(f"--workdir={tmp_path / 'out'}")
  with pytest.raises((InputError, SystemExit)) as caught:
    curate.main(words)
  message = str(caught.value) + capsys.readouterr().err
  assert says in message
  assert message.count("\n") <= 1


def test_another_process_in_the_folder_is_waited_for(tmp_path):
  out = tmp_path / "out"
  with storage.Lease(out, "running"), pytest.raises(InputError, match="another proc"):
    curate.main(["exercises", f"--workdir={out}", "--gin.Exercises.exercises=3"])


def test_a_stage_without_an_llm_costs_nothing(tmp_path, capsys):
  assert curate.main(["exercises", "--estimate", f"--workdir={tmp_path}"]) == 0
  assert "costs nothing" in capsys.readouterr().out


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
