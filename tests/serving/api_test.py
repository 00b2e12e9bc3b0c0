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
  vocabulary_size=320,
  num_layers=2,
  num_heads=4,
  head_dim=8,
  rotary_dim=4,
  embed_dim=24,
  mlp_dim=40,
  max_length=128,
  initializer_range=0.3,
  dtype="float32",
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
def client(server):
  os.environ["NO_PROXY"] = "127.0.0.1"
  return openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def expected(loaded):
  requests = [Request(str(n), prompt, 20) for n, prompt in enumerate(PROMPTS)]
  found = {c.key: c for c in Sampler(loaded, Method(), slots=4).complete(requests)}
  return [found[str(n)] for n in range(len(PROMPTS))]


def complete(client, prompt, **options):
  options = {"max_tokens": 20, "temperature": 0, **options}
  return client.completions.create(model="tiny", prompt=prompt, **options)


def test_concurrent_requests_get_the_samplers_texts(client, expected):
  with concurrent.futures.ThreadPoolExecutor(12) as pool:
    asked = [pool.submit(complete, client, prompt) for prompt in PROMPTS * 3]
    texts = [one.result().choices[0].text for one in asked]
  assert texts == [one.text for one in expected] * 3


def test_several_prompts_and_ids_in_one_request(client, loaded, expected):
  found = complete(client, PROMPTS)
  assert [c.text for c in found.choices] == [one.text for one in expected]
  assert found.usage.completion_tokens == sum(len(one.tokens) for one in expected)
  ids = [loaded.tokenizer.encode(prompt) for prompt in PROMPTS]
  assert [c.text for c in complete(client, ids).choices] == [
    c.text for c in found.choices
  ]
  assert complete(client, ids[0]).choices[0].text == expected[0].text


def test_streams_the_same_text(client, expected):
  parts = list(complete(client, PROMPTS, stream=True))
  texts = [""] * len(PROMPTS)
  for part in parts:
    for choice in part.choices:
      texts[choice.index] += choice.text
  assert texts == [one.text for one in expected]
  assert len(parts) > len(PROMPTS)
  assert {c.finish_reason for p in parts for c in p.choices} >= {None, "length"}


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("options", [{}, {"stop": ["+"]}, {"max_tokens": 0}])
def test_streamed_logprobs_are_those_of_the_whole_answer(client, echo, options):
  """The joined chunks are the answer, and no token comes before its text."""
  options = {"logprobs": 1, "echo": echo, **options}
  whole = complete(client, PROMPTS, **options).choices
  fields = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
  texts = [""] * len(PROMPTS)
  found: list[dict] = [{name: [] for name in fields} for _ in PROMPTS]
  chunks = 0
  for part in complete(client, PROMPTS, stream=True, **options):
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


def test_samples_follow_from_the_seed(client):
  options = {"temperature": 1.0, "n": 3, "seed": 7}
  first, again = (
    [c.text for c in complete(client, "a", **options).choices] for _ in range(2)
  )
  assert first == again
  assert len(set(first)) == 3
  other = complete(client, "a", **{**options, "seed": 8}).choices
  assert [c.text for c in other] != first


def test_methods_take_turns(client, expected):
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    asked = [
      pool.submit(complete, client, PROMPTS[n % 4], temperature=n % 2, top_p=0.9)
      if n % 2
      else pool.submit(complete, client, PROMPTS[n % 4])
      for n in range(8)
    ]
    texts = [one.result().choices[0].text for one in asked]
  assert [texts[n] for n in (0, 2, 4, 6)] == [
    expected[n % 4].text for n in (0, 2, 4, 6)
  ]


