"""Published sets are what the registry's tasks read, with nothing in between."""

import json
import shutil

import pyarrow.parquet
import pytest

from phi1_jax import InputError, storage
from phi1_jax.curation import folder, inputs, publish
from phi1_jax.curation.config import PublishConfig
from phi1_jax.curation.document import Keep
from phi1_jax.curation.engine import Engine
from phi1_jax.data import tasks
from phi1_jax.data.quiet_tensorflow import tfds
from phi1_jax.text import tokenizer as tokenizers
from tests.curation import samples

KINDS = ("code", "textbook", "exercise")


@pytest.fixture
def stage(tmp_path):
  path = tmp_path / "decontaminate"
  path.mkdir()
  folder.begin(path, "decontaminate", {"benchmarks": ["humaneval-164"], "tau": 0.9})
  documents = [
    samples.document(f"{kind} {i}!\n", source=f"from {kind}", kind=kind, made={"n": i})
    for i in range(40)
    for kind in KINDS
  ]
  counts = folder.write(path, map(Keep, documents))
  prompts = [{"id": "exercise", "version": "abc", "text": "Write $name."}]
  facts = {"models": ["a model"], "cost": {"spent": "$0.12"}, "prompts": prompts}
  folder.finish(path, "decontaminate", counts.stats(), facts)
  return path


def run(stage, tmp_path, name="publish", **settings):
  out = tmp_path / name
  out.mkdir(exist_ok=True)
  directory = str(tmp_path / "curated")
  config = PublishConfig((str(stage),), directory, **settings)
  return publish.run(config, out, Engine(workers=1)), directory


def test_the_tasks_read_what_was_published(stage, tmp_path):
  stats, directory = run(stage, tmp_path)
  assert sorted(stats["datasets"]) == ["code_filtered", "exercises", "textbooks"]
  tokenizer = tokenizers.train(["code exercise textbook 0123456789!\n"] * 9, 300)
  tasks.register((), directory)
  for kind, name in publish.DATASETS.items():
    source = tasks.resolve(name)[name].source
    found = list(source.read(0, 1, tokenizer))
    assert sorted(one.text for one in found) == sorted(
      f"{kind} {i}!\n" for i in range(40)
    )
    assert len({one.group for one in found}) == 40


def test_every_document_carries_its_provenance(stage, tmp_path):
  _, directory = run(stage, tmp_path)
  builder = tfds.builder("exercises:1.0.0", data_dir=directory)
  example = next(iter(tfds.as_numpy(builder.as_dataset(split="train"))))
  assert json.loads(example["provenance"]) == {"made": {"n": 0}}
  assert example["licence"] == b"MIT"
  assert example["source"] == b"from exercise"


def test_the_card_names_prompts_models_costs_and_licences(stage, tmp_path):
  run(stage, tmp_path)
  card = (tmp_path / "curated" / "exercises" / "1.0.0" / "README.md").read_text()
  for wanted in ("40 documents", "a model", "$0.12", "Write $name.", "| MIT | 40 |"):
    assert wanted in card
  assert "too close to humaneval-164 at tau 0.9 is not part of it" in card


def test_what_was_not_looked_for_is_not_claimed(tmp_path):
  rows = tmp_path / "raw.jsonl"
  rows.write_text('{"text": "x = 1"}\n{"text": "x = 1"}\nnonsense\n')
  stats, _ = run(rows, tmp_path)
  assert stats["dropped"] == {"read twice": 1, "not JSON": 1}
  card = (tmp_path / "curated" / "code_filtered" / "1.0.0" / "README.md").read_text()
  assert NOT_CLAIMED in card


@pytest.fixture
def chain(tmp_path):
  """Makes a stage's folder of one document, from folders beside it or raw files."""

  def make(name, stage, *names, **settings):
    path = tmp_path / name
    path.mkdir()
    paths = [str(tmp_path / each) for each in names]
    folder.begin(path, stage, {**settings, **({"inputs": paths} if paths else {})})
    counts = folder.write(path, [Keep(samples.document(f"{name} = 1\n"))])
    found = inputs.lineage(paths)
    folder.finish(path, stage, counts.stats(), {"lineage": found})
    return path

  (tmp_path / "raw.jsonl").write_text('{"text": "x = 1"}\n')
  make("clean", "decontaminate", "raw.jsonl", benchmarks=["humaneval-164"], tau=0.9)
  return make


