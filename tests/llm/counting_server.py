"""A server with OpenAI's protocol that misbehaves on request, and counts what it bills.

    python tests/llm/counting_server.py --moods='{"429": 0.1, "stall": 0.05}'

prints its address; /counts returns what it has billed. What it does with a request
depends only on the request's text and on how often it came.
"""

import argparse
import collections
import hashlib
import http.server
import json
import select
import threading
import time

PRICE = (150_000, 600_000)  # picodollars for a token of the prompt, of the reply
# `moods` gives each a share of the requests; the others get a good reply at once.
#
#   once, for the first time that a request comes:
#     429        status 429 with Retry-After
#     500        a server error
#     hang       no answer until the client gives up; not billed
#     error      an error body under status 200; not billed
#     truncated  a body cut off, as if it were whole
#     broken     a body cut off by the end of the connection
#     malformed  a body that is not JSON
#   always:
#     stall      a late answer
#     length     finish_reason "length" unless max_tokens is above `short`
#     bad        a text that does not begin as it should, unless the model was told so
#     think      reasoning in think tags, half of it without the opening tag
#     reason     reasoning in the field reasoning_content
_SPOILED = ("truncated", "broken", "malformed")


class CountingServer(http.server.ThreadingHTTPServer):
  """The server; as a context manager it runs in a thread of its own.

  Args:
    moods: share of requests by the names above.
    stall: seconds of a stall.
    latency: seconds of every other reply.
    short: see "length".
    key: the only key that is let in; None lets all in.

  Attributes:
    gate: replies wait while it is not set.
    script: (status, body, headers), answered next, before any mood; as a dictionary,
      by the text of the request's first message. Not for batches.
    batch_ends: how the next batches end: "expired", "cancelled", "failed", "dropped"
      (it is never created, and there is no answer); afterwards "completed".
    fewest_batches: before so many are created, none ends.
    slow: how often each kind of query about batches gets status 429 before an answer.
    write: makes the text of a reply of a request's body; None: words that say nothing.
    billed: how often each request got a whole reply, by its digest.
    spoiled: number of replies that were billed and arrived broken.
    money: picodollars billed, spoiled replies included.
  """

  daemon_threads = True
  request_queue_size = 256

  def __init__(self, moods=None, *, stall=0.3, latency=0.0, short=64, key=None):
    super().__init__(("127.0.0.1", 0), Handler)
    self.moods, self.stall, self.latency = moods or {}, stall, latency
    self.short, self.key = short, key
    self.lock, self.gate = threading.Lock(), threading.Event()
    self.gate.set()
    self.came, self.billed, self.statuses = (collections.Counter() for _ in range(3))
    self.spoiled = self.money = self.now = self.most = 0
    self.bodies, self.paths, self.script, self.write = [], [], [], None
    self.files, self.batches, self.batch_ends = {}, {}, []
    self.batch_seconds, self.fewest_batches = 0.1, 0
    self.slow = {"create": 0, "retrieve": 0}
    self.url = f"http://127.0.0.1:{self.server_port}/v1"

  def __enter__(self):
    self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
    self._thread.start()
    return self

  def __exit__(self, *_):
    self.shutdown()
    self.server_close()
    self._thread.join()

  def handle_error(self, request, client_address):
    pass  # clients that are killed are what this is for

  def mood(self, name):
    """What happens to a request."""
    place = int(hashlib.sha256(f"mood {name}".encode()).hexdigest()[:8], 16) / 2**32
    for mood, share in self.moods.items():
      place -= share
      if place < 0:
        return mood
    return "good"

  def bill(self, name, completion, share=1.0, whole=True):
    """Counts a reply that is about to be sent."""
    usage = completion["usage"]
    cost = usage["prompt_tokens"] * PRICE[0] + usage["completion_tokens"] * PRICE[1]
    with self.lock:
      self.billed[name] += whole
      self.spoiled += not whole
      self.money += int(cost * share)

  def counts(self):
    """What /counts tells."""
    with self.lock:
      return {
        "billed": sum(self.billed.values()),
        "spoiled": self.spoiled,
        "twice": sum(count > 1 for count in self.billed.values()),
        "money": self.money,
        "most_at_once": self.most,
        "statuses": dict(self.statuses),
        "came": sum(self.came.values()),
      }


def _error(message, **fields):
  return {"error": {"message": message, **fields}}


