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
    (GREEDY, {"prompt_style": "paper-3shot"}, "prompt_style: .*as-is, stripped, chat"),
    (GREEDY, {"task_set": "mbpp-full-500"}, "prompt_style: got 'as-is', .*one-test"),
    (GREEDY, {"samples": 2}, "samples: got 2, expected 1 at temperature 0"),
    (GREEDY, {"seed": 3}, "seed: got 3"),  # which has no effect
    (GREEDY, {"top_p": 0.9}, "temperature: got 0.0, expected more than 0"),
    (GREEDY, {"top_k": 3}, "temperature: got 0.0, expected more than 0"),
    (SAMPLED, {"top_k": 3}, "top_k: got 3, expected None beside top_p = 0.95"),
    (SAMPLED, {"top_p": 0.0}, "top_p: got 0.0, expected a number > 0 and <= 1"),
    (SAMPLED, {"ks": (1, 21)}, r"ks: got \(1, 21\), .*from 1 to samples = 20"),
    *((SAMPLED, {"ks": ks}, "ks: got") for ks in ((), (0,))),
  ],
)
def test_refuses(config, changes, named):
  with pytest.raises(InputError, match=f"^Evaluation.{named}"):
    dataclasses.replace(config, **changes)
