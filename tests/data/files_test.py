"""`Data.files`: what is read, what is dropped and counted, what is refused."""

import collections
import dataclasses
import gzip
import json
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock, patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from phi1_jax import InputError, storage
from phi1_jax.data import build
from phi1_jax.data.config import DataConfig
from phi1_jax.data.documents import Document, Drop
from phi1_jax.data.files import FileSource
from phi1_jax.data.token_store import TokenStore
from phi1_jax.prepare import prepare
from phi1_jax.text import tokenizer as tokenizers

TEXTS = [f"text {i}\n" for i in range(20)]
ROWS = [{"text": text} for text in TEXTS]
ROWS += [{"content": "é\r\n"}, {"code": "x = 1", "stars": 3}]
ROWS += [{"prompt": "def f(x):\n", "completion": "  return x\n"}]
WANTED = sorted([*TEXTS, "é\r\n", "x = 1", "def f(x):\n  return x\n"])


def lines(rows, end="\n") -> bytes:
  return "".join(json.dumps(row) + end for row in rows).encode()


PACKED = gzip.compress(lines(ROWS), mtime=0)


def read(*patterns, shards=1):
  """The documents, and the drops."""
  source = FileSource(patterns)
  found = [x for shard in range(shards) for x in source.read(shard, shards)]
  drops = [x for x in found if isinstance(x, Drop)]
  return [x for x in found if isinstance(x, Document)], drops


def texts(*patterns, shards=1):
  found, drops = read(*patterns, shards=shards)
  assert not drops
  return sorted(document.prompt + document.text for document in found)


@pytest.mark.parametrize(
  ("name", "content"),
  [
    ("a.jsonl", b"\xef\xbb\xbf" + lines(ROWS, "\r\n") + b"\r\n\n"),
    ("a[1].jsonl", lines(ROWS)[:-1]),
    ("a.jsonl.gz", PACKED),
    ("a.JSONL.zst", zstandard.compress(lines(ROWS))),
    ("a.json", b"\n " + json.dumps(ROWS, indent=1).encode()),
    ("a.json", lines(ROWS)),
  ],
)
def test_json_rows(tmp_path, name, content):
  (tmp_path / name).write_bytes(content)
  for shards in (1, 3, 8):
    assert texts(f"{tmp_path}/{name}", shards=shards) == WANTED


def test_of_parquet_only_the_columns_with_text_are_read(tmp_path):
  table = pa.table({"content": [f"row {i}" for i in range(3000)], "big": range(3000)})
  pq.write_table(table, tmp_path / "a.parquet", row_group_size=700)
  spied = {"autospec": True, "side_effect": pq.ParquetFile.iter_batches}
  with patch.object(pq.ParquetFile, "iter_batches", **spied) as spy:
    for shards in (1, 3):
      found = texts(f"{tmp_path}/*.parquet", shards=shards)
      assert found == sorted(f"row {i}" for i in range(3000))
  assert all(call.kwargs["columns"] == ["content"] for call in spy.call_args_list)
  pairs = pa.table({"prompt": ["p", None], "completion": ["c", "d"]})
  pq.write_table(pairs, tmp_path / "b.parquet")
  (document,), drops = read(f"{tmp_path}/b.parquet")
  assert (document.prompt, document.text, len(drops)) == ("p", "c", 1)


