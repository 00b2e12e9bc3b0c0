"""Embedded corpora: licensed text that a machine without network already has.

The standard library is on every machine; four pure-Python packages come with
`pip install phi1_jax[data]`. Their files, sorted by name, give

- code: whole modules, in place of filtered web code,
- textbooks: long docstrings and the pages of `help()`, prose with snippets of code,
- exercises: documented functions that stand alone (exercises.py).

A text's `group` is the hash of its file: a function that is held out from one task is
held out from all of them. Tests and generated tables are left out; none of the packages
contains a benchmark (HumanEval, MBPP).
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import gc
import hashlib
import importlib.metadata
import importlib.util
import inspect
import platform
import re
import symtable
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from phi1_jax import InputError, how_to_install
from phi1_jax.data import exercises
from phi1_jax.data.documents import Document, Drop

# distribution -> (import name, licence as SPDX, home)
_ITERTOOLS = "https://github.com/more-itertools/more-itertools"
_PACKAGES = {
  "algorithms": ("algorithms", "MIT", "https://github.com/keon/algorithms"),
  "more-itertools": ("more_itertools", "MIT", _ITERTOOLS),
  "networkx": ("networkx", "BSD-3-Clause", "https://networkx.org"),
  "sympy": ("sympy", "BSD-3-Clause", "https://sympy.org"),
}
_SMALL = ("algorithms", "more-itertools", "networkx")
# _sysconfigdata and config-* hold paths of the machine that compiled this Python.
_LEFT_OUT = re.compile(
  r"(^|/)(__pycache__|__phello__|_antlr|benchmarks|dist-packages|encodings|ensurepip"
  r"|idlelib|lib-dynload|lib2to3|site-packages|tests?|turtledemo)/"
  r"|(^|/)(test_|_sysconfigdata)[^/]*$|^config-"
)
_TOPICS = "pydoc_data/topics.py"
# Codex (arXiv 2107.03374, section 3.1) drops files with longer lines as generated.
_MAXIMUM_LINE, _MAXIMUM_MEAN_LINE = 1000, 100
_MINIMUM_PASSAGE = 400  # characters; shorter docstrings explain little


@dataclasses.dataclass(frozen=True)
class Corpus:
  """The Python files of an installed distribution; `paths` are relative to `root`."""

  name: str
  version: str
  licence: str
  home: str
  root: Path
  paths: tuple[str, ...]

  def describe(self) -> dict[str, str]:
    """Return a manifest's entry: origin, licence, and a hash of every byte."""
    hasher = hashlib.sha256()
    for path in self.paths:
      content = (self.root / path).read_bytes()
      hasher.update(f"{path}\0{len(content)}\0".encode() + content)
    names = ("name", "version", "licence", "home")
    return {n: getattr(self, n) for n in names} | {"sha256": hasher.hexdigest()}


@functools.cache
def embedded() -> tuple[Corpus, ...]:
  """Return the standard library and the packages, sorted by name.

  Raises:
    InputError: a package is not installed, or holds no Python files.
  """
  home = "https://github.com/python/cpython"
  library = Path(sysconfig.get_path("stdlib"))
  about = (platform.python_version(), "PSF-2.0", home, library)
  corpora = [_corpus("cpython", *about, "**/*.py")]
  for name, (module, licence, home) in _PACKAGES.items():
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
      raise InputError(
        f'the embedded corpora need the package "{name}": {how_to_install("data")}, or '
        "set Data.files or Data.curated_directory"
      )
    root = Path(spec.submodule_search_locations[0])
    version = importlib.metadata.version(name)
    pattern = f"{root.name}/**/*.py"
    corpora.append(_corpus(name, version, licence, home, root.parent, pattern))
  return tuple(sorted(corpora, key=lambda corpus: corpus.name))


def small() -> tuple[Corpus, ...]:
  """Return the packages that are read in a minute: the best sixth of the text."""
  return tuple(corpus for corpus in embedded() if corpus.name in _SMALL)


