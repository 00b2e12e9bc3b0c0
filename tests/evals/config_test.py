import dataclasses

import pytest

from evals.config import EvaluationConfig
from phi1_jax import InputError

GREEDY = EvaluationConfig("humaneval-164", "as-is")
SAMPLED = dataclasses.replace(GREEDY, samples=20, temperature=0.2, top_p=0.95)


@pytest.mark.parametrize(
  ("config", "changes", "named"),
  [
    (GREEDY, {"task_set": "humaneval"}, "task_set: got 'humaneval', .*humaneval-164"),
    (
      GREEDY,
      {"prompt_style": "paper-3shot"},
      "prompt_style: .*as-is, stripped, chat for hum",
    ),
    (GREEDY, {"task_set": "mbpp-full-500"}, "prompt_style: got 'as-is', .*one-test"),
    (GREEDY, {"samples": 2}, "samples: got 2, expected 1 at temperature 0"),
    (GREEDY, {"samples": 0}, "samples: got 0, expected an integer >= 1"),
    (GREEDY, {"top_p": 0.9}, "temperature: got 0.0, expected more than 0"),
    (GREEDY, {"top_k": 3}, "temperature: got 0.0, expected more than 0"),
    (SAMPLED, {"top_k": 3}, "top_k: got 3, expected None beside top_p = 0.95"),
    (SAMPLED, {"top_p": 0.0}, "top_p: got 0.0, expected a number > 0 and <= 1"),
    (SAMPLED, {"temperature": -1.0}, "temperature: got -1.0"),
    (SAMPLED, {"temperature": float("inf")}, "temperature: got inf"),
    (SAMPLED, {"ks": (1, 21)}, r"ks: got \(1, 21\), .*from 1 to samples = 20"),
    (SAMPLED, {"ks": (0,)}, "ks: got"),
    (SAMPLED, {"ks": ()}, "ks: got"),
    (GREEDY, {"dtype": "int8"}, "dtype: got 'int8'"),
    (GREEDY, {"slots": 0}, "slots: got 0"),
    (GREEDY, {"workers": -1}, "workers: got -1"),
    (GREEDY, {"memory_bytes": 1}, "memory_bytes: got 1"),
    (GREEDY, {"seed": -1}, "seed: got -1"),
    (GREEDY, {"max_new_tokens": 0}, "max_new_tokens: got 0"),
  ],
)
def test_refuses(config, changes, named):
  with pytest.raises(InputError, match=f"^Evaluation.{named}"):
    dataclasses.replace(config, **changes)


def test_sampling_is_what_changes_the_text():
  assert dataclasses.replace(SAMPLED, slots=3, workers=3, ks=(2,)).sampling() == (
    SAMPLED.sampling()
  )
  for change in ({"top_p": 0.9}, {"temperature": 0.3}, {"max_new_tokens": 3}):
    assert dataclasses.replace(SAMPLED, **change).sampling() != SAMPLED.sampling()


def test_a_seed_without_effect():
  with pytest.raises(InputError, match=r"Evaluation\.seed: got 3"):
    dataclasses.replace(GREEDY, seed=3)
  assert dataclasses.replace(GREEDY, seed=3, temperature=0.5).seed == 3
