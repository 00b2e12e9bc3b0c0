"""The stage, the study of tau, and cuts of functions and cells."""

import dataclasses
import json

import numpy as np
import pytest

from phi1_jax import InputError
from phi1_jax.curation import decontaminate, folder
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


@pytest.fixture
def config(tmp_path):
  made = [samples.document(samples.algorithm(n)) for n in range(6)]
  made += [samples.document(PROBLEMS[n].solution, "web") for n in (0, 1)]
  made.append(samples.document(CLOSE))
  path = samples.write(tmp_path / "in.jsonl", made, "nonsense\n")
  return DecontaminateConfig((path,), ("humaneval-164",))


def run(config, place, embed=None):
  return decontaminate.run(samples.job(config, place), embed)


def test_the_stage(config, tmp_path):
  place = tmp_path / "out"
  stats = run(config, place)
  assert stats["kept"] == 7
  assert stats["dropped"]["not JSON"] == 1
  drops = folder.dropped(place)
  dropped = {tuple(each.evidence.get("problems", ())) for each in drops}
  assert dropped == {("HumanEval/0",), ("HumanEval/1",), ()}
  noted = [d.provenance["decontaminate"] for d in folder.kept(place)]
  assert not any(each["looked_at"] for each in noted)  # all are less alike than tau
  assert run(config, place) == stats
  with pytest.raises(InputError, match="begun with tau"):
    run(dataclasses.replace(config, tau=0.9), place)


def test_the_study_prunes_as_the_stage_would(config, tmp_path):
  place = tmp_path / "study"
  found = decontaminate.study(samples.job(config, place), (0.95, 0.8))
  assert [row["removed"] for row in found] == [2, 3]
  assert found[0]["read"] == found[1]["read"] == 9
  assert found[1]["share"] == pytest.approx(3 / 9)
  similar = [row["benchmarks"]["humaneval-164"] for row in found]
  assert similar[0] == {"similar": ["HumanEval/0", "HumanEval/1"], "non_similar": 162}
  assert similar[1]["similar"] == ["HumanEval/0", "HumanEval/1", "HumanEval/3"]
  assert found[1]["reasons"]["AST"] == 1
  assert json.loads((place / decontaminate.STUDY).read_text()) == {"rows": found}
  same = dataclasses.replace(config, tau=0.8)  # the stage finds it done
  assert run(same, place / "pruned-0.8")["kept"] == 6


def embed(texts):
  """Close are texts that speak of steps to the one problem about a balance."""
  steps = [[1.0, 0.2 * ("step" in t)] for t in texts]
  near = ["balance" in t or "step" in t for t in texts]
  return np.where(np.array(near)[:, None], steps, [[0, 1.0]])


def test_embeddings_make_candidates(config, tmp_path):
  near = dataclasses.replace(config, distance=0.3, checkpoint="given")
  stats = run(near, tmp_path / "out", embed)
  drops = {each.document.source: each for each in folder.dropped(tmp_path / "out")}
  assert stats["dropped"]["AST and words"] == 1
  pair = drops["s"].evidence["pairs"][0]
  assert pair["problem"] == "HumanEval/3"
  assert 0 < pair["distance"] < 0.3
