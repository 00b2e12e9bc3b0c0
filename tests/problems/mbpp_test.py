"""MBPP: how rows become problems, where the files come from, which are taken."""

import io
import json
import os
import urllib.error

import pytest

from phi1_jax import InputError
from phi1_jax.problems import evalplus, files, mbpp

CODE = "def helper(a):\r\n\treturn a\r\ndef sum(a, b):\r\n\treturn helper(a) + b"
FULL = {"text": "Write a function\r\nthat adds.", "code": CODE, "test_setup_code": ""}
FULL["test_list"] = ["assert set([sum(1, 2)]) == {3}", "assert sum(0, 0) == 0 "]
FULL["challenge_test_list"] = []
SANITIZED = {"prompt": "Write a function that adds.", "test_imports": ["import math"]}
SANITIZED["code"] = "def check(a, b):\n  return a + b"
SANITIZED["test_list"] = ["assert math.isclose(check(1, 2), 3)"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """Files of three rows each, in MBPP's formats, which the pins are made to accept."""
  full, clean = ([row | {"task_id": n} for n in (2, 3, 4)] for row in (FULL, SANITIZED))
  (tmp_path / "mbpp.jsonl").write_text("\n".join(map(json.dumps, full)) + "\n\n")
  (tmp_path / "sanitized-mbpp.json").write_text(json.dumps(clean, indent=1))
  sets = {
    "mbpp-full-974": (mbpp.FULL, None, mbpp.content_digest(full)),
    "mbpp-sanitized-427": (mbpp.SANITIZED, None, mbpp.content_digest(clean)),
  }
  monkeypatch.setattr(mbpp, "TASK_SETS", sets)
  monkeypatch.setattr(files, "CACHE", tmp_path / "cache")
  monkeypatch.delenv(files.ENVIRONMENT, raising=False)
  return tmp_path


def test_full_row(folder):
  problem = mbpp.load("mbpp-full-974", folder)[1]
  assert problem.id == "Mbpp/3"
  assert problem.entry_point == "sum"  # not `set`, not `helper`; a builtin's name
  assert problem.prompt == "Write a function\nthat adds."
  assert "\r" not in problem.reference
  assert problem.tests == ("assert set([sum(1, 2)]) == {3}", "assert sum(0, 0) == 0")
  assert (problem.setup, problem.in_process) == ("", False)


def test_sanitized_row(folder):
  problem = mbpp.load("mbpp-sanitized-427", folder)[1]
  assert problem.entry_point == "check"
  assert problem.setup == "import math"
  assert problem.tests == ("import math", SANITIZED["test_list"][0])
  assert problem.examples == tuple(SANITIZED["test_list"])
  assert problem.solution == f"import math\n{SANITIZED['code']}"


def test_setup_that_makes_objects_of_the_code_comes_after_it():
  row = FULL | {
    "task_id": 3,
    "code": "class Node:\n  pass\ndef depth(n):\n  return 1",
    "test_setup_code": "root = Node() \r\n",
    "test_list": ["assert depth(root) == 1"],
  }
  problem = mbpp.problem(row)
  assert problem.tests == ("root = Node()", "assert depth(root) == 1")
  assert problem.setup == ""


def test_where_it_looks(folder, tmp_path, monkeypatch):
  answers, asked = [io.BytesIO((folder / "mbpp.jsonl").read_bytes())], []

  def urlopen(url, timeout):
    asked.append(url)
    if len(asked) == 1:
      raise urllib.error.URLError("no network")
    return answers.pop()

  monkeypatch.setattr(files.urllib.request, "urlopen", urlopen)
  with pytest.raises(InputError, match=r"no network.*--benchmarks=FOLDER[^\n]*$"):
    mbpp.load("mbpp-full-974")
  assert asked == [f"{mbpp.UPSTREAM}/mbpp.jsonl"]
  monkeypatch.setenv(files.ENVIRONMENT, str(folder))
  assert len(mbpp.load("mbpp-full-974")) == 3
  with pytest.raises(InputError, match=r"nope.*no such file"):  # named: nothing else
    mbpp.load("mbpp-full-974", tmp_path / "nope")
  assert len(asked) == 1
  monkeypatch.delenv(files.ENVIRONMENT)
  for _ in range(2):  # is downloaded once, into the cache
    assert len(mbpp.load("mbpp-full-974")) == 3
  assert os.listdir(tmp_path / "cache") == ["mbpp.jsonl"]


@pytest.mark.parametrize(
  ("content", "named"),
  [
    ("{}\n", "not MBPP's mbpp.jsonl|have sha256"),
    ("[1, 2\n", "not MBPP's mbpp.jsonl"),
    ("", "0 rows of mbpp-full-974 have sha256 .*, expected"),
  ],
)
def test_refuses_another_file(folder, content, named):
  (folder / "mbpp.jsonl").write_text(content)
  with pytest.raises(InputError, match=named):
    mbpp.load("mbpp-full-974", folder)


@pytest.mark.skipif(
  files.ENVIRONMENT not in os.environ, reason=f"{files.ENVIRONMENT} names no folder"
)
@pytest.mark.parametrize("name", [*mbpp.TASK_SETS, *evalplus.TASK_SETS])
def test_the_real_sets(name):
  problems = (mbpp if name in mbpp.TASK_SETS else evalplus).load(name)
  assert len(problems) == int(name.split("-")[2])
  of_id = {problem.id: problem for problem in problems}
  if name in mbpp.TASK_SETS:
    names = [of_id[id].entry_point for id in ("Mbpp/56", "Mbpp/126")]
    assert names == ["check", "sum"]
    assert {p.id for p in problems if p.cpu_seconds > 3} == {"Mbpp/123"}
  else:
    any_answer = [problem.id for problem in problems if problem.accepts_any]
    assert any_answer == ["Mbpp/164"] * (name == "mbpp-plus-399")
    assert all(p.examples or f"def {p.entry_point}" in p.prompt for p in problems)
