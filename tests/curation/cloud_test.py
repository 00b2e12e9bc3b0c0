"""Stages that read from a bucket and write to it."""

import json

import pytest

from phi1_jax import storage
from phi1_jax.curation import deduplicate, filtering, folder, publish
from phi1_jax.curation.config import DeduplicateConfig, FilterConfig, PublishConfig
from phi1_jax.curation.engine import Engine
from phi1_jax.storage import paths
from tests.curation import samples


@pytest.fixture
def texts():
  made = [samples.algorithm(n) for n in range(3)] + [samples.settings(1)] * 2
  return [*made, samples.settings(1) + "\nEND = 1\n"]


def chain(inputs, place, engine):
  """Deduplicates, filters and publishes; returns what was kept on the way."""
  places = [place / name for name in ("deduplicate", "filter", "publish")]
  config = DeduplicateConfig(inputs, similarity=0.95, maximum_loss=1.0)
  deduplicate.run(config, places[0], engine)
  names = (str(places[0]),)
  filtering.run(FilterConfig(names, classifier=None, licences=()), places[1], engine)
  config = PublishConfig((str(places[1]),), str(place / "curated"))
  publish.run(config, places[2], engine)
  return [sorted(folder.kept(each), key=lambda d: d.id) for each in places[:2]]


def test_a_bucket_is_input_and_output(gcs, texts, tmp_path):
  rows = [json.dumps({"text": text, "repo_name": "r"}) + "\n" for text in texts]
  bucket = storage.parse(gcs.folder)
  for place in (tmp_path, bucket):
    for part in range(2):
      storage.write_text(place / f"{part}.jsonl", "".join(rows[part::2]))
  engine = Engine(tasks=2, workers=1)
  local = chain((str(tmp_path / "*.jsonl"),), tmp_path / "runs", engine)
  found = chain((f"{gcs.folder}/*.jsonl",), bucket / "runs", engine)
  assert found == local
  assert len(found[1]) == 5
  made = "curated/code_filtered/1.0.0"
  names = storage.names(bucket / "runs" / made)
  assert names == storage.names(tmp_path / "runs" / made)
  assert ".engine" not in storage.names(bucket / "runs" / "filter")


def test_a_folder_in_a_bucket_is_read(gcs, texts):
  bucket = storage.parse(gcs.folder)
  for number, text in enumerate(texts):
    storage.write_text(bucket / "code" / "repo" / f"{number}.py", text)
  config = FilterConfig((f"{gcs.folder}/code",), classifier=None, licences=())
  filtering.run(config, bucket / "out", Engine(workers=1))
  documents = list(folder.kept(bucket / "out"))
  assert sorted(d.text for d in documents) == sorted(texts)
  assert {d.repository for d in documents} == {"repo"}


def test_a_publication_killed_while_it_is_copied_is_made_anew(
  gcs, texts, tmp_path, monkeypatch
):
  class Killed(BaseException):
    pass

  bucket = storage.parse(gcs.folder)
  rows = [json.dumps({"text": text, "repo_name": "r"}) + "\n" for text in texts]
  storage.write_text(tmp_path / "x.jsonl", "".join(rows))
  config = PublishConfig((str(tmp_path / "x.jsonl"),), f"{gcs.folder}/curated")
  system, _, _ = paths.object_of(bucket)
  copy, copied = system.cp_file, []

  def copy_some(*arguments):
    if len(copied) == 3:
      raise Killed
    copied.append(arguments)
    copy(*arguments)

  with monkeypatch.context() as patched:
    patched.setattr(system, "cp_file", copy_some)
    with pytest.raises(Killed):
      publish.run(config, tmp_path / "out", Engine(workers=1))
  made = bucket / "curated" / "code_filtered" / "1.0.0"
  assert len(storage.names(made)) == 3
  publish.run(config, tmp_path / "out", Engine(workers=1))
  assert "content.json" in storage.names(made)
  assert len(storage.names(made / "parquet")) == 2
  assert storage.names(bucket / "curated") == ["code_filtered"]
