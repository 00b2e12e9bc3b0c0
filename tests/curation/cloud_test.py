"""Stages that read from a bucket and write to it."""

from phi1_jax import storage
from phi1_jax.curation import deduplicate, filtering, folder, publish
from phi1_jax.curation.config import DeduplicateConfig, FilterConfig, PublishConfig
from tests.curation import samples

TEXTS = [samples.algorithm(n) for n in range(3)] + [samples.settings(1)] * 2
TEXTS.append(samples.settings(1) + "\nEND = 1\n")


def chain(inputs, place):
  """Deduplicates, filters and publishes; returns the documents kept on the way."""
  places = [place / name for name in ("deduplicate", "filter", "publish")]
  config = DeduplicateConfig(inputs, similarity=0.95, maximum_loss=1.0)
  deduplicate.run(samples.job(config, places[0]))
  config = FilterConfig((str(places[0]),), classifier=None, licences=())
  filtering.run(samples.job(config, places[1]))
  config = PublishConfig((str(places[1]),), str(place / "curated"))
  publish.run(samples.job(config, places[2]))
  return [sorted(folder.kept(each), key=lambda d: d.id) for each in places[:2]]


def test_a_bucket_is_input_and_output(gcs, tmp_path):
  bucket = storage.parse(gcs.folder)
  rows = [{"text": text, "repo_name": "r"} for text in TEXTS]
  for part in range(2):
    samples.write(tmp_path / f"{part}.jsonl", rows[part::2])
    content = (tmp_path / f"{part}.jsonl").read_bytes()
    storage.write_bytes(bucket / f"{part}.jsonl", content)
  local = chain((str(tmp_path / "*.jsonl"),), tmp_path / "runs")
  found = chain((f"{gcs.folder}/*.jsonl",), bucket / "runs")
  assert found == local
  assert len(found[1]) == 5
  made = "curated/code_filtered/1.0.0"
  names = storage.names(bucket / "runs" / made)
  assert names == storage.names(tmp_path / "runs" / made)
  assert ".engine" not in storage.names(bucket / "runs" / "filter")
  for number, text in enumerate(TEXTS):
    storage.write_text(bucket / "code" / "repo" / f"{number}.py", text)
  config = FilterConfig((f"{gcs.folder}/code",), classifier=None, licences=())
  filtering.run(samples.job(config, bucket / "out"))
  documents = list(folder.kept(bucket / "out"))
  assert sorted(d.text for d in documents) == sorted(TEXTS)
  assert {d.repository for d in documents} == {"repo"}
