"""Training steps of ours against torch's, and what each of our settings buys.

    python benchmarks/train.py                                     the quickstart model
    python benchmarks/train.py --gin_file=gin/pretrain.gin --steps=100 --pairs=3
    python benchmarks/train.py --ours_only --set Model.remat=full \\
      --set Model.scan_layers=False,Train.head_chunks=4

One device, one step over the sequences that the recipe lets a device hold at a time
(`Train.sequences_per_device`, else the batch): forward, backward, clipping, AdamW.
Ours is the trainer's own compiled step. Torch runs transformers' PhiForCausalLM of
the same sizes and dropouts with scaled-dot-product attention and fused AdamW; where
the recipe computes in bfloat16, under autocast; on a GPU, compiled by torch.compile.

On the CPU each side is a process and they take turns step by step, so that a busy
machine disturbs them alike. A GPU has no room for both: whole processes take turns,
each does --steps steps, --pairs times over. Ratios are of speeds, against the first
line, the median over turns. Losses differ: ours warms its learning rate up. "Memory
kept" means that freed memory is not handed back to the system, which would clear it
again, page by page, in the next step; our trainer does that by itself.

One H200, bfloat16, phi-1 at 2048 tokens, both sides and then settings of ours:

    python benchmarks/train.py --gin_file=gin/pretrain.gin --steps=100 --pairs=3
    python benchmarks/train.py --gin_file=gin/pretrain.gin --steps=100 --pairs=3 \\
      --ours_only --dropout 0 --set Model.remat=none --set Model.remat=full \\
      --set Model.attention=cudnn --set Train.head_chunks=16 \\
      --set Train.sequences_per_device=16 --set Model.scan_layers=False

Those numbers wait for the hardware. Our side needs JAX, Flax, Optax, Orbax and NumPy.
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from phi1_jax.cli import command, gin_config
from phi1_jax.data.loader import train_batches
from phi1_jax.data.token_store import TokenStore
from phi1_jax.telemetry.throughput import model_flops_utilisation
from phi1_jax.training import setup

MEMORY_KEPT = {
  "MALLOC_MMAP_MAX_": "0",
  "MALLOC_TRIM_THRESHOLD_": "100000000000",
  "MALLOC_ARENA_MAX": "1",
}
WARM_UP = 3


@dataclasses.dataclass(frozen=True)
class Side:
  """One line of the table.

  Attributes:
    name: what the table calls it.
    library: "torch" or "ours".
    bindings: gin bindings over those of the command line.
    environment: variables of its process.
  """

  name: str
  library: str
  bindings: tuple[str, ...] = ()
  environment: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Program:
  """What a side runs.

  Attributes:
    step: (one window batch [B, T + 1]) -> its loss, perhaps not computed yet.
    wait: loss -> float, when all steps so far are done.
    device: `device_kind`, as `throughput.DEVICES` names it.
    peak: bytes of device memory at most in use so far, None on a CPU.
  """

  step: Callable[[np.ndarray], Any]
  wait: Callable[[Any], float]
  device: str
  peak: Callable[[], int | None]


def ours(config: setup.RunConfig) -> Program:
  """The trainer's own step."""
  import jax

  from phi1_jax.parallel import sharding
  from phi1_jax.training import memory, state
  from phi1_jax.training.step import make_train_step

  memory.keep_freed_memory()
  device = jax.devices()[0]
  run = setup.make_setup(config, Path(), [device])
  with sharding.layout(run.mesh):
    compiled = memory.compile_step(make_train_step(run, 0), run)
    values = state.initialise(run.model, run.optimizer, run.mesh, config.train.seed)

  def step(windows: np.ndarray) -> Any:
    nonlocal values
    batch = sharding.put_batch(windows, run.mesh, config.train.batch_size)
    values, metrics = compiled(values, batch)
    return metrics["loss"]

  def peak() -> int | None:
    return (device.memory_stats() or {}).get("peak_bytes_in_use")

  return Program(step, float, device.device_kind, peak)


