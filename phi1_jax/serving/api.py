"""OpenAI's completions API over HTTP: /v1/completions, /v1/models, /health.

Not supported, and refused: best_of above n, suffixes, penalties, biases, and fields
that the API does not have. `logprobs` is 0 or 1, which both give those of the chosen
tokens; 1 beside them the most probable token, for the prompt (`echo`) and where
sampling is greedy. More alternatives are refused.
"""

import asyncio
import contextlib
import dataclasses
import json
import re
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Annotated, Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from phi1_jax import InputError, settings
from phi1_jax.sampling import stopping
from phi1_jax.sampling.methods import Method
from phi1_jax.sampling.sampler import Completion, Request
from phi1_jax.serving.engine import GROWING, Engine, FullError, Job, Scored
from phi1_jax.settings import Count, PositiveInt, Range

_MOST_BYTES = 1 << 24  # of a request
_MOST_CHOICES = 1024  # prompts times n
_END = "<|endoftext|>"  # what the end of text is called, which has no text
# Fields of a request -> type, and the value where there is none.
_FIELDS: dict[str, tuple[Any, Any]] = {
  "model": (str, None),
  "prompt": (Any, ""),
  "n": (PositiveInt, 1),
  "best_of": (PositiveInt, 1),
  "max_tokens": (Count, None),
  "temperature": (Annotated[float, Range(least=0, most=2)], 1.0),
  "top_p": (float, 1.0),
  "top_k": (Annotated[int, Range(least=-1)], 0),
  "stop": (str | tuple[str, ...], ()),
  "seed": (Count, None),
  "logprobs": (Annotated[int, Range(least=0, most=1)], None),
  "echo": (bool, False),
  "stream": (bool, False),
  "stream_options": (dict[str, Any], {}),
  "user": (str, ""),
}
_STREAM_OPTIONS: dict[str, tuple[Any, Any]] = {"include_usage": (bool, False)}
# Fields that would change the text, and values that do not.
_UNSUPPORTED = {
  "suffix": (None, ""),
  "presence_penalty": (None, 0),
  "frequency_penalty": (None, 0),
  "logit_bias": (None, {}),
}


class BadRequestError(Exception):
  """A request that cannot be served; `field` is to blame."""

  def __init__(self, message: str, field: str | None = None, status: int = 400):
    super().__init__(message)
    self.field, self.status = field, status


@dataclasses.dataclass(frozen=True)
class _Asked:
  """A request's fields, checked."""

  prompts: list[list[int]]
  texts: list[str]
  method: Method
  max_tokens: int
  n: int
  stops: tuple[str, ...]
  seed: int
  logprobs: int | None
  echo: bool
  stream: bool
  usage: bool  # in a stream's last chunk


def application(engine: Engine, model: str, hosts: Sequence[str] = ()) -> Starlette:
  """Return the ASGI application.

  Args:
    engine: completes the requests; it is stopped with the application.
    model: the name that requests give.
    hosts: names that the header Host may have; empty allows all.
  """
  created = int(time.time())
  handler = _Handler(engine, model)

  async def models(_: HttpRequest) -> Response:
    found = {"id": model, "object": "model", "created": created, "owned_by": "phi1_jax"}
    found["max_model_len"] = engine.loaded.config.max_length
    return JSONResponse({"object": "list", "data": [found]})

  async def health(_: HttpRequest) -> Response:
    status = engine.status()
    return JSONResponse(status, status_code=200 if status["ok"] else 503)

  @contextlib.asynccontextmanager
  async def lifespan(_: Starlette) -> AsyncIterator[None]:
    yield
    await asyncio.to_thread(engine.stop)

  routes = [
    Route("/v1/completions", handler.complete, methods=["POST"]),
    Route("/v1/models", models),
    Route("/health", health),
  ]
  check = Middleware(_HostCheck, hosts=hosts)
  return Starlette(
    routes=routes,
    lifespan=lifespan,
    middleware=[check],
    exception_handlers={404: _unknown, 405: _unknown},
  )