class Handler(http.server.BaseHTTPRequestHandler):
  """Answers one connection."""

  protocol_version = "HTTP/1.1"
  disable_nagle_algorithm = True  # headers and body are two writes
  server: CountingServer

  def log_message(self, format, *args):
    pass

  def do_GET(self):
    path, server = self.path.partition("?")[0], self.server
    if path == "/counts":
      return self._json(200, server.counts())
    if path == "/v1/batches":
      listed = [self._batch(name) for name in reversed(server.batches)]
      return self._json(200, {"object": "list", "data": listed, "has_more": False})
    kind, _, name = path.removeprefix("/v1/").removesuffix("/content").partition("/")
    if kind == "batches" and self._slow("retrieve"):
      return None
    if kind == "batches" and name in server.batches:
      return self._json(200, self._batch(name))
    if kind == "files" and name in server.files:
      return self._send(200, server.files[name])
    return self._json(404, _error(f"no such page {path}"))

  def do_POST(self):
    content = self.rfile.read(int(self.headers["Content-Length"]))
    server = self.server
    if server.key and self.headers["Authorization"] != f"Bearer {server.key}":
      text = f"Incorrect API key: {self.headers['Authorization']}"
      return self._json(401, _error(text, code="invalid_api_key"))
    if self.path == "/v1/files":
      return self._upload(content)
    if self.path == "/v1/batches":
      return self._create(json.loads(content))
    server.paths.append(self.path)
    server.request_headers = self.headers
    path = self.path.partition("?")[0]
    if not path.endswith("/completions") or path.startswith("/v9"):
      return self._json(404, _error("no such page"))
    with server.lock:
      server.now += 1
      server.most = max(server.most, server.now)
    try:
      return self._complete(json.loads(content))
    finally:
      with server.lock:
        server.now -= 1

  def _complete(self, body):
    server, name = self.server, digest(body)
    with server.lock:
      server.came[name] += 1
      server.bodies.append(body)
      first = server.came[name] == 1
      if isinstance(server.script, dict):
        scripted = server.script.pop(body["messages"][0]["content"], None)
      else:
        scripted = server.script.pop(0) if server.script else None
    if scripted is not None:
      return self._scripted(name, body, *scripted)
    if body["model"] != "m":
      return self._json(404, _error(f"no model {body['model']}", code="no_model"))
    mood = server.mood(name)
    if mood == "429" and first:
      error = _error("slow down", code="rate_limit_exceeded")
      return self._json(429, error, {"Retry-After": "0.05"})
    if mood == "500" and first:
      return self._json(500, _error("oops"))
    if mood == "hang" and first:
      select.select([self.connection], [], [])  # until the client closes it
      self.close_connection = True
      return None
    time.sleep(server.stall if mood == "stall" else server.latency)
    server.gate.wait(60.0)
    if mood == "error" and first:
      return self._json(200, _error("overloaded", code=503))
    reply = completion(body, name, mood, server.short)
    if server.write is not None:
      reply["choices"][0]["message"]["content"] = server.write(body)
    spoiled = mood in _SPOILED and first
    server.bill(name, reply, whole=not spoiled)
    text = json.dumps(reply).encode()
    if not spoiled:
      return self._send(200, text)
    if mood == "malformed":
      return self._send(200, b"<<" + text)
    half = len(text) // 2
    return self._send(200, text[:half], missing=half if mood == "broken" else 0)

  def _scripted(self, name, body, status, content, headers):
    if status == 200:
      whole = isinstance(content, bytes) or bool(content.get("choices"))
      self.server.bill(name, completion(body, name, "good", 0), whole=whole)
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    self._send(status, text, headers)

  def _upload(self, content):
    """Takes the one file out of a multipart form."""
    boundary = self.headers["Content-Type"].partition("boundary=")[2].strip('"')
    parts = content.split(b"--" + boundary.encode())
    part = next(p for p in parts if b'name="file"' in p.partition(b"\r\n\r\n")[0])
    name = f"file-{len(self.server.files)}"
    self.server.files[name] = part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
    self._json(200, {"id": name, "object": "file", "purpose": "batch"})

  def _slow(self, kind):
    """Answers with status 429 as often as `slow` says; returns whether it did."""
    left = self.server.slow[kind]
    self.server.slow[kind] = max(0, left - 1)
    if left:
      self._json(429, _error("slow down"), {"Retry-After": "0.02"})
    return left > 0

  def _create(self, body):
    server = self.server
    if self._slow("create"):
      return
    with server.lock:
      name = f"batch_{len(server.batches)}"
      end = server.batch_ends.pop(0) if server.batch_ends else "completed"
      if end == "dropped":
        self.close_connection = True
        return
      server.batches[name] = {"body": body, "begun": time.monotonic(), "end": end}
    self._json(200, self._batch(name))

  def _batch(self, name):
    server = self.server
    with server.lock:
      batch = server.batches[name]
      over = time.monotonic() - batch["begun"] >= server.batch_seconds
      over &= len(server.batches) >= server.fewest_batches
      run = over and "files" not in batch
      if run:
        batch["files"] = [None, None]
    asked = server.files[batch["body"]["input_file_id"]].splitlines()
    failed = over and batch["end"] == "failed"
    if run and not failed:
      self._run_batch(name, batch, [json.loads(line) for line in asked])
    output, error = batch.get("files", (None, None))
    errors = [{"code": "token_limit_exceeded", "message": "too many tokens"}]
    return {
      **{"id": name, "object": "batch", "created_at": 0, "completion_window": "24h"},
      "endpoint": "/v1/chat/completions",
      "input_file_id": batch["body"]["input_file_id"],
      "metadata": batch["body"].get("metadata"),
      "status": batch["end"] if over else "in_progress",
      **{"output_file_id": output, "error_file_id": error},
      "errors": {"data": errors} if failed else None,
      "request_counts": {"total": len(asked), "completed": 0, "failed": 0},
    }

  def _run_batch(self, name, batch, rows):
    """Answers a batch, or the first half of one that is cut short."""
    server = self.server
    run = len(rows) if batch["end"] == "completed" else len(rows) // 2
    good, bad = [], []
    for number, row in enumerate(rows):
      found = {"custom_id": row["custom_id"], "response": None, "error": None}
      request = digest(row["body"])
      server.came[request] += 1
      mood = server.mood(request)
      if number >= run:
        found["error"] = {"code": "batch_expired", "message": "not run in time"}
        bad.append(found)
      elif mood == "500" and server.came[request] == 1:
        found["response"] = {"status_code": 500, "body": _error("oops")}
        bad.append(found)
      else:
        reply = completion(row["body"], request, mood, server.short)
        server.bill(request, reply, share=0.5)
        found["response"] = {"status_code": 200, "request_id": "r", "body": reply}
        good.append(found)
    kinds = (("output", good), ("error", bad))
    batch["files"] = [self._store(f"{name}-{kind}", lines) for kind, lines in kinds]

  def _store(self, name, rows):
    if not rows:
      return None
    self.server.files[name] = "".join(json.dumps(x) + "\n" for x in rows).encode()
    return name

  def _json(self, status, content, headers=None):
    self._send(status, json.dumps(content).encode(), headers)

  def _send(self, status, text, headers=None, missing=0):
    with self.server.lock:
      self.server.statuses[str(status)] += 1
    self.send_response(status)
    for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
      self.send_header(name, value)
    self.send_header("Content-Length", str(len(text) + missing))
    self.end_headers()
    self.wfile.write(text)
    if missing:
      self.close_connection = True


