"""The compile command: what it says of machines that are not there."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from phi1_jax import InputError, compile
from phi1_jax.cli import gin_config
from phi1_jax.planning import account, report, search, topology
from phi1_jax.training.config import TrainConfig
from phi1_jax.training.setup import CONFIGURABLES, RunConfig

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


@pytest.fixture(scope="module")
def machines(tiny, tmp_path_factory):
  """What another process prints for one slice, two, and a chip without Mosaic."""
  directory = tmp_path_factory.mktemp("meshes")
  for name, lines in {
    "v5e_8": "Mesh.fsdp = 8\n",
    "v5e_4x2": "Mesh.fsdp = 4\n",
    "v3_8": "Mesh.fsdp = 8\nModel.attention = 'flash'\n",
  }.items():
    (directory / f"{name}.gin").write_text(lines)
  words = [sys.executable, "-m", "phi1_jax.compile", tiny, "--json", "--table"]
  environment = {name: x for name, x in os.environ.items() if name != "XLA_FLAGS"}
  text = subprocess.check_output(
    [*words, *map(str, directory.glob("*.gin"))], env=environment, text=True
  )
  return {row["preset"]: row for row in map(json.loads, text.splitlines())}


@needs_libtpu
def test_a_v5e_that_is_not_there(machines):
  found = machines["v5e_8"]
  assert found.keys() >= CONTRACT
  assert (found["topology"], found["devices"]) == ("v5e-8", 8)
  assert (found["sequences_per_device"], found["accumulation_steps"]) == (4, 2)
  assert (found["remat"], found["attention"]) == ("qkv_context", "flash")
  # 2 layers of 4·256² + 2·256·512 weights, a head of 256·512, and causal attention.
  per_token = 3 * (2 * (2 * 524_288 + 131_072) + 2 * 2 * 256 * 256)
  assert found["flops_per_step"] == per_token * 64 * 256
  assert 1.0 < found["executed_flops"] / found["flops_per_step"] < 1.3
  # Parameters and two moments in float32, an eighth on each device, short rows padded.
  state = 12 * found["parameters"] / 8 / 2**30
  assert state < found["argument_gib"] < 2 * state
  assert found["hbm_gib"] == found["usable_gib"] == 16
  # The optimizer reads and writes its state.
  assert found["hbm_traffic_gib"] > found["argument_gib"]
  assert found["collectives"]["all-gather"]["count"] >= 3
  assert found["collectives_across_slices"] == {}
  assert 0 < found["bounds"]["compute"] <= found["bound_seconds"]
  cells = [cell.strip() for cell in report.row("v5e_8", found).split("|")[1:-1]]
  assert (cells[0], *cells[2:6]) == ("`v5e_8`", "8", "4", "qkv_context", "flash")
  old = report.row("v3_8", machines["v3_8"])
  assert old.count("|") == len(report.COLUMNS) + 1
  assert "does not compile for TPU v3" in old


@needs_libtpu
def test_two_slices_that_are_not_there(machines):
  """Gradients are summed across slices, parameters are gathered inside them."""
  found = machines["v5e_4x2"]
  assert (found["devices"], found["slices"]) == (8, 2)
  assert found["mesh"] == {"data": 2, "fsdp": 4, "tensor": 1}
  assert "all-gather" in found["collectives_inside_slice"]
  across = found["collectives_across_slices"]
  assert [*across] == ["all-reduce"]
  # Each chip sends its quarter of the gradients, in bfloat16 or float32, in each of
  # the two parts of a step at most.
  quarter = found["parameters"] / 4
  assert 2 * quarter < across["all-reduce"]["bytes"] < 2 * 4 * quarter * 1.1
  assert found["bounds"]["dcn"] == across["all-reduce"]["bytes"] / (6.4e12 / 8 / 256)


def test_simulated_gpus(tiny, monkeypatch, capsys, caplog):
  """The eight devices of this process simulate them."""
  numbers = []
  monkeypatch.setattr(compile.command, "simulate_devices", numbers.append)
  caplog.set_level("INFO", "phi1_jax")
  assert compile.main([tiny, "--topology=h100-4x2"]) == 0
  assert numbers == [8]
  text = capsys.readouterr().out
  assert "attention: xla (cpu, 256" in caplog.text
  lines = dict(line.split("  ", 1) for line in text.splitlines() if "  " in line)
  shown = {name: value.strip() for name, value in lines.items()}
  assert (shown["devices"], shown["slices"]) == ("8", "2")
  assert shown["mesh"] == "data 2; fsdp 4; tensor 1"
  assert (shown["attention"], shown["usable gib"]) == ("flash", "60")
  assert shown["usable because"].startswith("JAX's default")
  assert "CPU devices simulate it: memory is an upper bound" in text
  assert re.fullmatch(
    r"all-reduce \d+ times, [\d.]+ GiB", shown["collectives across slices"]
  )


@pytest.mark.parametrize(
  ("environment", "usable"),
  [
    ({}, 60),
    ({"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}, 60),  # the limit stays
    ({"XLA_CLIENT_MEM_FRACTION": "0.5"}, 40),
    ({"XLA_PYTHON_CLIENT_ALLOCATOR": "platform"}, 80),
  ],
)
def test_memory_that_jax_may_use(monkeypatch, environment, usable):
  for name in ("CLIENT_MEM_FRACTION", "PYTHON_CLIENT_MEM_FRACTION"):
    monkeypatch.delenv(f"XLA_{name}", raising=False)
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  assert account.memory_of("NVIDIA H100 80GB HBM3")[:2] == (80, usable)
  assert account.memory_of("TPU v5 lite") == (16, 16, "")
  assert account.memory_of("cpu") == (None, None, "")


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    ("", "--topology: got none, expected a machine, such as v5e:4x4"),
    ("--topology=v5e-8 --table", "--topology: got it and --table"),
    ("--topology=v9-8", "got 'v9-8', expected one of v2, v3"),
    ("--topology=h100-2x4 --gin.Mesh.dcn_data=2", "Mesh.dcn_data: got 2, .*1 or 4"),
  ],
)
def test_bad_input(tiny, flags, message):
  with pytest.raises(InputError, match=message):
    compile.main([tiny, *flags.split()])


def test_a_share_of_the_memory_that_is_no_number(monkeypatch):
  monkeypatch.setenv("XLA_CLIENT_MEM_FRACTION", "most")
  with pytest.raises(InputError, match="MEM_FRACTION: got 'most', expected a number"):
    account.memory_of("NVIDIA L4")


def test_search_finds_the_fastest_that_fits(tiny):
  # GiB per sequence, and the work that is done again.
  policies = {"none": (8.0, 1.0), "matrices": (4.0, 1.02)}
  policies |= {"qkv_context": (2.0, 1.16), "full": (0.5, 1.3)}
  tried = []

  def measure(config):
    model, size = config.model, config.train.sequences_per_device
    tried.append((model.attention, model.remat, size))
    if model.attention == "cudnn":
      raise InputError("no dropout")
    kept, again = policies[model.remat]
    if 1 + size * kept > 15.75:
      raise InputError("too large")
    slower = 1.5 if model.attention == "xla" else 1.0
    return {"total_gib": 1, "bound_seconds": slower * (again + 0.1 / size)}

  parts = gin_config.load([tiny.partition("=")[2]], [], CONFIGURABLES)
  trials = list(search.search(RunConfig.from_parts(parts), 8, measure))
  best = search.fastest(trials)
  names = ("attention", "remat", "sequences_per_device")
  assert [best[name] for name in names] == ["flash", "matrices", 2]
  # What does not fit at one batch is not tried at a larger one.
  assert [trial[1:] for trial in tried if trial[0] == "flash"] == [
    *(("none", 1), ("none", 2), ("matrices", 2), ("matrices", 4), ("qkv_context", 4)),
    *(("qkv_context", 8), ("full", 8)),
  ]
  assert {x["refused"] for x in trials if x["attention"] == "cudnn"} == {"no dropout"}


@pytest.mark.parametrize(
  "preset", sorted(path.stem for path in Path("gin/meshes").glob("*_[0-9]*.gin"))
)
def test_a_preset_has_a_mesh_for_its_machine(preset):
  """And for any number of such slices or nodes; its macro is the command line's."""
  files = ["gin/pretrain.gin", f"gin/meshes/{preset}.gin"]
  config = RunConfig.from_parts(gin_config.load(files, [], CONFIGURABLES))
  machine = topology.parse(preset.replace("_", "-"))
  for more in (1, 4):
    slices, devices = more * machine.slices, more * machine.num_devices
    data, fsdp, tensor = config.mesh.shape(devices, slices)
    assert (data, fsdp * tensor) == (slices, devices // slices)
    share, at_once = 1024 // devices, config.train.sequences_per_device
    assert at_once > share or share % at_once == 0
  flag = [("SEQUENCES_PER_DEVICE", "3")]
  for recipe in ("pretrain", "quickstart"):  # one has the macro, the other has not
    files[0] = f"gin/{recipe}.gin"
    (train,) = gin_config.load(files, flag, {"Train": TrainConfig}).values()
    assert train.sequences_per_device == 3
