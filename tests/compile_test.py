"""The compile command: what it says of machines that are not there."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from phi1_jax import InputError, compile
from phi1_jax.telemetry.hlo import Traffic
from phi1_jax.training import report, search
from phi1_jax.training.accounts import Account, OutOfMemoryError
from phi1_jax.training.search import Trial

needs_libtpu = pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None, reason="needs libtpu (the extra tpu)"
)

CONTRACT = {
  *("topology", "devices", "sequences_per_device", "argument_gib", "temporary_gib"),
  *("total_gib", "hbm_gib", "flops_per_step", "collectives", "compile_seconds"),
  *("bound_seconds", "remat", "attention"),
}

# A phi that compiles in seconds, with heads as wide as phi-1's.
TINY = """
include 'gin/pretrain.gin'
Model.vocabulary_size = 512
Model.num_layers = 2
Model.num_heads = 4
Model.embed_dim = 256
Model.mlp_dim = 512
Train.batch_size = 64
Train.sequence_length = 256
Train.sequences_per_device = 4
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
  path = tmp_path_factory.mktemp("gin") / "tiny.gin"
  path.write_text(TINY)
  return f"--gin_file={path}"


def run(*flags, code=0):
  """What the command prints; it takes seconds to start, so tests share runs."""
  environment = {name: x for name, x in os.environ.items() if name != "XLA_FLAGS"}
  done = subprocess.run(
    [sys.executable, "-m", "phi1_jax.compile", *flags],
    env=environment,
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == code, done.stderr
  return done.stdout, done.stderr


@needs_libtpu
def test_a_v5e_that_is_not_there(tiny):
  found = json.loads(run(tiny, "--topology=v5e:2x4", "--json", "--step_only")[0])
  assert found.keys() >= CONTRACT
  assert (found["topology"], found["devices"]) == ("v5e:2x4", 8)
  assert (found["sequences_per_device"], found["accumulation_steps"]) == (4, 2)
  assert (found["remat"], found["attention"]) == ("qkv_context", "flash")
  # 2 layers of 4·256² + 2·256·512 weights, a head of 256·512, and causal attention.
  per_token = 3 * (2 * (2 * 524_288 + 131_072) + 2 * 2 * 256 * 256)
  assert found["flops_per_step"] == per_token * 64 * 256
  assert 1.0 < found["executed_flops"] / found["flops_per_step"] < 1.3
  # Parameters and two moments in float32, an eighth on each device, short rows padded.
  state = 12 * found["parameters"] / 8 / 2**30
  assert state < found["argument_gib"] < 2 * state
  assert found["hbm_gib"] == 16
  # The optimizer reads and writes its state.
  assert found["hbm_traffic_gib"] > found["argument_gib"]
  assert found["collectives"]["all-gather"]["count"] >= 3
  assert 0 < found["bounds"]["compute"] <= found["bound_seconds"]


def test_simulated_gpus(tiny):
  text, log = run(tiny, "--topology=h100-8")
  assert "attention: xla" in log
  lines = {line.split("  ")[0]: line for line in text.splitlines()}
  assert "8 x NVIDIA H100 80GB HBM3, simulated by the CPU" in lines["machine"]
  assert "data 1 x fsdp 8 x tensor 1" in lines["mesh"]
  assert "A bound, not a measurement" in lines["bound"]
  for name in ("prefill", "decode"):
    assert "128 rows of 1024 tokens: " in lines[name]


@needs_libtpu
def test_what_does_not_fit_or_compile(tiny):
  """Refused in the chip's own words."""
  # Parameters and moments of 2M tokens, 12 GiB, on every chip, and as many gradients.
  big = (
    "--gin.Mesh.data=8",
    "--gin.Mesh.fsdp=1",
    "--gin.Model.vocabulary_size=2000000",
  )
  big += ("--gin.Train.sequences_per_device=1", "--gin.Model.remat='full'")
  _, error = run(tiny, *big, "--topology=v5e-8", code=2)
  assert "v5e-8, 1 sequences per device, remat full: RESOURCE_EXHAUSTED" in error
  assert "exceeds available HBM (15.75G)" in error
  assert "use more devices" in error.splitlines()[-1]
  _, error = run(tiny, "--gin.Model.attention='splash'", "--topology=v3-8", code=2)
  assert "does not compile for TPU v3, which is older than v4" in error


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    ((), "--topology: got none, expected a machine, such as v5e:4x4"),
    (("--topology=v9-8",), "got 'v9-8', expected one of v2, v3"),
  ],
)
def test_bad_input(tiny, flags, message):
  with pytest.raises(InputError, match=message):
    compile.main([tiny, *flags])


def test_a_mesh_that_does_not_fit_the_machine(tiny):
  _, error = run(tiny, "--topology=cpu-3", code=2)
  assert "Mesh: fsdp=3 does not divide 256" in error
  assert "Traceback" not in error


def account(total_gib, seconds):
  """On one v5e, bound by its FLOPs."""
  return Account(
    "TPU v5 lite",
    1,
    False,
    int(total_gib * 2**30),
    0,
    seconds * 197e12,
    Traffic(0, {}),
    1,
  )


