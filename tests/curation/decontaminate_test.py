import dataclasses
import json

import numpy as np
import pytest

from phi1_jax import InputError
from phi1_jax.curation import decontaminate, folder, pipeline
from phi1_jax.curation.config import DecontaminateConfig
from phi1_jax.problems import humaneval
from tests.curation import samples

PROBLEMS = humaneval.load()
# As HumanEval/3, but for one operator and one constant of its 28 tokens.
CLOSE = """
def reaches_one(steps):
  height = 0
  for step in steps:
    height += step
    if height > 1:
      return True
  return False
"""


def write(path, documents):
  path.write_bytes(b"".join(folder.line(document.record()) for document in documents))
  return str(path)


def rows(place, kind):
  files = sorted(place.glob(f"{kind}-*.jsonl"))
  return [json.loads(line) for file in files for line in file.open()]


@pytest.fixture
def config(tmp_path):
  clean = [samples.document(samples.algorithm(n)) for n in range(6)]
  planted = [samples.document(PROBLEMS[n].solution, "web") for n in (0, 1)]
  path = write(tmp_path / "in.jsonl", [*clean, *planted, samples.document(CLOSE)])
  with open(path, "ab") as file:
    file.write(b"nonsense\n")
  return DecontaminateConfig((path,), ("humaneval-164",), shards=2)


def test_the_stage(config, tmp_path):
  place = tmp_path / "out"
  place.mkdir()
  stats = decontaminate.run(config, place, pipeline.Runner())
  assert stats["kept"] == 7
  assert stats["dropped"]["not JSON"] == 1
  dropped = {
    tuple(r["dropped"]["evidence"].get("problems", ())) for r in rows(place, "dropped")
  }
  assert dropped == {("HumanEval/0",), ("HumanEval/1",), ()}
  noted = [r["provenance"]["decontaminate"]["looked_at"] for r in rows(place, "kept")]
  assert sum(map(len, noted)) == 0  # each is less like any problem than tau
  assert decontaminate.run(config, place, pipeline.Runner()) == stats
  with pytest.raises(InputError, match="begun with tau"):
    decontaminate.run(dataclasses.replace(config, tau=0.9), place, pipeline.Runner())


def test_the_study_prunes_as_the_stage_would(config, tmp_path):
  place = tmp_path / "study"
  place.mkdir()
  found = decontaminate.study(config, place, (0.95, 0.8), pipeline.Runner())
  assert [row["removed"] for row in found] == [2, 3]
  assert found[0]["read"] == found[1]["read"] == 9
  assert found[1]["share"] == pytest.approx(3 / 9)
  similar = [row["benchmarks"]["humaneval-164"] for row in found]
  assert similar[0] == {"similar": ["HumanEval/0", "HumanEval/1"], "non_similar": 162}
  assert similar[1]["similar"] == ["HumanEval/0", "HumanEval/1", "HumanEval/3"]
  assert found[1]["reasons"]["AST"] == 1
  assert (
    "| 0.8 | 3 of 9 | 33.3% | 3 | 161 |" in (place / decontaminate.TABLE).read_text()
  )
  with pytest.raises(
    InputError, match=r"pruned-0\.8: begun with tau = 0\.8, now it is"
  ):
    decontaminate.run(config, place / "pruned-0.8", pipeline.Runner())
  same = dataclasses.replace(config, tau=0.8)  # the stage finds it done
  stats = decontaminate.run(same, place / "pruned-0.8", pipeline.Runner())
  assert stats["kept"] == 6
  (tmp_path / "alone").mkdir()  # it notes nothing that only tau 0.8 looks at
  decontaminate.run(config, tmp_path / "alone", pipeline.Runner())
  digests = [p / folder.COMPLETED for p in (tmp_path / "alone", place / "pruned-0.95")]
  assert digests[0].read_bytes() == digests[1].read_bytes()
  assert len(rows(place / "pruned-0.8", "kept")) == 6
  assert decontaminate.study(config, place, (0.95, 0.8), pipeline.Runner()) == found


def embed(texts):
  """Close are texts that speak of steps to the one problem about a balance."""
  return np.array(
    [
      [1.0, 0.2 * ("step" in t)] if "balance" in t or "step" in t else [0, 1.0]
      for t in texts
    ]
  )


def test_embeddings_make_candidates(config, tmp_path):
  place = tmp_path / "out"
  place.mkdir()
  near = dataclasses.replace(config, distance=0.3)
  stats = decontaminate.run(near, place, pipeline.Runner(), embed)
  reasons = {r["source"]: r["dropped"] for r in rows(place, "dropped")}
  assert stats["dropped"]["AST and words"] == 1
  pair = reasons["s"]["evidence"]["pairs"][0]
  assert pair["problem"] == "HumanEval/3"
  assert 0 < pair["distance"] < 0.3


def test_wrong_settings(config, tmp_path):
  with pytest.raises(InputError, match=r"Decontaminate\.distance: got None"):
    decontaminate.run(config, tmp_path, pipeline.Runner(), embed)
  for taus in ((), (0.9, 0.9), (0.95, 0.9500001), (1.5,)):
    with pytest.raises(InputError, match=r"--tau: got .*, expected different numbers"):
      decontaminate.study(config, tmp_path, taus, pipeline.Runner())
  for wrong in (
    {"benchmarks": ()},
    {"distance": 3.0},
    {"checkpoint": "x"},
    {"tau": 1.0},
  ):
    with pytest.raises(InputError, match=r"^Decontaminate\."):
      dataclasses.replace(config, **wrong)
