import dataclasses
import itertools
import random

import jax
import numpy as np
import pytest

from phi1_jax.model.decoder import Decoder
from phi1_jax.sampling import loop, methods, score, stopping
from phi1_jax.sampling import sampler as sampler_module
from phi1_jax.sampling.sampler import Request, Sampler

PROMPTS = ["def f(x):\n  return", "a", "", "abc def\n  return x", "x + 1\n" * 6]
PROMPTS += ["return (x", "hij " * 9]


def requests(count=7, new=24, **fields):
  return [
    Request(f"r{i}", PROMPTS[i % len(PROMPTS)], new - i % 5, **fields)
    for i in range(count)
  ]


def run(sampler, wanted):
  done = list(sampler.complete(wanted))
  assert sorted(c.key for c in done) == sorted(r.key for r in wanted)
  return {completion.key: completion for completion in done}


def by_hand(loaded, forward, prompt, count):
  """Greedy text by running the whole forward pass for every token."""
  ids = loaded.tokenizer.encode(prompt) or [loaded.tokenizer.eos_id]
  chosen = []
  for _ in range(count):
    padded = np.zeros((1, loaded.config.max_length), np.int32)
    padded[0, : len(ids)] = ids
    logits = np.asarray(forward({"params": loaded.params}, padded))
    logits = logits[0, len(ids) - 1, : loaded.tokenizer.vocabulary_size]
    token = int(logits.argmax())
    if token == loaded.tokenizer.eos_id:
      break
    chosen.append(token)
    ids.append(token)
  return tuple(chosen)


@pytest.fixture(scope="module")
def loaded(load):
  return load()


@pytest.fixture(scope="module")
def greedy(loaded):
  return run(Sampler(loaded, methods.Method(), slots=3), requests())


def test_greedy_is_what_the_plain_forward_pass_says(loaded, greedy):
  forward = jax.jit(Decoder(loaded.config).apply)
  for request in requests():
    expected = by_hand(loaded, forward, request.prompt, request.max_new_tokens)
    assert greedy[request.key].tokens == expected
  assert len({c.tokens for c in greedy.values()}) > 3  # the model is not a constant


@pytest.mark.parametrize(
  ("slots", "axes"),
  [(1, (1, 1, 1)), (64, (1, 1, 1)), (3, (8, 1, 1)), (3, (2, 2, 2))],
)
def test_greedy_text_is_the_same_at_every_batch_size_and_mesh(
  load, greedy, slots, axes
):
  sampler = Sampler(load(*axes), methods.Method(), slots=slots)
  assert sampler.slots % (axes[0] * axes[1]) == 0
  assert texts(run(sampler, requests())) == texts(greedy)


@pytest.mark.parametrize("axes", [(1, 1, 1), (2, 1, 4)])
def test_the_cache_grows_and_shrinks_with_the_texts_and_changes_none(
  load, greedy, monkeypatch, axes
):
  lengths, compiled = [], loop.decode

  def decode(*arguments):
    lengths.append(arguments[5].cache.length)
    return compiled(*arguments)

  monkeypatch.setattr(sampler_module, "_SHORTEST_CACHE", 8)
  monkeypatch.setattr(sampler_module.loop, "decode", decode)
  sampler = Sampler(load(*axes), methods.Method(), slots=2, steps=4)
  assert texts(run(sampler, requests())) == texts(greedy)
  assert sorted(lengths) == lengths  # it is not cut for a few texts
  lengths.clear()
  sampler._many_left = 0  # as in a server, which more requests may reach
  assert texts(run(sampler, requests())) == texts(greedy)
  assert {a < b for a, b in itertools.pairwise(lengths) if a != b} == {True, False}
  assert set(lengths) <= {8, 16, 32, 64, 128}


def texts(completions):
  return {key: (c.text, c.finish) for key, c in completions.items()}


