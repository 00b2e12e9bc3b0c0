"""What is read, and why the rest is not."""

import gzip
import json
import tracemalloc

import pyarrow
import pyarrow.parquet
import pytest

from phi1_jax import InputError
from phi1_jax.curation import folder, read
from phi1_jax.curation.document import Document, Drop, Keep, identify, tally


def found(path):
  return [d for place in read.places(str(path)) for d in read.documents(place)]


def reasons(decisions):
  return [d.reason for d in decisions if isinstance(d, Drop)]


def texts(decisions):
  return [d.document.text for d in decisions if isinstance(d, Keep)]


def test_rows_of_published_sets_are_documents(tmp_path):
  rows = [
    {"content": "a = 1\n", "max_stars_repo_licenses": ["MIT", "Apache-2.0"]},
    {"text": "b = 2\n", "license": "mit", "repo_name": "x/y", "path": "b.py"},
    {"code": "c = 3\n"},
  ]
  path = tmp_path / "rows.jsonl.gz"
  path.write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in rows).encode()))
  decisions = found(path)
  assert texts(decisions) == ["a = 1\n", "b = 2\n", "c = 3\n"]
  documents = [d.document for d in decisions]
  assert [d.licence for d in documents] == ["Apache-2.0 AND MIT", "mit", "unknown"]
  assert documents[1].provenance["raw"] == {"source": "x/y", "path": "b.py"}
  assert {d.source for d in documents} == {"rows"}
  assert documents[1].id == identify("x/y", "b = 2\n")


def test_every_damaged_line_is_dropped_with_its_reason_and_place(tmp_path):
  path = tmp_path / "x.jsonl"
  lines = [
    b'{"text": "good"}',
    b"{nonsense",
    b'["a list"]',
    b'{"text": 3}',
    b'{"text": "\xff"}',
    b'{"text": "\\ud800"}',
    b"",
    b'{"id": "1", "kind": "poem", "text": ""}',
    b"[" * 100_000,
    b'{"text": "' + b"x" * read.MAXIMUM_BYTES + b'"}',
    b'{"text": "last, without a line end"}',
  ]
  path.write_bytes(b"\n".join(lines))
  decisions = found(path)
  assert texts(decisions) == ["good", "last, without a line end"]
  assert reasons(decisions) == [
    "not JSON",
    "not a JSON object",
    "no text under text, content, code",
    "not UTF-8",
    "lone surrogates",
    "not a document",
    "not JSON",
    "over 8 MiB",
  ]
  wheres = [d.evidence["where"] for d in decisions if isinstance(d, Drop)]
  assert [int(where.split()[-1]) for where in wheres] == [2, 3, 4, 5, 6, 8, 9, 10]


def test_a_line_of_50_megabytes_takes_no_50_megabytes(tmp_path):
  path = tmp_path / "x.jsonl"
  with path.open("wb") as file:
    for _ in range(50):
      file.write(b"x" * (1 << 20))
    file.write(b'\n{"text": "after it"}\n')
  tracemalloc.start()
  decisions = found(path)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert texts(decisions) == ["after it"]
  assert reasons(decisions) == ["over 8 MiB"]
  assert peak < 4 * read.MAXIMUM_BYTES


def test_parquet_is_read_by_row_group(tmp_path):
  path = tmp_path / "x.parquet"
  table = pyarrow.table({"content": [f"x = {i}\n" for i in range(10)] + [None]})
  pyarrow.parquet.write_table(table, path, row_group_size=4)
  places = read.places(str(path))
  assert [place.part for place in places] == [0, 1, 2]
  decisions = found(path)
  assert texts(decisions) == [f"x = {i}\n" for i in range(10)]
  assert decisions[-1].evidence["where"].endswith("row 11")


@pytest.mark.parametrize(
  ("name", "content", "says"),
  [
    ("gone.jsonl", None, "nothing there"),
    ("x.csv", b"a,b\n", "expected a name that ends in"),
    ("x.parquet", b"PAR1 not", "no parquet file"),
  ],
)
def test_what_is_no_input_is_refused(tmp_path, name, content, says):
  path = tmp_path / name
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(InputError, match=says):
    read.places(str(path))


def test_a_cut_off_gzip_file_is_refused_by_name(tmp_path):
  path = tmp_path / "x.jsonl.gz"
  path.write_bytes(gzip.compress(b'{"text": "a"}\n' * 1000)[:-20])
  with pytest.raises(InputError, match=r"x\.jsonl\.gz: not readable after line"):
    found(path)


def document(text, **facts):
  return Document(identify("s", text), text, "s", "MIT", "code", "g", facts)


def test_a_stage_reads_what_another_kept(tmp_path):
  assert not folder.begin(tmp_path, "first", {"a": 1})
  decisions = [Keep(document("one", made={"by": "me"})), Drop(document("two"), "bad")]
  counts = folder.write(tmp_path, decisions)
  with pytest.raises(InputError, match="is not complete"):
    read.places(str(tmp_path))
  folder.finish(tmp_path, "first", counts.stats(), {})
  assert found(tmp_path) == [decisions[0]]
  assert read.lineage([str(tmp_path)])[0]["kept"] == 1
  assert folder.begin(tmp_path, "first", {"a": 1})
  with pytest.raises(InputError, match="begun with a = 1, now it is 2"):
    folder.begin(tmp_path, "first", {"a": 2})


def test_a_changed_file_of_a_stage_is_refused(tmp_path):
  folder.begin(tmp_path, "first", {})
  counts = folder.write(tmp_path, [Keep(document("one"))])
  folder.finish(tmp_path, "first", counts.stats(), {})
  (path,) = tmp_path.glob("kept-*")
  path.write_bytes(path.read_bytes().replace(b"one", b"two"))
  with pytest.raises(InputError, match="not as the stage left it"):
    read.places(str(tmp_path))


def test_a_folder_of_something_else_is_refused(tmp_path):
  (tmp_path / "thesis.tex").write_text("x")
  with pytest.raises(InputError, match=r"it holds thesis\.tex"):
    folder.begin(tmp_path, "first", {})


def test_counts_are_by_reason_source_and_licence():
  stats = tally(
    [Keep(document("a")), Drop(document("b"), "bad"), Drop(document("c"), "worse")]
  ).stats()
  assert stats["read"] == 3
  assert stats["kept"] == 1
  assert stats["dropped"] == {"bad": 1, "worse": 1}
  assert stats["sources"] == {"s": {"read": 3, "kept": 1}}
  assert stats["licences"] == {"MIT": 1}