def digest(body):
  """Names a request."""
  return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def completion(body, name, mood, short):
  """A completion's JSON, of a chat or a prompt; the text is made of its name."""
  longest = body.get("max_tokens") or body["max_completion_tokens"]
  messages = body.get("messages") or [{"content": body["prompt"]}]
  corrected = "could not be used" in messages[-1]["content"]
  finish, text = "stop", f"answer {name[:16]} " + "word " * (int(name[:2], 16) % 20)
  if mood == "length" and longest <= short:
    finish, text = "length", text[:10]
  elif mood == "bad" and not corrected:
    text = f"sorry {name[:8]}"
  elif mood == "think":
    text = f"{'<think>' * (name < '8')}answer? no, wait</think>\n\n{text}"
  message = {"role": "assistant", "content": text}
  if mood == "reason":
    message["reasoning_content"] = "answer? no, wait"
  answer = {"message": message} if "messages" in body else {"text": text}
  prompt = sum(len(message["content"]) for message in messages) // 4
  tokens = longest if finish == "length" else min(longest, len(text.split()))
  usage = {"prompt_tokens": prompt, "completion_tokens": tokens}
  return {
    **{"id": f"c-{name[:8]}", "object": "chat.completion", "created": 0},
    "model": f"{body['model']}-0001",
    "choices": [{"index": 0, **answer, "finish_reason": finish}],
    "usage": usage | {"total_tokens": prompt + tokens},
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--stall", type=float, default=0.3)
  parser.add_argument("--latency", type=float, default=0.0)
  parser.add_argument("--moods", type=json.loads, default={})
  given = parser.parse_args()
  server = CountingServer(given.moods, stall=given.stall, latency=given.latency)
  print(server.url, flush=True)
  server.serve_forever(0.05)


if __name__ == "__main__":
  main()
