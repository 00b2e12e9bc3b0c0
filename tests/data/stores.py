"""Token stores of given tokens."""

from phi1_jax.data.token_store import ShardWriter, TokenStore, finish


def write_shard(folder, index, count, task, documents, marked=False):
  """Write a shard of documents, pairs (tokens, held out), maybe with marks."""
  writer = ShardWriter(folder, index, count, task, marked=marked)
  for tokens, held_out, *marks in documents:
    size, marks = 10 * len(tokens), marks[0] if marks else None
    writer.add(tokens, num_bytes=size, held_out=held_out, marks=marks)
  return writer.close()


def write(folder, shards, rate="by_size", eos_id=0, marked=False, **fields):
  """Write a store of shards, pairs (task, documents); return it, opened."""
  count, tasks = len(shards), {task: {"rate": rate} for task, _ in shards}
  made = [
    write_shard(folder, index, count, task, documents, marked)
    for index, (task, documents) in enumerate(shards)
  ]
  tokenizer = {"name": "x", "digest": "0", "eos_id": eos_id, "vocabulary_size": 65_536}
  finish(folder, {"tasks": tasks, "tokenizer": tokenizer, **fields}, made)
  return TokenStore.open(folder)
