"""Completes Python with a checkpoint.

    python -m phi1_jax.sample --checkpoint=runs/quickstart unfinished.py

Prints the file and streams its completion. A file that ends in .jsonl holds several
prompts, a row {"prompt": ...} each, which are completed in its order. With
`--score FILE`, prints the log-probability of each of the file's tokens as JSON instead.
"""

import argparse
import json
import logging
import math
import re
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from phi1_jax import InputError, storage
from phi1_jax.cli import command, gin_config
from phi1_jax.model import DTYPES
from phi1_jax.sampling import stopping

if TYPE_CHECKING:  # JAX takes a second to load, which wrong flags need not wait for
  from phi1_jax.sampling.checkpoint import Loaded
  from phi1_jax.sampling.sampler import Completion, Request, Sampler


def main(argv: Sequence[str] | None = None) -> int:
  """Read the flags, open the checkpoint, sample or score."""
  arguments = _parser().parse(argv)
  text = _read(arguments)
  several = (arguments.file or "").endswith(".jsonl")
  prompts = _prompts(arguments.file, text) if several else [text]
  from phi1_jax.checkpoint.checkpoint import Checkpoint
  from phi1_jax.parallel.mesh import MeshConfig
  from phi1_jax.sampling import methods
  from phi1_jax.sampling.checkpoint import (
    COPIES,
    for_many_texts,
    one_host_mesh,
    open_checkpoint,
  )
  from phi1_jax.sampling.sampler import Request, Sampler

  command.simulate_devices(arguments.simulated_devices)
  one = len(prompts) * arguments.num_samples == 1 or arguments.score
  checkpoint = Checkpoint.find(arguments.checkpoint)
  mesh = COPIES if one else for_many_texts(checkpoint)
  if arguments.gin_files or arguments.gin_bindings:
    parts = {"Mesh": MeshConfig}
    mesh = gin_config.load(arguments.gin_files, arguments.gin_bindings, parts)["Mesh"]
  method = methods.Method(arguments.temperature, arguments.top_k, arguments.top_p)
  loaded = open_checkpoint(checkpoint, one_host_mesh(mesh), arguments.dtype)
  if arguments.score:
    print(json.dumps(_scored(loaded, arguments.score, text), allow_nan=False))
    return command.DONE
  if several or arguments.prompt:
    bare = sum(bool(prompt) and not prompt.endswith("\n") for prompt in prompts)
    which = f"{bare} prompts do" if several else "the prompt does"
    if bare:
      logging.getLogger(__name__).warning(
        "%s not end with a newline, as prompts in training did; in bash "
        r"--prompt=$'...\n'",
        which,
      )
  slots = min(len(prompts) * arguments.num_samples, arguments.slots)
  # A single completion is streamed: few steps between two prints.
  steps = 4 if slots == 1 else 16
  sampler = Sampler(loaded, method, slots=slots, steps=steps, consume=True)
  requests = [
    Request(
      f"prompt {place}, sample {number}" if several else f"sample {number}",
      prompt,
      arguments.max_new_tokens,
      tuple(_unescaped(stop) for stop in arguments.stop),
      arguments.seed,
    )
    for place, prompt in enumerate(prompts)
    for number in range(arguments.num_samples)
  ]
  _sample(sampler, requests, arguments)
  return command.DONE


def _parser() -> command.Parser:
  parser = command.Parser(
    "sample",
    "Completes Python with a checkpoint, or scores a file with it.",
    "python -m phi1_jax.sample --checkpoint=runs/quickstart unfinished.py",
  )
  words = "what to complete; - is standard input, and .jsonl holds rows of prompts"
  parser.add_argument("file", nargs="?", help=words)
  parser.add_argument("--prompt", help="what to complete, instead of a file")
  parser.add_argument(
    "--checkpoint",
    type=storage.parse,
    required=True,
    metavar="DIR",
    help="a work directory of train or convert, or one step folder in it",
  )
  parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
  parser.add_argument("--top_k", type=int, help="draw from the k most probable tokens")
  parser.add_argument("--top_p", type=float, help="draw from the nucleus of mass p")
  parser.add_argument("--max_new_tokens", type=int, default=256)
  parser.add_argument("--num_samples", type=int, default=1)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument(
    "--stop",
    action="append",
    default=[],
    metavar="TEXT",
    help=r"stop before this text (repeatable; \n is a line end)",
  )
  parser.add_argument("--slots", type=int, default=16, help="texts at work at once")
  parser.add_argument("--dtype", choices=DTYPES, help="default: as it was trained")
  parser.add_argument(
    "--completion_only", action="store_true", help="do not print the prompt"
  )
  parser.add_argument(
    "--json", action="store_true", help="print an object per sample, with its tokens"
  )
  parser.add_argument(
    "--score", metavar="FILE", help="print each token's log-probability as JSON"
  )
  command.add_simulated_devices(parser)
  return parser


