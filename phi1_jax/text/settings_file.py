"""Settings that decide the results in a folder, written before the work begins."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from phi1_jax import InputError, storage
from phi1_jax.storage import AnyPath


def digest(content: Any) -> str:
  """Return the sha256 (hex) of anything that JSON can hold, whatever its key order."""
  text = json.dumps(content, sort_keys=True, separators=(",", ":"))
  return hashlib.sha256(text.encode()).hexdigest()


def begin(path: AnyPath, settings: Mapping[str, Any]) -> dict[str, Any]:
  """Write the settings of a folder, or refuse a folder that has others.

  Args:
    path: the file, in the folder that will hold the results.
    settings: everything that decides the results.

  Returns:
    The content of the file.

  Raises:
    InputError: the folder was begun with other settings.
  """
  wanted = json.loads(json.dumps(settings))
  if not storage.exists(path):
    begun = {"format": 1, "settings": wanted}
    storage.write_json(path, begun)
    return begun
  begun = storage.read_json(path)
  check(path.parent, begun, wanted)
  return begun


def check(folder: AnyPath, begun: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
  """Refuse settings that differ from those that a folder was begun with.

  Args:
    folder: for the message.
    begun: the content of the folder's file.
    wanted: settings that must be equal there.

  Raises:
    InputError: names the first setting that differs.
  """
  found = begun.get("settings", {})
  for name, value in wanted.items():
    if found.get(name) != value:
      raise InputError(
        f"{folder}: begun with {name} = {_brief(found.get(name))}, now it is "
        f"{_brief(value)}; name another --workdir, or give the same settings"
      )


def _brief(value: Any) -> str:
  text = json.dumps(value)
  return text if len(text) <= 300 else f"{text[:300]}..."
