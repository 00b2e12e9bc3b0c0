"""The same pipelines on a second engine: Beam's Dask runner, two worker processes."""

import contextlib

import pytest

from phi1_jax.curation import decontaminate, deduplicate, folder, pipeline
from phi1_jax.curation.config import DecontaminateConfig, DeduplicateConfig
from phi1_jax.problems import humaneval
from tests.curation import samples

DASK = "apache_beam.runners.dask.dask_runner.DaskRunner"


@pytest.fixture
def runner():
  distributed = pytest.importorskip("dask.distributed")
  with distributed.LocalCluster(
    n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs="ERROR"
  ) as cluster:
    address = f"--dask_client_address={cluster.scheduler_address}"
    yield pipeline.Runner(DASK, (address, "--dask_partition_size=2"))
    with contextlib.suppress(ValueError):  # Beam leaves its clients open
      while True:
        distributed.default_client().close()


def test_both_stages_keep_the_same_on_dask(runner, tmp_path):
  texts = [samples.algorithm(n % 9) for n in range(18)]  # near-duplicates and copies
  texts += [problem.solution for problem in humaneval.load()[:6]]
  for part in range(3):
    documents = [samples.document(t, f"s{part}") for t in texts[part::3]]
    lines = [folder.line(document.record()) for document in documents]
    (tmp_path / f"{part}.jsonl").write_bytes(b"".join(lines))
  inputs = (str(tmp_path / "*.jsonl"),)
  files = {}
  for name, engine in (("local", pipeline.Runner()), ("dask", runner)):
    for stage in ("deduplicate", "decontaminate"):
      (tmp_path / name / stage).mkdir(parents=True)
    config = DeduplicateConfig(inputs, maximum_loss=1.0)
    place = tmp_path / name / "deduplicate"
    first = deduplicate.run(config, place, engine)
    config = DecontaminateConfig(inputs, ("humaneval-164",))
    place = tmp_path / name / "decontaminate"
    second = decontaminate.run(config, place, engine)
    assert (first["read"], second["read"]) == (24, 24)
    assert first["kept"] < 24
    assert second["kept"] == 18
    files[name] = [
      (tmp_path / name / stage / folder.COMPLETED).read_bytes()
      for stage in ("deduplicate", "decontaminate")
    ]
  assert files["local"] == files["dask"]