def torchs(config: setup.RunConfig) -> Program:
  """The same update of transformers' phi, as its users would write it."""
  import torch
  from transformers import PhiForCausalLM

  torch.set_num_threads(os.cpu_count() or 1)
  torch.manual_seed(config.train.seed)
  on_gpu = torch.cuda.is_available()
  device = torch.device("cuda" if on_gpu else "cpu")
  model: Any = PhiForCausalLM(_phi_config(config))
  model.train().to(device)
  rates = config.optimizer
  optimizer = torch.optim.AdamW(
    model.parameters(),
    rates.peak_learning_rate,
    (rates.beta1, rates.beta2),
    weight_decay=rates.weight_decay,
    fused=True,
  )
  narrow = config.model.dtype == "bfloat16"

  def loss_of(tokens):
    with torch.autocast(device.type, torch.bfloat16, enabled=narrow):
      logits = model(tokens[:, :-1], use_cache=False).logits
    targets = tokens[:, 1:].flatten()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets)

  if on_gpu:
    torch.set_float32_matmul_precision("high")
    loss_of = torch.compile(loss_of)

  def step(windows: np.ndarray) -> Any:
    tokens = torch.from_numpy(windows).long().to(device, non_blocking=True)
    optimizer.zero_grad(set_to_none=True)
    loss = loss_of(tokens)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), rates.clip_norm)
    optimizer.step()
    return loss.detach()

  def wait(loss: Any) -> float:
    if on_gpu:
      torch.cuda.synchronize()
    return loss.item()

  return Program(
    step,
    wait,
    torch.cuda.get_device_name() if on_gpu else "cpu",
    lambda: torch.cuda.max_memory_allocated() if on_gpu else None,
  )


def _phi_config(config: setup.RunConfig) -> Any:
  from transformers import PhiConfig

  model = config.model
  phi = PhiConfig(
    vocab_size=model.vocabulary_size,
    hidden_size=model.embed_dim,
    intermediate_size=model.mlp_dim,
    num_hidden_layers=model.num_layers,
    num_attention_heads=model.num_heads,
    max_position_embeddings=model.max_length,
    layer_norm_eps=model.layer_norm_epsilon,
    resid_pdrop=model.dropout_rate,
    attention_dropout=model.attention_dropout_rate,
    use_cache=False,
    rope_parameters={
      "rope_type": "default",
      "rope_theta": model.rope_base,
      "partial_rotary_factor": model.rotary_dim / model.head_dim,
    },
  )
  phi._attn_implementation = "sdpa"
  return phi


def windows(config: setup.RunConfig, store: str | None) -> Iterator[np.ndarray]:
  """Batches of a token store, or the same random one for ever."""
  batch, length = config.train.batch_size, config.train.sequence_length
  if store:
    opened = TokenStore.open(store)
    return train_batches(opened, batch_size=batch, sequence_length=length, seed=0)
  ids = np.random.default_rng(0).integers(
    config.model.vocabulary_size, size=(batch, length + 1), dtype=np.int32
  )
  return itertools.repeat(ids)


def load(arguments: argparse.Namespace, dropout: float | None) -> setup.RunConfig:
  """The recipe, with the batch that one device holds at a time."""
  bindings = list(arguments.gin_bindings)
  if dropout is not None:
    names = ("Model.dropout_rate", "Model.attention_dropout_rate")
    bindings += [(name, str(dropout)) for name in names]
  files = arguments.gin_files or ["gin/quickstart_pretrain.gin"]
  config = setup.RunConfig.from_parts(
    gin_config.load(files, bindings, setup.CONFIGURABLES)
  )
  train = config.train
  size = min(train.sequences_per_device or train.batch_size, train.batch_size)
  return dataclasses.replace(config, train=dataclasses.replace(train, batch_size=size))


def serve(arguments: argparse.Namespace) -> None:
  """Answers every line on stdin with what one turn of steps took."""
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)  # what libraries print is no answer
  config = load(arguments, (arguments.dropout or [None])[0])
  program = {"ours": ours, "torch": torchs}[arguments.serve](config)
  batches = windows(config, arguments.store)
  for _ in range(WARM_UP):
    program.wait(program.step(next(batches)))
  for _ in sys.stdin:
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(arguments.steps):
      loss = program.step(next(batches))
    loss = program.wait(loss)
    seconds = (time.perf_counter() - wall) / arguments.steps
    cpu_seconds = (time.process_time() - cpu) / arguments.steps
    speed = config.train.tokens_per_step / seconds
    flops = config.model.flops_per_token(config.train.sequence_length)
    answer = {
      "seconds": seconds,
      "cpu_seconds": cpu_seconds,
      "tokens_per_second": speed,
      "mfu": model_flops_utilisation(
        speed, flops_per_token=flops, device_kind=program.device, num_devices=1
      ),
      "peak": program.peak(),
      "loss": loss,
    }
    print(json.dumps(answer), file=answers, flush=True)


class Worker:
  """A side in its own process; flags are those of this command."""

  def __init__(self, side: Side, flags: list[str]):
    bindings = [f"--gin.{binding}" for binding in side.bindings]
    self._process = subprocess.Popen(
      [sys.executable, __file__, *flags, *bindings, f"--serve={side.library}"],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      env={**os.environ, **side.environment},
    )

  def turn(self) -> dict[str, Any] | None:
    """What one turn took, or None if the process has failed (and said why)."""
    assert self._process.stdin
    assert self._process.stdout
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.write("\n")
      self._process.stdin.flush()
    answer = self._process.stdout.readline()
    return json.loads(answer) if answer else None

  def close(self) -> None:
    """Ends the process."""
    self._process.communicate()


