"""Inputs, the reasons why some give no document, and the folders of stages."""

import gzip
import hashlib
import io
import json

import pyarrow
import pyarrow.parquet
import pytest

from phi1_jax import InputError
from phi1_jax.curation import folder, licences, read
from phi1_jax.curation.document import Drop, Keep, Tally, identify
from tests.curation import samples


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
  assert documents[1].provenance["raw"] == {"path": "b.py"}
  assert documents[1].repository == "x/y"
  assert documents[0].repository != documents[2].repository  # unknown ones differ
  assert {d.source for d in documents} == {"rows"}
  assert documents[1].id == identify("x/y", "b = 2\n")
  path.write_bytes(path.read_bytes()[:-20])
  with pytest.raises(InputError, match=r"rows\.jsonl\.gz: not readable after"):
    found(path)


def test_every_damaged_line_is_dropped_with_its_reason_and_place(tmp_path):
  lines = [
    (b'{"text": "good"}', None),
    (b"{nonsense", "not JSON"),
    (b'["a list"]', "not a JSON object"),
    (b'{"text": 3}', "no text under text, content, code"),
    (b'{"text": "\xff"}', "not UTF-8"),
    (b'{"text": "\\ud800"}', "lone surrogates"),
    (b"", None),
    (b'{"id": "1", "kind": "poem", "text": ""}', "not a document"),
    (b"[" * 100_000, "not JSON"),
    (b'{"text": "' + b"x" * read.MAXIMUM_BYTES + b'"}', "over 8 MiB"),
    (b'{"text": "last, without a line end"}', None),
  ]
  path = tmp_path / "x.jsonl"
  path.write_bytes(b"\n".join(line for line, _ in lines))
  decisions = found(path)
  assert texts(decisions) == ["good", "last, without a line end"]
  assert reasons(decisions) == [why for _, why in lines if why]
  wheres = [d.evidence["where"] for d in decisions if isinstance(d, Drop)]
  assert [int(where.split()[-1]) for where in wheres] == [2, 3, 4, 5, 6, 8, 9, 10]


def test_parquet_is_read_by_row_group(tmp_path):
  path = tmp_path / "x.parquet"
  table = pyarrow.table({"content": [f"x = {i}\n" for i in range(10)] + [None]})
  pyarrow.parquet.write_table(table, path, row_group_size=4)
  places = read.places(str(path))
  assert [(p.start, p.stop) for p in places] == [(0, 1), (1, 2), (2, 3)]
  decisions = found(path)
  assert texts(decisions) == [f"x = {i}\n" for i in range(10)]
  assert decisions[-1].evidence["where"].endswith("row group 2, row 3")


def v2():
  """The Stack v2, without text."""
  memory = io.BytesIO()
  pyarrow.parquet.write_table(pyarrow.table({"blob_id": ["a"]}), memory)
  return memory.getvalue()


@pytest.mark.parametrize(
  ("name", "content", "says"),
  [
    ("gone.jsonl", None, "nothing there"),
    ("filter", None, "no such folder; make it with\npython -m phi1_jax.curate filter "),
    ("mine", None, "mine: no such file or folder; expected the folder of a stage"),
    ("x.csv", b"a,b\n", "another kind of file"),
    ("x.parquet", b"PAR1 not", "no parquet file"),
    ("v2.parquet", v2(), "The Stack v2 has no text, only blob_id"),
  ],
)
def test_other_inputs_are_refused(tmp_path, name, content, says):
  path = tmp_path / name
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(InputError, match=says):
    read.places(str(path))


def test_a_stage_reads_what_another_kept(tmp_path):
  (tmp_path / "thesis.tex").write_text("x")
  with pytest.raises(InputError, match=r"it holds thesis\.tex"):
    folder.begin(tmp_path, "first", {})
  (tmp_path / "thesis.tex").unlink()
  assert not folder.begin(tmp_path, "first", {"a": 1})
  one, two = samples.document("one", made={"by": "me"}), samples.document("two")
  counts = folder.write(tmp_path, [Drop(two, "bad")])
  says = r"first: kept 0 of 1 documents \(1 bad\)"
  with pytest.raises(folder.EmptyError, match=says):
    folder.finish(tmp_path, "first", counts.stats(), {})
  with pytest.raises(InputError, match="is not complete since it kept nothing"):
    read.places(str(tmp_path))
  assert not folder.begin(tmp_path, "first", {"a": 2})  # settings may change
  counts = folder.write(tmp_path, [Keep(one), Drop(two, "bad")])
  counts = Tally(json.loads(json.dumps(counts.record())))
  counts.count(3, "figures", "edges")
  stats = folder.finish(tmp_path, "first", counts.stats(), {})
  assert stats["sources"] == {"s": {"read": 2, "kept": 1}}
  assert (stats["licences"], stats["figures"]) == ({"MIT": 1}, {"edges": 3})
  assert found(tmp_path) == [Keep(one)]
  assert list(folder.dropped(tmp_path)) == [Drop(two, "bad")]
  assert read.lineage([str(tmp_path)])[0]["kept"] == 1
  assert folder.begin(tmp_path, "first", {"a": 2})
  with pytest.raises(InputError, match="begun with a = 2, now it is 3"):
    folder.begin(tmp_path, "first", {"a": 3})
  (path,) = tmp_path.glob("kept-*")
  path.write_bytes(path.read_bytes() + b"x")
  with pytest.raises(InputError, match="not as the stage left it"):
    read.places(str(tmp_path))


