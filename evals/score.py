"""Scores with their uncertainty.

n samples of a problem, c of them correct:

  pass@k    1 - C(n - c, k) / C(n, k), the unbiased estimate (Chen et al. 2021), over
            the problems with n >= k
  interval  95%. One sample per problem: Wilson's for a proportion. Several: the
            bootstrap over problems, seeded; Wilson's again where all problems have
            the same value, of which the bootstrap would make an interval of no width.
            All take the problems for a sample of all problems one could ask; a
            greedy score moves also with the batch.
  trainings several of one recipe: Student's t over trainings, with the problems' part
            of the variance added. Two trainings that differ say next to nothing of a
            third, and their interval is as wide as that. Two recipes: the paired t
            test over seeds, for these problems. In simulations of trainings that move
            by 0 to 10 points it finds 1% to 6% of twins different at p < 0.05; a
            bootstrap over seeds and problems had found up to half.
  compared  two runs on the same problems. One sample each: McNemar's exact test on
            the problems that only one solves. Several: the paired bootstrap.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import special

from phi1_jax import InputError

Z = 1.959963984540054  # of a 95% interval
RESAMPLES = 10_000


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A score.

  Attributes:
    value: between 0 and 1.
    low: lower end of the 95% interval.
    high: upper end.
    method: "wilson", "bootstrap" or "t".
    problems: how many it is of, if some have fewer samples than k.
  """

  value: float
  low: float
  high: float
  method: str
  problems: int | None = None


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Run b against run a, on pass@1.

  Attributes:
    difference: of pass@1, b - a.
    p_value: two-sided, of there being no difference.
    method: "mcnemar", "bootstrap" or "t".
    only_a: problems that only a solves; None if either has several samples.
    only_b: the same for b.
    low: lower end of the difference's 95% interval; None for McNemar.
    high: upper end.
  """

  difference: float
  p_value: float
  method: str
  only_a: int | None = None
  only_b: int | None = None
  low: float | None = None
  high: float | None = None


def pass_at_k(samples: int, correct: int, k: int) -> float:
  """The unbiased estimate that one of k samples is correct.

  Raises:
    InputError: k is not between 1 and the number of samples.
  """
  if not 0 <= correct <= samples:
    raise ValueError(f"{correct} of {samples} samples correct")
  if not 1 <= k <= samples:
    raise InputError(
      f"pass@{k} needs at least {max(k, 1)} samples per problem and a positive k, got "
      f"{samples} samples; raise Evaluation.samples or lower Evaluation.ks"
    )
  # 1 - (n-c)/n * (n-c-1)/(n-1) * ... : exact to rounding for any n.
  wrong = math.prod((samples - correct - i) / (samples - i) for i in range(k))
  return 1.0 - wrong


def estimate(
  correct: Mapping[str, Sequence[bool]], k: int, *, seed: int = 0
) -> Estimate:
  """pass@k over problems, with its interval.

  Args:
    correct: problem id -> whether each of its samples passed.
    k: of pass@k.
    seed: of the bootstrap.
  """
  enough = {name: c for name, c in correct.items() if len(c) >= k} or correct
  values = [pass_at_k(len(c), sum(c), k) for _, c in sorted(enough.items())]
  value = math.fsum(values) / len(values)
  part = len(enough) if len(enough) < len(correct) else None
  if all(len(c) == 1 for c in enough.values()):
    low, high = wilson(round(math.fsum(values)), len(values))
    return Estimate(value, low, high, "wilson", part)
  if min(values) == max(values):
    low, high = wilson(math.fsum(values), len(values))
    return Estimate(value, low, high, "wilson", part)
  means = _resampled_means(np.asarray(values), seed)
  low, high = np.quantile(means, [0.025, 0.975])
  return Estimate(value, float(low), float(high), "bootstrap", part)


def over_trainings(solved: Mapping[str, Sequence[bool]]) -> Estimate:
  """Share of problems that the trainings of a recipe solve, with its interval.

  Never narrower than Wilson's for that share of the problems.

  Args:
    solved: problem id -> whether each training solves it, in one order.
  """
  values = np.asarray([each for _, each in sorted(solved.items())], float)
  if values.shape[1] == 1:
    return estimate(solved, 1)
  mean = float(values.mean())
  error = Z * _error(values.mean(1)) if len(values) > 1 else 0.0
  half = math.hypot(_students(values.mean(0)), error)
  low, high = wilson(mean * len(values), len(values))
  low, high = min(low, mean - half), max(high, mean + half)
  return Estimate(mean, max(0.0, low), min(1.0, high), "t")


def compare_trainings(
  a: Mapping[str, Sequence[bool]], b: Mapping[str, Sequence[bool]]
) -> Comparison:
  """Compares two recipes on the same problems, their trainings paired by seed.

  Args:
    a: problem id -> whether each training of a solves it.
    b: the same, of as many trainings.

  Raises:
    ValueError: other problems, or another number of trainings.
  """
  names = sorted(a)
  of_a, of_b = ([len(run[name]) for name in sorted(run)] for run in (a, b))
  if names != sorted(b) or of_a != of_b:
    raise ValueError("the trainings of a and of b do not pair")
  differences = np.asarray([b[n] for n in names], float)
  differences -= np.asarray([a[n] for n in names], float)
  if differences.shape[1] == 1:
    return compare(a, b)
  by_seed = differences.mean(0)
  # Shares are whole problems: seeds that agree may differ by what rounding hides.
  least = 1 / len(names) / math.sqrt(12 * len(by_seed))
  mean, error = float(by_seed.mean()), max(_error(by_seed), least)
  half = _students(by_seed, error)
  p_value = 2 * float(special.stdtr(len(by_seed) - 1, -abs(mean) / error))
  return Comparison(mean, p_value, "t", low=mean - half, high=mean + half)


def _error(values: np.ndarray) -> float:
  """Standard error of a mean."""
  return float(values.std(ddof=1)) / math.sqrt(len(values))


def _students(values: np.ndarray, error: float | None = None) -> float:
  """Half of the 95% interval of a mean, by Student's t."""
  quantile = float(special.stdtrit(len(values) - 1, 0.975))
  return quantile * (_error(values) if error is None else error)


