import dataclasses
import json

import numpy as np
import pytest

from phi1_jax import InputError
from phi1_jax.curation import decontaminate, folder, pieces
from phi1_jax.curation.config import DecontaminateConfig
from phi1_jax.curation.engine import Engine
from phi1_jax.problems import humaneval
from tests.curation import samples

ENGINE = Engine(tasks=2, workers=1)
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
  rows = (json.dumps(document.record()) + "\n" for document in documents)
  path.write_text("".join(rows))
  return str(path)


@pytest.fixture
def config(tmp_path):
  clean = [samples.document(samples.algorithm(n)) for n in range(6)]
  planted = [samples.document(PROBLEMS[n].solution, "web") for n in (0, 1)]
  path = write(tmp_path / "in.jsonl", [*clean, *planted, samples.document(CLOSE)])
  with open(path, "ab") as file:
    file.write(b"nonsense\n")
  return DecontaminateConfig((path,), ("humaneval-164",))


def test_the_stage(config, tmp_path):
  place = tmp_path / "out"
  place.mkdir()
  stats = decontaminate.run(config, place, ENGINE)
  assert stats["kept"] == 7
  assert stats["dropped"]["not JSON"] == 1
  drops = folder.dropped(place)
  dropped = {tuple(each.evidence.get("problems", ())) for each in drops}
  assert dropped == {("HumanEval/0",), ("HumanEval/1",), ()}
  noted = [d.provenance["decontaminate"] for d in folder.kept(place)]
  assert (
    sum(len(each["looked_at"]) for each in noted) == 0
  )  # each is less like any problem than tau
  assert decontaminate.run(config, place, ENGINE) == stats
  with pytest.raises(InputError, match="begun with tau"):
    decontaminate.run(dataclasses.replace(config, tau=0.9), place, ENGINE)


def test_the_study_prunes_as_the_stage_would(config, tmp_path):
  place = tmp_path / "study"
  place.mkdir()
  stats = decontaminate.run(config, place, ENGINE, taus=(0.95, 0.8))
  found = stats["rows"]
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
    decontaminate.run(config, place / "pruned-0.8", ENGINE)
  same = dataclasses.replace(config, tau=0.8)  # the stage finds it done
  stats = decontaminate.run(same, place / "pruned-0.8", ENGINE)
  assert stats["kept"] == 6
  (tmp_path / "alone").mkdir()  # it notes nothing that only tau 0.8 looks at
  decontaminate.run(config, tmp_path / "alone", ENGINE)
  places = tmp_path / "alone", place / "pruned-0.95"
  digests = [(each / folder.COMPLETED).read_bytes() for each in places]
  assert digests[0] == digests[1]
  assert len(list(folder.kept(place / "pruned-0.8"))) == 6
  again = decontaminate.run(config, place, ENGINE, taus=(0.95, 0.8))
  assert again["rows"] == found


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
  stats = decontaminate.run(near, place, ENGINE, embed)
  drops = {each.document.source: each for each in folder.dropped(place)}
  assert stats["dropped"]["AST and words"] == 1
  pair = drops["s"].evidence["pairs"][0]
  assert pair["problem"] == "HumanEval/3"
  assert 0 < pair["distance"] < 0.3


def test_what_only_a_distance_convicts_is_cut_too(config, tmp_path):
  own = samples.algorithm(3)
  texts = [f"{own}\n\n{CLOSE}", f"{own}\n\n{PROBLEMS[0].solution}\n\n{CLOSE}"]
  path = write(tmp_path / "two.jsonl", map(samples.document, texts))
  near = dataclasses.replace(config, inputs=(path,), distance=0.3, cut="function")
  decontaminate.run(near, tmp_path / "out", ENGINE, embed)
  kept = list(folder.kept(tmp_path / "out"))
  assert len(kept) == 2
  for document in kept:
    assert "step_3" in document.text
    assert "reaches_one" not in document.text
    assert "has_close_elements" not in document.text


def test_wrong_settings(config, tmp_path):
  with pytest.raises(InputError, match=r"Decontaminate\.distance: got None"):
    decontaminate.run(config, tmp_path, ENGINE, embed)
  for taus in ((), (0.9, 0.9), (0.95, 0.9500001), (1.5,)):
    with pytest.raises(InputError, match=r"--tau: got .*, expected different numbers"):
      decontaminate.run(config, tmp_path, ENGINE, taus=taus)
  for wrong in (
    {"benchmarks": ()},
    {"distance": 3.0},
    {"checkpoint": "x"},
    {"tau": 1.0},
  ):
    with pytest.raises(InputError, match=r"^Decontaminate\."):
      dataclasses.replace(config, **wrong)


def test_functions_and_cells_are_cut_instead_of_documents(tmp_path):
  copied, own = PROBLEMS[0].solution, samples.algorithm(3)
  module = f"{own}\n\n{copied}\n\n{samples.algorithm(4)}"
  notebook = f"# %%\n{copied}\n\n# %%\n{own}"
  texts = [module, notebook, copied]
  path = write(tmp_path / "in.jsonl", map(samples.document, texts))
  config = DecontaminateConfig((path,), ("humaneval-164",), cut="function")
  stats = decontaminate.run(config, tmp_path / "out", ENGINE)
  assert (stats["read"], stats["kept"]) == (3, 2)
  kept = {len(d.text): d for d in folder.kept(tmp_path / "out")}
  assert any(d.text.startswith(own) for d in kept.values())
  for document in kept.values():
    assert "has_close_elements" not in document.text
    facts = document.provenance["cut"]
    assert facts["problems"] == ["HumanEval/0"]
    assert facts["parts"] in (["has_close_elements"], ["cell 1"])


def test_what_is_left_after_a_cut_is_a_program_or_nothing():
  text = "class A:\n  x = 1\n\n  def f(self):\n    return 1\n\n\n" + samples.algorithm(
    1
  )
  cut = pieces.without(text, lambda part: "return 1" in part)
  assert cut.names == ["A.f"]
  assert "class A:\n  x = 1" in cut.text
  only = "class A:\n  def f(self):\n    return 1\n" + "# more\n" * 20
  assert pieces.without(only, lambda part: "return 1" in part).names == ["A"]
  inside = "if x:\n  y = 1\n" + samples.algorithm(1)
  assert pieces.without(inside, lambda part: False) is None
  assert pieces.without(samples.algorithm(1), lambda part: True) is None
