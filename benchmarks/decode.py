"""Decoding with the sampler against transformers' `generate`, on the same weights.

    python benchmarks/decode.py --size=small --batch=16

Greedy, float32, no end of text, so both sides choose the same number of tokens; the
tokens themselves are compared. Each side lives in a process of its own and they take
turns, so a busy machine disturbs them alike; the printed ratio is the median over
pairs of neighbouring runs. On an accelerator (`--ours_only`) prints tokens/s and how
much of the memory's bandwidth reading weights and cache took.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PROMPT, NEW = 64, 64
# vocabulary, layers, heads, head_dim, rotary, embed, mlp
SIZES = {
  "micro": (2048, 4, 6, 32, 16, 192, 768),
  "small": (51200, 20, 16, 64, 32, 1024, 4096),
  "phi1": (51200, 24, 32, 64, 32, 2048, 8192),
}


def torch_side(arguments: argparse.Namespace, weights: Path):
  """A function that generates for the given prompts with transformers."""
  import torch
  from transformers import PhiConfig, PhiForCausalLM

  vocabulary, layers, heads, head_dim, rotary, embed, mlp = SIZES[arguments.size]
  torch.manual_seed(0)
  config = PhiConfig(
    vocab_size=vocabulary,
    hidden_size=embed,
    intermediate_size=mlp,
    num_hidden_layers=layers,
    num_attention_heads=heads,
    max_position_embeddings=PROMPT + NEW,
    rope_parameters={
      "rope_type": "default",
      "rope_theta": 10000.0,
      "partial_rotary_factor": rotary / head_dim,
    },
    bos_token_id=None,
    eos_token_id=None,
    pad_token_id=0,
  )
  config._attn_implementation = "sdpa"
  model: Any = PhiForCausalLM(config).eval()
  # With a head of this size a random model's choices are not ties.
  torch.nn.init.normal_(model.lm_head.weight, std=0.2)
  model.save_pretrained(weights)

  def generate(prompts: list[list[int]]) -> list[list[int]]:
    with torch.inference_mode():
      ids = torch.tensor(prompts)
      out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=NEW,
        do_sample=False,
        use_cache=True,
      )
    return out[:, PROMPT:].tolist()

  return generate


def our_side(arguments: argparse.Namespace, weights: Path | None):
  """A function that decodes the given prompts with the sampler."""
  import jax
  import numpy as np
  from flax import linen as nn

  from phi1_jax.interop import from_hf
  from phi1_jax.model.config import ModelConfig
  from phi1_jax.model.decoder import Decoder
  from phi1_jax.parallel.mesh import MeshConfig, make_mesh
  from phi1_jax.sampling import methods
  from phi1_jax.sampling.checkpoint import Loaded, copies
  from phi1_jax.sampling.sampler import Request, Sampler

  config = ModelConfig(
    *SIZES[arguments.size], PROMPT + NEW, dtype=arguments.dtype, scan_layers=True
  )

  class Ids:
    """Stands for a tokenizer: a text is its ids in decimal."""

    vocabulary_size, eos_id = config.vocabulary_size, -2

    def encode_batch(self, texts):
      return [[int(word) for word in text.split()] for text in texts]

    def decode(self, ids):
      return " ".join(map(str, ids))

  mesh = make_mesh(MeshConfig(-1, 1, 1, cpu_devices=copies(config.num_parameters())))
  if weights is None:
    init = jax.jit(
      lambda key: nn.unbox(Decoder(config).init(key, np.zeros((1, 1), int)))
    )
    params = init(jax.random.key(0))["params"]
  else:
    source = from_hf.open_source(weights)
    params, _ = from_hf.load(source, mesh, lambda num_bytes: None)
  ids: Any = Ids()
  loaded = Loaded(config, params, ids, mesh, "")
  sampler = Sampler(
    loaded, methods.Method(), slots=arguments.batch, steps=NEW, consume=weights is None
  )
  del params, loaded

  def generate(prompts: list[list[int]]) -> list[list[int]]:
    requests = [
      Request(str(i), " ".join(map(str, prompt)), NEW)
      for i, prompt in enumerate(prompts)
    ]
    done = {int(c.key): list(c.tokens) for c in sampler.complete(requests)}
    return [done[i] for i in range(len(prompts))]

  return generate


def serve(arguments: argparse.Namespace) -> None:
  """Answers every line on stdin (prompts) with seconds and the tokens chosen."""
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)
  weights = Path(arguments.weights) if arguments.weights else None
  if arguments.serve == "torch":
    assert weights
    generate = torch_side(arguments, weights)
  else:
    generate = our_side(arguments, weights)
  for line in sys.stdin:
    started = time.perf_counter()
    tokens = generate(json.loads(line))
    seconds = time.perf_counter() - started
    print(json.dumps([seconds, tokens]), file=answers, flush=True)


class Worker:
  """One side in its own process."""

  def __init__(self, side: str, arguments: argparse.Namespace, weights: str):
    flags = [f"--size={arguments.size}", f"--batch={arguments.batch}"]
    flags += [f"--dtype={arguments.dtype}", f"--weights={weights}"]
    self.process = subprocess.Popen(
      [sys.executable, __file__, f"--serve={side}", *flags],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )

  def generate(self, prompts: list[list[int]]) -> tuple[float, list[list[int]]]:
    """Seconds and tokens of one run."""
    assert self.process.stdin
    assert self.process.stdout
    self.process.stdin.write(json.dumps(prompts) + "\n")
    self.process.stdin.flush()
    seconds, tokens = json.loads(self.process.stdout.readline())
    return seconds, tokens

  def close(self) -> None:
    """Ends the process."""
    assert self.process.stdin
    self.process.stdin.close()
    self.process.wait()


def compare(arguments: argparse.Namespace, prompts: list[list[int]]) -> None:
  """Prints both sides' speed, the ratio, and whether they chose the same tokens."""
  with tempfile.TemporaryDirectory() as weights:
    torch = Worker("torch", arguments, weights)
    torch.generate(prompts)  # has saved its weights by then
    ours = Worker("ours", arguments, weights)
    ours.generate(prompts)
    pairs = [
      (torch.generate(prompts), ours.generate(prompts)) for _ in range(arguments.pairs)
    ]
    torch.close()
    ours.close()
  (_, theirs), (_, mine) = pairs[-1]
  same = sum(a == b for a, b in zip(theirs, mine, strict=True))
  tokens = arguments.batch * NEW
  for name, side in (("transformers", 0), ("ours", 1)):
    median = statistics.median(pair[side][0] for pair in pairs)
    print(f"{name:13} {tokens / median:8.1f} tokens/s  ({median:.2f} s)")
  ratio = statistics.median(a[0] / b[0] for a, b in pairs)
  print(
    f"{arguments.size}, batch {arguments.batch}, {arguments.pairs} pairs: speed ratio "
    f"{ratio:.2f}; {same} of {arguments.batch} texts equal"
  )


