"""The completions API over HTTP, with the package openai as the client."""

import concurrent.futures
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import jax
import pytest
from flax import linen as nn

from phi1_jax import InputError, serve
from phi1_jax.model.config import ModelConfig
from phi1_jax.model.decoder import Decoder, abstract_parameters
from phi1_jax.parallel import mesh as meshes
from phi1_jax.sampling import loop
from phi1_jax.sampling.checkpoint import Loaded
from phi1_jax.sampling.methods import Method
from phi1_jax.sampling.sampler import Request, Sampler
from phi1_jax.sampling.score import log_probs_of
from phi1_jax.text import tokenizer as tokenizers

openai = pytest.importorskip("openai")
uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

from phi1_jax.serving import api, engine  # noqa: E402

CONFIG = ModelConfig(
  *(320, 2, 4, 8, 4, 24, 40, 128), initializer_range=0.3, dtype="float32"
)
PROMPTS = ["def f(x):\n", "a", "return x + 1\n" * 3, "hij"]


@pytest.fixture(scope="module")
def loaded():
  tokenizer = tokenizers.train(["def f(x):\n  return x + 1\n" * 20, "abc hij"], 300)
  tokens_BT = jax.numpy.zeros((1, 1), int)
  params = nn.unbox(jax.jit(Decoder(CONFIG).init)(jax.random.key(3), tokens_BT))
  mesh = meshes.make_mesh(meshes.MeshConfig(1, 1, 1), jax.devices()[:1])
  places = jax.tree.map(lambda x: x.sharding, abstract_parameters(CONFIG, mesh))
  placed = jax.device_put(params["params"], places)
  return Loaded(CONFIG, placed, tokenizer, mesh, "digest")


@pytest.fixture(scope="module")
def server(loaded):
  worker = engine.Engine(loaded, slots=3, most_waiting=40)
  app = api.application(worker, "tiny", ("localhost", "127.0.0.1", "[::1]"))
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  running = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
  thread = threading.Thread(target=running.run, daemon=True)
  thread.start()
  while not running.started:
    time.sleep(0.05)
  yield f"http://127.0.0.1:{port}"
  running.should_exit = True
  thread.join(20)
  assert not worker.status()["ok"]


@pytest.fixture(scope="module")
def complete(server):
  """complete(prompt): the answer to a request, greedy, of 20 tokens."""
  os.environ["NO_PROXY"] = "127.0.0.1"
  client = openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)
  assert [model.id for model in client.models.list()] == ["tiny"]

  def complete(prompt, **options):
    options = {"max_tokens": 20, "temperature": 0, **options}
    return client.completions.create(model="tiny", prompt=prompt, **options)

  return complete


def _post(server, body, path="v1/completions", **headers):
  headers = {"Content-Type": "application/json"} | headers
  request = urllib.request.Request(f"{server}/{path}", body.encode(), headers)
  try:
    with urllib.request.urlopen(request) as answer:
      return answer.status, json.load(answer)
  except urllib.error.HTTPError as error:
    return error.code, json.load(error)


def _health(server):
  return json.loads(urllib.request.urlopen(f"{server}/health").read())


@pytest.fixture(scope="module")
def expected(loaded):
  requests = [Request(str(n), prompt, 20) for n, prompt in enumerate(PROMPTS)]
  found = {c.key: c for c in Sampler(loaded, Method(), slots=4).complete(requests)}
  return [found[str(n)] for n in range(len(PROMPTS))]


@pytest.mark.parametrize("other", [{}, {"temperature": 1, "top_p": 0.9}])
def test_concurrent_requests_get_the_samplers_texts(complete, expected, other):
  """Those of other methods take turns with them."""
  with concurrent.futures.ThreadPoolExecutor(12) as pool:
    options = [{}, other, {}]
    asked = [pool.submit(complete, p, **o) for o in options for p in PROMPTS]
    texts = [one.result().choices[0].text for one in asked]
  assert texts[:4] == texts[8:] == [one.text for one in expected]


