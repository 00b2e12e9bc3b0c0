import dataclasses

import pytest

from evals import completions, generate, prompts, workdir
from evals.backends import Wanted, request_seed
from evals.config import EvaluationConfig
from phi1_jax import InputError, storage
from phi1_jax.text import settings_file

GREEDY = EvaluationConfig("humaneval-164", "as-is")
SAMPLED = dataclasses.replace(GREEDY, samples=3, temperature=0.2)


@pytest.fixture
def run(five, tmp_path):
  """Runs the stage with a backend; returns the lines that are then on the disk."""
  asked = prompts.build_all(five, "humaneval-164", "as-is")

  def run(backend, config=SAMPLED):
    settings_file.begin(
      tmp_path / workdir.RUN, generate.settings(config, backend.identity())
    )
    generate.generate(tmp_path, five, asked, config, backend)
    return storage.read_lines(tmp_path / workdir.COMPLETIONS)

  return run


def test_a_line_says_everything(run, five, knowing):
  rows = run(knowing(five))
  assert len(rows) == len({row["key"] for row in rows}) == 15
  assert {(row["task_id"], row["sample"]) for row in rows} == {
    (problem.id, sample) for problem in five for sample in range(3)
  }
  row = rows[0]
  assert row["completion"] == five[0].reference.removesuffix("\n") + "\n"
  assert row["text"] == five[0].reference + "\ndef"
  assert (row["stop"], row["finish"], row["tokens"]) == ("\ndef", "stop", 9)
  assert (row["log_probs"], row["seconds"]) == (-1.5, 0.1)


def test_goes_on_where_it_was_stopped(run, five, knowing):
  with pytest.raises(KeyboardInterrupt):
    run(knowing(five, stop_after=7))
  second = knowing(five)
  rows = run(second)
  assert len(second.asked) == 8
  assert len({row["key"] for row in rows}) == len(rows) == 15
  third = knowing(five)
  assert run(third) == rows
  assert third.asked == []


def test_says_how_much_is_to_be_made_before_it_asks(run, five, knowing, tmp_path):
  class Killed(knowing):
    def complete(self, wanted):
      noted = storage.read_json(tmp_path / workdir.RUN)["generate"]
      assert noted["samples"] == 3
      assert wanted[1].name == "HumanEval/0, sample 1"
      return super().complete(wanted)

  run(Killed(five))


def test_a_file_is_counted_before_it_is_taken(five, tmp_path, monkeypatch):
  file = tmp_path / "made.jsonl"
  line = '{"task_id": "%s", "completion": "", "log_probs": -Infinity}\n'
  file.write_text("".join(line % problem.id for problem in five))
  settings_file.begin(tmp_path / workdir.RUN, {})
  found = completions.read(file, five)
  completions.take(tmp_path, file, found)
  rows = storage.read_lines(tmp_path / workdir.COMPLETIONS)
  assert [row["log_probs"] for row in rows] == [None] * 5
  (tmp_path / workdir.RUN).unlink()
  (tmp_path / workdir.COMPLETIONS).unlink()
  settings_file.begin(tmp_path / workdir.RUN, {})

  def kill(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(storage.JsonLines, "append", kill)
  with pytest.raises(KeyboardInterrupt):
    completions.take(tmp_path, file, found)
  assert storage.read_json(tmp_path / workdir.RUN)["generate"]["rows"] == 5


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_log_prob_that_is_no_number_is_not_known(run, five, knowing, value):
  class Odd(knowing):
    def complete(self, wanted):
      for one in super().complete(wanted):
        yield dataclasses.replace(one, log_probs=value)

  assert {row["log_probs"] for row in run(Odd(five))} == {None}


def test_another_run_is_refused(run, five, knowing):
  run(knowing(five))
  with pytest.raises(InputError, match=r"begun with sampling = .*0\.2"):
    run(knowing(five), dataclasses.replace(SAMPLED, temperature=0.3))


def test_keys_depend_on_all_that_decides():
  settings = generate.settings(SAMPLED, {"digest": "d"})

  def key(**changes):
    arguments = {"problem_id": "HumanEval/0", "prompt": "p", "sample": 0} | changes
    return generate.completion_key(**({"run_settings": settings} | arguments))

  others = [
    key(problem_id="HumanEval/1"),
    key(prompt="q"),
    key(sample=1),
    key(run_settings=generate.settings(SAMPLED, {"digest": "e"})),
    *(
      key(
        run_settings=generate.settings(
          dataclasses.replace(SAMPLED, **change), {"digest": "d"}
        )
      )
      for change in (
        {"temperature": 0.3},
        {"top_p": 0.5},
        {"max_new_tokens": 3},
        {"seed": 1},
        {"max_new_tokens": 9},
        {"prompt_style": "stripped"},
      )
    ),
  ]
  assert len({key(), *others}) == 11
  assert key() == key()


def test_seeds_of_requests_depend_on_key_and_seed():
  seeds = {
    request_seed(Wanted(key, "p", (), 1, seed)) for key in "abc" for seed in (0, 1)
  }
  assert len(seeds) == 6
  assert all(0 <= seed < 1 << 31 for seed in seeds)


def test_more_samples_add_to_those_there_are(run, five, knowing):
  before = run(knowing(five))
  more = knowing(five)
  rows = run(more, dataclasses.replace(SAMPLED, samples=4))
  assert rows[:15] == before
  assert len(more.asked) == 5