def test_folders_of_earlier_versions_are_read(tmp_path):
  """Their documents are JSONL, with `group` in place of `repository`."""
  old = samples.document("old")
  row = {**old.record(), "group": old.repository}
  del row["repository"]
  dropped = {**row, "dropped": {"reason": "bad", "evidence": {"n": 1}}}
  digests = {}
  for name, each in (("kept", row), ("dropped", dropped)):
    content = json.dumps(each).encode() + b"\n"
    (tmp_path / f"{name}-00000-of-00001.jsonl").write_bytes(content)
    digests[f"{name}-00000-of-00001.jsonl"] = hashlib.sha256(content).hexdigest()
  settings = {"format": 1, "settings": {"stage": "first", "version": 1}}
  stats = {"stage": "first", "kept": 1, "settings": {}}
  (tmp_path / "stage.json").write_text(json.dumps(settings))
  (tmp_path / "stats.json").write_text(json.dumps(stats))
  (tmp_path / "COMPLETED").write_text(json.dumps(digests))
  assert found(tmp_path) == [Keep(old)]
  assert list(folder.dropped(tmp_path)) == [Drop(old, "bad", {"n": 1})]


def test_a_large_plain_file_is_read_in_parts_and_every_line_once(tmp_path, monkeypatch):
  monkeypatch.setattr(read, "_SPLIT", 100)
  wanted = ["x" * (7 * n % 90) for n in range(60)]
  path = samples.write(tmp_path / "x.jsonl", [{"text": text} for text in wanted])
  assert len(read.places(path)) > 10
  decisions = found(path)
  assert (texts(decisions), reasons(decisions)) == (wanted, [])


def test_zstandard_and_a_byte_order_mark(tmp_path):
  zstandard = pytest.importorskip("zstandard")  # pyarrow reads it; this writes it
  path = tmp_path / "x.jsonl.zst"
  lines = b'\xef\xbb\xbf{"text": "a"}\n{"text": "\\ufeffb"}\n'
  path.write_bytes(zstandard.compress(lines) + zstandard.compress(b'{"text": "c"}\n'))
  assert texts(found(path)) == ["a", "b", "c"]


def test_a_folder_of_checkouts_and_notebooks(tmp_path, caplog):
  place = tmp_path / "code"
  for name in ("one/.git/HEAD", "one/pkg/a.py", "one/b.py", "two/c.py", "d.py"):
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    (place / name).write_text(f"# {name}\n")
  cells = [
    {"cell_type": "markdown", "source": ["# no code"]},
    {"cell_type": "code", "source": ["%matplotlib inline\n", "x = 1\n", "x"]},
    {"cell_type": "code", "source": "%%bash\nls"},
    {"cell_type": "code", "source": "y = 2"},
  ]
  (place / "two" / "n.ipynb").write_text(json.dumps({"cells": cells}))
  (place / "two" / "bad.ipynb").write_text("{}")
  (place / "two" / "latin.py").write_bytes(b"# \xe9\n")
  (place / "two" / "cookie.py").write_bytes(b"# coding: latin-1\nx = '\xe9'\n")
  (place / "two" / "d.jsonl").write_text('{"text": "from a set"}\n')
  decisions = found(place)
  assert "1 other files are left out, such as two/d.jsonl;" in caplog.text
  kept = [d.document for d in decisions if isinstance(d, Keep)]
  paths = {"one/pkg/a.py": "one", "one/b.py": "one", "two/c.py": "two"}
  paths |= {"two/n.ipynb": "two", "d.py": "code", "two/cookie.py": "two"}
  assert {d.provenance["raw"]["path"]: d.repository for d in kept} == paths
  assert "# %%\nx = 1\nx\n\n# %%\ny = 2\n" in texts(decisions)
  assert "# coding: latin-1\nx = 'é'\n" in texts(decisions)
  assert sorted(reasons(decisions)) == ["not UTF-8", "not a notebook"]


