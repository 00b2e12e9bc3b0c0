"""XLA compiler options by platform, and the cache of compiled programs."""

import hashlib
import os
import platform as machine
from pathlib import Path

import jax

from phi1_jax import storage
from phi1_jax.storage import AnyPath

_TPU: dict[str, str | bool] = {
  # By default a product with a gathered matrix is cut into one product per device,
  # each of which reads and writes its whole result once more: on v5e-8 phi-1's step
  # moved 981 GiB through each chip's memory; with whole gathers, 417 (docs/log).
  "xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000",
}

# Overlap collectives with computation, as MaxText's and JAX's GPU guides recommend.
# Waits for hardware: nobody has measured these with this code.
_GPUS: dict[str, str | bool] = {
  "xla_gpu_enable_latency_hiding_scheduler": True,
  "xla_gpu_all_gather_combine_threshold_bytes": str(128 * 2**20),
  "xla_gpu_all_reduce_combine_threshold_bytes": str(128 * 2**20),
  "xla_gpu_reduce_scatter_combine_threshold_bytes": str(64 * 2**20),
  "xla_gpu_enable_pipelined_all_gather": True,
  "xla_gpu_enable_pipelined_all_reduce": True,
  "xla_gpu_enable_pipelined_reduce_scatter": True,
  "xla_gpu_enable_while_loop_double_buffering": True,
}


def options(platform: str, num_devices: int = 1) -> dict[str, str | bool]:
  """Return the compiler options for `jax.Device.platform`.

  The GPU's options concern collectives, so a single device gets none. XLA refuses a
  name that it does not know with an error; in XLA_FLAGS it would abort the process.
  """
  if platform == "gpu" and num_devices > 1:
    return dict(_GPUS)
  return dict(_TPU) if platform == "tpu" else {}


def cache_in(folder: AnyPath, most_bytes: int = -1) -> None:
  """Keep compiled programs in a folder, local or gs://, for the next start.

  Args:
    folder: created if missing. Programs for a CPU go to a folder below it with the name
      of its instruction set, without which another machine might stop at an illegal
      instruction.
    most_bytes: the programs used longest ago are removed beyond this; -1 keeps all.
  """
  if jax.default_backend() == "cpu":
    folder /= f"cpu-{_instruction_set()}"
  jax.config.update("jax_compilation_cache_dir", os.fspath(storage.full(folder)))
  jax.config.update("jax_compilation_cache_max_size", most_bytes)


def _instruction_set() -> str:
  """Return a short hash of the instructions that this CPU has."""
  try:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:  # not Linux
    lines = []
  names = ("flags", "Features")  # on x86 and on ARM
  found = next((line for line in lines if line.startswith(names)), "")
  return hashlib.sha256(f"{machine.processor()} {found}".encode()).hexdigest()[:8]