async def _unknown(http: HttpRequest, error: Any) -> Response:
  message = (
    f"got {http.method} {http.url.path}, expected POST /v1/completions, GET /v1/models "
    "or GET /health; the model has no chat template"
  )
  return _error(error.status_code, message, "invalid_request_error", None)


class _HostCheck:
  """Refuses requests for other hosts, as of web pages whose name means this machine.

  Args:
    app: answers the others.
    hosts: see `application`.
  """

  def __init__(self, app: Any, hosts: Sequence[str]):
    self._app, self._hosts = app, [host.lower() for host in hosts]

  async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
    answer = self._app
    if scope["type"] == "http" and self._hosts:
      host = re.sub(r":[0-9]*$", "", Headers(scope=scope).get("host", "").lower())
      if host not in self._hosts:
        message = f"got Host {host!r:.80}, expected one of {', '.join(self._hosts)}"
        answer = _error(403, message, "invalid_request_error", None)
    await answer(scope, receive, send)


class _Handler:
  """Answers /v1/completions."""

  def __init__(self, engine: Engine, model: str):
    self._engine, self._model = engine, model

  async def complete(self, http: HttpRequest) -> Response:
    """Answer one request."""
    try:
      asked = self._read(await _body(http))
      answer = _Answer(asked, self._engine, self._model)
      if asked.stream:
        return StreamingResponse(answer.stream(), media_type="text/event-stream")
      return await _unless_left(http, answer)
    except FullError as error:
      headers = {"Retry-After": "1"}
      status = 429 if self._engine.status()["ok"] else 503
      return _error(status, f"{error}; try again", "overloaded", None, headers)
    except (BadRequestError, InputError) as error:
      status, field = getattr(error, "status", 400), getattr(error, "field", None)
      return _error(status, str(error), "invalid_request_error", field)

  def _read(self, body: Mapping[str, Any]) -> _Asked:
    for name in body.keys() & _UNSUPPORTED:
      if body[name] not in _UNSUPPORTED[name]:
        raise BadRequestError(f"{name} is not supported", name)
    given = _checked(body, _FIELDS)
    if given["model"] not in (None, self._model):
      message = f"got model {given['model']!r:.80}, expected {self._model!r}"
      raise BadRequestError(message, "model", 404)
    n = given["n"]
    if given["best_of"] > n:
      raise BadRequestError("best_of above n is not supported", "best_of")
    prompts, texts = self._prompts(given["prompt"])
    if len(prompts) * n > _MOST_CHOICES:
      raise BadRequestError(f"expected at most {_MOST_CHOICES} choices", "n")
    longest, limit = max(map(len, prompts)), self._engine.loaded.config.max_length
    most, asked = limit - longest, given["max_tokens"]
    if asked is not None and asked > most:
      raise BadRequestError(
        f"got max_tokens {asked}, expected at most {most}: the longest prompt has "
        f"{longest} tokens, and the model reads {limit} with the answer",
        "max_tokens",
      )
    stops = given["stop"]
    stops = (stops,) * bool(stops) if isinstance(stops, str) else stops
    if not all(stops):
      raise BadRequestError("got an empty string in stop, expected some text", "stop")
    seed = given["seed"]
    return _Asked(
      prompts=prompts,
      texts=texts,
      method=_method(given["temperature"], given["top_p"], given["top_k"]),
      max_tokens=min(16, most) if asked is None else asked,
      n=n,
      stops=stops,
      seed=secrets.randbits(31) if seed is None else seed,
      logprobs=given["logprobs"],
      echo=given["echo"],
      stream=given["stream"],
      usage=_checked(given["stream_options"], _STREAM_OPTIONS)["include_usage"],
    )

  def _prompts(self, given: Any) -> tuple[list[list[int]], list[str]]:
    """Return the ids and the texts of a prompt, or of several."""
    tokenizer = self._engine.loaded.tokenizer
    limit = self._engine.loaded.config.max_length
    several = isinstance(given, list) and not all(type(x) is int for x in given)
    ids, texts = [], []
    for prompt in given if several and given else [given]:
      if isinstance(prompt, str):
        try:
          ids.append(tokenizer.encode(prompt))
        except InputError as error:
          raise BadRequestError(str(error), "prompt") from None
        texts.append(prompt)
      elif isinstance(prompt, list) and all(
        type(x) is int and 0 <= x < tokenizer.vocabulary_size for x in prompt
      ):
        ids.append(prompt)
        texts.append(tokenizer.decode(prompt))
      else:
        ids_are = f"token ids from 0 to {tokenizer.vocabulary_size - 1}"
        message = f"expected text, {ids_are}, or a list of these"
        raise BadRequestError(message, "prompt")
      ids[-1] = ids[-1] or [tokenizer.eos_id]
      if len(ids[-1]) > limit - 1:
        raise BadRequestError(
          f"the prompt has {len(ids[-1])} tokens, expected at most {limit - 1}",
          "prompt",
        )
    return ids, texts


