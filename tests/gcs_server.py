"""A Google Cloud Storage server on loopback that fails when a test asks it to.

    python tests/gcs_server.py     prints its port, serves until it or its parent ends

`gcp-storage-emulator` speaks the protocol, but for generations: this file adds the
header with an object's generation, and the conditions `ifGenerationMatch` and
`ifGenerationNotMatch`, which TensorStore writes its indices with.

A test posts faults to `/faults`, a JSON list of objects, each of which meets the next
`times` requests that match:

    method   GET, POST, PUT or DELETE
    path     regular expression, searched in the request's path with its query
    times    how many requests it meets
    status   the answer, such as 503; the request is not carried out
    delay    seconds before the request is carried out
    cut      carry the request out and send only half of the answer's body
    lose     end the connection before the request is carried out
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from http import HTTPStatus
from pathlib import Path
from typing import Any

BUCKET = "bucket"


class Gcs:
  """A running server.

  Attributes:
    url: gs://bucket.
    environment: variables that make gcsfs, etils and TensorStore use it.
  """

  def __init__(self):
    words = [sys.executable, __file__]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    self._process = subprocess.Popen(words, text=True, **pipes)
    assert self._process.stdout
    self._address = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
    self.url = f"gs://{BUCKET}"
    self.environment = {
      "STORAGE_EMULATOR_HOST": self._address,
      "TENSORSTORE_GCS_HTTP_URL": self._address,
      "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # or gcsfs looks for gRPC first
      "GCSFS_TOKEN": "anon",
      "NO_GCE_CHECK": "true",
      "EPATH_USE_TF": "false",
    }

  def fail(self, **fault: Any) -> None:
    """Adds a fault (see above)."""
    self._request("/faults", {"method": "GET", "path": ".", "times": 1, **fault})

  def heal(self) -> list[str]:
    """Removes all faults; returns the requests that met one."""
    return self._request("/heal", {})

  def objects(self, prefix: str = "") -> dict[str, int]:
    """Maps the name of each object under a prefix to its size."""
    path = f"/storage/v1/b/{BUCKET}/o?prefix={prefix}&maxResults=10000"
    return {o["name"]: int(o["size"]) for o in self._request(path).get("items", [])}

  def _request(self, path: str, content: Any = None) -> Any:
    data = None if content is None else json.dumps(content).encode()
    with urllib.request.urlopen(self._address + path, data) as reply:
      return json.load(reply)

  def close(self) -> None:
    """Ends the server."""
    self._process.terminate()
    self._process.wait()


class Faults:
  """The faults that are to come, and the requests that met one.

  Args:
    server: the module `gcp_storage_emulator.server`, whose classes it changes.
  """

  def __init__(self, server: Any):
    self.left: list[dict[str, Any]] = []
    self.met: list[str] = []
    self._handle, self._close = server.Router.handle, server.Response.close
    server.Router.handle = lambda router, method: self.handle(router, method)
    server.Response.close = lambda response: self.close(response)

  def handle(self, router: Any, method: str) -> None:
    """Stands for `Router.handle`."""
    request = router._request_handler
    if method == "POST" and request.path in ("/faults", "/heal"):
      body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
      answer = json.dumps(self.met).encode()
      self.left.append(body)
      if request.path == "/heal":
        self.left, self.met = [], []
      _answer(request, 200, answer)
      return
    fault = self.of(method, request.path)
    if fault.get("lose"):
      request.connection.close()
      return
    status = fault.get("status") or _refused(request, method)
    if status:
      request.rfile.read(int(request.headers.get("Content-Length") or 0))
      _answer(request, status, HTTPStatus(status).phrase.encode())
      return
    time.sleep(fault.get("delay", 0))
    request.cut = fault.get("cut", False)
    self._handle(router, method)

  def of(self, method: str, path: str) -> dict[str, Any]:
    """Returns the fault that a request meets; empty if none."""
    for fault in self.left:
      matches = fault["method"] == method and re.search(fault["path"], path)
      if fault["times"] and matches:
        fault["times"] -= 1
        self.met.append(f"{method} {path}")
        return fault
    return {}

  def close(self, response: Any) -> None:
    """Stands for `Response.close`."""
    handler = response._handler
    if handler.command == "GET" and (found := _generation(handler)):
      response["x-goog-generation"] = found
    if not getattr(handler, "cut", False):
      self._close(response)
      return
    content = response._content
    content = content.encode() if isinstance(content, str) else content
    _answer(handler, 200, content[: len(content) // 2], length=len(content))
    handler.close_connection = True


def serve() -> None:
  """Runs the server until SIGTERM, or until the process that started it is gone."""
  from gcp_storage_emulator import server

  Faults(server)
  server.server.HTTPServer.request_queue_size = 256  # TensorStore opens many at once
  running = server.create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET)
  running.start()
  while running._api._httpd is None:
    time.sleep(0.01)
  print(running._api._httpd.server_address[1], flush=True)
  parent = os.getppid()
  ended = threading.Event()
  signal.signal(signal.SIGTERM, lambda *_: ended.set())
  while not ended.wait(0.5) and os.getppid() == parent:
    pass
  os._exit(0)


def _refused(request: Any, method: str) -> int | None:
  """Returns the status for a condition on the generation that is not met."""
  query = urllib.parse.parse_qs(urllib.parse.urlsplit(request.path).query)
  now = _generation(request) or "0"
  if "ifGenerationMatch" in query and query["ifGenerationMatch"][0] != now:
    return 412
  if query.get("ifGenerationNotMatch", [None])[0] == now:
    return 304 if method == "GET" else 412
  return None


def _generation(request: Any) -> str | None:
  """Returns the generation of the object that a request is about."""
  place = urllib.parse.urlsplit(request.path)
  query = urllib.parse.parse_qs(place.query)
  found = re.search(r"/b/([^/]+)/o(?:/([^/?]+))?$", place.path)
  if not found:
    return None
  name = urllib.parse.unquote(found[2]) if found[2] else query.get("name", [""])[0]
  objects = request.storage.objects.get(found[1], {})
  return objects[name]["generation"] if name in objects else None


def _answer(
  request: Any, status: int, body: bytes, *, length: int | None = None
) -> None:
  request.send_response(status)
  request.send_header("Content-Length", str(len(body) if length is None else length))
  request.end_headers()
  request.wfile.write(body)


if __name__ == "__main__":
  sys.path = [entry for entry in sys.path if Path(entry) != Path(__file__).parent]
  serve()
