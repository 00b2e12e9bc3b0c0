"""/v1/completions and chats without a journal."""

import pytest

from phi1_jax import InputError
from phi1_jax.llm.completions import CompletionsClient, RefusedError, RequestError
from tests.llm.conftest import reply
from tests.llm.counting_server import TEXT

pytest.importorskip("openai")
SOON = {"retry-after-ms": "1"}


def answer(**changes):
  return {**TEXT, "choices": [TEXT["choices"][0] | changes]}


def refusal(message, status=400):
  return status, {"error": {"message": message}}, {}


@pytest.fixture
def server(llm):
  return llm.server


@pytest.fixture
def connect(server):
  """`connect()` returns `complete` of a client of the server, with defaults."""

  def connect(**options):
    client = CompletionsClient(server.url, "m", retries=2, timeout=60, **options)
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
  assert server.paths == ["/v1/completions"]
  assert server.request_headers["Authorization"] == "Bearer sk-secret"
  model = {"model": "m", "prompt": "def f():\n", "logprobs": 0}
  assert server.bodies == [{**model, **settings, "stop": stops[:4]}]
  complete()
  assert not {"top_p", "top_k", "stop", "seed"} & server.bodies[1].keys()


@pytest.mark.parametrize("scores", [None, [-0.5, float("-inf")]])
def test_what_the_server_does_not_say(server, complete, scores):
  logprobs = scores and {"token_logprobs": scores, "tokens": ["a", "b"]}
  server.script = [(200, answer(logprobs=logprobs) | {"usage": None}, {})]
  found = complete()
  assert (found.tokens, found.log_prob) == (None, None)


USELESS = [
  *[(status, {"error": {"message": "busy"}}) for status in (429, 500, 503)],
  *[(200, body) for body in (b"<html>", b'{"choices": [', {"choices": []}, b"[]")],
  (200, {"error": "x"}),
  (200, {"choices": [{"index": 0, "message": {"content": "hi"}}]}),
  *[(200, answer(text=text)) for text in (None, 5)],
  (200, answer(text="", finish_reason="error")),
]


def test_asks_again_until_it_gives_up(server, complete):
  for useless in USELESS:
    server.script = [(*useless, SOON)] * 2
    assert complete().text == "  return 1\n"
    server.script = [(*useless, SOON)] * 3
    with pytest.raises(RequestError, match=r"127\.0\.0\.1"):
      complete()
    assert not server.script
  server.script = [(200, answer(finish_reason="content_filter"), {})]
  with pytest.raises(RequestError, match="content filter"):
    complete()


@pytest.mark.parametrize("status", [401, 403, 404, 400, 413, 422])
def test_a_refusal_is_of_the_endpoint_or_of_one_request(server, complete, status):
  kind = InputError if status in (401, 403, 404) else RefusedError
  server.script = [refusal("no such model", status)] * 2
  with pytest.raises(kind, match=f"refused with {status}.*no such model"):
    complete()
  assert len(server.script) == 1


def test_a_field_that_a_server_refuses_is_left_out_from_then_on(server, complete):
  fields = ["logprobs", "seed", "stop"]
  server.script = [refusal(f"unknown parameter: {name!r}") for name in fields]
  for _ in range(2):
    complete(stops=["a"], seed=3)
  sent = [[name for name in fields if name in body] for body in server.bodies]
  assert sent == [fields, fields[1:], fields[2:], [], []]


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
  server.script = [refusal(message)] * 3
  with pytest.raises(RequestError, match="refused with 400"):
    complete(stops=["a"], seed=3)
  server.script = []
  complete(stops=["a"], seed=3)
  assert {"stop", "seed", "logprobs", "max_tokens"} < server.bodies[-1].keys()


def test_the_length_is_renamed_once(server, connect, monkeypatch):
  monkeypatch.setenv("OPENAI_API_KEY", "x")  # also a letter of the server's answer
  complete = connect()
  message = "max_tokens is not supported. Use 'max_completion_tokens' instead."
  server.script = [refusal(message)]
  for _ in range(2):
    complete()
  names = ("max_tokens", "max_completion_tokens")
  sent = [[n for n in names if n in body] for body in server.bodies]
  assert sent == [[names[0]], [names[1]], [names[1]]]


def test_chat_without_the_thoughts(server, connect):
  server.script = [reply("<think>a = 1</think>\n```\nb = 2\n```")]
  assert connect(api="chat")().text == "```\nb = 2\n```"
  assert server.paths == ["/v1/chat/completions"]
  assert server.bodies[0]["messages"] == [{"role": "user", "content": "p"}]
  assert "logprobs" not in server.bodies[0]


@pytest.mark.parametrize("url", ["localhost:8000", "", "ftp://x", "http://"])
def test_refuses_what_is_not_an_address(url):
  with pytest.raises(InputError, match="--base_url"):
    CompletionsClient(url, "m")
