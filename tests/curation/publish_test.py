"""Published sets are read by the registry's tasks, with nothing in between."""

import dataclasses
import json

import pyarrow.parquet
import pytest

from phi1_jax import InputError, storage
from phi1_jax.curation import folder, publish, read
from phi1_jax.curation.config import PublishConfig
from phi1_jax.data import tasks
from phi1_jax.data.config import DataConfig
from phi1_jax.data.quiet_tensorflow import tfds
from phi1_jax.text import tokenizer as tokenizers
from tests.curation import samples

NOT_CLAIMED = "so it may hold benchmarks"


def run(inputs, tmp_path, name="publish", cut=1, **settings):
  inputs = inputs if isinstance(inputs, tuple) else (str(inputs),)
  config = PublishConfig(inputs, str(tmp_path / "curated"), **settings)
  return publish.run(samples.job(config, tmp_path / name, cut))


def made(tmp_path, name="code_filtered"):
  return tmp_path / "curated" / name / "1.0.0"


@pytest.fixture
def chain(tmp_path):
  """Makes a stage's folder, from folders beside it or raw files."""

  def make(name, stage, *names, documents=(), facts=None, **settings):
    paths = [str(tmp_path / each) for each in names]
    settings |= {"inputs": paths} if paths else {}
    documents = documents or [samples.document(f"{name} = 1\n")]
    facts = {"lineage": read.lineage(paths), **(facts or {})}
    return samples.stage(tmp_path / name, stage, documents, facts, **settings)

  samples.write(tmp_path / "raw.jsonl", [{"text": "x = 1"}])
  make("clean", "decontaminate", "raw.jsonl", benchmarks=["humaneval-164"], tau=0.9)
  return make


@pytest.fixture
def stage(chain):
  documents = [
    samples.document(f"{kind} {i}!\n", source=f"from {kind}", kind=kind, made={"n": i})
    for i in range(40)
    for kind in publish.DATASETS
  ]
  prompts = [{"id": "exercise", "version": "abc", "text": "Write $name."}]
  facts = {"models": ["a model"], "cost": {"spent": "$0.12"}, "prompts": prompts}
  settings = {"benchmarks": ["humaneval-164"], "tau": 0.9}
  return chain("last", "decontaminate", documents=documents, facts=facts, **settings)


def test_the_tasks_read_published_sets_with_provenance_and_card(stage, tmp_path):
  stats = run(stage, tmp_path)
  assert sorted(stats["datasets"]) == ["code_filtered", "exercises", "textbooks"]
  tokenizer = tokenizers.train(["code exercise textbook 0123456789!\n"] * 9, 300)
  directory = str(tmp_path / "curated")
  tasks.register(DataConfig("exercises", "unused", curated_directory=directory))
  for kind, name in publish.DATASETS.items():
    found = list(tasks.resolve(name)[name].source.read(0, 1, tokenizer))
    assert {each.text for each in found} == {f"{kind} {i}!\n" for i in range(40)}
    assert len({each.group for each in found}) == len(found) == 40
  builder = tfds.builder("exercises:1.0.0", data_dir=directory)
  example = next(iter(tfds.as_numpy(builder.as_dataset(split="train"))))
  assert json.loads(example["provenance"]) == {"made": {"n": 0}}
  assert example["licence"] == b"MIT"
  assert example["source"] == b"from exercise"
  card = (made(tmp_path, "exercises") / "README.md").read_text()
  for wanted in ("40 documents", "a model", "$0.12", "Write $name.", "| MIT | 40 |"):
    assert wanted in card
  assert "too close to humaneval-164 (tau 0.9) is not part of it" in card


def test_a_version_is_published_once(stage, chain, tmp_path):
  run(stage, tmp_path)
  assert run(stage, tmp_path, "again")["kept"] == 120
  one = [samples.document("x", kind="exercise")]
  other = chain("other", "decontaminate", documents=one, benchmarks=["x"], tau=0.8)
  says = r"holds another set; give a new version, .*1\.1"
  with pytest.raises(InputError, match=says):
    run(other, tmp_path, "second")
  stats = run(other, tmp_path, "third", version="1.1.0")
  place = tmp_path / "curated" / "exercises" / "1.1.0"
  assert stats["datasets"] == {"exercises": str(place)}


