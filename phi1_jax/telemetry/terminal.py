"""Formatting of numbers and of log rows for the terminal, in aligned columns."""

import math
from collections.abc import Callable, Mapping


def human(value: float) -> str:
  """Return three figures and a unit: 950, 12.3k, 1.42B."""
  if not math.isfinite(value):
    return str(value)
  for unit in ("", "k", "M", "B"):
    figures = f"{value:.3g}"
    if abs(float(figures)) < 1000:
      # .3g drops trailing zeros, so the width of a column would change.
      return f"{value:#.3g}".rstrip(".") + unit if unit else figures
    value /= 1000
  return f"{value:.3g}T"


# Name in the row -> its format; the terminal shows them in this order.
_FIGURES: dict[str, Callable[[float], str]] = {
  "loss": lambda x: f"loss {x:7.4f}",
  "grad_norm": lambda x: f"grad {x:7.3f}",
  "learning_rate": lambda x: f"lr {x:.2e}",
  "tokens_seen": lambda x: f"{human(x):>5} tokens",
  "tokens_per_second": lambda x: f"{human(x):>5} tok/s",
  "mfu": lambda x: f"MFU {100 * x:4.1f}%",
  "step_seconds": lambda x: f"{_seconds(x):>8}/step",
  "input_wait_seconds": lambda x: f"input {_seconds(x):>8}",
  "hbm_peak_gib": lambda x: f"HBM {x:5.1f} GiB",
}
# Only in the files.
_QUIET = ("tokens_per_second_per_device",)
_QUIET += ("step_seconds_p50", "step_seconds_p90", "step_seconds_max")


def format_row(
  step: int, scalars: Mapping[str, float | None], num_steps: int | None = None
) -> str:
  """Return a row such as `step  1,200/51,000  loss  2.3456  ...  MFU 51.2%`.

  Args:
    step: the step.
    scalars: values by name. None and figures that only files have are left out; names
      without a format come last.
    num_steps: last step of the run, if known.
  """
  if num_steps is None:
    parts = [f"step {step:>9,}"]
  else:
    total = f"{num_steps:,}"
    parts = [f"step {step:>{len(total)},}/{total}"]
  known = {
    name: value
    for name, value in scalars.items()
    if value is not None and name not in _QUIET
  }
  parts += [show(known.pop(name)) for name, show in _FIGURES.items() if name in known]
  parts += [f"{name} {value:.4g}" for name, value in known.items()]
  return "  ".join(parts)


def _seconds(value: float) -> str:
  return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.1f} ms"
