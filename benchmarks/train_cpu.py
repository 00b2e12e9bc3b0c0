"""One training step of the quickstart model on the CPU, against torch.

    python benchmarks/train_cpu.py

Forward, backward, clipping and AdamW on the same shapes, dropouts and threads. Torch
runs transformers' PhiForCausalLM with scaled-dot-product attention and its fused AdamW.
Each side lives in its own process and they take turns, step by step, so a busy machine
disturbs them alike; the printed ratio is the median over pairs of neighbouring steps.

"Memory kept" means that the process does not hand freed memory back to the system,
which would clear it again, page by page, in the next step: XLA takes all temporaries
of a step in one piece, above the size that glibc's malloc keeps.
"""

import argparse
import ast
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

# The sizes of gin/models/micro.gin.
VOCABULARY, LAYERS, HEADS, HEAD_DIM, ROTARY, EMBED, MLP = 2048, 4, 6, 32, 16, 192, 768
BATCH, LENGTH = 16, 256
MEMORY_KEPT = (
  "MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 MALLOC_ARENA_MAX=1"
)
OURS = "scan_layers=False,chunks=4"
LEARNING_RATE, DECAY, BETAS, CLIP = 1e-3, 0.1, (0.9, 0.95), 1.0


def torch_step(dropout: float, threads: int) -> Callable[[], float]:
  """A function that makes one update and returns the loss."""
  import torch
  from transformers import PhiConfig, PhiForCausalLM

  torch.set_num_threads(threads)
  torch.manual_seed(0)
  config = PhiConfig(
    vocab_size=VOCABULARY,
    hidden_size=EMBED,
    intermediate_size=MLP,
    num_hidden_layers=LAYERS,
    num_attention_heads=HEADS,
    max_position_embeddings=LENGTH,
    resid_pdrop=dropout,
    attention_dropout=dropout,
    use_cache=False,
    rope_parameters={
      "rope_type": "default",
      "rope_theta": 10000.0,
      "partial_rotary_factor": ROTARY / HEAD_DIM,
    },
  )
  config._attn_implementation = "sdpa"
  model = PhiForCausalLM(config).train()
  optimizer = torch.optim.AdamW(
    model.parameters(), LEARNING_RATE, BETAS, weight_decay=DECAY, fused=True
  )
  tokens = torch.randint(VOCABULARY, (BATCH, LENGTH + 1))

  def step() -> float:
    optimizer.zero_grad(set_to_none=True)
    logits = model(tokens[:, :-1], use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(
      logits.flatten(0, 1), tokens[:, 1:].flatten()
    )
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    optimizer.step()
    return loss.item()

  return step


def jax_step(dropout: float, changes: dict) -> Callable[[], float]:
  """The trainer's own step; `changes` are fields of ModelConfig, or `chunks`."""
  import jax
  import numpy as np

  from phi1_jax.checkpoint.manager import CheckpointConfig
  from phi1_jax.data.config import DataConfig
  from phi1_jax.model.config import ModelConfig
  from phi1_jax.optim.config import OptimizerConfig
  from phi1_jax.parallel import sharding
  from phi1_jax.parallel.mesh import MeshConfig
  from phi1_jax.training import config, memory, setup, state, step

  chunks = changes.pop("chunks", None)
  rates = {"dropout_rate": dropout, "attention_dropout_rate": dropout}
  sizes = (VOCABULARY, LAYERS, HEADS, HEAD_DIM, ROTARY, EMBED, MLP, LENGTH)
  run = setup.make_setup(
    setup.RunConfig(
      model=ModelConfig(*sizes, **{"dtype": "float32", **rates, **changes}),
      data=DataConfig("none", "none"),
      mesh=MeshConfig(),
      optimizer=OptimizerConfig(LEARNING_RATE, 1, DECAY, *BETAS, clip_norm=CLIP),
      train=config.TrainConfig(10**6, BATCH, LENGTH, head_chunks=chunks),
      checkpoint=CheckpointConfig(),
      runtime=config.RuntimeConfig(),
    ),
    Path(),
  )
  with sharding.layout(run.mesh):
    compiled = memory.compile_step(step.make_train_step(run, 0), run)
    values = state.initialise(run.model, run.optimizer, run.mesh, 0)
  rows = np.random.default_rng(0).integers(0, VOCABULARY, (BATCH, LENGTH + 1))
  tokens = sharding.put_batch(rows.astype(np.int32), run.mesh, BATCH)

  def update() -> float:
    nonlocal values
    values, metrics = jax.block_until_ready(compiled(values, tokens))
    return float(metrics["loss"])

  return update


def serve(step: Callable[[], float]) -> None:
  """Answers every line on stdin with a step's wall seconds, CPU seconds and loss."""
  for _ in range(3):
    step()
  answers = os.fdopen(os.dup(1), "w")
  for _ in sys.stdin:
    wall, cpu = time.perf_counter(), time.process_time()
    loss = step()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(wall, cpu, loss, file=answers, flush=True)


class Worker:
  """A side of the comparison in its own process."""

  def __init__(self, side: str, variables: str, dropout: float):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    environment |= dict(pair.split("=", 1) for pair in variables.split())
    self.process = subprocess.Popen(
      [sys.executable, __file__, f"--serve={side}", f"--dropout={dropout}"],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      env=environment,
    )

  def step(self) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and loss of one step."""
    assert self.process.stdin
    assert self.process.stdout
    self.process.stdin.write("\n")
    self.process.stdin.flush()
    wall, cpu, loss = map(float, self.process.stdout.readline().split())
    return wall, cpu, loss

  def close(self) -> None:
    """Ends the process."""
    assert self.process.stdin
    self.process.stdin.close()
    self.process.wait()


def compare(dropout: float, sides: list[tuple[str, str]], pairs: int) -> None:
  """Prints a line per side, which is a setting and its environment variables.

  Ratios are of speeds, against the first side.
  """
  workers = [Worker(*side, dropout) for side in sides]
  for worker in workers:
    worker.step()  # loaded, compiled and warm
  rounds = [[worker.step() for worker in workers] for _ in range(pairs)]
  for worker in workers:
    worker.close()
  print(f"dropout {dropout}")
  for index, (side, variables) in enumerate(sides):
    walls = [row[index][0] for row in rounds]
    ratio = statistics.median(row[0][0] / row[index][0] for row in rounds)
    least_cpu = min(row[index][1] for row in rounds)
    kept = "memory kept" if variables == MEMORY_KEPT else variables
    print(
      f"  {side:28} {kept:12} {statistics.median(walls) * 1e3:6.0f} ms"
      f"  {BATCH * LENGTH / statistics.median(walls):6.0f} tokens/s"
      f"  speed ratio {ratio:.2f}"
      f"  least wall {min(walls) * 1e3:.0f} ms, cpu {least_cpu * 1e3:.0f} ms"
      f"  loss {rounds[-1][index][2]:.3f}",
      flush=True,
    )


def main() -> None:
  """Parses the command line."""
  parser = argparse.ArgumentParser(description="Training steps on the CPU.")
  parser.add_argument("--pairs", type=int, default=15)
  parser.add_argument("--dropout", type=float, nargs="*", default=[0.1, 0.0])
  parser.add_argument(
    "--variant",
    action="append",
    metavar="FIELD=VALUE,...[;NAME=VALUE ...]",
    help="another setting of ours to compare: fields, then environment variables",
  )
  parser.add_argument("--serve", help=argparse.SUPPRESS)
  arguments = parser.parse_args()
  if arguments.serve is not None:
    serve(_step(arguments.serve, arguments.dropout[0]))
    return
  variants = [variant.partition(";") for variant in arguments.variant or []]
  sides = [
    ("torch", ""),
    ("torch", MEMORY_KEPT),
    (OURS, ""),
    (OURS, MEMORY_KEPT),
    *((settings, variables) for settings, _, variables in variants),
  ]
  for dropout in arguments.dropout:
    compare(dropout, sides, arguments.pairs)


def _step(side: str, dropout: float) -> Callable[[], float]:
  if side == "torch":
    return torch_step(dropout, os.cpu_count() or 1)
  pairs = (pair.split("=", 1) for pair in side.split(",") if pair)
  return jax_step(dropout, {name: ast.literal_eval(value) for name, value in pairs})


if __name__ == "__main__":
  main()