def test_several_prompts_and_ids_in_one_request(complete, loaded, expected):
  found = complete(PROMPTS)
  assert [c.text for c in found.choices] == [one.text for one in expected]
  assert found.usage.completion_tokens == sum(len(one.tokens) for one in expected)
  ids = [loaded.tokenizer.encode(prompt) for prompt in PROMPTS]
  assert complete(ids).choices == found.choices
  assert complete(ids[0]).choices[0].text == expected[0].text


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize(
  "options", [{}, {"logprobs": 1}, {"stop": ["+"]}, {"max_tokens": 0}]
)
def test_streamed_chunks_are_the_whole_answer(complete, echo, options):
  """The joined chunks are the answer, and no token comes before its text."""
  options = {"echo": echo, **({"logprobs": 1} if options else {}), **options}
  whole = complete(PROMPTS, **options).choices
  fields = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
  texts, chunks = [""] * len(PROMPTS), 0
  found: list[dict] = [{name: [] for name in fields} for _ in PROMPTS]
  for part in complete(PROMPTS, stream=True, **options):
    for choice in part.choices:
      texts[choice.index] += choice.text
      chunks += 1
      for name in fields if choice.logprobs else ():
        found[choice.index][name] += getattr(choice.logprobs, name)
      if choice.logprobs and not choice.finish_reason:
        assert choice.logprobs.text_offset[-1] < len(texts[choice.index])
  for index, choice in enumerate(whole):
    assert texts[index] == choice.text
    for name in fields if choice.logprobs else ():
      assert found[index][name] == getattr(choice.logprobs, name)
  assert chunks > len(PROMPTS) or options.get("max_tokens") == 0


def test_samples_follow_from_the_seed(complete):
  options = {"temperature": 1.0, "n": 3}
  first, again, other = (
    [c.text for c in complete("a", seed=seed, **options).choices] for seed in (7, 7, 8)
  )
  assert first == again != other
  assert len(set(first)) == 3