@pytest.mark.parametrize(
  ("stage", "name", "searched", "claim"),
  [
    # An input that was not searched spoils the claim, and a search for another set too.
    ("deduplicate", "clean", None, None),
    ("decontaminate", "raw.jsonl", ["mbpp-full-974"], None),
    ("decontaminate", "raw.jsonl", ["mbpp-full-974", "humaneval-164"], "humaneval-164"),
  ],
)
def test_claims_hold_for_all_inputs(chain, tmp_path, stage, name, searched, claim):
  settings = {"benchmarks": searched, "tau": 0.95} if searched else {}
  chain("more", stage, name, **settings)
  run((str(tmp_path / "clean"), str(tmp_path / "more")), tmp_path)
  card = (made(tmp_path) / "README.md").read_text()
  assert (NOT_CLAIMED in card) == (claim is None)
  assert claim is None or f"too close to {claim} (tau 0.95) is not" in card


@pytest.fixture
def files(tmp_path):
  """A pattern of three files of ten documents each."""
  for part in range(3):
    rows = [{"text": f"x = {n}"} for n in range(part, 30, 3)]
    samples.write(tmp_path / f"{part}.jsonl", rows)
  return tmp_path / "*.jsonl"


def test_sets_have_a_file_per_task_and_a_parquet_copy(files, tmp_path):
  datasets = pytest.importorskip("datasets")
  run(files, tmp_path, cut=3)
  names = sorted(path.name for path in made(tmp_path).glob("*.tfrecord*"))
  assert names == [f"code_filtered-train.tfrecord-0000{n}-of-00003" for n in range(3)]
  builder = tfds.builder("code_filtered:1.0.0", data_dir=str(tmp_path / "curated"))
  assert builder.info.splits["train"].shard_lengths == [10, 10, 10]
  parquet, cache = made(tmp_path) / "parquet", str(tmp_path / "cache")
  found = datasets.load_dataset(str(parquet), cache_dir=cache)["train"]
  assert set(found["text"]) == {f"x = {n}" for n in range(30)}
  assert found.column_names[:3] == ["id", "text", "source"]
  cards = [made(tmp_path) / "README.md", parquet / "README.md"]
  for card in cards:
    card.write_text("old")
  run(files, tmp_path, "again", cut=3)  # renews both
  assert all("30 documents" in card.read_text() for card in cards)


class Killed(BaseException):
  pass


@pytest.mark.parametrize("number", [0, 4, 7])
def test_a_killed_publication_is_made_anew_beside_the_older_version(
  files, tmp_path, monkeypatch, number
):
  write, left = storage.write_bytes, [number]

  def killed(path, content):  # after so many files of the set
    if "1.1.0" in path.parts and not left[0]:
      raise Killed
    left[0] -= "1.1.0" in path.parts
    write(path, content)

  run(files, tmp_path, "older", cut=2)
  with monkeypatch.context() as patched:
    for module in (storage, storage.files):
      patched.setattr(module, "write_bytes", killed)
    with pytest.raises(Killed):
      run(files, tmp_path, "first", cut=2, version="1.1.0")
  versions = made(tmp_path).parent
  # TFDS reads the newest folder.
  assert [path.name for path in versions.iterdir()] == ["1.0.0"]
  run(files, tmp_path, "second", version="1.1.0")
  assert sorted(path.name for path in versions.iterdir()) == ["1.0.0", "1.1.0"]
  (table,) = (versions / "1.1.0" / "parquet").glob("*.parquet")
  assert pyarrow.parquet.read_metadata(table).num_rows == 30
  assert len(list((versions / "1.1.0").glob("*.tfrecord*"))) == 1
  assert [path.name for path in (tmp_path / "curated").iterdir()] == ["code_filtered"]


def with_id(name, text):
  return dataclasses.replace(samples.document(text), id=name)


def test_a_document_in_two_files_is_published_once(tmp_path):
  """Ids may begin alike, such as numbers with zeros before them."""
  for part in range(2):
    documents = [with_id(f"{n:032d}", f"x = {n}") for n in range(99)]
    samples.write(tmp_path / f"{part}.jsonl", documents, "nonsense\n" * part)
  stats = run(tmp_path / "*.jsonl", tmp_path, cut=2)
  assert stats["dropped"] == {"read twice": 99, "not JSON": 1}
  assert len(list(folder.dropped(tmp_path / "publish"))) == 100
  assert stats["kept"] == 99
  assert NOT_CLAIMED in (made(tmp_path) / "README.md").read_text()


@pytest.mark.parametrize("cut", [1, 2])
def test_two_texts_with_one_id_are_refused(tmp_path, cut):
  for part in range(2):
    documents = [samples.document(f"x = {n + 20 * part}") for n in range(20)]
    one = with_id("mine", f"x = {40 + part}")
    samples.write(tmp_path / f"{part}.jsonl", [*documents, one])
  with pytest.raises(InputError, match="two documents of different text with the id m"):
    run(tmp_path / "*.jsonl", tmp_path, cut=cut)
  assert not (tmp_path / "curated").exists()
