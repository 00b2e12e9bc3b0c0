"""Memory that a train step needs of a device, checked before the first step."""

import contextlib
import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from phi1_jax import InputError
from phi1_jax.cli import command
from phi1_jax.parallel import compiler, sharding
from phi1_jax.training.setup import Setup
from phi1_jax.training.state import bytes_per_device

GIB = 2**30

# glibc's malloc.h: M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD. Threads other than the
# first allocate in heaps of 64 MiB, which malloc unmaps once they are empty, whatever
# the threshold, unless the padding is larger than a heap. Padding that is not written
# takes no memory.
_MALLOC_OPTIONS = {-4: 0, -1: 2**31 - 1, -2: 128 << 20}


def compile_step(step: Callable[..., Any], setup: Setup) -> jax.stages.Compiled:
  """Compile the train step from shapes.

  Raises:
    InputError: the compiler says that the step does not fit the device.
  """
  try:
    with sharding.layout(setup.mesh):
      lowered = step.lower(setup.abstract_state, setup.abstract_batch)
    platform = setup.mesh.devices.flat[0].platform
    return lowered.compile(compiler.options(platform, setup.mesh.size))
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    line = str(error).split("\n")[0]
    raise InputError(f"{_too_large(setup)}: {line}") from None


def step_memory(compiled: jax.stages.Compiled | None, setup: Setup) -> tuple[int, int]:
  """Return the bytes of state and batch on a device, and those of temporaries.

  Temporaries are activations, gradients and the compiler's other buffers; 0 without a
  compiled step. The state is updated in place.
  """
  held = bytes_per_device((setup.abstract_state, setup.abstract_batch))
  analysis = compiled.memory_analysis() if compiled else None
  return held, analysis.temp_size_in_bytes if analysis else 0


def keep_freed_memory() -> None:
  """Make glibc keep memory that a CPU step frees; do nothing for other devices.

  XLA allocates a step's temporaries in one piece. By default malloc returns it to the
  system after every step, and the system clears it page by page for the next: a
  quarter of the quickstart model's step (docs/log). Call it before JAX looks for
  devices and starts its threads.
  """
  libc = ctypes.CDLL(None)
  asked: str | None = getattr(jax.config, "jax_platforms", None)
  on_cpu = asked == "cpu" or not command.has_accelerator()
  if on_cpu and hasattr(libc, "gnu_get_libc_version"):
    for option, value in _MALLOC_OPTIONS.items():
      libc.mallopt(option, value)


def device_memory() -> int | None:
  """Return the bytes that one local device may use, None if it does not say.

  Simulated devices share the host's memory. On a GPU this is the part that JAX's
  allocator may use (see `planning.account.memory_of`).
  """
  device = jax.local_devices()[0]
  stats = device.memory_stats()
  if stats and "bytes_limit" in stats:
    return stats["bytes_limit"]
  if device.platform != "cpu":
    return None
  return host_memory() // jax.local_device_count()


def host_memory() -> int:
  """Return the bytes of memory of this host, or of its container."""
  limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
  for name in ("memory.max", "memory/memory.limit_in_bytes"):
    with contextlib.suppress(OSError):  # not Linux
      text = (Path("/sys/fs/cgroup") / name).read_text().strip()
      limits += [int(text)] if text.isdigit() else []
  return min(limits)


def check_fits(compiled: jax.stages.Compiled | None, setup: Setup) -> None:
  """Refuse a run that does not fit its devices.

  Args:
    compiled: the step; None checks the state alone, before compiling.
    setup: the run.

  Raises:
    InputError: state and temporaries exceed the device's memory.
  """
  (held, temporary), have = step_memory(compiled, setup), device_memory()
  if have is not None and held + temporary > have:
    raise InputError(
      f"{_too_large(setup)}: state {held / GIB:.1f} GiB + temporary "
      f"{temporary / GIB:.1f} GiB exceed its {have / GIB:.1f} GiB; lower "
      "Train.sequences_per_device, use more devices (Mesh.fsdp), Model.remat or "
      "Train.head_chunks"
    )


def _too_large(setup: Setup) -> str:
  device = setup.mesh.devices.flat[0].device_kind
  parameters = setup.config.model.num_parameters()
  return f"Model: {parameters:,} parameters are too large for one {device} device"
