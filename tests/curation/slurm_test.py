"""Tasks as Slurm jobs, with a stand-in for sbatch that runs them in order."""

import os
import sys

import pytest

from phi1_jax import InputError
from phi1_jax.curation import filtering, folder
from phi1_jax.curation.config import FilterConfig
from phi1_jax.curation.document import Keep
from phi1_jax.curation.engine import Engine, Job
from tests.curation import samples

# Runs the array that a script asks for; notes the options.
SBATCH = """#!{python}
import os, pathlib, re, subprocess, sys
script = pathlib.Path(sys.argv[-1]).read_text()
with open({notes!r}, "a") as file:
  file.write(script)
last = int(re.search(r"--array=0-(\\d+)", script)[1])
codes = [
  subprocess.run(
    ["bash", sys.argv[-1]],
    env={{**os.environ, "SLURM_ARRAY_TASK_ID": str(task), "SLURM_NODELIST": "here"}},
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  ).returncode
  for task in range(last + 1)
]
print("Submitted batch job 7")
sys.exit(max(codes))
"""
SRUN = """#!/bin/sh
while [ "$1" != launch_pickled_pipeline ]; do shift; done
exec "$@"
"""
SCONTROL = "#!/bin/sh\necho $3\n"  # show hostnames LIST


@pytest.fixture
def notes(tmp_path, monkeypatch):
  """The scripts that were submitted to the stand-in."""
  path, bin = tmp_path / "notes", tmp_path / "bin"
  bin.mkdir()
  sbatch = SBATCH.format(python=sys.executable, notes=str(path))
  made = {"sbatch": sbatch, "srun": SRUN, "scontrol": SCONTROL}
  for name, text in made.items():
    (bin / name).write_text(text)
    (bin / name).chmod(0o755)
  monkeypatch.setenv("PATH", f"{bin}:{os.environ['PATH']}")
  return path


@pytest.fixture
def inputs(tmp_path):
  texts = [samples.algorithm(n) for n in range(6)] + ["def broken(:\n"]
  for part in range(2):
    made = [Keep(samples.document(t, f"s{part}")) for t in texts[part::2]]
    folder.spill(tmp_path / "in" / f"{part}.parquet", made, folder.KEPT)
  return (f"{tmp_path}/in/*.parquet",)


def test_the_same_documents_as_on_local_workers(inputs, tmp_path, notes):
  config = FilterConfig(inputs, classifier=None, licences=())
  found = []
  for executor in ("local", "slurm"):
    place = tmp_path / executor
    filtering.run(Job(config, place, Engine(executor, tasks=2, workers=2)))
    kept = sorted(document.id for document in folder.kept(place))
    found.append((kept, sorted(drop.document.id for drop in folder.dropped(place))))
  assert found[0] == found[1]
  assert (len(found[0][0]), len(found[0][1])) == (6, 1)
  assert "--array=0-1%2" in notes.read_text()
  assert "--partition" not in notes.read_text()  # Slurm's, or of the environment


def test_the_error_of_a_task_is_that_of_the_stage(tmp_path, notes):
  (tmp_path / "rows.parquet").write_bytes(b"PAR1 of something else PAR1")
  config = FilterConfig((f"{tmp_path}/rows.parquet",), classifier=None, licences=())
  with pytest.raises(InputError, match=r"rows\.parquet"):
    filtering.run(Job(config, tmp_path / "out", Engine("slurm", tasks=1)))


def test_the_refusal_of_sbatch_is_named(inputs, tmp_path, notes):
  (tmp_path / "bin" / "sbatch").write_text("#!/bin/sh\nexit 1\n")
  config = FilterConfig(inputs, classifier=None, licences=())
  with pytest.raises(InputError, match="sbatch refused the jobs with exit code 1"):
    filtering.run(Job(config, tmp_path / "out", Engine("slurm")))


def test_a_machine_without_slurm_is_refused(inputs, tmp_path, monkeypatch):
  monkeypatch.setenv("PATH", str(tmp_path))
  config = FilterConfig(inputs, classifier=None, licences=())
  with pytest.raises(InputError, match="found no sbatch"):
    filtering.run(Job(config, tmp_path / "out", Engine("slurm")))
