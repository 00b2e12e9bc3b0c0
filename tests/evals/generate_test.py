import dataclasses

import pytest

from evals import completions, generate, workdir
from evals.backends import request_seed
from evals.config import EvaluationConfig
from phi1_jax import InputError, storage
from phi1_jax.text import settings_file
from tests.evals.conftest import Knowing

SAMPLED = EvaluationConfig("humaneval-164", "as-is", samples=3, temperature=0.2)


@pytest.fixture
def run(generated, tmp_path):
  """Runs the stage with a backend; returns the lines that are then on the disk."""

  def run(backend, **changes):
    generated(backend, dataclasses.replace(SAMPLED, **changes))
    return storage.read_lines(tmp_path / workdir.COMPLETIONS)

  return run


def test_a_line_says_everything(run, five, tmp_path):
  class Odd(Knowing):
    def complete(self, wanted):
      # A process that is killed now leaves a run that is known to be incomplete.
      noted = storage.read_json(tmp_path / workdir.RUN)["generate"]
      assert noted == {"samples": 3, "seconds": 0}
      assert wanted[1].name == "HumanEval/0, sample 1"
      for number, one in enumerate(super().complete(wanted)):
        value = [-1.5, float("nan"), float("-inf")][min(number, 2)]
        yield dataclasses.replace(one, log_probs=value)

  rows = run(Odd(five))
  assert len(rows) == len({row["key"] for row in rows}) == 15
  assert {(row["task_id"], row["sample"]) for row in rows} == {
    (problem.id, sample) for problem in five for sample in range(3)
  }
  row = rows[0]
  assert row["completion"] == five[0].reference.removesuffix("\n") + "\n"
  assert row["text"] == five[0].reference + "\ndef"
  assert (row["stop"], row["finish"], row["tokens"]) == ("\ndef", "stop", 9)
  assert [row["log_probs"] for row in rows] == [-1.5] + [None] * 14
  assert row["seconds"] == 0.1


def test_resumes_and_adds_more_samples(run, five):
  with pytest.raises(KeyboardInterrupt):
    run(Knowing(five, stop_after=7))
  second, third, more = (Knowing(five) for _ in range(3))
  rows = run(second)
  assert len(second.asked) == 8
  assert len({row["key"] for row in rows}) == len(rows) == 15
  assert run(third) == rows
  assert third.asked == []
  assert run(more, samples=4)[:15] == rows
  assert len(more.asked) == 5
  with pytest.raises(InputError, match=r"begun with sampling = .*0\.2"):
    run(more, temperature=0.3)


def test_a_file_is_counted_before_it_is_taken(five, tmp_path, monkeypatch):
  file = tmp_path / "made.jsonl"
  line = '{"task_id": "%s", "completion": ""}\n'
  file.write_text("".join(line % problem.id for problem in five))
  found = completions.read(file, five)
  settings_file.begin(tmp_path / workdir.RUN, {})
  with monkeypatch.context() as patch:
    patch.setattr(storage.JsonLines, "append", None)
    with pytest.raises(TypeError):
      completions.take(tmp_path, file, found)
  assert storage.read_json(tmp_path / workdir.RUN)["generate"]["rows"] == 5
  completions.take(tmp_path, file, found)
  assert len(storage.read_lines(tmp_path / workdir.COMPLETIONS)) == 5


def test_keys_depend_on_all_that_decides_and_seeds_on_keys():
  def key(digest="d", problem="HumanEval/0", prompt="p", sample=0, **changes):
    config = dataclasses.replace(SAMPLED, **changes)
    settings = generate.settings(config, {"digest": digest})
    return generate.completion_key(settings, problem, prompt, sample)

  others = [key("e"), key(problem="HumanEval/1"), key(prompt="q"), key(sample=1)]
  others += [key(temperature=0.3), key(top_p=0.5), key(max_new_tokens=3), key(seed=1)]
  others += [key(prompt_style="stripped")]
  assert len({key(), *others}) == 10
  assert key() == key() == key(slots=3, workers=3, ks=(2,))
  seeds = {request_seed(seed, k) for k in "abc" for seed in (0, 1)}
  assert len(seeds) == 6
  assert all(0 <= seed < 1 << 31 for seed in seeds)


def test_notes_add_up(tmp_path):
  settings_file.begin(tmp_path / workdir.RUN, {})
  workdir.note(tmp_path, "generate", {"seconds": 1.5, "step": 3})
  workdir.note(tmp_path, "generate", {"seconds": 2.0})
  noted = storage.read_json(tmp_path / workdir.RUN)["generate"]
  assert noted == {"seconds": 3.5, "step": 3}
