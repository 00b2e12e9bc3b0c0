"""Against a little server of our own that speaks the protocol."""

import http.server
import json
import threading

import pytest

from phi1_jax import InputError
from phi1_jax.llm import completions as clients
from phi1_jax.llm import endpoint
from phi1_jax.llm.completions import CompletionsClient as Client
from phi1_jax.llm.completions import RequestError

pytest.importorskip("openai")

ANSWER = {
  "id": "x",
  "object": "text_completion",
  "created": 0,
  "model": "m",
  "choices": [
    {
      "index": 0,
      "text": "  return 1\n",
      "finish_reason": "stop",
      "logprobs": {"token_logprobs": [-0.5, -0.25], "tokens": ["a", "b"]},
    }
  ],
  "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}


@pytest.fixture
def server(monkeypatch):
  """`server.script` holds what is answered next; afterwards `ANSWER`, for ever."""

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
      content = self.rfile.read(int(self.headers["Content-Length"]))
      server.asked.append((self.path, json.loads(content), self.headers))
      status, body = server.script.pop(0) if server.script else (200, ANSWER)
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
  monkeypatch.setenv(clients.KEY, "secret")
  monkeypatch.setenv("NO_PROXY", "127.0.0.1")
  monkeypatch.setattr(clients, "_FIRST_PAUSE", 0.0)
  yield server
  server.shutdown()
  server.server_close()
  thread.join()


@pytest.fixture
def client(server):
  return Client(f"http://127.0.0.1:{server.server_port}/v1", "m", retries=2, timeout=10)


def test_asks_and_reads(server, client):
  reply = client.complete(
    "def f():\n",
    max_tokens=7,
    temperature=0.2,
    top_p=0.9,
    top_k=5,
    stops=["\ndef", "\n#", "a", "b", "c"],
    seed=11,
  )
  assert (reply.text, reply.finish, reply.tokens) == ("  return 1\n", "stop", 2)
  assert reply.log_prob == -0.75
  path, sent, headers = server.asked[0]
  assert path == "/v1/completions"
  assert headers["Authorization"] == "Bearer secret"
  assert sent == {
    "model": "m",
    "prompt": "def f():\n",
    "max_tokens": 7,
    "temperature": 0.2,
    "top_p": 0.9,
    "top_k": 5,
    "stop": ["\ndef", "\n#", "a", "b", "c"],
    "seed": 11,
    "logprobs": 0,
  }


def test_leaves_out_what_is_not_given(server, client):
  client.complete("p", max_tokens=1, temperature=0)
  assert not {"top_p", "top_k", "stop", "seed"} & server.asked[0][1].keys()


def test_what_the_server_does_not_say(server, client):
  answer = json.loads(json.dumps(ANSWER))
  answer["choices"][0]["logprobs"] = None
  del answer["usage"]
  server.script = [(200, answer)]
  reply = client.complete("p", max_tokens=1, temperature=0)
  assert (reply.tokens, reply.log_prob) == (None, None)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_asks_again(server, client, status):
  server.script = [(status, {"error": {"message": "busy"}})] * 2
  assert client.complete("p", max_tokens=1, temperature=0).text == "  return 1\n"
  assert len(server.asked) == 3


@pytest.mark.parametrize("status", [429, 500])
def test_gives_up(server, client, status):
  server.script = [(status, {"error": {"message": "busy"}})] * 9
  with pytest.raises(RequestError, match=r"127\.0\.0\.1"):
    client.complete("p", max_tokens=1, temperature=0)
  assert len(server.asked) == 3


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_the_server_refuses_is_the_users_affair(server, client, status):
  server.script = [(status, {"error": {"message": "no such model"}})] * 9
  with pytest.raises(
    InputError, match=f"model m: refused with {status}.*no such model"
  ):
    client.complete("p", max_tokens=1, temperature=0)
  assert len(server.asked) == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_one_request_may_be_refused(server, client, status):
  server.script = [(status, {"error": {"message": "too long"}})]
  with pytest.raises(RequestError, match=f"refused with {status}.*too long"):
    client.complete("p", max_tokens=1, temperature=0)
  assert len(server.asked) == 1


def _choice(**changes):
  return ANSWER | {"choices": [ANSWER["choices"][0] | changes]}


NONE = [
  b"<html>",
  b'{"choices": [',
  {"choices": []},
  {"error": "x"},
  [],
  {"choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}]},
  _choice(text=None),
  _choice(text=5),
  _choice(text="", finish_reason="error"),
]


@pytest.mark.parametrize("body", NONE)
def test_an_answer_that_is_none(server, client, body):
  server.script = [(200, body)] * 9
  with pytest.raises(RequestError):
    client.complete("p", max_tokens=1, temperature=0)
  assert len(server.asked) == 3


@pytest.mark.parametrize("body", NONE)
def test_asks_again_after_an_answer_that_is_none(server, client, body):
  server.script = [(200, body)] * 2
  assert client.complete("p", max_tokens=1, temperature=0).text == "  return 1\n"


def test_what_was_filtered_is_no_completion(server, client):
  server.script = [(200, _choice(finish_reason="content_filter"))]
  with pytest.raises(RequestError, match="content filter"):
    client.complete("p", max_tokens=1, temperature=0)


def test_an_infinite_log_prob_is_not_known(server, client):
  scores = {"token_logprobs": [-0.5, float("-inf")], "tokens": ["a", "b"]}
  server.script = [(200, _choice(logprobs=scores))]
  assert client.complete("p", max_tokens=1, temperature=0).log_prob is None


def test_openai_takes_four_stops(monkeypatch):
  client = Client("https://api.openai.com/v1", "m")
  sent = {}

  def ask(options):
    sent.update(options)
    raise RequestError

  monkeypatch.setattr(client, "_ask", ask)
  with pytest.raises(RequestError):
    client.complete("p", max_tokens=1, temperature=0, stops=list("abcdef"))
  assert sent["stop"] == list("abcd")


@pytest.mark.parametrize("url", ["localhost:8000", "", "ftp://x", "http://"])
def test_refuses_what_is_no_address(url):
  with pytest.raises(InputError, match="--base_url"):
    Client(url, "m")


def test_says_what_to_install(monkeypatch):
  def missing(name):
    raise ImportError(name)

  monkeypatch.setattr(endpoint.importlib, "import_module", missing)
  with pytest.raises(InputError, match=r"pip install .*\[llm\]"):
    Client("http://localhost/v1", "m")