def _read(arguments: argparse.Namespace) -> str:
  """Return the prompt or the text to score: a file, standard input, or --prompt."""
  sources = (arguments.file, arguments.prompt, arguments.score)
  given = [source for source in sources if source is not None]
  if len(given) != 1:
    raise InputError(
      f"got {len(given)} texts, expected one: FILE, --prompt=TEXT or --score=FILE"
    )
  for name in ("num_samples", "max_new_tokens", "slots"):
    if getattr(arguments, name) < 1:
      raise InputError(f"--{name}: got {getattr(arguments, name)}, expected at least 1")
  if arguments.prompt is not None:
    return arguments.prompt
  name = arguments.file or arguments.score
  try:
    if name == "-":
      return sys.stdin.buffer.read().decode()
    return storage.read_text(storage.parse(name))  # keeps \r\n
  except OSError as error:
    raise InputError(f"{name}: {error.strerror}; expected a readable file") from None
  except UnicodeDecodeError as error:
    raise InputError(f"{name}: not UTF-8 text ({error})") from None


def _prompts(name: str, text: str) -> list[str]:
  """Return the prompts of a file of JSON lines."""
  found = []
  for number, row in storage.json_objects(text.split("\n"), storage.parse(name)):
    if not isinstance(row.get("prompt"), str):
      got = f"{row.get('prompt', f'keys {sorted(row)}')!r:.60}"
      raise InputError(f"{name}, line {number}: got {got}, expected text as 'prompt'")
    found.append(row["prompt"])
  if not found:
    raise InputError(f'{name}: got no prompts, expected rows such as {{"prompt": ...}}')
  return found


def _unescaped(stop: str) -> str:
  r"""Replace \n, \t and \\ in a stop string, as Python does."""
  if not stop:
    raise InputError("--stop: got an empty text, which is everywhere; expected one")
  escaped = {"\\n": "\n", "\\t": "\t", "\\\\": "\\"}
  return re.sub(r"\\[nt\\]", lambda found: escaped[found[0]], stop)


def _scored(loaded: "Loaded", name: str, text: str) -> dict[str, Any]:
  from phi1_jax.sampling.score import score

  rows = score(loaded, text)
  total = sum(row["log_prob"] for row in rows[1:])
  return {
    "file": name,
    "checkpoint": str(loaded.path),
    "digest": loaded.digest,
    "dtype": loaded.config.dtype,
    "log_prob": total,
    "bits_per_byte": -total / math.log(2) / len(text.encode()),
    "tokens": rows,
  }


def _sample(sampler: "Sampler", requests: "list[Request]", arguments) -> None:
  """Print the completions in the order of the requests; stream a single one."""
  started = time.perf_counter()
  done: dict[str, Completion] = {}
  live = len(requests) == 1 and not arguments.json
  if live and not arguments.completion_only:
    print(_dim(requests[0].prompt), end="", flush=True)
  show = (lambda _, text: print(text, end="", flush=True)) if live else None
  finished = sampler.complete(requests, on_text=show)
  for request in requests:
    while request.key not in done:
      completion = next(finished)
      done[completion.key] = completion
    completion = done[request.key]
    if arguments.json:
      print(json.dumps(vars(completion), allow_nan=False), flush=True)
    elif not live:
      text, _ = stopping.cut(completion.text, request.stops)
      prompt = "" if arguments.completion_only else _dim(request.prompt)
      print(f"# --- {completion.key}: {completion.finish}\n{prompt}{text}", flush=True)
  if live:
    print(flush=True)
  tokens = sum(len(completion.tokens) for completion in done.values())
  seconds = time.perf_counter() - started
  finishes = ", ".join(sorted({completion.finish for completion in done.values()}))
  print(
    f"{tokens} tokens in {seconds:.1f} s, compilation included; ended by: {finishes}",
    file=sys.stderr,
  )
  if all(completion.finish == "prompt_too_long" for completion in done.values()):
    raise InputError("the prompt leaves no room below Model.max_length; shorten it")


def _dim(text: str) -> str:
  """Dim the prompt on a terminal."""
  return f"\033[2m{text}\033[0m" if sys.stdout.isatty() else text


if __name__ == "__main__":
  command.run(main)
