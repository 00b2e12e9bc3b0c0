"""What is read, and why the rest is not."""

import gzip
import hashlib
import json
import tracemalloc

import pyarrow
import pyarrow.parquet
import pytest

from phi1_jax import InputError
from phi1_jax.curation import engine, folder, inputs, licences, read
from phi1_jax.curation.document import Document, Drop, Keep, Tally, identify


def found(path):
  return [d for place in inputs.places(str(path)) for d in read.documents(place)]


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
  assert documents[1].provenance["raw"] == {"path": "b.py"}
  assert documents[1].repository == "x/y"
  assert documents[0].repository != documents[2].repository  # unknown ones differ
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
  places = inputs.places(str(path))
  assert [(p.start, p.documents) for p in places] == [(0, 4), (1, 4), (2, 3)]
  decisions = found(path)
  assert texts(decisions) == [f"x = {i}\n" for i in range(10)]
  assert decisions[-1].evidence["where"].endswith("row group 2, row 3")


@pytest.mark.parametrize(
  ("name", "content", "says"),
  [
    ("gone.jsonl", None, "nothing there"),
    ("x.csv", b"a,b\n", "another kind of file"),
    ("x.parquet", b"PAR1 not", "no parquet file"),
  ],
)
def test_what_is_no_input_is_refused(tmp_path, name, content, says):
  path = tmp_path / name
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(InputError, match=says):
    inputs.places(str(path))


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
    inputs.places(str(tmp_path))
  folder.finish(tmp_path, "first", counts.stats(), {})
  assert found(tmp_path) == [decisions[0]]
  assert inputs.lineage([str(tmp_path)])[0]["kept"] == 1
  assert folder.begin(tmp_path, "first", {"a": 1})
  with pytest.raises(InputError, match="begun with a = 1, now it is 2"):
    folder.begin(tmp_path, "first", {"a": 2})


def test_a_changed_file_of_a_stage_is_refused(tmp_path):
  folder.begin(tmp_path, "first", {})
  counts = folder.write(tmp_path, [Keep(document("one"))])
  folder.finish(tmp_path, "first", counts.stats(), {})
  (path,) = tmp_path.glob("kept-*")
  path.write_bytes(path.read_bytes() + b"x")
  with pytest.raises(InputError, match="not as the stage left it"):
    inputs.places(str(tmp_path))


def test_a_folder_of_something_else_is_refused(tmp_path):
  (tmp_path / "thesis.tex").write_text("x")
  with pytest.raises(InputError, match=r"it holds thesis\.tex"):
    folder.begin(tmp_path, "first", {})


def test_counts_are_by_reason_source_and_licence():
  counts = Tally()
  for each in (
    Keep(document("a")),
    Drop(document("b"), "bad"),
    Drop(document("c"), "worse"),
  ):
    counts.add(each)
  again = Tally()
  again.merge(json.loads(json.dumps(counts.record())))
  stats = again.stats()
  assert stats["read"] == 3
  assert stats["kept"] == 1
  assert stats["dropped"] == {"bad": 1, "worse": 1}
  assert stats["sources"] == {"s": {"read": 3, "kept": 1}}
  assert stats["licences"] == {"MIT": 1}


def test_a_large_plain_file_is_read_in_parts_and_every_line_once(tmp_path, monkeypatch):
  monkeypatch.setattr(inputs, "_SPLIT", 100)
  rows = [json.dumps({"text": "x" * (7 * n % 90)}) + "\n" for n in range(60)]
  path = tmp_path / "x.jsonl"
  path.write_text("".join(rows))
  places = inputs.places(str(path))
  assert len(places) > 10
  assert texts(found(path)) == [json.loads(row)["text"] for row in rows]


def test_zstandard_and_a_byte_order_mark(tmp_path):
  zstandard = pytest.importorskip("zstandard")
  path = tmp_path / "x.jsonl.zst"
  lines = b'\xef\xbb\xbf{"text": "a"}\n{"text": "\\ufeffb"}\n'
  path.write_bytes(zstandard.compress(lines) + zstandard.compress(b'{"text": "c"}\n'))
  assert texts(found(path)) == ["a", "b", "c"]


def test_a_folder_of_checkouts_and_notebooks(tmp_path):
  for name in ("one/.git/HEAD", "one/pkg/a.py", "one/b.py", "two/c.py", "d.py"):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(f"# {name}\n")
  cells = [
    {"cell_type": "markdown", "source": ["# no code"]},
    {"cell_type": "code", "source": ["%matplotlib inline\n", "x = 1\n", "x"]},
    {"cell_type": "code", "source": "%%bash\nls"},
    {"cell_type": "code", "source": "y = 2"},
  ]
  (tmp_path / "two" / "n.ipynb").write_text(json.dumps({"cells": cells}))
  (tmp_path / "two" / "bad.ipynb").write_text("{}")
  (tmp_path / "two" / "latin.py").write_bytes(b"# \xe9\n")
  decisions = found(tmp_path)
  repositories = {
    d.document.provenance["raw"]["path"]: d.document.repository
    for d in decisions
    if isinstance(d, Keep)
  }
  assert repositories == {
    "one/pkg/a.py": "one",
    "one/b.py": "one",
    "two/c.py": "two",
    "two/n.ipynb": "two",
    "d.py": tmp_path.name,
  }
  assert "# %%\nx = 1\nx\n\n# %%\ny = 2\n" in texts(decisions)
  assert sorted(reasons(decisions)) == ["not UTF-8", "not a notebook"]


