"""Installed packages that judged code may import."""

import dataclasses
import importlib.metadata
import json
import os
import re
from collections.abc import Iterable

from phi1_jax import InputError

MOUNT = "/packages"  # the folder inside a sandbox with mounts


@dataclasses.dataclass(frozen=True)
class Packages:
  """Some distributions and what they need.

  Attributes:
    versions: of the distributions that were asked for.
    paths: their top-level files and folders.
  """

  versions: dict[str, str]
  paths: tuple[str, ...]


def find(names: Iterable[str]) -> Packages:
  """Find distributions of this environment and those that they require.

  Raises:
    InputError: not installed, or installed in a way that cannot be shared.
  """
  asked = list(names)
  versions, paths, waiting, seen = {}, set(), list(asked), set()
  while waiting:
    name = waiting.pop()
    normal = re.sub(r"[-_.]+", "-", name).lower()
    if normal in seen:
      continue
    seen.add(normal)
    try:
      found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
      if name not in asked:  # for another system or Python
        continue
      raise InputError(
        f"--packages: {name} is not installed here; pip install {name}"
      ) from None
    if name in asked:
      versions[name] = found.version
    own = _top_level(found)
    if _is_editable(found, own):
      raise InputError(f"--packages: {name} is an editable install; install its wheel")
    paths |= own
    waiting += [
      re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
      for requirement in found.requires or ()
      if "extra ==" not in requirement
    ]
  return Packages(versions, tuple(sorted(paths)))


def _is_editable(found: importlib.metadata.Distribution, own: set[str]) -> bool:
  """Return whether a distribution's code lies elsewhere than the environment's."""
  origin = json.loads(found.read_text("direct_url.json") or "{}")
  if origin.get("dir_info", {}).get("editable"):
    return True
  if not own:
    return any(file.suffix == ".pth" for file in found.files or ())
  folder = os.path.realpath(str(found.locate_file("")))
  return all(os.path.commonpath([folder, path]) != folder for path in own)


def _top_level(found: importlib.metadata.Distribution) -> set[str]:
  parts = {file.parts[0] for file in found.files or () if len(file.parts) > 0}
  paths = {
    str(found.locate_file(part))
    for part in parts
    if part != ".." and not part.endswith((".dist-info", ".pth", "__pycache__"))
  }
  return {os.path.realpath(path) for path in paths if os.path.exists(path)}