NOT_CLAIMED = "Nothing, or not enough, was done to keep benchmarks out of it."


def card_of(stage, tmp_path):
  run(stage, tmp_path)
  return (tmp_path / "curated" / "code_filtered" / "1.0.0" / "README.md").read_text()


@pytest.mark.parametrize("other", ["llm", "raw.jsonl"])
def test_one_input_that_was_not_looked_through_spoils_the_claim(chain, tmp_path, other):
  chain("llm", "exercises")
  mixed = chain("mixed", "deduplicate", "clean", other)
  assert NOT_CLAIMED in card_of(mixed, tmp_path)


@pytest.mark.parametrize(
  ("read_by_filter", "claimed"), [("raw.jsonl", False), ("clean", True)]
)
def test_labels_that_were_looked_through_clean_no_other_code(
  chain, tmp_path, read_by_filter, claimed
):
  chain("labels", "annotate", "clean")
  chain("forest", "train-classifier", labels="labels")
  filtered = chain("filtered", "filter", read_by_filter, classifier="forest")
  card = card_of(filtered, tmp_path)
  assert (NOT_CLAIMED in card) != claimed
  assert ("too close to humaneval-164 at tau 0.9 is not" in card) == claimed


def test_what_only_one_input_was_looked_through_for_is_not_claimed(chain, tmp_path):
  both = {"benchmarks": ["mbpp-full-974", "humaneval-164"], "tau": 0.95}
  chain("more", "decontaminate", "raw.jsonl", **both)
  mixed = chain("mixed", "deduplicate", "more", "clean")
  card = card_of(mixed, tmp_path)
  assert "too close to humaneval-164 at tau 0.95 is not part of it" in card
  assert "mbpp" not in card.partition("# decontaminate")[0]


def test_what_was_looked_for_twice_is_claimed_of_both_times(chain, tmp_path):
  chain("again", "deduplicate", "clean")
  both = {"benchmarks": ["mbpp-full-974", "humaneval-164"], "tau": 0.95}
  last = chain("last", "decontaminate", "again", **both)
  card = card_of(last, tmp_path)
  assert "to humaneval-164 at tau 0.9; mbpp-full-974 at tau 0.95 is not part" in card


def test_a_version_is_published_once(stage, tmp_path):
  run(stage, tmp_path)
  again, _ = run(stage, tmp_path)
  assert again["kept"] == 120
  other = tmp_path / "other"
  other.mkdir()
  folder.begin(other, "decontaminate", {"benchmarks": ["x"], "tau": 0.8})
  counts = folder.write(other, [Keep(samples.document("x", kind="exercise"))])
  folder.finish(other, "decontaminate", counts.stats(), {})
  with pytest.raises(
    InputError, match=r"holds another set; give a new version, .*1\.1"
  ):
    run(other, tmp_path, "second")
  stats, _ = run(other, tmp_path, "third", version="1.1.0")
  assert stats["datasets"] == {
    "exercises": str(tmp_path / "curated" / "exercises" / "1.1.0")
  }


def test_nothing_to_publish_is_refused(tmp_path):
  (tmp_path / "raw.jsonl").write_text("nonsense\n")
  with pytest.raises(folder.EmptyError, match="kept 0 of 1 documents"):
    run(tmp_path / "raw.jsonl", tmp_path)