def test_whole_files_here_and_in_the_cloud(gcs, tmp_path):
  folder = storage.parse(f"{gcs.folder}/rows")
  (tmp_path / "deep" / "er").mkdir(parents=True)
  for place in (folder, tmp_path):
    storage.write_bytes(place / "a.py", b"\xef\xbb\xbfx = 1\r\ny = '\xc3\xa9'\r\n")
    storage.write_bytes(place / "deep/er/b.py", b"z = 2\n")
    storage.write_bytes(place / "c.txt.gz", gzip.compress(b"words", mtime=0))
    patterns = (f"{place}/**/*.py", f"{place}/*.txt.gz")
    wanted = ["words", "x = 1\ny = 'é'\n", "z = 2\n"]
    assert texts(*patterns, shards=2) == wanted
    assert FileSource(patterns).num_shards(8) == 3
  here, there = (FileSource([f"{place}/**/*.py"]) for place in (tmp_path, folder))
  assert here.size() == there.size()
  assert abs(here.newest() - there.newest()) < 60
  assert here.describe() == there.describe()


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_other_columns(tmp_path, suffix):
  rows = [{"instruction": "Add.", "output": "x + y\n", "text": "other"}]
  rows += [{"instruction": "Subtract.\n", "output": "x - y\n", "text": "other"}]
  pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
  (tmp_path / "a.jsonl").write_bytes(lines(rows))
  pattern = f"{tmp_path}/a.{suffix}"
  pairs = FileSource([pattern], ("instruction", "output"))
  found = [(document.prompt, document.text) for document in pairs.read(0, 1)]
  assert found == [("Add.\n", "x + y\n"), ("Subtract.\n", "x - y\n")]
  (first, _) = FileSource([pattern], ("output",)).read(0, 1)
  assert (first.prompt, first.text) == ("", "x + y\n")
  assert FileSource([pattern]).describe() != pairs.describe()
  missing = FileSource([pattern], ("question", "output"))
  if suffix == "parquet":
    with pytest.raises(InputError, match="expected question and output"):
      list(missing.read(0, 1))
  else:
    assert {drop.reason for drop in missing.read(0, 1)} == {"no question and output"}


def test_what_is_dropped_is_counted(tmp_path):
  bad = [b"not json", b"[1]", b'{"x": 1}', b'{"text": ""}', b'{"text": "\xff"}']
  bad += [b'{"text": "\\ud800"}', b'{"text": 5}', b'{"prompt": "p"}', b"[" * 100_000]
  (tmp_path / "a.jsonl").write_bytes(lines(ROWS) + b"\n".join(bad))
  (tmp_path / "b.py").write_bytes(b"x = '\xff'")
  (tmp_path / "c.txt").write_bytes(b"")
  found, drops = read(f"{tmp_path}/*", shards=4)
  assert len(found) == len(ROWS)
  assert collections.Counter(drop.reason for drop in drops) == {
    "not JSON": 2,
    "not an object": 1,
    "no text, content or code, or prompt and completion": 3,
    "empty": 2,
    "not UTF-8": 2,
    "no UTF-8 form": 1,
  }
  places = {drop.place: drop.reason for drop in drops}
  assert places[f"a.jsonl, row {len(ROWS) + 2}"] == "not an object"
  assert places["b.py"] == "not UTF-8"


def test_each_file_is_read_once_whatever_links_lead_to_it(tmp_path):
  place = tmp_path / "deep" / "place"
  (place / "pkg").mkdir(parents=True)
  for i, name in enumerate(("a.py", "pkg/b.py", "pkg/.hidden.py", ".hidden/c.py")):
    (place / name).parent.mkdir(exist_ok=True)
    (place / name).write_text(TEXTS[i])
  (place / "loop").symlink_to(".")
  (place / "current").symlink_to("pkg")
  (place / "up").symlink_to("../..")
  (place / "gone.py").symlink_to("nowhere.py")
  for patterns in (
    [f"{place}/**/*.py"],
    [f"{place}/**"],
    [f"{place}/**/**/*.py", f"{place}/*.py", f"{place}/*/*.py"],
  ):
    assert texts(*patterns) == TEXTS[:2]
  assert (
    texts(f"{place}/current/*.py") == texts(f"{place}/current/**/*.py") == [TEXTS[1]]
  )
  assert texts(f"{place}/.hidden/**/*.py") == [TEXTS[3]]


def test_python_is_read_in_the_encoding_that_it_declares(tmp_path):
  declared = b"# -*- coding: latin-1 -*-\nx = '\xe9'\n"
  (tmp_path / "a.py").write_bytes(declared)
  (tmp_path / "b.py").write_bytes(declared.replace(b"latin-1", b"utf-8"))
  (tmp_path / "c.py").write_bytes(b"# coding: no-such\ny = 1\n")
  found, drops = read(f"{tmp_path}/*.py")
  assert found[0].text == "# -*- coding: latin-1 -*-\nx = 'é'\n"
  assert found[1].text == "# coding: no-such\ny = 1\n"
  assert [(drop.reason, drop.place) for drop in drops] == [("not UTF-8", "b.py")]


