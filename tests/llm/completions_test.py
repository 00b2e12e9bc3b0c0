"""/v1/completions, against a small server with the protocol."""

import http.server
import json
import threading

import pytest

from phi1_jax import InputError
from phi1_jax.llm import endpoint
from phi1_jax.llm.completions import CompletionsClient, RefusedError, RequestError

pytest.importorskip("openai")

CHOICE = {
  **{"index": 0, "text": "  return 1\n", "finish_reason": "stop"},
  "logprobs": {"token_logprobs": [-0.5, -0.25], "tokens": ["a", "b"]},
}


def answer(**changes):
  usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
  return {"model": "m", "choices": [CHOICE | changes], "usage": usage}


@pytest.fixture
def server(monkeypatch):
  """`server.script` holds the next answers; after them comes a good one, for ever."""

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
      content = self.rfile.read(int(self.headers["Content-Length"]))
      server.asked.append((self.path, json.loads(content), self.headers))
      status, body = server.script.pop(0) if server.script else (200, answer())
      text = body if isinstance(body, bytes) else json.dumps(body).encode()
      self.send_response(status)
      self.send_header("Content-Type", "application/json")
      self.send_header("Content-Length", str(len(text)))
      self.send_header("retry-after-ms", "1")
      self.end_headers()
      self.wfile.write(text)

    def log_message(self, *arguments):
      pass

  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
  server.asked, server.script = [], []
  thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
  thread.start()
  monkeypatch.setenv(endpoint.KEY, "secret")
  monkeypatch.setenv("NO_PROXY", "127.0.0.1")
  yield server
  server.shutdown()
  server.server_close()
  thread.join()


@pytest.fixture
def connect(server):
  """`connect()` returns `complete` of a client of the server, with defaults."""

  def connect(**options):
    url = f"http://127.0.0.1:{server.server_port}/v1"
    client = CompletionsClient(url, "m", retries=2, timeout=60, **options)
    usual = {"max_tokens": 1, "temperature": 0}
    return lambda prompt="p", **changes: client.complete(prompt, **usual | changes)

  return connect


@pytest.fixture
def complete(connect):
  return connect()


def test_asks_and_reads(server, complete):
  stops = ["\ndef", "\n#", "a", "b", "c"]
  settings = {"max_tokens": 7, "temperature": 0.2, "top_p": 0.9, "top_k": 5, "seed": 11}
  found = complete("def f():\n", stops=stops, **settings)
  assert (found.text, found.finish, found.tokens) == ("  return 1\n", "stop", 2)
  assert found.log_prob == -0.75
  path, sent, headers = server.asked[0]
  assert path == "/v1/completions"
  assert headers["Authorization"] == "Bearer secret"
  model = {"model": "m", "prompt": "def f():\n", "logprobs": 0}
  assert sent == {**model, **settings, "stop": stops[:4]}
  complete()
  assert not {"top_p", "top_k", "stop", "seed"} & server.asked[1][1].keys()


@pytest.mark.parametrize("scores", [None, [-0.5, float("-inf")]])
def test_what_the_server_does_not_say(server, complete, scores):
  logprobs = scores and {"token_logprobs": scores, "tokens": ["a", "b"]}
  server.script = [(200, answer(logprobs=logprobs) | {"usage": None})]
  found = complete()
  assert (found.tokens, found.log_prob) == (None, None)


USELESS = [
  *[(status, {"error": {"message": "busy"}}) for status in (429, 500, 503)],
  *[(200, body) for body in (b"<html>", b'{"choices": [', {"choices": []}, [])],
  (200, {"error": "x"}),
  (200, {"choices": [{"index": 0, "message": {"content": "hi"}}]}),
  *[(200, answer(text=text)) for text in (None, 5)],
  (200, answer(text="", finish_reason="error")),
]


@pytest.mark.parametrize("useless", USELESS)
def test_asks_again_until_it_gives_up(server, complete, useless):
  server.script = [useless] * 2
  assert complete().text == "  return 1\n"
  server.script = [useless] * 9
  with pytest.raises(RequestError, match=r"127\.0\.0\.1"):
    complete()
  assert len(server.asked) == 6
  server.script = [(200, answer(finish_reason="content_filter"))]
  with pytest.raises(RequestError, match="content filter"):
    complete()


@pytest.mark.parametrize("status", [401, 403, 404, 400, 413, 422])
def test_a_refusal_is_of_the_endpoint_or_of_one_request(server, complete, status):
  error = InputError if status in (401, 403, 404) else RefusedError
  server.script = [(status, {"error": {"message": "no such model"}})] * 9
  with pytest.raises(error, match=f"refused with {status}.*no such model"):
    complete()
  assert len(server.asked) == 1


@pytest.mark.parametrize("field", ["logprobs", "seed", "stop"])
def test_a_field_that_a_server_refuses_is_left_out_from_then_on(
  server, complete, field
):
  server.script = [(400, {"error": {"message": f"unknown parameter: {field!r}"}})]
  for _ in range(2):
    complete(stops=["a"], seed=3)
  sent = [body for _, body, _ in server.asked]
  assert [field in body for body in sent] == [True, False, False]


@pytest.mark.parametrize(
  "message",
  [
    "unsupported: seed, stop, logprobs, max_completion_tokens",
    "please stop; the prompt is too long",
  ],
)
def test_a_refusal_for_another_reason_changes_no_other_request(
  server, complete, message
):
  server.script = [(400, {"error": {"message": message}})] * 3
  with pytest.raises(RequestError, match="refused with 400"):
    complete(stops=["a"], seed=3)
  server.script = []
  complete(stops=["a"], seed=3)
  assert {"stop", "seed", "logprobs", "max_tokens"} < server.asked[-1][1].keys()


def test_the_length_is_renamed_once(server, connect, monkeypatch):
  monkeypatch.setenv("OPENAI_API_KEY", "x")  # also a letter of the server's answer
  complete = connect()
  message = "max_tokens is not supported. Use 'max_completion_tokens' instead."
  server.script = [(400, {"error": {"message": message}})]
  for _ in range(2):
    complete()
  names = ("max_tokens", "max_completion_tokens")
  sent = [[n for n in names if n in body] for _, body, _ in server.asked]
  assert sent == [[names[0]], [names[1]], [names[1]]]


def test_chat_without_the_thoughts(server, connect):
  content = "<think>a = 1</think>\n```\nb = 2\n```"
  choice = {"message": {"role": "assistant", "content": content}}
  choice |= {"index": 0, "finish_reason": "stop"}
  server.script = [(200, {"choices": [choice]})]
  assert connect(api="chat")().text == "```\nb = 2\n```"
  path, sent, _ = server.asked[0]
  assert path == "/v1/chat/completions"
  assert sent["messages"] == [{"role": "user", "content": "p"}]
  assert "logprobs" not in sent


@pytest.mark.parametrize("url", ["localhost:8000", "", "ftp://x", "http://"])
def test_refuses_what_is_not_an_address(url):
  with pytest.raises(InputError, match="--base_url"):
    CompletionsClient(url, "m")