def test_each_file_is_read_once_and_broken_links_are_counted(tmp_path, caplog):
  place = tmp_path / "code"
  (place / "pkg").mkdir(parents=True)
  (place / "a.py").write_text("a = 1\n")
  (place / "pkg" / "b.py").write_text("b = 2\n")
  samples.write(place / "pkg" / "c.jsonl", [{"text": "c = 3\n"}])
  (place / "loop").symlink_to(".")
  (place / "current").symlink_to("pkg")
  (place / "up").symlink_to("../..")
  (place / "gone.py").symlink_to("nowhere.py")
  (place / "pkg" / "again.py").symlink_to("../a.py")
  wanted = ["a = 1\n", "b = 2\n"]
  patterns = [f"{place}/**/*.py", f"{place}/*/*.py", f"{place}/a.py"]
  for inputs in ([str(place)], patterns[:1], patterns, [*patterns, str(place)]):
    caplog.clear()
    read._warn.cache_clear()
    assert sorted(texts(read.read(inputs))) == wanted
    assert "1 broken links are left out, such as" in caplog.text
    read.identity("inputs", inputs)
  rows = [f"{place}/pkg/c.jsonl", f"{place}/**/*.jsonl", f"{place}/current/*.jsonl"]
  assert texts(read.read(rows)) == ["c = 3\n"]
  with pytest.raises(InputError, match="nothing there"):
    read.places(str(place / "gone.py"))


def test_a_folder_that_datasets_saved(tmp_path):
  place = tmp_path / "set" / "train"
  place.mkdir(parents=True)
  (tmp_path / "set" / "dataset_dict.json").write_text("{}")
  for text in ('{"a": ', "[1, 2]", '{"_data_files": [{"x": 1}]}'):
    (place / "state.json").write_text(text)  # of somebody else
    assert read._listed(place, ["a.arrow", "state.json"]) == ["a.arrow", "state.json"]
  (place / "state.json").unlink()
  table = pyarrow.table({"content": ["x = 1\n", "y = 2\n"], "unused": [1, 2]})
  with pyarrow.ipc.new_stream(place / "data-00000-of-00001.arrow", table.schema) as out:
    out.write_table(table)
  assert texts(found(tmp_path / "set")) == ["x = 1\n", "y = 2\n"]
  cache = place / "cache-1.arrow"
  cache.write_bytes((place / "data-00000-of-00001.arrow").read_bytes())
  listed = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
  (place / "state.json").write_text(json.dumps(listed))
  for folder_ in (place, tmp_path / "set"):
    assert texts(found(folder_)) == ["x = 1\n", "y = 2\n"]


@pytest.mark.parametrize(
  ("given", "expression", "allowed"),
  [
    ("mit", None, True),
    (["MIT", "GPL-3.0"], "GPL-3.0 AND MIT", False),
    ([{"name": "MIT"}, {"spdx_id": "ISC"}], "ISC AND MIT", True),
    ("GPL-2.0 OR MIT", None, True),
    ("MIT OR GPL-2.0 AND GPL-3.0", None, True),
    ("(GPL-2.0 OR MIT) AND GPL-3.0", None, False),
    (["ISC", "GPL-2.0 OR MIT"], "(GPL-2.0 OR MIT) AND ISC", True),
    ("MIT WITH Some-exception", None, True),
    ("MIT AND", None, False),
    ("MIT OR ISC)", None, False),
    ("(MIT", None, False),
    ([], "unknown", False),
    ("MIT License", "MIT", True),
    ("The MIT License", "MIT", True),
    ("Apache License 2.0", "Apache-2.0", False),
    ("Apache License, Version 2.0", "Apache-2.0", False),
    ('BSD 3-Clause "New" or "Revised" License', "BSD-3-Clause", False),
    ("MIT/Apache-2.0", "MIT OR Apache-2.0", True),
    (["GPL-2.0", "MIT/ISC"], "GPL-2.0 AND (MIT OR ISC)", False),
    ("['MIT', 'ISC License']", "ISC AND MIT", True),
    ("[MIT", None, False),
    ("https://opensource.org/licenses/MIT", None, False),
    (["MIT", "NOASSERTION"], "MIT AND unknown", False),
    ("no_license", "unknown", False),
  ],
)
def test_licences(given, expression, allowed):
  assert licences.parse(given) == (expression or given)
  assert licences.allowed(licences.parse(given), ("MIT", "ISC")) == allowed
