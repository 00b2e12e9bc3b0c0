"""Models of Hugging Face as checkpoints of ours: logits, gradients, refusals."""

import dataclasses
import hashlib
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from phi1_jax import InputError
from phi1_jax.checkpoint.checkpoint import Checkpoint
from phi1_jax.interop import from_hf, layouts
from phi1_jax.model import decoder
from phi1_jax.model.config import ModelConfig
from phi1_jax.parallel.mesh import MeshConfig, make_mesh


def load(folder, devices=1, **options):
  source = from_hf.open_source(folder, **options)
  mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
  return source, *from_hf.load(source, mesh, print)


def logits(source, params, tokens):
  config = dataclasses.replace(source.config, dtype="float32")
  return jax.jit(decoder.Decoder(config).apply)({"params": params}, tokens)


@pytest.fixture(scope="module")
def folder(twins, model, tmp_path_factory):
  return twins.save(model, tmp_path_factory.mktemp("hf") / "phi")


@pytest.fixture(scope="module")
def params(folder):
  return load(folder)[1]


def assert_equal(got, expected):
  jax.tree.map(np.testing.assert_array_equal, got, expected)


@pytest.mark.parametrize(
  ("sizes", "tied"),  # vocabulary, layers, heads, head_dim, rotary_dim, embed, mlp, ..
  [((97, 3, 2, 11, 6, 13, 31, 19), False), ((53, 1, 5, 4, 4, 20, 17, 7), True)],
)
def test_logits_and_every_gradient_equal_the_twin(twins, tmp_path, sizes, tied):
  config = ModelConfig(
    *sizes, dtype="float32", rope_base=500.0, initializer_range=0.2, tie_embeddings=tied
  )
  model = twins.phi(config)
  source, params, _ = load(twins.save(model, tmp_path / "hf"))
  assert source.config == dataclasses.replace(
    config, dropout_rate=0.0, attention_dropout_rate=0.0
  )
  assert (source.layout.name, source.dtypes) == ("phi", ("float32",))
  shape = 3, config.max_length
  tokens = np.random.default_rng(1).integers(0, config.vocabulary_size, shape)
  targets = np.roll(tokens, -1, axis=1)

  def loss(params):
    found = logits(source, params, tokens)
    log_p = jax.nn.log_softmax(found)
    return -jnp.mean(jnp.take_along_axis(log_p, targets[..., None], -1)), found

  (_, ours), gradients = jax.value_and_grad(loss, has_aux=True)(params)
  theirs = model(torch.tensor(tokens)).logits
  torch.nn.functional.cross_entropy(
    theirs.flatten(0, 1), torch.tensor(targets).flatten()
  ).backward()
  np.testing.assert_allclose(ours, theirs.detach().numpy(), atol=2e-5)
  arrays = layouts.flatten(jax.tree.map(np.asarray, gradients))
  tensors = source.layout.tensors(source.config)
  for name, parameter in model.named_parameters():
    tensor = tensors.pop(name)
    np.testing.assert_allclose(
      tensor.read(arrays[tensor.path]), parameter.grad, atol=1e-5, err_msg=name
    )
  assert not tensors


@pytest.mark.parametrize("layout", layouts.LAYOUTS[1:4], ids=lambda x: x.name)
def test_older_layouts_give_the_same_parameters(
  twins, folder, params, tmp_path, layout
):
  arrays = layouts.flatten(jax.tree.map(np.asarray, params))
  tensors = layout.tensors(twins.CONFIG)
  old = {name: torch.tensor(x.read(arrays[x.path])) for name, x in tensors.items()}
  # Of the rows of Wqkv, queries come first, then keys, then values.
  phi = layouts.PHI.tensors(twins.CONFIG)
  apart = [phi[f"model.layers.0.self_attn.{name}_proj.weight"] for name in "qkv"]
  fused = next(x for name, x in old.items() if name.endswith("Wqkv.weight"))
  expected = np.concatenate([x.read(arrays[x.path]) for x in apart])
  np.testing.assert_array_equal(fused, expected)
  for buffer in ("mixer.rotary_emb.inv_freq", "attn.causal_mask"):
    old[f"transformer.h.0.{buffer}"] = torch.ones(3)
  (tmp_path / "old").mkdir()
  save_file(old, tmp_path / "old" / "model.safetensors")
  content = {"model_type": layout.model_type, "activation_function": "gelu_new"}
  content |= {"vocab_size": 320, "n_embd": 48, "n_head": 4, "n_inner": 40, "n_layer": 3}
  content |= {"n_positions": 24, "rotary_dim": 6, "initializer_range": 0.2}
  (tmp_path / "old" / "config.json").write_text(json.dumps(content))
  source, got, _ = load(tmp_path / "old")
  assert source.layout is layout
  assert source.config == from_hf.open_source(folder).config
  assert_equal(got, params)


