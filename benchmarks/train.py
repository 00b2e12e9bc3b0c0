"""Training steps of ours against torch's and plain JAX's, and what our settings buy.

    python benchmarks/train.py                       two small models, on the CPU
    python benchmarks/train.py --set Mesh.cpu_devices=2
    python benchmarks/train.py --gin_file=gin/pretrain.gin --steps=100 --pairs=3
    python benchmarks/train.py --sides ours --set Model.remat=full \\
      --set Model.scan_layers=False,Train.head_chunks=4

One device, one step over the sequences that the recipe lets a device hold at a time
(`Train.sequences_per_device`, else the batch): forward, backward, clipping, AdamW.

  ours           the trainer's own compiled step
  torch          transformers' PhiForCausalLM of the same sizes and dropouts with
                 scaled-dot-product attention and fused AdamW; where the recipe computes
                 in bfloat16, under autocast
  torch.compile  the same, its forward and backward pass compiled (needs g++ on a CPU)
  plain          the same model as nanodo writes one: Flax's way of attention and
                 dropout, optax, `jax.jit`, nothing chosen for speed; float32

Without --gin_file the models are the quickstart's and one of 4 layers, width 256
and 8 x 256 tokens, each with and without dropout.

On the CPU each side is a process and they take turns step by step, so that a busy
machine disturbs them alike. A GPU has no room for both: whole processes take turns,
each does --steps steps, --pairs times over. Ratios are of speeds, against the first
side, the median over turns. Losses differ: ours warms its learning rate up. Every side
keeps freed memory, as our trainer does by itself: else the system would clear it again,
page by page, in the next step.

One H200, bfloat16, phi-1 at 2048 tokens, all sides and then settings of ours:

    python benchmarks/train.py --gin_file=gin/pretrain.gin --steps=100 --pairs=3
    python benchmarks/train.py --gin_file=gin/pretrain.gin --steps=100 --pairs=3 \\
      --sides ours --dropout 0 --set Model.remat=none --set Model.remat=full \\
      --set Model.attention=cudnn --set Train.head_chunks=16 \\
      --set Train.sequences_per_device=16 --set Model.scan_layers=False

Those numbers wait for the hardware. Our side needs JAX, Flax, Optax, Orbax and NumPy.
"""

import argparse
import contextlib
import dataclasses
import functools
import importlib.util
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
QUICKSTART = "gin/quickstart_pretrain.gin"
WIDE = (
  *("Model.vocabulary_size=8192", "Model.embed_dim=256", "Model.mlp_dim=1024"),
  *("Model.num_heads=4", "Model.head_dim=64", "Model.rotary_dim=32"),
  "Train.sequence_length=256",
)


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
  from phi1_jax.training import memory
  from phi1_jax.training.step import make_train_step

  memory.keep_freed_memory()
  # A CPU is one device, or those that Mesh.cpu_devices makes of it.
  devices = None if config.mesh.cpu_devices else jax.devices()[:1]
  run = setup.make_setup(config, Path(), devices)
  device = run.mesh.devices.flat[0]
  with sharding.layout(run.mesh):
    compiled = memory.compile_step(make_train_step(run, 0), run)
  values = run.initial_state()

  def step(windows: np.ndarray) -> Any:
    nonlocal values
    batch = sharding.put_batch(windows, run.mesh, config.train.batch_size)
    values, metrics = compiled(values, batch)
    return metrics["loss"]

  def peak() -> int | None:
    return (device.memory_stats() or {}).get("peak_bytes_in_use")

  return Program(step, float, device.device_kind, peak)


def torchs(config: setup.RunConfig, *, compiled: bool) -> Program:
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
  if compiled:
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


def plain(config: setup.RunConfig) -> Program:
  """A step of the same model in plain JAX."""
  import jax
  import plain_jax  # beside this file

  state, update = plain_jax.make(config)

  def step(tokens: np.ndarray) -> Any:
    nonlocal state
    state, loss = update(state, tokens)
    return loss

  return Program(step, float, jax.devices()[0].device_kind, lambda: None)


PROGRAMS: dict[str, Callable[[setup.RunConfig], Program]] = {
  "torch": functools.partial(torchs, compiled=False),
  "torch.compile": functools.partial(torchs, compiled=True),
  "plain": plain,
  "ours": ours,
}


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


def load(arguments: argparse.Namespace) -> setup.RunConfig:
  """The recipe, with the batch that one device holds at a time."""
  files = arguments.gin_files or [QUICKSTART]
  config = setup.RunConfig.from_parts(
    gin_config.load(files, arguments.gin_bindings, setup.CONFIGURABLES)
  )
  train = config.train
  size = min(train.sequences_per_device or train.batch_size, train.batch_size)
  return dataclasses.replace(config, train=dataclasses.replace(train, batch_size=size))