def test_sets_have_a_file_per_task_and_a_parquet_copy(tmp_path):
  rows = [{"text": f"x = {n}"} for n in range(30)]
  for part in range(3):
    lines = [json.dumps(row) + "\n" for row in rows[part::3]]
    (tmp_path / f"{part}.jsonl").write_text("".join(lines))
  config = PublishConfig((str(tmp_path / "*.jsonl"),), str(tmp_path / "curated"))
  publish.run(config, tmp_path / "out", Engine(tasks=3, workers=1))
  made = tmp_path / "curated" / "code_filtered" / "1.0.0"
  names = sorted(path.name for path in made.glob("*.tfrecord*"))
  assert names == [f"code_filtered-train.tfrecord-0000{n}-of-00003" for n in range(3)]
  builder = tfds.builder("code_filtered:1.0.0", data_dir=str(tmp_path / "curated"))
  assert builder.info.splits["train"].shard_lengths == [10, 10, 10]
  texts = {e["text"].decode() for e in tfds.as_numpy(builder.as_dataset(split="train"))}
  assert texts == {row["text"] for row in rows}
  files = sorted((made / "parquet").glob("*.parquet"))
  table = pyarrow.concat_tables(map(pyarrow.parquet.read_table, files))
  assert set(table.column("text").to_pylist()) == texts
  card = (made / "parquet" / "README.md").read_text()
  assert card.startswith("---\nconfigs:\n")
  assert "path: train-*.parquet" in card


class Killed(BaseException):
  pass


def killed(files):
  """A move as in a bucket, by copies, that ends after some of them."""

  def move(source, target):
    found = sorted(path for path in source.rglob("*") if path.is_file())
    for path in found[:files]:
      copy = target / path.relative_to(source)
      copy.parent.mkdir(parents=True, exist_ok=True)
      shutil.copy(path, copy)
    raise Killed

  return move


@pytest.fixture
def two_files(tmp_path):
  for part in range(2):
    rows = [json.dumps({"text": f"x = {part}{n}"}) + "\n" for n in range(3)]
    (tmp_path / f"{part}.jsonl").write_text("".join(rows))
  return PublishConfig((str(tmp_path / "*.jsonl"),), str(tmp_path / "curated"))


@pytest.mark.parametrize("files", [0, 4, 99])
def test_a_killed_publication_is_made_anew(two_files, tmp_path, monkeypatch, files):
  with monkeypatch.context() as patched:
    patched.setattr(storage, "move", killed(files))
    with pytest.raises(Killed):
      publish.run(two_files, tmp_path / "first", Engine(tasks=2, workers=1))
  made = tmp_path / "curated" / "code_filtered" / "1.0.0"
  assert not (made / "content.json").exists()
  publish.run(two_files, tmp_path / "second", Engine(tasks=1, workers=1))
  (table,) = (made / "parquet").glob("*.parquet")
  assert pyarrow.parquet.read_metadata(table).num_rows == 6
  assert len(list(made.glob("*.tfrecord*"))) == 1
  assert sorted(path.name for path in made.parents[1].iterdir()) == ["code_filtered"]


def test_a_folder_of_somebody_else_is_not_removed(two_files, tmp_path):
  made = tmp_path / "curated" / "code_filtered" / "1.0.0"
  made.mkdir(parents=True)
  (made / "mine").write_text("x")
  with pytest.raises(InputError, match="holds another set"):
    publish.run(two_files, tmp_path / "out", Engine(tasks=2, workers=1))
  assert (made / "mine").exists()


def test_both_cards_are_renewed(two_files, tmp_path):
  for name in ("first", "second"):
    publish.run(two_files, tmp_path / name, Engine(tasks=2, workers=1))
    made = tmp_path / "curated" / "code_filtered" / "1.0.0"
    cards = [made / "README.md", made / "parquet" / "README.md"]
    texts = [card.read_text() for card in cards]
    assert all("6 documents" in text for text in texts)
    for card in cards:
      card.write_text("old")


@pytest.mark.parametrize("nameless", [0, 1])
def test_what_is_read_twice_is_published_once(tmp_path, nameless):
  rows = [samples.document(text).record() for text in "xABACD"]
  for row in rows:
    row["provenance"] = "{}"
  rows[0]["kind"] = "poem"
  rows += [{**rows[1], "id": None}] * nameless
  path = tmp_path / "x.parquet"
  pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
  stats, _ = run(path, tmp_path)
  assert stats["dropped"] == {"not a document": 1, "read twice": 1}
  made = tmp_path / "curated" / "code_filtered" / "1.0.0" / "parquet"
  (table,) = made.glob("*.parquet")
  texts = pyarrow.parquet.read_table(table).column("text").to_pylist()
  assert sorted(texts) == ["A"] * nameless + ["A", "B", "C", "D"]
