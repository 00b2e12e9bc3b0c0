import pathlib

import pytest

from phi1_jax import InputError
from phi1_jax.llm import lines

ROWS = [{"text": "é\0\u2028\n", "n": 1}, {"text": "b" * 70_000}, {"n": 3}]


@pytest.fixture
def path(tmp_path):
  path = tmp_path / "replies.jsonl"
  path.write_bytes(lines.header("replies") + b"".join(map(lines.seal, ROWS)))
  return path


def read(path):
  return [lines.row(rest) for _, _, rest in lines.scan(path, "replies")]


def test_rows_come_back_with_their_places(path):
  assert read(path) == ROWS
  content = path.read_bytes()
  for (number, offset, rest), row in zip(
    lines.scan(path, "replies"), ROWS, strict=True
  ):
    assert content[offset:].startswith(lines.seal(row))
    assert content[:offset].count(b"\n") == number - 1
    assert lines.unseal(lines.seal(row)) == rest


def test_whatever_is_torn_off_the_whole_lines_stay(path):
  content = path.read_bytes()
  ends = [place for place, byte in enumerate(content) if byte == 10]
  for end in (0, 1, ends[0], ends[0] + 1, ends[1] - 1, ends[1], len(content) - 1):
    path.write_bytes(content[:end])
    kept = max(0, content[:end].count(b"\n") - 1)
    assert read(path) == ROWS[:kept]
    lines.prepare(path, "replies")
    with path.open("ab") as file:
      file.write(lines.seal({"n": 9}))
    assert read(path) == [*ROWS[:kept], {"n": 9}]


def test_what_is_begun_is_on_the_disk_under_its_name(tmp_path, monkeypatch):
  synced, path = [], tmp_path / "replies.jsonl"

  def fsync(file):
    place = pathlib.Path(f"/proc/self/fd/{file}").readlink()
    synced.append((place, path.read_bytes()))

  monkeypatch.setattr(lines.os, "fsync", fsync)
  lines.prepare(path, "replies")
  header = lines.header("replies")
  assert synced == [(path, header), (tmp_path, header)]


def test_every_changed_byte_is_found(path):
  content = path.read_bytes()
  first = len(lines.header("replies"))
  length = len(lines.seal(ROWS[0]))
  for place in range(first, first + length - 1):
    path.write_bytes(content[:place] + b"#" + content[place + 1 :])
    with pytest.raises(InputError, match=r"replies.jsonl, line 2: damaged.*\ndelete"):
      read(path)


def test_a_line_may_be_deleted(path):
  content = path.read_bytes().splitlines(keepends=True)
  path.write_bytes(b"".join([content[0], *content[2:]]))
  assert read(path) == ROWS[1:]


@pytest.mark.parametrize(
  "content",
  [b'{"a": 1}\n', b'{"a": 1}', b"\n", b"\0" * 40, lines.header("sent")],
)
def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path, content):
  path = tmp_path / "replies.jsonl"
  path.write_bytes(content)
  with pytest.raises(InputError, match=r"first line.*\nname another folder"):
    read(path)
  assert path.read_bytes() == content
