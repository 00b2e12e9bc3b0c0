"""Where pipelines run: options, errors, and the same files on a second engine."""

import contextlib
import dataclasses
import gzip
import json
import logging
import random

import apache_beam as beam
import pytest
from apache_beam.ml.inference.base import ModelHandler

from phi1_jax import InputError
from phi1_jax.curation import decontaminate, deduplicate, filtering, folder, pipeline
from phi1_jax.curation.config import DecontaminateConfig, DeduplicateConfig
from phi1_jax.curation.document import Drop, Keep
from phi1_jax.problems import humaneval
from tests.curation import samples

DASK = "apache_beam.runners.dask.dask_runner.DaskRunner"


class Scorer(ModelHandler):
  """Scores a document by the batch that it comes in."""

  def load_model(self):
    return None

  def run_inference(self, batch, model, inference_args=None):
    score = sum(len(each.document.text) for each in batch) % 997 / 997
    return [filtering.Scored(each.document, score) for each in batch]


@pytest.fixture
def runner():
  distributed = pytest.importorskip("dask.distributed")
  with distributed.LocalCluster(
    n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs="ERROR"
  ) as cluster:
    address = f"--dask_client_address={cluster.scheduler_address}"
    yield pipeline.Runner(DASK, (address, "--dask_npartitions=1"))
    with contextlib.suppress(ValueError):  # Beam leaves its clients open
      while True:
        distributed.default_client().close()


def run_all(inputs, place, engine):
  """Runs three pipelines; the digests of their files."""
  places = [place / name for name in ("deduplicate", "decontaminate", "score")]
  for each in places:
    each.mkdir(parents=True)
  config = DeduplicateConfig(inputs, maximum_loss=1.0, shards=2)
  first = deduplicate.run(config, places[0], engine)
  config = DecontaminateConfig(inputs, ("humaneval-164",), shards=2)
  second = decontaminate.run(config, places[1], engine)
  assert (first["read"], second["read"]) == (24, 24)
  assert first["kept"] < 24
  assert second["kept"] == 18
  with engine.pipeline() as graph:
    scored = graph | pipeline.Read(inputs) | filtering.Score(Scorer(), 1)
    _ = scored | beam.Map(filtering.decide, 0.0) | pipeline.Write(places[2], 2)
  assert pipeline.total(places[2], 2).stats()["kept"] == 24
  files = sorted(file for each in places for file in each.glob("*-of-*.jsonl"))
  return [(file.name, file.read_bytes()) for file in files]


def test_pipelines_keep_the_same_on_dask(runner, tmp_path):
  texts = [samples.algorithm(n % 9) for n in range(18)]  # near-duplicates and copies
  texts += [problem.solution for problem in humaneval.load()[:6]]
  for part in range(3):
    documents = [samples.document(t, f"s{part}") for t in texts[part::3]]
    lines = [folder.line(document.record()) for document in documents]
    (tmp_path / f"{part}.jsonl").write_bytes(b"".join(lines))
  inputs = (str(tmp_path / "*.jsonl"),)
  local = run_all(inputs, tmp_path / "local", pipeline.Runner())
  assert run_all(inputs, tmp_path / "dask", runner) == local


@pytest.mark.parametrize(
  ("option", "told"),
  [
    ("--nonsense=1", "got --nonsense, expected --NAME=VALUE"),
    ("junk", "got junk, expected"),
    ("--direct_num_workers=x", "direct_num_workers=x .*invalid int value: 'x'"),
  ],
)
def test_wrong_options_are_refused_in_one_line(option, told, capsys):
  runner = pipeline.Runner(options=(option,))
  with pytest.raises(InputError, match=told) as error, runner.pipeline():
    pass
  assert "\n" not in str(error.value)
  assert capsys.readouterr() == ("", "")


def test_wrong_runners_are_refused():
  runner = pipeline.Runner("NoRunner")
  with pytest.raises(InputError, match=r"^--runner: got 'NoRunner'"), runner.pipeline():
    pass


def test_an_input_that_ends_early_is_told_once(tmp_path, caplog):
  path = tmp_path / "torn.jsonl.gz"
  path.write_bytes(gzip.compress(b'{"text": "x = 1"}\n')[:30])
  config = DeduplicateConfig((str(path),))
  (tmp_path / "out").mkdir()
  with caplog.at_level(logging.ERROR), pytest.raises(InputError) as error:
    deduplicate.run(config, tmp_path / "out", pipeline.Runner())
  assert str(error.value).startswith(f"{path}: not readable after line")
  assert str(error.value).endswith("marker was reached)")
  assert caplog.records == []


def test_order_is_that_of_the_bytes_on_disk(tmp_path):
  one = samples.document("text", a={"x": 1}, b=2)
  made = [
    Keep(one),
    Keep(dataclasses.replace(one, licence="ISC")),
    Keep(dataclasses.replace(one, group="z")),
    Keep(dataclasses.replace(one, text="other")),
    Drop(one, "reason", {"seen": 1}),
    Drop(one, "reason", {"seen": 2}),
  ]
  files = set()
  for seed in range(9):
    random.Random(seed).shuffle(made)
    folder.write(tmp_path, sorted(made, key=pipeline.order))
    files.add(tuple(path.read_bytes() for path in sorted(tmp_path.glob("*-of-*"))))
  assert len(files) == 1


def test_counts_are_left_as_json(tmp_path):
  made = [Keep(samples.document("a")), Drop(samples.document("b"), "reason")]
  with pipeline.Runner().pipeline() as graph:
    _ = graph | beam.Create(made) | pipeline.Write(tmp_path, 1)
  (left,) = tmp_path.glob(".counts-*")
  assert json.loads(left.read_bytes())["dropped"] == [["s", "reason", 1]]
  counts = pipeline.total(tmp_path, 1)
  assert (counts.kept["s"], counts.dropped["s", "reason"]) == (1, 1)
  assert not left.exists()
