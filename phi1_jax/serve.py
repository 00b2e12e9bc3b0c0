"""Serves a checkpoint through OpenAI's completions API.

    python -m phi1_jax.serve --checkpoint=runs/quickstart

Then `openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")` completes with
it. Requests that arrive together are decoded together. Each new temperature, top_p or
top_k compiles the decode loop, once for each length of the cache, which takes seconds.
Ctrl-C or SIGTERM lets running requests finish, for some seconds, and ends with exit
code 0.
"""

import contextlib
import importlib.util
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from phi1_jax import InputError, how_to_install, storage
from phi1_jax.cli import command
from phi1_jax.model import DTYPES


def main(argv: Sequence[str] | None = None) -> int:
  """Read the flags, open the checkpoint, serve until a signal."""
  arguments = _parser().parse(argv)
  if arguments.gin_files or arguments.gin_bindings:
    raise InputError("serve: got gin files or bindings, expected flags only (--help)")
  if not 0 <= arguments.port < 1 << 16:
    raise InputError(f"--port: got {arguments.port}, expected 0 to 65535")
  for name in ("slots", "max_queue"):
    if getattr(arguments, name) < 1:
      raise InputError(f"--{name}: got {getattr(arguments, name)}, expected at least 1")
  for package in ("starlette", "uvicorn"):
    if importlib.util.find_spec(package) is None:
      raise InputError(f"serve needs {package}: {how_to_install('serve')}")
  import uvicorn

  from phi1_jax.checkpoint.checkpoint import Checkpoint
  from phi1_jax.sampling.checkpoint import one_host_mesh, open_checkpoint
  from phi1_jax.serving import api
  from phi1_jax.serving.engine import Engine

  command.simulate_devices(arguments.simulated_devices)
  bound = _bound(arguments.host, arguments.port)
  checkpoint = Checkpoint.find(arguments.checkpoint)
  loaded = open_checkpoint(checkpoint, one_host_mesh(), arguments.dtype)
  name = arguments.model_name or arguments.checkpoint.name
  engine = Engine(loaded, slots=arguments.slots, most_waiting=arguments.max_queue)
  config = uvicorn.Config(
    api.application(engine, name, _hosts(arguments.host)),
    log_level="warning",
    timeout_graceful_shutdown=arguments.grace_seconds + 10,  # see _end_soon
  )

  server = _server(config, name, lambda: _end_soon(engine, arguments.grace_seconds))
  server.run(sockets=[bound])
  print("stopped", file=sys.stderr)
  return command.DONE


def _parser() -> command.Parser:
  parser = command.Parser(
    "serve",
    "Serves a checkpoint through OpenAI's completions API. Each new temperature, top_p "
    "or top_k compiles the decode loop anew, which takes seconds.",
    "python -m phi1_jax.serve --checkpoint=runs/quickstart",
  )
  add = parser.add_argument
  add(
    "--checkpoint",
    type=storage.parse,
    required=True,
    metavar="DIR",
    help="a work directory of train or convert, or one step folder in it",
  )
  add(
    "--host",
    default="127.0.0.1",
    help="the address to listen at, and with localhost the only names that requests "
    "may have as Host; 0.0.0.0 serves other machines, unprotected, under any name",
  )
  add("--port", type=int, default=8000, help="0 takes a free one")
  add("--model_name", help="the name that requests give (default: the folder's)")
  add("--slots", type=int, default=16, help="texts at work at once")
  add(
    "--max_queue",
    type=int,
    default=256,
    help="texts that may wait; then 429 (a request with more alone gets 400)",
  )
  add("--dtype", choices=DTYPES, help="default: as it was trained")
  add("--grace_seconds", type=int, default=30, help="for running requests at the end")
  command.add_simulated_devices(parser)
  return parser


def _bound(host: str, port: int) -> socket.socket:
  """Return a socket that listens: clients wait until the model is read.

  Raises:
    InputError: there is no such address, or another process has the port.
  """
  bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
  bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
  try:
    bound.bind((host, port))
    bound.listen()
  except OSError as error:
    raise InputError(
      f"--host, --port: got {host}:{port} ({error.strerror}), expected an address of "
      "this machine and a free port; 0 takes one"
    ) from None
  return bound


def _hosts(host: str) -> tuple[str, ...]:
  """Return the names that requests may have as Host; none means any."""
  if host in ("", "0.0.0.0", "::"):
    return ()
  given = f"[{host}]" if ":" in host else host
  return "localhost", "127.0.0.1", "[::1]", given


def _end_soon(engine: Any, seconds: float) -> None:
  """Stop an engine in some seconds; then what still runs is answered with 503."""
  timer = threading.Timer(seconds, engine.stop)
  timer.daemon = True
  timer.start()


def _server(config: Any, name: str, on_signal: Callable[[], None]) -> Any:
  """Return a uvicorn server that prints its address and ends at a signal."""
  import uvicorn

  class Server(uvicorn.Server):
    """A server that ends at a signal without raising it again."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
      numbers = (signal.SIGINT, signal.SIGTERM)

      def handle(number: int, frame: Any) -> None:
        on_signal()
        self.handle_exit(number, frame)

      before = {n: signal.signal(n, handle) for n in numbers}
      try:
        yield
      finally:
        for number, handler in before.items():
          signal.signal(number, handler)

    async def startup(self, sockets: list | None = None) -> None:
      await super().startup(sockets)
      for server in self.servers:
        host, port = server.sockets[0].getsockname()[:2]
        print(f"serving {name} at http://{host}:{port}/v1", flush=True)

  return Server(config)


if __name__ == "__main__":
  command.run(main)