def test_a_stop_string_ends_the_text(client, expected):
  text = expected[0].text
  stop = text[len(text) // 2 :][:3]
  found = complete(client, PROMPTS[0], stop=[stop, "never there"]).choices[0]
  assert (found.text, found.finish_reason) == (text[: text.index(stop)], "stop")


def test_logprobs_and_echo(client, loaded, expected):
  found = complete(client, PROMPTS[0], logprobs=1, echo=True).choices[0]
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
  alone = complete(client, PROMPTS[0], logprobs=0, echo=True, max_tokens=0).choices[0]
  assert (alone.text, len(alone.logprobs.tokens)) == (PROMPTS[0], len(ids))


@pytest.mark.parametrize(
  ("field", "options"),
  [
    ("model", {"model": "other"}),
    ("n", {"n": 0}),
    ("temperature", {"temperature": "hot"}),
    ("prompt", {"prompt": [[1], [99999]]}),
    ("prompt", {"prompt": "a b c d e " * 99}),
    ("temperature", {"temperature": -1}),
    ("temperature", {"temperature": 2.1}),
    ("temperature", {"temperature": float("inf")}),
    ("temperature", {"temperature": 10**400}),
    ("top_p", {"top_p": float("nan")}),
    ("top_p", {"top_p": 0}),
    ("top_k", {"top_k": float("inf")}),
    ("top_k", {"top_k": 2.7}),
    ("prompt", {"prompt": [True, False]}),
    ("prompt", {"prompt": {}}),
    ("prompt", {"prompt": "a\ud800b"}),
    ("stop", {"stop": [3]}),
    ("stop", {"stop": 5}),
    ("stop", {"stop": {"a": 1}}),
    ("stream", {"stream": "false"}),
    ("echo", {"echo": 1}),
    ("stream_options", {"stream_options": "x"}),
    ("include_usage", {"stream_options": {"include_usage": 1}}),
    ("n", {"n": 41}),
    ("prompt", {"prompt": ["a"] * 41}),
    ("best_of", {"best_of": 5}),
    ("presence_penalty", {"presence_penalty": 1}),
    ("max_tokens", {"max_tokens": 128}),
    ("max_tokens", {"max_tokens": 1 << 40}),
    ("max_token", {"max_token": 5}),
    ("include_usage", {"include_usage": True}),
    ("echo", {"stream_options": {"echo": True}}),
    ("Temperature", {"Temperature": 0}),
  ],
)
def test_refuses_by_name(server, field, options):
  body = {"model": "tiny", "prompt": "a", **options}
  code, answer = post(server, json.dumps(body), {"Content-Type": "application/json"})
  assert code == (404 if field == "model" else 400)
  assert answer["error"]["param"] == field


def post(server, body, headers):
  request = urllib.request.Request(f"{server}/v1/completions", body.encode(), headers)
  try:
    with urllib.request.urlopen(request) as answer:
      return answer.status, json.load(answer)
  except urllib.error.HTTPError as error:
    return error.code, json.load(error)


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
  assert post(server, '{"prompt": "a", "max_tokens": 1}', headers)[0] == status


def test_a_server_for_other_machines_has_any_name():
  assert [serve._hosts(host) for host in ("0.0.0.0", "::")] == [(), ()]
  assert serve._hosts("::1")[-1] == "[::1]"
  assert "box" in serve._hosts("box")


def test_a_full_queue_is_refused(client):
  first = complete(client, "a", n=40, max_tokens=120, temperature=1, stream=True)
  next(iter(first))
  with pytest.raises(openai.RateLimitError, match="wait already"):
    complete(client, "a", n=40)
  first.close()
  assert complete(client, "a").choices


def test_the_loops_of_few_methods_are_kept(client, monkeypatch):
  monkeypatch.setattr(engine, "_MOST_METHODS", 2)
  loop.decode.clear_cache()
  for step in range(6):
    complete(client, "a", temperature=1 + step / 10, max_tokens=1)
    assert loop.decode._cache_size() <= 2


def test_models_and_health(server, client):
  assert [model.id for model in client.models.list()] == ["tiny"]
  status = json.loads(urllib.request.urlopen(f"{server}/health").read())
  assert status == {"ok": True, "running": 0, "waiting": 0}


def test_a_client_that_leaves_frees_its_slots(server, client):
  body = json.dumps(
    {"prompt": ["a"] * 30, "max_tokens": 120, "temperature": 1}
  ).encode()
  host, port = server.removeprefix("http://").split(":")
  with socket.create_connection((host, int(port))) as connection:
    head = (
      f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\n"
      f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    )
    connection.sendall(head.encode() + b"\r\n" + body)
    wait_for(server, lambda running: running > 0)
  wait_for(server, lambda running: running == 0)


def wait_for(server, holds):
  deadline = time.monotonic() + 120
  health = f"{server}/health"
  while not holds(json.loads(urllib.request.urlopen(health).read())["running"]):
    assert time.monotonic() < deadline
    time.sleep(0.05)


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


def test_the_client_of_lm_evaluation_harness(server, expected):
  """Its generations are ours; the score follows from them."""
  clients = pytest.importorskip("lm_eval.models.openai_completions")
  instances = pytest.importorskip("lm_eval.api.instance")
  client = clients.LocalCompletionsAPI(
    base_url=f"{server}/v1/completions",
    model="tiny",
    tokenizer_backend=None,
    tokenized_requests=False,
    num_concurrent=4,
  )
  options = {"until": ["never there"], "max_gen_toks": 20, "temperature": 0}
  asked = [
    instances.Instance("generate_until", {}, (prompt, options), number)
    for number, prompt in enumerate(PROMPTS)
  ]
  assert client.generate_until(asked) == [one.text for one in expected]


def test_the_harness_scores_continuations_as_the_model_does(server, loaded, tmp_path):
  clients = pytest.importorskip("lm_eval.models.openai_completions")
  instances = pytest.importorskip("lm_eval.api.instance")
  transformers = pytest.importorskip("transformers")
  loaded.tokenizer.save(tmp_path / "tokenizer.json")
  transformers.PreTrainedTokenizerFast(
    tokenizer_file=str(tmp_path / "tokenizer.json"), eos_token="<|endoftext|>"
  ).save_pretrained(tmp_path)
  client = clients.LocalCompletionsAPI(
    base_url=f"{server}/v1/completions", model="tiny", tokenizer=str(tmp_path)
  )
  pairs = [("def f(x):", "\n  return x + 1"), ("a", "bc"), ("hij", " return")]
  asked = [
    instances.Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(pairs)
  ]
  found = client.loglikelihood(asked)
  for (context, continuation), (score, _) in zip(pairs, found, strict=True):
    before = loaded.tokenizer.encode(context)
    ids = loaded.tokenizer.encode(context + continuation)
    assert ids[: len(before)] == before
    wanted = log_probs_of(loaded, ids)[len(before) - 1 :].sum()
    assert score == pytest.approx(wanted, abs=1e-3)


def test_the_end_of_text_is_a_token_of_the_answer(
  client, loaded, expected, monkeypatch
):
  """A client that asks for a token to score a prompt drops the last of the list."""
  ids = loaded.tokenizer.encode(PROMPTS[1])
  first = complete(client, ids, max_tokens=1, logprobs=1, echo=True).choices[0]
  monkeypatch.setattr(loaded.tokenizer, "eos_id", expected[1].tokens[0])
  ended = complete(client, ids, max_tokens=1, logprobs=1, echo=True).choices[0]
  assert (ended.text, ended.finish_reason) == ("a", "stop")
  assert ended.logprobs.token_logprobs == first.logprobs.token_logprobs
  assert len(ended.logprobs.tokens) == len(ids) + 1


def test_unknown_paths_are_answered_in_json(server):
  request = urllib.request.Request(f"{server}/v1/chat/completions", b"{}")
  with pytest.raises(urllib.error.HTTPError) as error:
    urllib.request.urlopen(request)
  assert error.value.code == 404
  assert "/v1/completions" in json.load(error.value)["error"]["message"]


def test_requests_whose_prefill_fails_are_answered(loaded, monkeypatch):
  broken = engine.Engine(loaded, slots=2)
  answers = queue.Queue()
  with monkeypatch.context() as patch:

    def fail(*_):
      raise RuntimeError("no memory")

    patch.setattr(broken, "_fill", fail)
    jobs = [
      engine.Job([65], Request(str(i), "", 4, (), 0), Method(), answers.put)
      for i in range(3)
    ]
    broken.submit(jobs)
    found = [answers.get(timeout=300) for _ in jobs]
  assert [str(error) for error in found] == ["no memory"] * 3
  broken.submit(jobs[:1])
  assert answers.get(timeout=300).tokens
  broken.stop()