# GiB per sequence, and the work that is done again.
KEPT = {"none": 8.0, "matrices": 4.0, "qkv_context": 2.0, "full": 0.5}
AGAIN = {"none": 1.0, "matrices": 1.02, "qkv_context": 1.16, "full": 1.3}


class Machine:
  """Measures by a formula."""

  def __init__(self, memory):
    self.memory, self.tried = memory, []

  def __call__(self, config):
    model, size = config.model, config.train.sequences_per_device
    self.tried.append((model.attention, model.remat, size))
    if model.attention in ("cudnn", "splash"):
      raise InputError(f"attention='{model.attention}' has no dropout.")
    total = 1 + size * KEPT[model.remat]
    if total > self.memory:
      raise OutOfMemoryError(f"{total} GiB")
    slower = 1.5 if model.attention == "xla" else 1.0
    return account(total, slower * (AGAIN[model.remat] + 0.1 / size))


def test_search_finds_the_fastest_that_fits(tiny_config):
  machine = Machine(memory=15.75)
  trials = list(search.search(tiny_config, 8, machine))
  best = search.fastest(trials)
  assert (best.attention, best.remat, best.sequences) == ("flash", "matrices", 2)
  # What does not fit at one batch is not tried at a larger one.
  flash = [(remat, size) for name, remat, size in machine.tried if name == "flash"]
  assert flash == [
    *(("none", 1), ("none", 2), ("matrices", 2), ("matrices", 4), ("qkv_context", 4)),
    *(("qkv_context", 8), ("full", 8)),
  ]
  assert [t.refusal for t in trials if t.attention == "cudnn"] == [
    "attention='cudnn' has no dropout."
  ]


def test_nearest_takes_fewer_sequences_before_it_keeps_less(tiny_config):
  found = search.nearest(tiny_config, 8, Machine(memory=9.5))
  assert (found.remat, found.sequences) == ("qkv_context", 4)
  found = search.nearest(tiny_config, 8, Machine(memory=2.0))
  assert (found.remat, found.sequences) == ("full", 2)
  assert search.nearest(tiny_config, 8, Machine(memory=1.0)) is None


@pytest.fixture
def tiny_config(tiny):
  from phi1_jax.cli import gin_config
  from phi1_jax.training.setup import CONFIGURABLES, RunConfig

  path = tiny.partition("=")[2]
  return RunConfig.from_parts(gin_config.load([path], [], CONFIGURABLES))


def test_a_trial_in_one_line():
  line = report.trial_line(Trial(8, "full", "flash", account(13.57, 0.25)))
  assert line == "flash   full          8 sequences   13.57 GiB, at least 0.25 s a step"
  line = report.trial_line(Trial(16, "none", "flash", refusal="too large"))
  assert line == "flash   none         16 sequences  too large"


@needs_libtpu
def test_the_table(tiny, tmp_path):
  """A small case of the table in tpu/README.md; what is there already is kept."""
  readme, model = tmp_path / "README.md", tmp_path / "tiny_phi.gin"
  model.write_text("Model.num_layers = 2\n")
  (tmp_path / "v5e_8.gin").write_text("Mesh.fsdp = 8\n")
  (tmp_path / "v3_8.gin").write_text("Mesh.fsdp = 8\nModel.attention = 'splash'\n")
  readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
  meshes = [f"--mesh={tmp_path}/{name}.gin" for name in ("v5e_8", "v3_8")]
  flags = (tiny, f"--table={readme}", f"--model={model}", *meshes, "--step_only")
  run(*flags)
  content = readme.read_text()
  lines = content.splitlines()
  assert (lines[0], lines[-1]) == ("before", "after")
  assert "\nold\n" not in content
  v5e = next(line for line in lines if "`v5e_8`" in line)
  assert v5e.startswith("| tiny-phi | `v5e_8` | 8 | 4 | qkv_context | flash | 8 |")
  assert "does not compile for TPU v3" in next(
    line for line in lines if "`v3_8`" in line
  )
  row = json.loads((tmp_path / "topologies.jsonl").read_text().splitlines()[-1])
  assert row["compile_seconds"] > 0
  run(*flags)
  assert readme.read_text() == content  # compile seconds too: nothing was compiled


def test_the_committed_table_is_that_of_the_presets():
  """Generate it with: python -m phi1_jax.compile --gin_file=gin/pretrain.gin
  --table=tpu/README.md --step_only
  """
  with open("tpu/topologies.jsonl") as file:
    rows = [json.loads(line) for line in file]
  presets = {
    name.removesuffix(".gin") for name in os.listdir("gin/meshes") if name[-5].isdigit()
  }
  assert {row["mesh_file"] for row in rows} == presets
  assert {row["model"] for row in rows} == {"phi1", "phi1_small"}
  refused = [row["mesh_file"] for row in rows if "refused" in row]
  assert refused == []
  with open("tpu/README.md") as file:
    text = file.read()
  assert all(report.row_line(row) in text for row in rows)