def serve(arguments: argparse.Namespace) -> None:
  """Answers every line on stdin with what one turn of steps took."""
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)  # what libraries print is no answer
  config = load(arguments)
  program = PROGRAMS[arguments.serve](config)
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
  """A side in its own process."""

  def __init__(self, program: str, flags: list[str]):
    self._process = subprocess.Popen(
      [sys.executable, __file__, *flags, f"--serve={program}"],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      env={**os.environ, **MEMORY_KEPT},
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
# The name of a line of the table -> the arguments of its worker.
Sides = dict[str, tuple[str, list[str]]]


def take_turns(sides: Sides, pairs: int, *, together: bool) -> list[Round]:
  """One round per pair; in it, one turn of every side."""
  if not together:
    rounds = []
    for _ in range(pairs):
      turns: Round = []
      for side in sides.values():
        worker = Worker(*side)
        turns.append(worker.turn())
        worker.close()
      rounds.append(turns)
    return rounds
  workers = [Worker(*side) for side in sides.values()]
  for worker in workers:
    worker.turn()  # loaded, compiled and warm
  rounds = [[worker.turn() for worker in workers] for _ in range(pairs)]
  for worker in workers:
    worker.close()
  return rounds


def show(sides: Sides, rounds: list[Round]) -> None:
  """Prints the table: milliseconds a step, at least, median and at most."""
  width = max(map(len, sides))
  for index, name in enumerate(sides):
    pairs = [(turns[0], turns[index]) for turns in rounds]
    done = [turn for _, turn in pairs if turn]
    if not done:
      print(f"  {name:{width}}  failed, see above")
      continue
    times = sorted(1e3 * turn["seconds"] for turn in done)
    ratios = [one["seconds"] / turn["seconds"] for one, turn in pairs if one and turn]
    last = done[-1]
    parts = [
      f"{times[0]:7.1f} {statistics.median(times):7.1f} {times[-1]:7.1f} ms",
      f"{statistics.median(turn['tokens_per_second'] for turn in done):7.0f} tokens/s",
      f"MFU {last['mfu']:.1%}" if last["mfu"] else None,
      f"peak {last['peak'] / 2**30:.1f} GiB" if last["peak"] else None,
      f"ratio {statistics.median(ratios):.2f}" if ratios else None,
      f"cpu {min(turn['cpu_seconds'] for turn in done) * 1e3:.0f} ms",
      f"loss {last['loss']:.3f}",
    ]
    print(f"  {name:{width}}", *filter(None, parts), sep="  ", flush=True)


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
  parser.add_argument("--sides", nargs="*", choices=PROGRAMS, default=list(PROGRAMS))
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
  words = [sys.executable, "-c", "import jax; print(jax.default_backend())"]
  together = subprocess.check_output(words, text=True).strip() == "cpu"
  if together:
    os.environ["JAX_PLATFORMS"] = "cpu"  # the sides need not look for others again
  steps = arguments.steps or (1 if together else 20)
  pairs = arguments.pairs or (15 if together else 3)
  given = [*flags, f"--steps={steps}"]
  shapes, dropouts = [()], arguments.dropout or [None]
  if not arguments.gin_files:
    shapes, dropouts = [(), WIDE], arguments.dropout or [0.1, 0.0]
  for shape, dropout in itertools.product(shapes, dropouts):
    names = ("dropout_rate", "attention_dropout_rate") if dropout is not None else ()
    shared = [f"--gin.{binding}" for binding in shape]
    shared += [f"--gin.Model.{name}={dropout}" for name in names]
    sides: Sides = {name: (name, [*given, *shared]) for name in arguments.sides}
    for changes in arguments.set:
      own = [f"--gin.{binding}" for binding in changes.split(",")]
      sides[changes] = "ours", [*given, *shared, *own]
    for _, words in sides.values():  # a misspelt name is told before any start
      config = load(parser.parse(words))
    print(
      f"{config.model.num_layers} layers x {config.model.embed_dim}, "
      f"{config.train.batch_size} x {config.train.sequence_length} tokens a step, "
      f"dropout {config.model.dropout_rate}, "
      f"on the attention weights {config.model.attention_dropout_rate}",
      flush=True,
    )
    show(sides, take_turns(sides, pairs, together=together))
  for name in ("nanodo", "levanter", "MaxText"):
    found = importlib.util.find_spec(name) is not None
    print(
      f"  {name}: {'installed, but has no side here' if found else 'not installed'}"
    )
  return command.DONE


if __name__ == "__main__":
  command.run(main)