def test_columns_that_are_there_without_text_are_named(tmp_path):
  rows = [{"messages": [{"role": "user", "content": "hi"}]}, {"other": "x"}]
  (tmp_path / "a.jsonl").write_bytes(lines(rows))
  source = FileSource([f"{tmp_path}/a.jsonl"], ("messages",))
  reasons = [drop.reason for drop in source.read(0, 1)]
  assert reasons == ["no text in messages", "no messages"]


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("a.csv", b"a,b", r"a\.csv, expected a name that ends in .*\.jsonl"),
    ("a.parquet", b"PAR1", r"a\.parquet cannot be read"),
    ("a.jsonl.gz", PACKED[:40], r"a\.jsonl\.gz cannot be read"),
    ("a.jsonl.gz", b"plain", r"a\.jsonl\.gz cannot be read"),
    ("a.jsonl.zst", b"plain", r"a\.jsonl\.zst cannot be read"),
    ("a.json", b"[1, 2", r"a\.json cannot be read"),
  ],
)
def test_files_that_cannot_be_read_are_refused(tmp_path, name, content, message):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(InputError, match=message):
    read(f"{tmp_path}/*")


def test_what_is_not_there_is_refused(tmp_path):
  for pattern, message in (
    (f"{tmp_path}/*.jsonl", "no file matches"),
    (str(tmp_path), r"is a folder, expected .*/\*\*/\*\.py"),
    ("s3://bucket/*.jsonl", "expected a local path or gs://"),
  ):
    with pytest.raises(InputError, match=message):
      FileSource([pattern])
  pq.write_table(pa.table({"words": ["a"]}), tmp_path / "a.parquet")
  with pytest.raises(InputError, match="has the columns words; expected text, content"):
    read(f"{tmp_path}/a.parquet")


@pytest.mark.parametrize("module", ["pyarrow.parquet", "zstandard"])
def test_a_missing_library_is_named(tmp_path, monkeypatch, module):
  pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
  (tmp_path / "b.jsonl.zst").write_bytes(zstandard.compress(lines(ROWS)))
  monkeypatch.setitem(sys.modules, module, None)
  name = module.partition(".")[0]
  with pytest.raises(InputError, match=f"needs {name}: pip install {name}"):
    read(f"{tmp_path}/*")


@pytest.fixture
def folder(tmp_path):
  """Files of each kind, in a folder of the test."""
  place = tmp_path / "mine"
  place.mkdir()
  (place / "a.jsonl").write_bytes(lines(ROWS) + b"not JSON\n")
  (place / "b.jsonl.gz").write_bytes(gzip.compress(lines(ROWS[:7]), mtime=0))
  for i in range(9):
    (place / f"{i}.py").write_text(f"x = {i}\n" * 9)
  tokenizers.train([], tokenizers.MINIMUM_VOCABULARY_SIZE).save(tmp_path / "small.json")
  return place


def config(folder, name, **changes) -> DataConfig:
  fields = {
    "files": (f"{folder}/*.jsonl*", f"{folder}/*.py"),
    "store": str(folder.parent / name),
    "tokenizer": str(folder.parent / "small.json"),
    "held_out_fraction": 0.2,
    "shards": 3,
    "processes": 1,
  }
  return DataConfig(**{**fields, **changes})


def test_the_store_is_the_same_for_any_processes_and_any_folder(
  folder, tmp_path, caplog, digests
):
  caplog.set_level("INFO")
  trained = {"tokenizer": "train", "trained_vocabulary_size": 300}
  prepare(config(folder, "a", **trained))
  assert f"dropped a.jsonl, row {len(ROWS) + 1}: not JSON" in caplog.text
  prepare(config(folder, "b", **trained, processes=2))
  moved = folder.rename(tmp_path / "elsewhere")
  prepare(config(moved, "c", **trained, mixture="code_textbook"))
  assert digests(tmp_path / "a") == digests(tmp_path / "b") == digests(tmp_path / "c")
  store = TokenStore.open(tmp_path / "a")
  assert store.tasks == ("files",)  # they take the place of a recipe's mixture
  assert store.manifest["documents"] == len(ROWS) + 7 + 9
  assert store.manifest["dropped"] == {"files": {"not JSON": 1}}
  assert "mine" not in json.dumps(store.manifest)


