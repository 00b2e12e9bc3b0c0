"""Lines survive a kill at any byte."""

import subprocess
import sys

import pytest

from phi1_jax import InputError
from phi1_jax.storage import JsonLines, read_lines

ROWS = [{"key": "a", "text": "é\n"}, {"key": "b"}, {"key": "c", "n": 1.5}]


def test_a_torn_line_is_cut_off_wherever_it_was_torn(tmp_path):
  path = tmp_path / "x.jsonl"
  with JsonLines(path) as journal:
    for row in ROWS:
      journal.append(row)
  whole = path.read_bytes()
  for size in range(len(whole) + 1):
    path.write_bytes(whole[:size])
    kept = whole[:size].count(b"\n")
    assert read_lines(path) == ROWS[:kept]
    with JsonLines(path) as journal:
      assert journal.rows == ROWS[:kept]
      for row in ROWS[kept:]:
        journal.append(row)
    assert path.read_bytes() == whole


def test_a_killed_process_loses_no_line(tmp_path):
  code = (
    "import os, pathlib, sys\n"
    "from phi1_jax.storage import JsonLines\n"
    "journal = JsonLines(pathlib.Path(sys.argv[1]), every=1e9)\n"
    "for number in range(7):\n"
    "  journal.append({'number': number})\n"
    "os.kill(os.getpid(), 9)\n"
  )
  path = tmp_path / "x.jsonl"
  ended = subprocess.run([sys.executable, "-c", code, path], check=False)
  assert ended.returncode == -9
  assert [row["number"] for row in read_lines(path)] == list(range(7))


@pytest.mark.parametrize("line", ["[1]", "{", '"x"', "\0\0"])
def test_a_damaged_line_is_named(tmp_path, line):
  path = tmp_path / "x.jsonl"
  path.write_text(f'{{"key": 1}}\n{line}\n{{"key": 2}}\n')
  with pytest.raises(InputError, match=r"x\.jsonl, line 2: got .*; change or delete"):
    JsonLines(path)