Round = list[dict[str, Any] | None]


def take_turns(
  sides: list[Side], flags: list[str], pairs: int, *, together: bool
) -> list[Round]:
  """One round per pair; in it, one turn of every side."""
  if not together:
    rounds = []
    for _ in range(pairs):
      turns: Round = []
      for side in sides:
        worker = Worker(side, flags)
        turns.append(worker.turn())
        worker.close()
      rounds.append(turns)
    return rounds
  workers = [Worker(side, flags) for side in sides]
  for worker in workers:
    worker.turn()  # loaded, compiled and warm
  rounds = [[worker.turn() for worker in workers] for _ in range(pairs)]
  for worker in workers:
    worker.close()
  return rounds


def show(sides: list[Side], rounds: list[Round]) -> None:
  """Prints the table."""
  width = max(len(side.name) for side in sides)
  for index, side in enumerate(sides):
    turns = [turns[index] for turns in rounds]
    done = [turn for turn in turns if turn]
    if not done:
      print(f"  {side.name:{width}}  failed, see above")
      continue
    ratios = [
      first["seconds"] / turn["seconds"]
      for first, turn in ((turns[0], turns[index]) for turns in rounds)
      if first and turn
    ]
    seconds = statistics.median(turn["seconds"] for turn in done)
    speed = statistics.median(turn["tokens_per_second"] for turn in done)
    last = done[-1]
    parts = [
      f"{seconds * 1e3:8.1f} ms",
      f"{speed:9.0f} tokens/s",
      f"MFU {last['mfu']:.1%}" if last["mfu"] else None,
      f"peak {last['peak'] / 2**30:.1f} GiB" if last["peak"] else None,
      f"ratio {statistics.median(ratios):.2f}" if ratios else None,
      f"cpu {min(turn['cpu_seconds'] for turn in done) * 1e3:.0f} ms",
      f"loss {last['loss']:.3f}",
    ]
    print(f"  {side.name:{width}}", *filter(None, parts), sep="  ", flush=True)


def platform() -> str:
  """JAX's platform, asked in a process that gives the device back at once."""
  words = [sys.executable, "-c", "import jax; print(jax.default_backend())"]
  return subprocess.check_output(words, text=True).strip()


def main(argv: Sequence[str] | None = None) -> int:
  """Parses the command line, and compares."""
  flags = list(sys.argv[1:] if argv is None else argv)
  parser = command.Parser(
    "train", "Times training steps.", "see the file's first lines"
  )
  parser.prog = "python benchmarks/train.py"
  parser.add_argument("--steps", type=int, help="per turn; a CPU's is 1, else 20")
  parser.add_argument(
    "--pairs", type=int, help="turns of each side; 15 on a CPU, else 3"
  )
  parser.add_argument("--dropout", type=float, nargs="*", help="default: the recipe's")
  parser.add_argument("--store", help="a token store; default: random tokens")
  parser.add_argument("--ours_only", action="store_true", help="without torch")
  parser.add_argument(
    "--set",
    action="append",
    default=[],
    metavar="NAME=VALUE,...",
    help="another line of the table: ours with these gin bindings (repeatable)",
  )
  parser.add_argument("--serve", help=argparse.SUPPRESS)
  arguments = parser.parse(flags)
  if arguments.serve:
    serve(arguments)
    return command.DONE
  together = platform() == "cpu"
  if together:
    os.environ["JAX_PLATFORMS"] = "cpu"  # the sides need not look for others again
  sides = [Side("ours", "ours")]
  sides += [Side(pairs, "ours", tuple(pairs.split(","))) for pairs in arguments.set]
  if not arguments.ours_only:
    kept = Side("torch, memory kept", "torch", environment=MEMORY_KEPT)
    sides = [Side("torch", "torch"), *([kept] if together else []), *sides]
  for side in sides:  # a misspelt name is told before anything is started
    bindings = [tuple(binding.split("=", 1)) for binding in side.bindings]
    changed = [*arguments.gin_bindings, *bindings]
    load(argparse.Namespace(**{**vars(arguments), "gin_bindings": changed}), None)
  steps = arguments.steps or (1 if together else 20)
  pairs = arguments.pairs or (15 if together else 3)
  for dropout in arguments.dropout or [None]:
    config = load(arguments, dropout)
    size = f"{config.train.batch_size} x {config.train.sequence_length} tokens a step"
    rates = (config.model.dropout_rate, config.model.attention_dropout_rate)
    print(f"{size}, dropout {rates[0]}, on the attention weights {rates[1]}")
    shared = [*flags, f"--steps={steps}"]
    shared += [] if dropout is None else ["--dropout", str(dropout)]
    show(sides, take_turns(sides, shared, pairs, together=together))
  return command.DONE


if __name__ == "__main__":
  command.run(main)