def test_log_probs_equal_rescoring(loaded):
  sampler = Sampler(loaded, methods.Method(0.8), slots=4)
  for request in requests():
    done = run(sampler, [request])[request.key]
    prompt = loaded.tokenizer.encode(request.prompt) or [loaded.tokenizer.eos_id]
    scored = score.log_probs_of(loaded, [*prompt, *done.tokens])
    np.testing.assert_allclose(done.log_probs, scored[len(prompt) - 1 :], atol=1e-4)


def test_samples_depend_on_key_and_seed_and_on_nothing_else(loaded):
  method = methods.Method(1.2, top_p=0.95)
  wanted = requests(12)
  first = run(Sampler(loaded, method, slots=4), wanted)
  random.Random(0).shuffle(wanted)
  other = run(Sampler(loaded, method, slots=3, steps=5), wanted)
  assert texts(first) == texts(other)
  changed = [dataclasses.replace(request, seed=1) for request in wanted]
  assert texts(run(Sampler(loaded, method, slots=4), changed)) != texts(first)
  same_prompt = [Request(f"k{i}", "abc", 12) for i in range(6)]
  several = run(Sampler(loaded, method, slots=4), same_prompt)
  assert len({c.text for c in several.values()}) > 1


def test_text_ends_with_the_token_that_completes_a_stop(loaded, greedy):
  whole = max(greedy.values(), key=lambda c: len(c.text))
  stop = whole.text[7:9]
  for steps in (1, 4, 16):
    sampler = Sampler(loaded, methods.Method(), slots=3, steps=steps)
    wanted = [r for r in requests(stops=(stop,)) if r.key == whole.key]
    done = run(sampler, wanted)[whole.key]
    assert done.finish == "stop"
    assert stop in done.text
    assert stop not in loaded.tokenizer.decode(done.tokens[:-1])
    assert len(done.log_probs) == len(done.tokens)


def test_end_of_text_is_no_part_of_a_text_and_padding_ids_are_never_chosen(
  loaded, tokenizer
):
  def biased(ids):
    """The model with large logits for some ids."""
    head = loaded.params["head"]
    head = {**head, "bias": head["bias"].at[ids].add(1e4)}
    return dataclasses.replace(loaded, params={**loaded.params, "head": head})

  certain = Sampler(biased(tokenizer.eos_id), methods.Method(), slots=3)
  done = run(certain, requests()).values()
  assert {(c.text, c.tokens, c.finish) for c in done} == {("", (), "eos")}
  padded = biased(slice(tokenizer.vocabulary_size, None))
  done = run(Sampler(padded, methods.Method(0.8), slots=4), requests(3))
  assert all(max(c.tokens) < tokenizer.vocabulary_size for c in done.values())


def test_the_models_length_bounds_a_text(loaded):
  prompt = "x + 1\n" * 20
  size = len(loaded.tokenizer.encode(prompt))
  assert size < loaded.config.max_length
  sampler = Sampler(loaded, methods.Method(), slots=3)
  done = run(sampler, [Request("a", prompt, 10_000)])["a"]
  assert done.finish in ("length", "eos")
  assert len(done.tokens) <= loaded.config.max_length - size
  too_long = run(sampler, [Request("b", prompt * 9, 5)])["b"]
  assert (too_long.finish, too_long.text) == ("prompt_too_long", "")


def test_what_is_streamed_is_the_cut_text(loaded, greedy):
  stop = max(greedy.values(), key=lambda c: len(c.text)).text[9:11]
  pieces: dict[str, list[str]] = {}
  sampler = Sampler(loaded, methods.Method(), slots=3, steps=4)
  wanted = requests(stops=(stop,))
  done = {
    c.key: c
    for c in sampler.complete(
      wanted, on_text=lambda key, text: pieces.setdefault(key, []).append(text)
    )
  }
  for key, completion in done.items():
    cut, _ = stopping.cut(completion.text, (stop,))
    assert "".join(pieces.get(key, [])) == cut
  assert max(map(len, pieces.values())) > 2
