"""Every test runs on the CPU with eight simulated devices and without network."""

import os
import sys

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "")
  + " --xla_force_host_platform_device_count=8"
  # Compiling at -O3 would take most of the tests' time.
  + " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["HF_HUB_OFFLINE"] = "1"

from absl import flags  # after the environment is set

# Grain and seqio read absl flags, which only absl's own `app.run` would parse.
flags.FLAGS(sys.argv[:1])
