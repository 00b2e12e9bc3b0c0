"""The sources of the package's own tasks."""

import itertools
import pickle

import pytest

from phi1_jax import InputError
from phi1_jax.data import corpora, mixtures
from phi1_jax.data.config import TASKS, DataConfig
from phi1_jax.data.corpora import Corpus
from phi1_jax.data.documents import Document, Drop


@pytest.fixture
def source(tmp_path):
  for index in range(5):
    (tmp_path / f"{index}.txt").write_text(f"first {index}|second {index}")
  paths = tuple(f"{index}.txt" for index in range(5))
  corpus = Corpus("tiny", "1", "MIT", "https://example.org", tmp_path, paths)

  def extract(corpus, path):
    if path == "3.txt":
      return Drop("because")
    content = (corpus.root / path).read_text()
    return [Document(text, content) for text in content.split("|")]

  return mixtures.CorpusSource(extract, lambda: [corpus])


def texts(source, shard=0, shards=1):
  read = source.read(shard, shards)
  return [document.text for document in read if isinstance(document, Document)]


def test_shards_of_a_corpus_are_a_partition_in_order(source):
  whole = texts(source)
  assert whole == [f"{n} {i}" for i in (0, 1, 2, 4) for n in ("first", "second")]
  assert list(source.read(3, 5)) == [Drop("because")]
  shards = [texts(source, k, 3) for k in range(3)]
  assert sorted(text for shard in shards for text in shard) == sorted(whole)
  assert shards[1] == ["first 1", "second 1", "first 4", "second 4"]
  assert (source.num_shards(3), source.num_shards(9)) == (3, 5)


def test_the_grammar_teacher_is_a_source_that_shards_agree_on():
  source = mixtures.GrammarSource("exercises", 60)
  whole = texts(source)
  assert len(whole) == 60
  assert sorted(t for k in range(3) for t in texts(source, k, 3)) == sorted(whole)
  (facts,) = source.describe()
  assert "no LLM" in facts["name"]
  assert facts["exercises"] == 60


def test_tables_of_users_are_read_and_decide_the_store(tmp_path):
  table = tmp_path / "mine.toml"
  row = '[task.taxed]\nargs = "p: nat = price -> int"\nnoun = "$p with tax"\n'
  table.write_text(f'{row}names = "tax"\nbody = "return $p * 2"\nweight = 900\n')
  config = DataConfig("grammar_exercises", "s", grammar_tables=(str(table),))
  source = mixtures.resolve(config)["grammar_exercises"].source
  some = itertools.islice(source.read(0, 1), 50)
  assert sum("return price * 2" in document.text for document in some) > 5
  before = source.describe()
  table.write_text(table.read_text().replace("* 2", "* 3"))
  assert source.describe() != before
  with pytest.raises(InputError, match=r"grammar_tables: got .*, which does not read"):
    mixtures.resolve(DataConfig("code_exercises", "s", grammar_tables=("t.toml",)))


def test_the_names_are_those_of_the_paper():
  rated = mixtures.resolve(DataConfig("code_textbook", "s"))
  rates = {name: entry.rate for name, entry in rated.items()}
  assert rates == {"code_filtered": "by_size", "textbooks": "by_size"}
  assert rated["textbooks"].source.extract is corpora.textbooks
  for name in ("code_exercises", "exercises"):
    assert list(mixtures.resolve(DataConfig(name, "s"))) == ["exercises"]
  with pytest.raises(InputError, match=r"got 'code_textbok', expected .*: code_all, c"):
    mixtures.resolve(DataConfig("code_textbok", "s"))
  assert mixtures.TASKS.keys() == TASKS


def test_sources_travel_to_other_processes():
  for name, source in mixtures.TASKS.items():
    assert pickle.loads(pickle.dumps(source)) == source, name
