"""Code, versions and hardware of a study."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from phi1_jax import cores

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "seqio", "datatrove")


def here() -> dict[str, str | None]:
  """Return commit and machine, which are kept for each step."""
  return {"commit": commit(), "machine": machine()}


def commit() -> str | None:
  """Return the commit of the code; "-dirty" if files differ from it."""
  words = ("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty")
  try:
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
  except (OSError, subprocess.CalledProcessError):
    return None
  return told.strip() or None


def machine() -> str:
  """Return architecture and cores."""
  return f"{platform.machine()}, {cores()} cores"


def where(steps: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
  """Return commits, versions and hardware, given the rows of the finished steps."""
  rows = [*steps, here()]
  commits = [row["commit"] for row in rows]
  machines = [row["machine"] for row in rows if "machine" in row]
  versions = {}
  for name in _PACKAGES:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      versions[name] = None
  return {
    "commits": list(dict.fromkeys(each or "unknown" for each in commits)),
    "python": platform.python_version(),
    "machine": "; ".join(dict.fromkeys(machines)),
    "versions": versions,
    "when": time.strftime("%Y-%m-%d %H:%M"),
  }