def test_a_stop_string_ends_the_text(complete, expected):
  text = expected[0].text
  stop = text[len(text) // 2 :][:3]
  found = complete(PROMPTS[0], stop=[stop, "never there"]).choices[0]
  assert (found.text, found.finish_reason) == (text[: text.index(stop)], "stop")


def test_logprobs_and_echo(complete, loaded, expected):
  found = complete(PROMPTS[0], logprobs=1, echo=True).choices[0]
  assert found.text == PROMPTS[0] + expected[0].text
  ids = loaded.tokenizer.encode(PROMPTS[0])
  scores = found.logprobs.token_logprobs
  assert scores[0] is None
  whole = log_probs_of(loaded, [*ids, *expected[0].tokens])
  assert scores[1:] == pytest.approx(whole.tolist(), abs=1e-4)
  for token, score, top in zip(
    found.logprobs.tokens, scores, found.logprobs.top_logprobs, strict=True
  ):
    assert score is None or (top[token] == score and max(top.values()) >= score)
  alone = complete(PROMPTS[0], logprobs=0, echo=True, max_tokens=0).choices[0]
  assert (alone.text, len(alone.logprobs.tokens)) == (PROMPTS[0], len(ids))


def test_the_end_of_text_is_a_token_of_the_answer(
  complete, loaded, expected, monkeypatch
):
  """A client that asks for a token to score a prompt drops the last of the list."""
  ids = loaded.tokenizer.encode(PROMPTS[1])
  scored = {"max_tokens": 1, "logprobs": 1, "echo": True}
  first = complete(ids, **scored).choices[0]
  monkeypatch.setattr(loaded.tokenizer, "eos_id", expected[1].tokens[0])
  ended = complete(ids, **scored).choices[0]
  assert (ended.text, ended.finish_reason) == ("a", "stop")
  assert ended.logprobs.token_logprobs == first.logprobs.token_logprobs
  assert len(ended.logprobs.tokens) == len(ids) + 1


INF, NAN = float("inf"), float("nan")
WRONG = {
  "model": ["other"],
  "n": [0, 41],
  "temperature": ["hot", -1, 2.1, INF, 10**400],
  "top_p": [NAN, 0],
  "top_k": [INF, 2.7],
  "stop": [[3], 5, {"a": 1}],
  "stream": ["false"],
  "echo": [1],
  "logprobs": [2, 5, 20, -1],
  "stream_options": ["x"],
  "best_of": [5],
  "presence_penalty": [1],
  "max_tokens": [128, 1 << 40],
  **{"max_token": [5], "include_usage": [True], "Temperature": [0]},
  "prompt": [
    [[1], [99999]],
    [1, 99999],
    [[-1]],
    "a b c d e " * 99,
    [True, False],
    {},
    "a\ud800b",
  ],
}


@pytest.mark.parametrize(
  ("field", "options"),
  [
    *((field, {field: value}) for field, values in WRONG.items() for value in values),
    ("prompt", {"prompt": ["a"] * 41}),
    ("include_usage", {"stream_options": {"include_usage": 1}}),
    ("echo", {"stream_options": {"echo": True}}),
  ],
)
def test_refuses_by_name(server, field, options):
  body = {"model": "tiny", "prompt": "a", **options}
  code, answer = _post(server, json.dumps(body))
  assert code == (404 if field == "model" else 400)
  assert answer["error"]["param"] == field


@pytest.mark.parametrize(
  ("kind", "host", "status"),
  [
    ("application/json", "127.0.0.1:8000", 200),
    ("Application/JSON; charset=utf-8", "localhost", 200),
    ("application/json", "[::1]:8000", 200),
    ("application/json", "evil.example", 403),
    ("application/json", "localhost.evil.example:8000", 403),
    ("text/plain", "127.0.0.1", 415),
    ("application/x-www-form-urlencoded", "127.0.0.1", 415),
  ],
)
def test_web_pages_cannot_post(server, kind, host, status):
  headers = {"Content-Type": kind, "Host": host}
  body = '{"prompt": "a", "max_tokens": 1}'
  assert _post(server, body, **headers)[0] == status


def test_other_paths_and_methods_are_answered_in_json(server):
  code, answer = _post(server, "{}", "v1/chat/completions")
  assert code == 404
  assert "/v1/completions" in answer["error"]["message"]
  with pytest.raises(urllib.error.HTTPError) as refused:
    urllib.request.urlopen(f"{server}/v1/completions")
  assert refused.value.code == 405
  assert "POST" in json.loads(refused.value.read())["error"]["message"]


def test_a_taken_port_is_refused():
  with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(InputError):
    serve._bound(*taken.getsockname())


def test_a_server_for_other_machines_has_any_name():
  assert [serve._hosts(host) for host in ("0.0.0.0", "::")] == [(), ()]
  assert serve._hosts("::1")[-1] == "[::1]"
  assert "box" in serve._hosts("box")


def test_a_full_queue_is_refused(complete):
  first = complete("a", n=40, max_tokens=120, temperature=1, stream=True)
  next(iter(first))
  with pytest.raises(openai.RateLimitError, match="wait already"):
    complete("a", n=40)
  first.close()
  assert complete("a").choices


def test_the_loops_of_few_methods_are_kept(complete, monkeypatch):
  monkeypatch.setattr(engine, "_MOST_METHODS", 2)
  loop.decode.clear_cache()
  for step in range(4):
    complete("a", temperature=1 + step / 10, max_tokens=1)
    assert loop.decode._cache_size() <= 2


def _wait_for(server, holds):
  deadline = time.monotonic() + 300
  while not holds(_health(server)):
    assert time.monotonic() < deadline
    time.sleep(0.05)


def test_a_client_that_leaves_frees_its_slots(server, monkeypatch):
  jobs, submit = [], engine.Engine.submit
  noted = lambda self, more: jobs.extend(more) or submit(self, more)  # noqa: E731
  monkeypatch.setattr(engine.Engine, "submit", noted)
  body = json.dumps({"prompt": ["a"] * 30, "max_tokens": 120, "temperature": 1})
  host, port = server.removeprefix("http://").split(":")
  with socket.create_connection((host, int(port))) as connection:
    head = (
      f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\n"
      f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connection.sendall((head + body).encode())
    _wait_for(server, lambda health: health["running"] > 0)
  _wait_for(server, lambda health: health["running"] + health["waiting"] == 0)
  assert _health(server)["ok"]
  assert [job.cancelled for job in jobs] == [True] * 30


def test_the_command_refuses_what_is_no_checkpoint(tmp_path):
  command = [sys.executable, "-m", "phi1_jax.serve", f"--checkpoint={tmp_path}"]
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  assert done.returncode == 2
  assert "Traceback" not in done.stderr


@pytest.mark.parametrize("missing", ["uvicorn", "starlette"])
def test_only_missing_packages_are_reported_as_missing(monkeypatch, missing):
  with monkeypatch.context() as patch:
    patch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=f"serve needs {missing}"):
      serve.main(["--checkpoint=none"])
  monkeypatch.setitem(sys.modules, "phi1_jax.serving.api", None)
  monkeypatch.delattr("phi1_jax.serving.api")
  with pytest.raises(ImportError):
    serve.main(["--checkpoint=none"])


def test_requests_whose_prefill_fails_are_answered(loaded, monkeypatch):
  broken, answers = engine.Engine(loaded, slots=2), queue.Queue()
  jobs = [
    engine.Job([65], Request(str(i), "", 4, (), 0), Method(), answers.put)
    for i in range(3)
  ]

  def fail(*_):
    raise RuntimeError("no memory")

  with monkeypatch.context() as patch:
    patch.setattr(broken, "_fill", fail)
    broken.submit(jobs)
    found = [answers.get(timeout=300) for _ in jobs]
  assert [str(error) for error in found] == ["no memory"] * 3
  broken.submit(jobs[:1])
  assert answers.get(timeout=300).tokens
  broken.stop()
