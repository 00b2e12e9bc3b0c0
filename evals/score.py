"""Scores with their uncertainty.

n samples of a problem, c of them correct:

  pass@k    1 - C(n - c, k) / C(n, k), the unbiased estimate (Chen et al. 2021), over
            the problems with n >= k
  interval  95%. One sample per problem: Wilson's for a proportion. Several: the
            bootstrap over problems, seeded; Wilson's again where all problems have
            the same value, of which the bootstrap would make an interval of no width.
            All take the problems for a sample of all problems. A greedy score
            moves also with the batch.
  trainings several of one recipe: Student's t over trainings, with the problems' part
            of the variance added. Two recipes: the paired t test over seeds, for these
            problems. In simulations of trainings that move by 0 to 10 points it finds
            1% to 6% of twins different at p < 0.05.
  compared  two runs on the same problems. One sample each: McNemar's exact test on
            the problems that only one solves. Several: the paired bootstrap.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from phi1_jax import InputError

Z = float(stats.norm.ppf(0.975))  # of a 95% interval
RESAMPLES = 10_000


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A score between 0 and 1, with its 95% interval."""

  value: float
  low: float
  high: float
  method: str  # "wilson", "bootstrap" or "t"
  problems: int | None = None  # how many it is of, if some have fewer samples than k


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Run b against run a, on pass@1."""

  difference: float  # of pass@1, b - a
  p_value: float  # two-sided, of there being no difference
  method: str  # "mcnemar", "bootstrap" or "t"
  only_a: int | None = None  # problems that only a solves; None for several samples
  only_b: int | None = None
  low: float | None = None  # ends of the difference's 95% interval; None for McNemar
  high: float | None = None


def pass_at_k(samples: int, correct: int, k: int) -> float:
  """Return the unbiased estimate that one of k samples is correct.

  Raises:
    InputError: k is not between 1 and the number of samples.
  """
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
  """Return pass@k with its interval; `correct` has the samples of each problem."""
  enough = {name: c for name, c in correct.items() if len(c) >= k} or correct
  values = [pass_at_k(len(c), sum(c), k) for _, c in sorted(enough.items())]
  part = len(enough) if len(enough) < len(correct) else None
  single = all(len(c) == 1 for c in enough.values())
  return dataclasses.replace(mean_of(values, single=single, seed=seed), problems=part)


def mean_of(
  values: Sequence[float], *, single: bool = False, seed: int = 0
) -> Estimate:
  """Return the mean of problems' values between 0 and 1, with its interval.

  `single` says that they are 0 or 1 each.
  """
  total = math.fsum(values)
  if single or min(values) == max(values):
    low, high = wilson(total, len(values))
    return Estimate(total / len(values), low, high, "wilson")
  low, high = bootstrap(values, seed=seed).confidence_interval
  return Estimate(total / len(values), float(low), float(high), "bootstrap")


def over_trainings(solved: Mapping[str, Sequence[bool]]) -> Estimate:
  """Return the share of problems that the trainings of a recipe solve.

  Its interval is never narrower than Wilson's for that share of the problems. `solved`
  says by problem id whether each training solves it, in one order.
  """
  values = np.asarray([each for _, each in sorted(solved.items())], float)
  problems, trainings = values.shape
  if trainings == 1:
    return estimate(solved, 1)
  mean = float(values.mean())
  of_problems = Z * stats.sem(values.mean(1)) if problems > 1 else 0.0
  of_trainings = stats.t.ppf(0.975, trainings - 1) * stats.sem(values.mean(0))
  half = math.hypot(of_trainings, of_problems)
  low, high = wilson(mean * problems, problems)
  low, high = min(low, mean - half), max(high, mean + half)
  return Estimate(mean, max(0.0, low), min(1.0, high), "t")


def compare_trainings(
  a: Mapping[str, Sequence[bool]], b: Mapping[str, Sequence[bool]]
) -> Comparison:
  """Compare two recipes on the same problems, their trainings paired by seed.

  Raises:
    ValueError: other problems, or another number of trainings.
  """
  names = sorted(a)
  if names != sorted(b) or any(len(a[n]) != len(b[n]) for n in names):
    raise ValueError("the trainings of a and of b do not pair")
  differences = np.asarray([b[n] for n in names], float)
  differences -= np.asarray([a[n] for n in names], float)
  problems, trainings = differences.shape
  if trainings == 1:
    return compare(a, b)
  by_seed = differences.mean(0)
  # Shares are whole problems: seeds that agree may differ by what rounding hides.
  error = max(stats.sem(by_seed), 1 / problems / math.sqrt(12 * trainings))
  mean, t = float(by_seed.mean()), stats.t(trainings - 1)
  half = float(t.ppf(0.975) * error)
  p_value = float(2 * t.sf(abs(mean) / error))
  return Comparison(mean, p_value, "t", low=mean - half, high=mean + half)


def wilson(successes: float, total: int) -> tuple[float, float]:
  """Return Wilson's 95% interval of a proportion: 83 of 164 gives 0.430 to 0.582.

  The successes may be a fraction, which `scipy.stats.binomtest` does not take.
  """
  p, z2 = successes / total, Z * Z
  centre = (p + z2 / (2 * total)) / (1 + z2 / total)
  half = Z * math.sqrt(p * (1 - p) / total + z2 / (4 * total * total))
  half /= 1 + z2 / total
  return max(0.0, centre - half), min(1.0, centre + half)


def mcnemar(only_a: int, only_b: int) -> float:
  """Return the exact two-sided p-value, given the problems that only one run solves."""
  total = only_a + only_b
  return float(stats.binomtest(only_a, total).pvalue) if total else 1.0


def compare(
  a: Mapping[str, Sequence[bool]],
  b: Mapping[str, Sequence[bool]],
  *,
  seed: int = 0,
) -> Comparison:
  """Compare two runs on the same problems.

  Raises:
    InputError: they have other problems.
  """
  if a.keys() != b.keys():
    only = sorted(a.keys() ^ b.keys())
    raise InputError(
      f"two runs of different problems cannot be compared: {only[0]} is in one of them"
    )
  names = sorted(a)
  differences = np.asarray([np.mean(b[name]) - np.mean(a[name]) for name in names])
  difference = float(differences.mean())
  if all(len(run[name]) == 1 for run in (a, b) for name in names):
    only_a, only_b = int((differences < 0).sum()), int((differences > 0).sum())
    return Comparison(difference, mcnemar(only_a, only_b), "mcnemar", only_a, only_b)
  resampled = bootstrap(differences, seed=seed)
  low, high = map(float, resampled.confidence_interval)
  # How often the resampled difference lies on the other side of 0; never exactly 0,
  # which no number of resamples can show.
  means = resampled.bootstrap_distribution
  side = min((means <= 0).sum(), (means >= 0).sum())
  p_value = min(1.0, 2 * (int(side) + 1) / (RESAMPLES + 1))
  return Comparison(difference, p_value, "bootstrap", low=low, high=high)


def bootstrap(
  *samples: Sequence[float] | np.ndarray,
  statistic: Callable[..., Any] = np.mean,
  seed: int = 0,
) -> Any:
  """Return scipy's seeded percentile bootstrap with 95% interval.

  The samples are resampled together; `statistic` takes them and `axis`.
  """
  # A single value is the same as two equal ones, and scipy needs two.
  data = [np.resize(sample, max(2, len(sample))) for sample in samples]
  return stats.bootstrap(
    data,
    statistic,
    n_resamples=RESAMPLES,
    batch=RESAMPLES // 10,  # which fits in a cache
    vectorized=True,
    paired=True,
    method="percentile",
    rng=np.random.default_rng(seed),
  )
