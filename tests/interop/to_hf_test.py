"""A checkpoint of ours as a model of Hugging Face: the same bits and logits."""

import dataclasses
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from phi1_jax import InputError
from phi1_jax.checkpoint.checkpoint import Checkpoint
from phi1_jax.checkpoint.manager import CheckpointConfig, Checkpoints
from phi1_jax.interop import from_hf, to_hf


def export(checkpoint, out, dtype="float32"):
  to_hf.convert(Checkpoint.find(str(checkpoint)), out, dtype, 10**9, print)
  return out


def imported(twins, model, path):
  """A work directory made from a model."""
  source = from_hf.open_source(twins.save(model, path / "hf"))
  from_hf.convert(source, path / "run", print, print)
  return path / "run"


@pytest.fixture(scope="module")
def checkpoint(twins, model, tmp_path_factory):
  return imported(twins, model, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def folder(checkpoint, tmp_path_factory):
  return export(checkpoint, tmp_path_factory.mktemp("again") / "hf")


def same_bits(got, expected):
  assert got.keys() == expected.keys()
  for name, x in expected.items():
    assert got[name].dtype == x.dtype, name
    assert torch.equal(got[name].view(torch.uint8), x.view(torch.uint8)), name


def test_transformers_loads_what_it_saved(twins, model, folder):
  again = AutoModelForCausalLM.from_pretrained(folder)
  same_bits(again.state_dict(), model.state_dict())
  np.testing.assert_array_equal(twins.logits(again), twins.logits(model))
  text = "def f(x):\n    return x\n"
  ids = AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
  assert ids == twins.small_tokenizer().encode(text)
  eos = twins.small_tokenizer().eos_id
  assert again.generation_config.eos_token_id == again.config.eos_token_id == eos


def test_a_tied_head_stays_tied(twins, tmp_path):
  model = twins.phi(dataclasses.replace(twins.CONFIG, tie_embeddings=True))
  out = export(imported(twins, model, tmp_path), tmp_path / "again")
  assert "lm_head.weight" not in load_file(out / "model.safetensors")
  again = AutoModelForCausalLM.from_pretrained(out)
  assert again.lm_head.weight is again.model.embed_tokens.weight
  np.testing.assert_array_equal(twins.logits(again), twins.logits(model))


@pytest.mark.parametrize(("heads", "rotary_dim"), [(4, 6), (12, 2)])
def test_codegen_becomes_a_phi_with_the_same_logits(twins, tmp_path, heads, rotary_dim):
  """Both ways: its biases are zero, and its heads are in our order."""
  model = twins.codegen(heads, rotary_dim)
  out = export(imported(twins, model, tmp_path), tmp_path / "phi")
  again = AutoModelForCausalLM.from_pretrained(out)
  assert again.config.model_type == "phi"
  np.testing.assert_allclose(twins.logits(again), twins.logits(model), atol=2e-5)


def test_halves_come_back_as_they_were(twins, tmp_path):
  half = twins.phi().bfloat16()
  out = export(imported(twins, half, tmp_path), tmp_path / "again", "bfloat16")
  same_bits(load_file(out / "model.safetensors"), dict(half.state_dict()))
  again = AutoModelForCausalLM.from_pretrained(out, dtype="auto")
  assert again.dtype == torch.bfloat16


@pytest.fixture(scope="module")
def trained(twins, checkpoint):
  """trained(folder, value) saves a train state, split over devices, with a bias."""
  source = from_hf.open_source(checkpoint.parent / "hf")
  params, _ = from_hf.load(source, from_hf.device_mesh(source.config), print)
  assert len(params["embedding"]["embedding"].sharding.device_set) == 8
  config = {"model": dataclasses.asdict(source.config), "train": {"seed": 0}}
  meta = {"config": config, "tokenizer": twins.small_tokenizer().digest}

  def save(folder, value=None):
    bias = params["head"]["bias"]
    bias = bias if value is None else bias.at[3].set(value)
    changed = {**params, "head": {**params["head"], "bias": bias}}
    state = {"step": jnp.asarray(7), "params": changed, "optimizer": {"mean": params}}
    with Checkpoints(folder / "checkpoints", CheckpointConfig()) as run:
      run.save(7, state, meta)
    shutil.copy(checkpoint / "tokenizer.json", folder)
    return folder

  return save


def test_a_train_state_on_several_devices(model, trained, tmp_path):
  """What training saves holds more than parameters, split over its devices."""
  run = trained(tmp_path / "run")
  out = export(run / "checkpoints" / "7", tmp_path / "hf")
  same_bits(load_file(out / "model.safetensors"), dict(model.state_dict()))


@pytest.mark.parametrize(
  ("value", "dtype", "says"),
  [
    (-7e4, "bfloat16", None),
    (-7e4, "float16", r"lm_head\.bias holds 7e\+04, which float16"),
  ],
)
def test_numbers_that_the_dtype_cannot_hold(trained, tmp_path, value, dtype, says):
  run = trained(tmp_path / "run", value)
  if says:
    with pytest.raises(InputError, match=says):
      export(run, tmp_path / "hf", dtype)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
  else:
    biases = load_file(export(run, tmp_path / "hf", dtype) / "model.safetensors")
    assert biases["lm_head.bias"][3] == torch.tensor(value).bfloat16()


def test_a_damaged_checkpoint_is_refused_and_leaves_nothing(checkpoint, tmp_path):
  run = shutil.copytree(checkpoint, tmp_path / "run")
  data = run / "checkpoints" / "0" / "state" / "d"
  path = max(data.iterdir(), key=lambda path: path.stat().st_size)
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)
  with pytest.raises(InputError, match="damaged checkpoint"):
    export(run, tmp_path / "hf")
  assert [path.name for path in tmp_path.iterdir()] == ["run"]
