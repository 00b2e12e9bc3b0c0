"""The courier as the run sees it: a child process, and lines of JSON both ways."""

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import phi1_jax
from phi1_jax.llm.client import RequestError

_LOG = "courier.log"  # in the journal's folder


class Link:
  """Starts a courier and talks to it.

  Args:
    folder: the journal.
    lock: file descriptor of its lock, which the courier holds on to until it ends.
    order: the first message.
  """

  def __init__(self, folder: Path, lock: int, order: Mapping[str, Any]):
    self._log = folder / _LOG
    self._received = b""
    package = str(Path(phi1_jax.__file__).parents[1])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    with self._log.open("wb") as log:
      # In a session of its own neither Ctrl-C nor the end of a terminal reaches it.
      self._process = subprocess.Popen(
        [sys.executable, "-m", "phi1_jax.llm.courier"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        pass_fds=(lock,),
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
      )
    self.send(order)

  def send(self, message: Mapping[str, Any]) -> None:
    """Says something.

    Raises:
      RequestError: the courier is gone.
    """
    assert self._process.stdin is not None
    try:
      self._process.stdin.write(json.dumps(message).encode() + b"\n")
      self._process.stdin.flush()
    except BrokenPipeError:
      raise self._gone() from None

  def receive(self, seconds: float) -> Iterator[dict[str, Any]]:
    """Yields what the courier has said, after waiting for it at most so long.

    Raises:
      RequestError: the courier is gone.
    """
    assert self._process.stdout is not None
    output = self._process.stdout.fileno()
    if not select.select([output], [], [], seconds)[0]:
      return
    content = os.read(output, 1 << 16)
    if not content:
      raise self._gone()
    *lines, self._received = (self._received + content).split(b"\n")
    for line in lines:
      yield json.loads(line)

  def close(self, seconds: float) -> Iterator[dict[str, Any]]:
    """Ends the input; yields what is still said. Go on until it is exhausted.

    Args:
      seconds: after which an empty message is yielded, as long as nothing is said.
    """
    assert self._process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.close()
    while True:
      said = False
      try:
        for message in self.receive(seconds):
          said = True
          yield message
      except RequestError:
        break
      if not said:
        yield {}
    self._process.wait()

  def _gone(self) -> RequestError:
    code = self._process.wait()
    lines = self._log.read_text(errors="replace").strip().splitlines()
    last = f" ({lines[-1]})" if lines else ""
    return RequestError(
      f"the process that asks the model ended with {code}{last}; see {self._log}\n"
      "nothing is lost: run the same command again"
    )