class _Answer:
  """The jobs of one request, and what becomes of them.

  Args:
    asked: the request.
    engine: does the work.
    model: its name.

  Raises:
    FullError: the engine's queue is full.
    BadRequestError: it has more jobs than the queue takes.
  """

  def __init__(self, asked: _Asked, engine: Engine, model: str):
    self._asked, self._tokenizer = asked, engine.loaded.tokenizer
    self._head = {
      "id": f"cmpl-{secrets.token_hex(12)}",
      "object": "text_completion",
      "created": int(time.time()),
      "model": model,
    }
    self._loop, self._news = asyncio.get_running_loop(), asyncio.Queue()
    self._jobs: dict[tuple[str, int], Job] = {}
    self._sent: dict[int, tuple[int, int]] = {}  # characters and tokens, by choice
    for place, ids in enumerate(asked.prompts):
      if asked.echo and asked.logprobs is not None and len(ids) > 1:
        self._add(("score", place), ids, scores=True)
      if asked.max_tokens:
        for choice in range(asked.n):
          self._add(("text", place * asked.n + choice), ids, key=f"choice {choice}")
    if len(self._jobs) > engine.most_waiting:
      raise BadRequestError(
        f"got {len(self._jobs)} texts to complete or score, expected at most "
        f"{engine.most_waiting} in a request (--max_queue)",
        "n" if asked.n > 1 else "prompt",
      )
    engine.submit([*self._jobs.values()])

  def _add(self, name: tuple, ids: list[int], key: str = "", scores: bool = False):
    asked = self._asked

    def deliver(item: Any) -> None:
      with contextlib.suppress(RuntimeError):  # the server has stopped
        self._loop.call_soon_threadsafe(self._news.put_nowait, (name, item))

    request = Request(key, "", asked.max_tokens, asked.stops, asked.seed)
    job = Job(ids, request, asked.method, deliver, asked.stream, scores)
    self._jobs[name] = job

  def cancel(self) -> None:
    """End the jobs, whose client has left."""
    for job in self._jobs.values():
      job.cancelled = True

  async def whole(self) -> Response:
    """Return the answer once all jobs have finished."""
    found: dict[tuple, Any] = {}
    while len(found) < len(self._jobs):
      name, item = await self._news.get()
      if isinstance(item, Exception):
        self.cancel()
        raise item
      found[name] = item
    return await asyncio.to_thread(self._response, found)

  def _response(self, found: Mapping[tuple, Any]) -> Response:
    asked, choices = self._asked, []
    for place in range(len(asked.prompts)):
      scored = found.get(("score", place))
      for choice in range(asked.n):
        index = place * asked.n + choice
        done = found.get(("text", index))
        choices.append({"index": index, **self._choice(place, done, scored)})
    done = [item for item in found.values() if isinstance(item, Completion)]
    answer = {**self._head, "choices": choices, "usage": self._usage(done)}
    return JSONResponse(answer)

  def _usage(self, done: list[Completion]) -> dict[str, int]:
    prompt = sum(map(len, self._asked.prompts))
    completion = sum(len(one.tokens) for one in done)
    counts = {"prompt_tokens": prompt, "completion_tokens": completion}
    return counts | {"total_tokens": prompt + completion}

  def _choice(
    self, place: int, done: Completion | None, scored: Scored | None
  ) -> dict[str, Any]:
    asked = self._asked
    text = stopping.cut(done.text, asked.stops)[0] if done else ""
    before = asked.texts[place] if asked.echo else ""
    tokens: list[tuple[int, float | None, tuple[int, float] | None]] = []
    if asked.logprobs is not None:
      if asked.echo:
        log_probs = [None, *(scored.log_probs if scored else ())]
        tops = [None, *(scored.top if scored else ())]
        ids = asked.prompts[place]
        tokens += list(zip(ids, log_probs, tops, strict=True))
      if done:
        greedy = not asked.method.temperature
        sampled = list(zip(done.tokens, done.log_probs, strict=True))
        if done.end_log_prob is not None:
          sampled.append((self._tokenizer.eos_id, done.end_log_prob))
        tokens += [(*each, each if greedy else None) for each in sampled]
    return {
      "text": before + text,
      "logprobs": self._logprobs(tokens, before + text, done) if tokens else None,
      "finish_reason": _finish(done),
    }

  def _logprobs(
    self, tokens: list, text: str, done: Completion | None
  ) -> dict[str, Any]:
    """Return the fields of `logprobs`, without tokens behind a stop string.

    The end of text is a token of the answer, as OpenAI's API has it: clients that ask
    for one token, to score a prompt, drop the last of the list.
    """
    cut = done is not None and done.finish in ("stop", GROWING)
    words, log_probs, tops, offsets = [], [], [], []
    # A token may end within a character, so lengths of single tokens do not add up.
    starts = self._tokenizer.offsets([token for token, _, _ in tokens])
    for (token, log_prob, top), offset in zip(tokens, starts, strict=True):
      if cut and offset >= len(text):
        break
      words.append(self._word(token))
      log_probs.append(log_prob)
      best = {words[-1]: log_prob}
      if top:
        best[self._word(top[0])] = top[1]
      tops.append(best if log_prob is not None else None)
      offsets.append(offset)
    return {
      "tokens": words,
      "token_logprobs": log_probs,
      "top_logprobs": tops if self._asked.logprobs else None,
      "text_offset": offsets,
    }

  def _word(self, token: int) -> str:
    """Return the text of a token; the model may know more ids than the tokenizer."""
    if token >= self._tokenizer.vocabulary_size:
      return f"<|{token}|>"
    return self._tokenizer.decode([token]) or _END

  async def stream(self) -> AsyncIterator[str]:
    """Yield the events of a streamed answer."""
    asked, found = self._asked, {}
    try:
      for index in range(len(asked.prompts) * asked.n if asked.echo else 0):
        if ("score", index // asked.n) not in self._jobs:
          yield self._event(index, None, None)
      while len(found) < len(self._jobs):
        (kind, place), item = await self._news.get()
        if isinstance(item, Exception):
          problem = {"message": str(item), "type": "server_error"}
          yield f"data: {json.dumps({'error': problem})}\n\n"
          return
        if kind == "score":  # comes before the texts of its prompt
          found[kind, place] = item
          for index in range(place * asked.n, (place + 1) * asked.n):
            yield self._event(index, None, item)
          continue
        if item.finish != GROWING:
          found[kind, place] = item
        yield self._event(place, item, found.get(("score", place // asked.n)))
      if asked.usage:
        done = [item for item in found.values() if isinstance(item, Completion)]
        last = {**self._head, "choices": [], "usage": self._usage(done)}
        yield f"data: {json.dumps(last)}\n\n"
      yield "data: [DONE]\n\n"
    finally:  # the client may have left
      self.cancel()

  def _event(self, index: int, done: Completion | None, scored: Scored | None) -> str:
    """Return the event with what is new of a choice."""
    choice = self._choice(index // self._asked.n, done, scored)
    characters, tokens = self._sent.get(index, (0, 0))
    self._sent[index] = len(choice["text"]), tokens
    choice["text"] = choice["text"][characters:]
    if choice["logprobs"]:
      found = {
        name: each and each[tokens:] for name, each in choice["logprobs"].items()
      }
      choice["logprobs"] = found if found["tokens"] else None
      self._sent[index] = self._sent[index][0], tokens + len(found["tokens"])
    if self._asked.max_tokens and (done is None or done.finish == GROWING):
      choice["finish_reason"] = None
    chunk = {**self._head, "choices": [{"index": index, **choice}]}
    return f"data: {json.dumps(chunk)}\n\n"


def _finish(done: Completion | None) -> str:
  return "stop" if done and done.finish in ("stop", "eos") else "length"


async def _unless_left(http: HttpRequest, answer: _Answer) -> Response:
  """Wait for an answer; end its jobs if the client leaves before."""
  whole = asyncio.ensure_future(answer.whole())
  left = asyncio.ensure_future(http.receive())
  try:
    await asyncio.wait({whole, left}, return_when=asyncio.FIRST_COMPLETED)
    if not whole.done():
      raise BadRequestError("the client has left", status=499)
    return whole.result()
  finally:
    answer.cancel()
    whole.cancel()
    left.cancel()


async def _body(http: HttpRequest) -> Mapping[str, Any]:
  kind = http.headers.get("content-type", "").partition(";")[0].strip().lower()
  if kind != "application/json":  # other types a web page may send to any address
    raise BadRequestError(
      f"got Content-Type {kind!r:.80}, expected application/json", status=415
    )
  content = b""
  async for part in http.stream():
    content += part
    if len(content) > _MOST_BYTES:
      raise BadRequestError(f"expected at most {_MOST_BYTES:,} bytes", status=413)
  try:
    body = json.loads(content)
  except (ValueError, RecursionError):
    body = None
  if not isinstance(body, dict):
    raise BadRequestError("expected a JSON object")
  return body


def _checked(
  body: Mapping[str, Any], fields: Mapping[str, tuple[Any, Any]]
) -> dict[str, Any]:
  """Return a request's fields, all of them; null is as if there were none."""
  found = {name: default for name, (_, default) in fields.items()}
  for name, value in body.items():
    if name in _UNSUPPORTED or (value is None and name in fields):
      continue
    if name not in fields:
      known = f"expected some of {', '.join(sorted(fields))}"
      raise BadRequestError(f"got the field {name!r:.80}, {known}", name)
    value = tuple(value) if name == "stop" and isinstance(value, list) else value
    try:
      found[name] = settings.checked(name, value, fields[name][0])
    except (InputError, OverflowError) as error:
      raise BadRequestError(f"{error!s:.200}", name) from None
  return found


def _method(temperature: float, top_p: float, top_k: int) -> Method:
  if not temperature or top_k == 1:
    return Method()
  # -1 and 0 mean all tokens elsewhere
  given = (temperature, top_k if top_k > 0 else None, None if top_p == 1 else top_p)
  try:
    return Method(*given)
  except InputError as error:
    names = ("temperature", "top_p", "top_k")
    field = next(name for name in names if name in str(error))
    raise BadRequestError(str(error), field) from None


def _error(
  status: int,
  message: str,
  kind: str,
  field: str | None,
  headers: Mapping[str, str] | None = None,
) -> Response:
  problem = {"message": message, "type": kind, "param": field, "code": None}
  return JSONResponse({"error": problem}, status_code=status, headers=headers)