def test_a_folder_that_datasets_saved(tmp_path):
  place = tmp_path / "set" / "train"
  place.mkdir(parents=True)
  (tmp_path / "set" / "dataset_dict.json").write_text("{}")
  table = pyarrow.table({"content": ["x = 1\n", "y = 2\n"], "unused": [1, 2]})
  with pyarrow.ipc.new_stream(place / "data-00000-of-00001.arrow", table.schema) as out:
    out.write_table(table)
  assert texts(found(tmp_path / "set")) == ["x = 1\n", "y = 2\n"]


def test_the_stack_v2_without_text_says_so(tmp_path):
  path = tmp_path / "v2.parquet"
  table = pyarrow.table({"blob_id": ["a"], "src_encoding": ["UTF-8"]})
  pyarrow.parquet.write_table(table, path)
  with pytest.raises(InputError, match="The Stack v2 has no text, only blob_id"):
    found(path)


def test_folders_of_earlier_versions_are_read(tmp_path):
  """What they kept is JSONL, with `group` in place of `repository`."""
  row = {**document("old").record(), "group": "g"}
  del row["repository"]
  content = json.dumps(row).encode() + b"\n"
  name = "kept-00000-of-00001.jsonl"
  (tmp_path / name).write_bytes(content)
  digest = hashlib.sha256(content).hexdigest()
  for file, facts in (
    ("stage.json", {"format": 1, "settings": {"stage": "first", "version": 1}}),
    ("stats.json", {"stage": "first", "kept": 1, "settings": {}}),
    ("COMPLETED", {name: digest}),
  ):
    (tmp_path / file).write_text(json.dumps(facts))
  assert found(tmp_path) == [Keep(document("old"))]
  assert list(folder.kept(tmp_path)) == [document("old")]
  with pytest.raises(InputError, match="begun with version = 1, now it is 2"):
    folder.begin(tmp_path, "first", {"version": 2})


def test_nothing_kept_is_a_failure_that_can_be_mended(tmp_path):
  folder.begin(tmp_path, "first", {"a": 1})
  counts = folder.write(tmp_path, [Drop(document("one"), "bad")])
  with pytest.raises(
    folder.EmptyError, match=r"first: kept 0 of 1 documents \(1 bad\)"
  ):
    folder.finish(tmp_path, "first", counts.stats(), {})
  with pytest.raises(InputError, match="is not complete since it kept nothing"):
    inputs.places(str(tmp_path))
  assert not folder.begin(tmp_path, "first", {"a": 2})
  counts = folder.write(tmp_path, [Keep(document("one"))])
  folder.finish(tmp_path, "first", counts.stats(), {})
  assert found(tmp_path) == [Keep(document("one"))]


@pytest.mark.parametrize(
  ("given", "expression", "allowed"),
  [
    ("MIT", "MIT", True),
    ("mit", "mit", True),
    (["MIT", "GPL-3.0"], "GPL-3.0 AND MIT", False),
    ([{"name": "MIT"}, {"spdx_id": "ISC"}], "ISC AND MIT", True),
    ("GPL-2.0 OR MIT", "GPL-2.0 OR MIT", True),
    ("(GPL-2.0 OR MIT) AND ISC", "(GPL-2.0 OR MIT) AND ISC", True),
    ("(GPL-2.0 OR MIT) AND GPL-3.0", "(GPL-2.0 OR MIT) AND GPL-3.0", False),
    (["ISC", "GPL-2.0 OR MIT"], "(GPL-2.0 OR MIT) AND ISC", True),
    ("MIT WITH Some-exception", "MIT WITH Some-exception", True),
    ("MIT AND", "MIT AND", False),
    ("(MIT", "(MIT", False),
    ([], "unknown", False),
    (None, "unknown", False),
    (["MIT", "NOASSERTION"], "MIT AND unknown", False),
    (["MIT", None], "MIT AND unknown", False),
    ("no_license", "unknown", False),
  ],
)
def test_licences(given, expression, allowed):
  assert licences.parse(given) == expression
  assert licences.allowed(expression, ("MIT", "ISC")) == allowed


def test_tasks_have_all_places_in_order():
  places = [inputs.Place("jsonl", str(n), size=n % 7) for n in range(50)]
  parts = inputs.cut(places, 6)
  assert [each for part in parts for each in part] == places
  sizes = [sum(place.size for place in part) for part in parts]
  assert max(sizes) < 2 * min(sizes)
  assert engine.Engine(tasks=9).count(10, 4) == 4


@pytest.mark.parametrize(("code", "data"), [(2, 1), (1, 2)])
def test_a_folder_names_the_files_that_it_leaves_out(tmp_path, caplog, code, data):
  for number in range(code):
    (tmp_path / f"c{number}.py").write_text(f"x = {number}\n")
  for number in range(data):
    (tmp_path / f"d{number}.jsonl").write_text('{"text": "from a set"}\n')
  for _ in range(2):  # a stage lists a folder more than once
    decisions = found(tmp_path)
  assert len(texts(decisions)) == max(code, data)
  assert ("from a set" in texts(decisions)) == (data > code)
  (message,) = [record.getMessage() for record in caplog.records]
  rest = "d0.jsonl" if code > data else "c0.py"
  assert f"1 other files are left out, such as {rest};" in message