def wilson(successes: float, total: int) -> tuple[float, float]:
  """Wilson's 95% interval of a proportion: 83 of 164 gives 0.430 to 0.582."""
  p, z2 = successes / total, Z * Z
  centre = (p + z2 / (2 * total)) / (1 + z2 / total)
  half = Z * math.sqrt(p * (1 - p) / total + z2 / (4 * total * total))
  half /= 1 + z2 / total
  return max(0.0, centre - half), min(1.0, centre + half)


def mcnemar(only_a: int, only_b: int) -> float:
  """The exact two-sided p-value: a fair coin for each problem that one run solves."""
  total, least = only_a + only_b, min(only_a, only_b)
  tail = sum(math.comb(total, i) for i in range(least + 1))
  return min(1.0, 2 * tail / 2**total)


def compare(
  a: Mapping[str, Sequence[bool]],
  b: Mapping[str, Sequence[bool]],
  *,
  seed: int = 0,
) -> Comparison:
  """Compares two runs on the same problems.

  Raises:
    InputError: they have other problems.
  """
  if a.keys() != b.keys():
    only = sorted(a.keys() ^ b.keys())
    raise InputError(
      f"two runs of different problems cannot be compared: {only[0]} is in one of them"
    )
  names = sorted(a)
  values_a, values_b = (
    np.asarray([np.mean(run[name]) for name in names]) for run in (a, b)
  )
  differences = values_b - values_a
  difference = float(differences.mean())
  if all(len(run[name]) == 1 for run in (a, b) for name in names):
    only_a, only_b = int((differences < 0).sum()), int((differences > 0).sum())
    return Comparison(difference, mcnemar(only_a, only_b), "mcnemar", only_a, only_b)
  means = _resampled_means(differences, seed)
  low, high = np.quantile(means, [0.025, 0.975])
  # How often the resampled difference lies on the other side of 0; never exactly 0,
  # which no number of resamples can show.
  side = min((means <= 0).sum(), (means >= 0).sum())
  p_value = min(1.0, 2 * (int(side) + 1) / (RESAMPLES + 1))
  return Comparison(difference, p_value, "bootstrap", low=float(low), high=float(high))


def _resampled_means(values: np.ndarray, seed: int) -> np.ndarray:
  """Means of `RESAMPLES` samples with replacement, in pieces that fit in a cache."""
  random = np.random.default_rng(seed)
  pieces = [
    values[random.integers(len(values), size=(RESAMPLES // 10, len(values)))].mean(1)
    for _ in range(10)
  ]
  return np.concatenate(pieces)
