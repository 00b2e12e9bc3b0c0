import dataclasses
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from phi1_jax import InputError
from phi1_jax.checkpoint.manager import CheckpointConfig, Checkpoints
from phi1_jax.interop import from_hf, to_hf


def ignore(_):
  pass


def export(checkpoint, out, dtype="float32", max_shard_bytes=10**9):
  to_hf.convert(to_hf.open_source(str(checkpoint)), out, dtype, max_shard_bytes, ignore)
  return out


@pytest.fixture(scope="module")
def checkpoint(twins, model, tmp_path_factory):
  """A work directory made from the model."""
  path = tmp_path_factory.mktemp("run")
  source = from_hf.open_source(twins.save(model, path / "hf"))
  from_hf.convert(source, path / "run", ignore, ignore)
  return path / "run"


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
  source = from_hf.open_source(twins.save(model, tmp_path / "hf"))
  from_hf.convert(source, tmp_path / "run", ignore, ignore)
  out = export(tmp_path / "run", tmp_path / "again")
  assert "lm_head.weight" not in load_file(out / "model.safetensors")
  again = AutoModelForCausalLM.from_pretrained(out)
  assert again.lm_head.weight is again.model.embed_tokens.weight
  np.testing.assert_array_equal(twins.logits(again), twins.logits(model))


def test_codegen_becomes_a_phi_with_the_same_logits(twins, tmp_path):
  model = twins.codegen()
  source = from_hf.open_source(twins.save(model, tmp_path / "codegen"))
  from_hf.convert(source, tmp_path / "run", ignore, ignore)
  again = AutoModelForCausalLM.from_pretrained(
    export(tmp_path / "run", tmp_path / "phi")
  )
  assert again.config.model_type == "phi"
  np.testing.assert_allclose(twins.logits(again), twins.logits(model), atol=2e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_come_back_as_they_were(twins, tmp_path, dtype):
  half = twins.phi().to(getattr(torch, dtype))
  source = from_hf.open_source(twins.save(half, tmp_path / "hf"))
  from_hf.convert(source, tmp_path / "run", ignore, ignore)
  out = export(tmp_path / "run", tmp_path / "again", dtype)
  same_bits(load_file(out / "model.safetensors"), dict(half.state_dict()))
  again = AutoModelForCausalLM.from_pretrained(out, dtype="auto")
  assert again.dtype == getattr(torch, dtype)


def test_a_train_state_on_several_devices(twins, model, checkpoint, tmp_path):
  """What training saves holds more than parameters, split over its devices."""
  source = from_hf.open_source(checkpoint.parent / "hf")
  params, _ = from_hf.load(source, from_hf.device_mesh(source.config), ignore)
  assert len(params["embedding"]["embedding"].sharding.device_set) == 8
  meta = {
    "config": {"model": dataclasses.asdict(source.config), "train": {"seed": 0}},
    "tokenizer": twins.small_tokenizer().digest,
  }
  run = Checkpoints(tmp_path / "run" / "checkpoints", CheckpointConfig())
  state = {"step": jnp.asarray(7), "params": params, "optimizer": {"mean": params}}
  run.save(7, state, meta)
  run.close()
  shutil.copy(checkpoint / "tokenizer.json", tmp_path / "run")
  out = export(tmp_path / "run" / "checkpoints" / "7", tmp_path / "hf")
  same_bits(load_file(out / "model.safetensors"), dict(model.state_dict()))


def run_with(twins, folder, name, value):
  """A work directory whose checkpoint has one unusual value."""
  source = from_hf.open_source(twins.save(twins.phi(), folder / "hf"))
  params, _ = from_hf.load(source, from_hf.device_mesh(source.config), ignore)
  params["head"][name] = params["head"][name].at[..., 3].set(value)
  meta = {
    "config": {"model": dataclasses.asdict(source.config)},
    "tokenizer": twins.small_tokenizer().digest,
  }
  with Checkpoints(folder / "checkpoints", CheckpointConfig()) as run:
    run.save(1, {"params": params}, meta)
  twins.small_tokenizer().save(folder / "tokenizer.json")
  return folder


def test_numbers_that_the_dtype_cannot_hold(twins, tmp_path):
  run = run_with(twins, tmp_path / "run", "bias", -7e4)
  with pytest.raises(InputError, match=r"lm_head\.bias holds 7e\+04, which float16"):
    export(run, tmp_path / "hf", "float16")
  assert [path.name for path in tmp_path.iterdir()] == ["run"]
  out = export(run, tmp_path / "hf", "bfloat16")
  biases = load_file(out / "model.safetensors")
  assert biases["lm_head.bias"][3] == torch.tensor(-7e4).bfloat16()


@pytest.mark.parametrize(
  ("value", "dtype"), [(np.nan, "float32"), (-np.inf, "float16")]
)
def test_a_checkpoint_that_is_not_finite(twins, tmp_path, value, dtype):
  run = run_with(twins, tmp_path / "run", "bias", value)
  with pytest.raises(InputError, match=r"lm_head\.bias holds 1 values of 320 that"):
    export(run, tmp_path / "hf", dtype)
  assert not (tmp_path / "hf").exists()


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