@pytest.mark.parametrize("shape", [(1, 8, 1), (2, 2, 2)])
def test_the_same_arrays_on_eight_devices(folder, params, shape):
  source = from_hf.open_source(folder)
  got, _ = from_hf.load(source, make_mesh(MeshConfig(*shape)), print)
  assert_equal(got, params)
  kernel = got["layers"]["attention"]["qkv"]["kernel"]
  _, fsdp, tensor = shape
  part = (3, 48 // fsdp, 3, 4 // tensor, 12)
  assert {x.data.shape for x in kernel.addressable_shards} == {part}
  # As many devices as divide a tensor.
  for embed_dim, devices in ((48, 8), (12, 4), (5, 1)):
    config = ModelConfig(31, 1, 1, 4, 2, embed_dim, 3, 5)
    assert from_hf.device_mesh(config).size == devices


def changed(folder, change, dtype=torch.float32):
  """Change the tensors of a folder."""
  tensors = load_file(folder / "model.safetensors")
  tensors = {name: x.to(dtype) for name, x in tensors.items()}
  change(tensors)
  save_file(tensors, folder / "model.safetensors")
  return folder


def test_imports_into_the_dtype_that_is_asked_for(folder, params):
  _, got, _ = load(folder, param_dtype="bfloat16")
  assert_equal(got, jax.tree.map(lambda x: x.astype(jnp.bfloat16), params))
  assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize(
  ("value", "stored", "dtype", "says"),
  [
    (65519.0, torch.float32, "float16", None),  # the largest that rounds to one
    (65520.0, torch.float32, "float16", r"holds 6.55e\+04, which float16"),
    (float("nan"), torch.float32, "float32", "holds 1 values of 320 that"),
    (float("inf"), torch.bfloat16, "float32", "holds 1 values of 320 that"),
  ],
)
def test_numbers_that_the_dtype_cannot_hold(
  model, twins, tmp_path, value, stored, dtype, says
):
  def change(tensors):
    tensors["lm_head.bias"][7] = value

  folder = changed(twins.save(model, tmp_path / "hf"), change, stored)
  if says:
    source = from_hf.open_source(folder, param_dtype=dtype)
    with pytest.raises(InputError, match=rf"hf: lm_head\.bias {says}"):
      from_hf.convert(source, tmp_path / "out", print, print)
    assert not (tmp_path / "out").exists()
  else:
    assert load(folder, param_dtype=dtype)[1]["head"]["bias"][7] == 65504


@pytest.mark.parametrize(
  ("said", "computed"),
  [
    ({"dtype": "float32"}, "float32"),
    ({"torch_dtype": "float16"}, "bfloat16"),
    ({}, "float32"),  # as its tensors are
  ],
)
def test_a_float32_model_is_computed_in_float32(folder, tmp_path, said, computed):
  copied = shutil.copytree(folder, tmp_path / "hf")
  content = json.loads((copied / "config.json").read_text())
  content = {k: v for k, v in content.items() if k not in ("dtype", "torch_dtype")}
  (copied / "config.json").write_text(json.dumps(content | said))
  assert from_hf.open_source(copied).config.dtype == computed


def test_the_checkpoint(twins, folder, params, tmp_path):
  source = from_hf.open_source(folder)
  seen, said = [], []
  from_hf.convert(source, tmp_path / "out", seen.append, said.append)
  assert sum(seen) == source.num_bytes == 4 * source.config.num_parameters()
  assert said[0] == "tokenizer: tokenizer.json (300 ids)"
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), params
  )
  needed = {  # what training asks of a checkpoint that it starts from
    "model_shape": source.config.shape(),
    "tokenizer": twins.small_tokenizer().digest,
  }
  made = Checkpoint.find(str(tmp_path / "out"))
  state, meta = made.restore({"params": abstract}, needed), made.meta
  assert_equal(state["params"], params)
  assert ModelConfig(**meta["config"]["model"]) == source.config
  assert (meta["step"], meta["tokens_seen"], meta["store"]) == (0, 0, None)
  digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
  facts = {"folder": "phi", "layout": "phi", "dtypes": ["float32"]}
  assert meta["provenance"] == {**facts, "sha256": {"model.safetensors": digest}}


def test_everything_that_does_not_fit_is_listed(twins, model, tmp_path):
  def change(tensors):
    del tensors["model.embed_tokens.weight"]
    del tensors["model.layers.1.mlp.fc2.bias"]
    tensors["lm_head.bias"] = torch.zeros(5)
    tensors["lm_head.lora_A"] = torch.zeros(2, 3)
    tensors["model.final_layernorm.bias"] = torch.zeros(48, dtype=torch.float64)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(3)

  folder = changed(twins.save(model, tmp_path / "bad"), change)
  with pytest.raises(InputError, match="5 tensors are not those of phi") as refused:
    from_hf.open_source(folder)
  assert sorted(str(refused.value).splitlines()[1:]) == [
    "  dtype: model.final_layernorm.bias, got F64, expected F32, F16, BF16",
    "  missing: model.embed_tokens.weight, expected (320, 48)",
    "  missing: model.layers.1.mlp.fc2.bias, expected (48,)",
    "  shape: lm_head.bias, got (5,), expected (320,)",
    "  unknown: lm_head.lora_A, got (2, 3)",
  ]
