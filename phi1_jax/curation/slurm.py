"""Tasks of a phase as an array of Slurm jobs.

Partition, account and time limit are those of the environment (`SBATCH_PARTITION`,
`SBATCH_ACCOUNT`, `SBATCH_TIMELIMIT`), or Slurm's own.
"""

import os
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from datatrove.executor.slurm import SlurmPipelineExecutor

from phi1_jax import InputError, storage
from phi1_jax.storage import AnyPath


class _Executor(SlurmPipelineExecutor):
  """An executor that waits for its jobs, and leaves to Slurm what nobody has set."""

  def get_sbatch_args(self, max_array: int = 1) -> dict[str, Any]:
    """Return the options of sbatch, name -> value."""
    options = super().get_sbatch_args(max_array)
    unset = {name for name in ("partition", "time") if not options[name]}
    return {name: x for name, x in options.items() if name not in unset} | {"wait": ""}

  def launch_merge_stats(self) -> None:
    """Do nothing: the stage adds up its own counts."""


def run(
  step: Callable[..., None], place: AnyPath, tasks: int, workers: int | None
) -> None:
  """Run `step` for the tasks that are not complete, `workers` at the same time.

  Raises:
    InputError: this machine cannot submit jobs, sbatch refuses them, or `place`, the
      folder of the phase, is on cloud storage.
  """
  wrong = f"got {place}, expected a folder that all nodes share"
  if not shutil.which("sbatch"):
    wrong = "found no sbatch; run it where jobs can be submitted"
  elif not storage.is_remote(place):
    wrong = None
  if wrong:
    raise InputError(f"--executor=slurm: {wrong}")
  executor = _Executor(
    [step],
    tasks,
    time="",
    partition="",
    workers=workers or -1,
    job_name=f"phi1_jax-{secrets.token_hex(4)}",
    qos="",
    env_command=f"export PATH={shlex.quote(os.path.dirname(sys.executable))}:$PATH",
    logging_dir=os.fspath(place),
  )
  try:
    executor.run()
  except subprocess.CalledProcessError as error:
    if not error.output:  # it names the jobs that it has submitted
      raise InputError(
        f"--executor=slurm: sbatch refused the jobs with exit code {error.returncode}; "
        "its message is above"
      ) from None
    # Else a job failed, and its task has left its error.
  except BaseException:
    subprocess.run(["scancel", f"--name={executor.job_name}"], check=False)
    raise
