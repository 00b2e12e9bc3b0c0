"""Every test runs on the CPU with eight simulated devices and without network.

Processes that a test starts inherit all of it but the number of devices.
"""

import os
import sys

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "")
  # Compiling at -O3 would take most of the tests' time; and the newer emitters, which
  # go through MLIR, take twice as long as the older ones.
  + " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
  + " --xla_cpu_use_fusion_emitters=false"
)
# Where a test or a command keeps compiled programs, it keeps the small ones too.
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["HF_HUB_OFFLINE"] = "1"

import jax  # after the environment is set
from absl import flags

jax.config.update("jax_num_cpu_devices", 8)

# Grain and seqio read absl flags, which only absl's own `app.run` would parse.
flags.FLAGS(sys.argv[:1])
