"""Which code a study ran, on what."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "seqio", "apache-beam")


@functools.cache
def commit() -> str | None:
  """Of the code, when it was first asked; "-dirty" if files differ from it."""
  words = ("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty")
  try:
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
  except (OSError, subprocess.CalledProcessError):
    return None
  return told.strip() or None


def where(steps: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
  """Commits, versions and hardware.

  Args:
    steps: rows of what was done, each with its commit.
  """
  commits = [row["commit"] for row in steps] + [commit()]
  versions = {}
  for name in _PACKAGES:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      versions[name] = None
  cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
  return {
    "commits": list(dict.fromkeys(each or "unknown" for each in commits)),
    "python": platform.python_version(),
    "machine": f"{platform.machine()}, {cores or os.cpu_count()} cores",
    "versions": versions,
    "when": time.strftime("%Y-%m-%d %H:%M"),
  }
