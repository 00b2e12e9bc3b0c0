"""/v1/completions, against the counting server."""

import pytest

from phi1_jax import InputError
from phi1_jax.llm.completions import CompletionsClient, RefusedError, RequestError

pytest.importorskip("openai")

CHOICE = {
  **{"index": 0, "text": "  return 1\n", "finish_reason": "stop"},
  "logprobs": {"token_logprobs": [-0.5, -0.25], "tokens": ["a", "b"]},
}


def said(status, body):
  """An answer of the server's script, which is asked again at once."""
  return (status, body, {"retry-after-ms": "1"})


def answer(**changes):
  usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
  return said(200, {"model": "m", "choices": [CHOICE | changes], "usage": usage})


def refusal(status, message):
  return said(status, {"error": {"message": message}})


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
  server.script = [answer()]
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
  _, body, _ = answer(logprobs=logprobs)
  server.script = [said(200, body | {"usage": None})]
  found = complete()
  assert (found.tokens, found.log_prob) == (None, None)


USELESS = [
  *[refusal(status, "busy") for status in (429, 500, 503)],
  *[said(200, body) for body in (b"<html>", b'{"choices": [', {"choices": []}, b"[]")],
  said(200, {"error": "x"}),
  said(200, {"choices": [{"index": 0, "message": {"content": "hi"}}]}),
  *[answer(text=text) for text in (None, 5)],
  answer(text="", finish_reason="error"),
]


@pytest.mark.parametrize("useless", USELESS)
def test_asks_again_until_it_gives_up(server, complete, useless):
  server.script = [useless, useless, answer()]
  assert complete().text == "  return 1\n"
  server.script = [useless] * 9
  with pytest.raises(RequestError, match=r"127\.0\.0\.1"):
    complete()
  assert len(server.bodies) == 6
  server.script = [answer(finish_reason="content_filter")]
  with pytest.raises(RequestError, match="content filter"):
    complete()


@pytest.mark.parametrize("status", [401, 403, 404, 400, 413, 422])
def test_a_refusal_is_of_the_endpoint_or_of_one_request(server, complete, status):
  error = InputError if status in (401, 403, 404) else RefusedError
  server.script = [refusal(status, "no such model")] * 9
  with pytest.raises(error, match=f"refused with {status}.*no such model"):
    complete()
  assert len(server.bodies) == 1


@pytest.mark.parametrize("field", ["logprobs", "seed", "stop"])
def test_a_field_that_a_server_refuses_is_left_out_from_then_on(
  server, complete, field
):
  server.script = [refusal(400, f"unknown parameter: {field!r}")]
  for _ in range(2):
    complete(stops=["a"], seed=3)
  assert [field in body for body in server.bodies] == [True, False, False]


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
  server.script = [refusal(400, message)] * 3
  with pytest.raises(RequestError, match="refused with 400"):
    complete(stops=["a"], seed=3)
  server.script = []
  complete(stops=["a"], seed=3)
  assert {"stop", "seed", "logprobs", "max_tokens"} < server.bodies[-1].keys()


def test_the_length_is_renamed_once(server, connect, monkeypatch):
  monkeypatch.setenv("OPENAI_API_KEY", "x")  # also a letter of the server's answer
  complete = connect()
  message = "max_tokens is not supported. Use 'max_completion_tokens' instead."
  server.script = [refusal(400, message)]
  for _ in range(2):
    complete()
  names = ("max_tokens", "max_completion_tokens")
  sent = [[n for n in names if n in body] for body in server.bodies]
  assert sent == [[names[0]], [names[1]], [names[1]]]


def test_chat_without_the_thoughts(server, connect):
  content = "<think>a = 1</think>\n```\nb = 2\n```"
  choice = {"message": {"role": "assistant", "content": content}}
  choice |= {"index": 0, "finish_reason": "stop"}
  server.script = [said(200, {"choices": [choice]})]
  assert connect(api="chat")().text == "```\nb = 2\n```"
  assert server.paths == ["/v1/chat/completions"]
  assert server.bodies[0]["messages"] == [{"role": "user", "content": "p"}]
  assert "logprobs" not in server.bodies[0]


@pytest.mark.parametrize("url", ["localhost:8000", "", "ftp://x", "http://"])
def test_refuses_what_is_not_an_address(url):
  with pytest.raises(InputError, match="--base_url"):
    CompletionsClient(url, "m")
