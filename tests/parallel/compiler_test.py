"""The cache of compiled programs."""

import subprocess
import sys

PROGRAM = """
import jax, sys
from pathlib import Path
from phi1_jax.parallel import compiler
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
compiler.cache_in(Path(sys.argv[1]), int(sys.argv[2]))
for n in range(1, 6):
  jax.jit(lambda x: x * n + jax.numpy.sin(x))(jax.numpy.ones(n)).block_until_ready()
"""


def test_old_programs_leave_the_cache(tmp_path):
  def kept(limit):
    folder = tmp_path / str(limit)
    words = [sys.executable, "-c", PROGRAM, str(folder), str(limit)]
    subprocess.run(words, check=True)
    files = [path for path in folder.rglob("*-cache") if path.is_file()]
    assert {path.parent.name.partition("-")[0] for path in files} == {"cpu"}
    return sum(path.stat().st_size for path in files)

  whole = kept(-1)
  assert 0 < kept(whole // 2) <= whole // 2
