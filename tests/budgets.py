"""Holds the tree to its budgets; check.sh runs it.

A file has at most 600 lines, a function 60 (the train loop 200), and no file is named
for being a leftover.
"""

import ast
import pathlib
import sys

FILE_LINES, FUNCTION_LINES = 600, 60
LONGER = {
  "phi1_jax/training/loop.py:train": 200,
  "phi1_jax/train.py:_train": 80,  # the order of a run, in one place
}
LEFTOVERS = {"utils", "common", "helpers", "base", "misc"}


def complaints(root: pathlib.Path) -> list[str]:
  """One line for everything under `root` that is over its budget."""
  found = []
  for path in sorted(root.glob("*/**/*.py")):
    name = path.relative_to(root).as_posix()
    if name.startswith("."):
      continue
    text = path.read_text()
    if text.count("\n") > FILE_LINES:
      found.append(f"{name}: {text.count(chr(10))} lines, at most {FILE_LINES}")
    if path.stem in LEFTOVERS:
      found.append(f"{name}: say what the file is about")
    for node in ast.walk(ast.parse(text)):
      if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        most = LONGER.get(f"{name}:{node.name}", FUNCTION_LINES)
        if lines > most:
          found.append(f"{name}:{node.name}: {lines} lines, at most {most}")
  return found


if __name__ == "__main__":
  lines = complaints(pathlib.Path(__file__).parents[1])
  print("\n".join(lines) or "every file and function is within its budget")
  sys.exit(bool(lines))
