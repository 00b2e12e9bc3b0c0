"""Code that is worth reading, code that is not, and files of them."""

import json

from phi1_jax.curation import folder
from phi1_jax.curation.document import Document, Keep, identify
from phi1_jax.curation.engine import Job


def algorithm(number):
  """Code that is worth reading."""
  return (
    f'def step_{number}(values):\n  """Returns the sum of values over {number}."""\n'
    "  total = 0\n  for value in values:\n"
    f"    if value > {number}:\n      total += value\n  return total\n"
  )


def settings(number):
  """Code that is not."""
  return "import os\nfrom . import defaults\n" + "".join(
    f"OPTION_{number}_{i} = '{i}'\n" for i in range(8)
  )


def document(text, source="s", licence="MIT", kind="code", **provenance):
  """A document of a text."""
  return Document(
    identify(source, text), text, source, licence, kind, identify("", text), provenance
  )


def write(path, rows, tail=""):
  """Write documents or rows as JSON lines; return the path as a string."""
  rows = (row.record() if isinstance(row, Document) else row for row in rows)
  path.write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)
  return str(path)


def job(config, place, tasks=2, workers=1, executor="local"):
  """A job in this process, unless there are more workers."""
  return Job(config, place, executor, tasks, workers)


def stage(path, name, documents, facts=None, **settings):
  """Make the folder of a complete stage that kept documents; return it."""
  folder.begin(path, name, settings)
  counts = folder.write(path, map(Keep, documents))
  folder.finish(path, name, counts.stats(), facts or {})
  return path