def test_other_contents_and_names_are_refused_in_the_same_store(folder):
  prepare(config(folder, "a"))
  (folder / "3.py").rename(folder / "30.py")
  with pytest.raises(InputError, match=r"sources\[0\]\.sha256"):
    prepare(config(folder, "a"))
  (folder / "30.py").rename(folder / "3.py")
  (folder / "3.py").write_text("x = 4\n" * 9)
  with pytest.raises(InputError, match=r"sources\[0\]\.sha256"):
    prepare(config(folder, "a"))


@pytest.mark.parametrize("size", [None, 300])
def test_all_rows_bad_is_an_error_with_the_reasons(folder, size):
  """Also before a tokenizer is trained on them."""
  (folder / "bad.json").write_text('{"x": 1}\nnot JSON\n')
  made = config(folder, "store", files=(f"{folder}/*.json",))
  if size:
    made = dataclasses.replace(made, tokenizer="train", trained_vocabulary_size=size)
  with pytest.raises(InputError, match=r"no documents .*1 no text.*1 not JSON"):
    prepare(made)
  # A store without documents does not block the command that was meant.
  meant = dataclasses.replace(made, columns=("text",), files=(f"{folder}/*.jsonl",))
  mine = Path(made.store) / "mine.txt"
  mine.write_text("x")
  with pytest.raises(InputError, match=r"it holds mine\.txt"):
    prepare(meant)
  mine.unlink()  # it was still there
  prepare(meant)


HELD_OUT = rf"no documents to train on .*{len(ROWS) + 16} held out by Data\.held_out_f"
TOO_FEW = r"Data\.trained_vocabulary_size: .* vocabulary of only \d+ ids, got 4000; set"


@pytest.mark.parametrize(
  ("size", "held_out", "message"),
  [(None, 0.9999999, HELD_OUT), (300, 0.9999999, HELD_OUT), (4000, 0.2, TOO_FEW)],
)
def test_a_build_that_has_too_little_text_names_the_setting(
  folder, size, held_out, message
):
  trained = {"tokenizer": "train", "trained_vocabulary_size": size} if size else {}
  with pytest.raises(InputError, match=message):
    prepare(config(folder, "store", held_out_fraction=held_out, **trained))


def test_curated_sets_beside_files_have_no_effect(folder):
  made = config(folder, "store", curated_directory="no/such")
  assert made.curated_directory is None
  assert "curated sets" in made.without_effect("curated_directory")
  other = config(folder, "store", files=(), mixture="exercises")
  assert not other.without_effect("curated_directory")


def test_a_trained_tokenizer_is_not_begun_anew(folder, monkeypatch):
  made = config(folder, "a", tokenizer="train", trained_vocabulary_size=300)
  with monkeypatch.context() as replaced:
    replaced.setattr(build._Work, "shards", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
      prepare(made)
  with pytest.raises(InputError, match="shards_per_task = 3, now it is 1"):
    prepare(dataclasses.replace(made, shards=1))
  prepare(made)


def test_neither_tensorflow_nor_seqio_is_loaded(folder):
  code = (
    "import sys; from phi1_jax.data.config import DataConfig\n"
    "from phi1_jax.prepare import prepare\n"
    f"prepare({config(folder, 'a')!r})\n"
    "print([m for m in ('tensorflow', 'seqio', 'jax', 'pyarrow') if m in sys.modules])"
  )
  result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
  assert result.stdout.strip() == "[]", result.stderr


def test_prompts_are_marked(folder, digests):
  fields = {"held_out_fraction": 0.0, "shards": 1}
  made = config(folder, "a", loss_on="completions", **fields)
  prepare(made)
  store = TokenStore.open(made.store)
  ids, marks = store.stream("files", "train"), store.marks("files", "train")
  assert len(ids) == len(marks)
  unmarked = np.flatnonzero(marks.read(0, len(marks)) == 0)
  prompt = ids.read(int(unmarked[0]), int(unmarked[-1]) + 1).tolist()
  assert tokenizers.load(made.tokenizer).decode(prompt) == "def f(x):\n"
  plain = config(folder, "b", **fields)
  prepare(plain)
  ours, theirs = digests(made.store), digests(plain.store)
  assert ours.keys() - theirs.keys() == {"loss-00000-of-00001.npy"}
  assert ours["tokens-00000-of-00001.npy"] == theirs["tokens-00000-of-00001.npy"]
  assert "loss" not in json.dumps(TokenStore.open(plain.store).manifest)
