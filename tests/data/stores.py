"""Token stores of given tokens."""

from phi1_jax.data.token_store import Encoded, TokenStore, finish, write_shard


def shard(folder, index, count, task, documents, marked=False):
  """Write a shard of documents, tuples (tokens, held out), maybe with marks."""
  encoded = (Encoded(ids, 10 * len(ids), *rest) for ids, *rest in documents)
  return write_shard(folder, index, count, task, encoded, marked=marked)


def write(folder, shards, rate="by_size", eos_id=0, marked=False, **fields):
  """Write a store of shards, pairs (task, documents); return it, opened."""
  count, tasks = len(shards), {task: {"rate": rate} for task, _ in shards}
  made = [
    shard(folder, index, count, task, documents, marked)
    for index, (task, documents) in enumerate(shards)
  ]
  tokenizer = {"name": "x", "digest": "0", "eos_id": eos_id, "vocabulary_size": 65_536}
  finish(folder, {"tasks": tasks, "tokenizer": tokenizer, **fields}, made)
  return TokenStore.open(folder)