def measure(arguments: argparse.Namespace, prompts: list[list[int]]) -> None:
  """Prints our tokens/s and the share of memory bandwidth, on this accelerator."""
  import jax

  from phi1_jax.telemetry import throughput

  generate = our_side(arguments, None)
  generate(prompts)
  seconds = []
  for _ in range(arguments.pairs):
    started = time.perf_counter()
    generate(prompts)
    seconds.append(time.perf_counter() - started)
  median = statistics.median(seconds)
  vocabulary, layers, heads, head_dim, _, embed, mlp = SIZES[arguments.size]
  width = {"float32": 4, "bfloat16": 2, "float16": 2}[arguments.dtype]
  matrices = layers * (4 * embed * heads * head_dim + 2 * embed * mlp)
  cache = 2 * layers * heads * head_dim * (PROMPT + NEW) * arguments.batch
  read = width * (matrices + vocabulary * embed + cache)
  kind = jax.devices()[0].device_kind
  device = throughput.DEVICES.get(kind)
  peak = device and device.hbm_bytes_per_second / 1e9
  rate = read * NEW / median / 1e9
  share = f"{rate / peak:.0%} of {peak:.0f} GB/s" if peak else "peak unknown"
  print(
    f"{kind}, {arguments.size}, {arguments.dtype}, batch {arguments.batch}: "
    f"{arguments.batch * NEW / median:.0f} tokens/s, {median / NEW * 1e3:.2f} ms a "
    f"step (prefill included), {rate:.0f} GB/s read: {share}"
  )


def main() -> None:
  """Parses the command line."""
  parser = argparse.ArgumentParser(description="Decoding speed.")
  parser.add_argument("--size", choices=SIZES, default="small")
  parser.add_argument("--batch", type=int, default=16)
  parser.add_argument("--pairs", type=int, default=5)
  parser.add_argument("--dtype", default="float32")
  parser.add_argument("--ours_only", action="store_true")
  parser.add_argument("--serve", help=argparse.SUPPRESS)
  parser.add_argument("--weights", help=argparse.SUPPRESS)
  arguments = parser.parse_args()
  if arguments.serve:
    serve(arguments)
    return
  vocabulary = SIZES[arguments.size][0]
  prompts = [
    [(7919 * row + 104729 * place) % vocabulary for place in range(PROMPT)]
    for row in range(arguments.batch)
  ]
  (measure if arguments.ours_only else compare)(arguments, prompts)


if __name__ == "__main__":
  main()