def _corpus(
  name: str, version: str, licence: str, home: str, root: Path, pattern: str
) -> Corpus:
  names = (path.relative_to(root).as_posix() for path in root.glob(pattern))
  files = tuple(sorted(name for name in names if not _LEFT_OUT.search(name)))
  if not files:
    raise InputError(
      f'the package "{name}" has no Python files in {root}; install it again: '
      f"{how_to_install('data')} --force-reinstall"
    )
  return Corpus(name, version, licence, home, root, files)


def code(corpus: Corpus, path: str) -> list[Document] | Drop:
  """Return the whole file."""
  if path == _TOPICS:
    return []  # prose in a dictionary, for `textbooks`
  # Building the symbol table checks the syntax in half the time of a tree.
  parsed = _parse(corpus.root / path, lambda text: symtable.symtable(text, "", "exec"))
  return parsed if isinstance(parsed, Drop) else [Document(parsed[0], parsed[2])]


def mined_exercises(corpus: Corpus, path: str) -> list[Document] | Drop:
  """Return the functions of a file that stand alone."""
  parsed = _parse(corpus.root / path, ast.parse)
  if isinstance(parsed, Drop):
    return parsed
  text, tree, group = parsed
  return [Document(exercise, group) for exercise in exercises.mine(text, tree)]


def textbooks(corpus: Corpus, path: str) -> list[Document] | Drop:
  """Return the long docstrings of a file, or the pages of `help()`."""
  parsed = _parse(corpus.root / path, ast.parse)
  if isinstance(parsed, Drop):
    return parsed
  _, tree, group = parsed
  if path == _TOPICS:
    return [Document(text, _sha256(text.encode())) for text in _topics(tree)]
  module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
  return [Document(text, group) for text in _passages(tree, module)]


def _parse(path: Path, parse: Callable[[str], Any]) -> tuple[str, Any, str] | Drop:
  """Return the text of a file, what a parser makes of it, and its hash."""
  content = path.read_bytes()
  try:
    text = content.decode("utf-8")
  except UnicodeDecodeError:
    return Drop("not UTF-8")
  lines = text.splitlines()
  if path.as_posix().endswith(_TOPICS):
    pass  # its lines are long because each is a page
  elif max(map(len, lines), default=0) > _MAXIMUM_LINE:
    return Drop("a line over 1000 characters")
  elif len(text) > _MAXIMUM_MEAN_LINE * max(len(lines), 1):
    return Drop("lines over 100 characters on average")
  gc.disable()  # a tree has no cycles; looking for some takes a quarter of the time
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # such as invalid escapes in old code
      return text, parse(text), _sha256(content)
  except (SyntaxError, ValueError, RecursionError, MemoryError):
    return Drop("does not parse")
  finally:
    gc.enable()


def _topics(tree: ast.Module) -> Iterator[str]:
  for statement in tree.body:
    if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
      pages: dict[str, str] = ast.literal_eval(statement.value)
      yield from (pages[title].strip() + "\n" for title in sorted(pages))


def _passages(tree: ast.Module, module: str) -> Iterator[str]:
  """Yield long docstrings of modules, classes, and functions with examples."""
  for name, node in [(module, tree), *_definitions(tree, module)]:
    docstring = ast.get_docstring(node, clean=False)
    if docstring is None:
      continue
    text = inspect.cleandoc(docstring)
    if len(text) < _MINIMUM_PASSAGE or any("\ud800" <= c <= "\udfff" for c in text):
      continue
    if ">>>" in text or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
      yield f"{name}\n{'=' * len(name)}\n\n{text}\n"


_Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _definitions(
  node: ast.Module | ast.ClassDef, prefix: str
) -> Iterator[tuple[str, _Definition]]:
  """Yield classes and functions in the order of the file, with their dotted names."""
  for child in node.body:
    if isinstance(child, _Definition):
      name = f"{prefix}.{child.name}"
      yield name, child
      if isinstance(child, ast.ClassDef):
        yield from _definitions(child, name)


def _sha256(content: bytes) -> str:
  return hashlib.sha256(content).hexdigest()
