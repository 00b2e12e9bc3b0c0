"""The package's own sources: the embedded corpora, the grammar; and the split."""

import hashlib
import itertools
import pickle

import pytest

from phi1_jax import InputError
from phi1_jax.data import corpora, mixtures
from phi1_jax.data.config import TASKS, DataConfig
from phi1_jax.data.corpora import Corpus
from phi1_jax.data.documents import Document, Drop, held_out

EXTRACTORS = (corpora.code, corpora.textbooks, corpora.mined_exercises)


@pytest.fixture
def corpus(tmp_path):
  """corpus({name: content}) writes files and returns their corpus."""

  def write(files: dict[str, bytes]) -> Corpus:
    for name, content in files.items():
      (tmp_path / name).write_bytes(content)
    return Corpus("c", "1", "MIT", "https://x.org", tmp_path, tuple(sorted(files)))

  return write


def test_every_corpus_has_a_licence_and_no_tests_or_tables():
  found = {corpus.name: corpus for corpus in corpora.embedded()}
  assert list(found) == ["algorithms", "cpython", "more-itertools", "networkx", "sympy"]
  left_out = {"tests", "test", "idlelib", "site-packages", "encodings"}
  for corpus in found.values():
    assert corpus.licence in {"MIT", "PSF-2.0", "BSD-3-Clause"}
    assert list(corpus.paths) == sorted(set(corpus.paths))
    assert not any(left_out & set(path.split("/")) for path in corpus.paths)
    assert not any(path.startswith("_sysconfigdata") for path in corpus.paths)
  assert len(found["cpython"].paths) > 300
  assert len(found["algorithms"].paths) > 300
  # The topics of help() are pages of a textbook, not code.
  topics = "pydoc_data/topics.py"
  pages = corpora.textbooks(found["cpython"], topics)
  assert any('The "for" statement' in page.text for page in pages)
  assert corpora.code(found["cpython"], topics) == []


def test_a_description_changes_with_the_bytes_and_names_no_path(corpus, tmp_path):
  before, again, other = (corpus({"a.py": b}).describe() for b in (b"1", b"1", b"2"))
  assert before == again != other
  assert str(tmp_path) not in str(before)


@pytest.mark.parametrize(
  ("content", "reason"),
  [
    (b"x = '\xff'\n", "not UTF-8"),
    (b"print 'two'\n", "does not parse"),
    (b"x = 1\0\n", "does not parse"),
    (b"x = '" + b"a" * 1000 + b"'\n", "a line over 1000 characters"),
    ((b"x = '" + b"a" * 120 + b"'\n") * 3, "lines over 100 characters on average"),
  ],
)
def test_bad_files_are_dropped_with_a_reason(corpus, content, reason):
  made = corpus({"bad.py": content})
  assert [extract(made, "bad.py") for extract in EXTRACTORS] == [Drop(reason)] * 3


def test_what_comes_from_one_file_has_one_group(corpus):
  prose = "Words about sums.\r\n" * 30
  content = f'"""{prose}"""\r\n\r\ndef f(x):\r\n\t"""\\ud800"""\r\n\treturn x\r\n'
  made = corpus({"a.py": content.encode()})
  found = [document for extract in EXTRACTORS for document in extract(made, "a.py")]
  code, textbook, exercise = found
  assert code.text == content  # byte for byte
  assert textbook.text == f"a\n=\n\n{prose.strip()}\n".replace("\r\n", "\n")
  assert exercise.text.startswith("def f(x):")
  assert code.group == textbook.group == exercise.group
  made = corpus({"b.py": b'"""\\ud800 ' + b"words\n" * 100 + b'"""\n'})
  assert corpora.textbooks(made, "b.py") == []  # has no UTF-8 form


def texts(source, shard=0, shards=1):
  read = source.read(shard, shards)
  return [document.text for document in read if isinstance(document, Document)]


def test_shards_of_a_corpus_are_a_partition_in_order(corpus):
  def extract(corpus, path):
    if path == "3":
      return Drop("because")
    return [Document(f"{text} {path}", path) for text in ("first", "second")]

  made = corpus({str(n): b"" for n in range(5)})
  source = mixtures.CorpusSource(extract, lambda: [made])
  whole = texts(source)
  assert whole == [f"{n} {i}" for i in (0, 1, 2, 4) for n in ("first", "second")]
  assert list(source.read(3, 5)) == [Drop("because")]
  shards = [texts(source, k, 3) for k in range(3)]
  assert sorted(itertools.chain(*shards)) == sorted(whole)
  assert shards[1] == ["first 1", "second 1", "first 4", "second 4"]
  assert (source.num_shards(3), source.num_shards(9)) == (3, 5)


@pytest.mark.parametrize("kind", ["exercises", "sections"])
def test_the_grammar_teacher_is_a_source_that_shards_agree_on(kind):
  source = mixtures.GrammarSource(kind, 30)
  whole = texts(source)
  assert len(whole) == source.describe()[0][kind] == 30
  assert sorted(t for k in range(3) for t in texts(source, k, 3)) == sorted(whole)


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
  with pytest.raises(InputError, match=r"grammar_tables: got .*code_exercises"):
    mixtures.resolve(DataConfig("code_exercises", "s", grammar_tables=("t.toml",)))
  # A mixture of a module may read them.
  tables = (str(table),)
  DataConfig("x", "s", modules=("m",), grammar_tables=tables).check_sources()


def test_the_names_are_those_of_the_paper():
  rated = mixtures.resolve(DataConfig("code_textbook", "s"))
  rates = {name: entry.rate for name, entry in rated.items()}
  assert rates == {"code_filtered": "by_size", "textbooks": "by_size"}
  for name in ("code_exercises", "exercises"):
    assert list(mixtures.resolve(DataConfig(name, "s"))) == ["exercises"]
  with pytest.raises(InputError, match=r"got 'code_textbok', expected .*: code_all, c"):
    mixtures.resolve(DataConfig("code_textbok", "s"))
  sources = mixtures.sources(DataConfig("code_textbook", "unused"))
  assert sources.keys() == TASKS
  assert pickle.loads(pickle.dumps(sources)) == sources  # for other processes


def test_held_out_is_a_matter_of_the_group_alone():
  names = [f"file {i}" for i in range(2_000)]
  kept = {name for name in names if held_out(Document(name), 0.05)}
  assert 50 < len(kept) < 150  # 100 +- 5 standard deviations
  assert kept <= {name for name in names if held_out(Document(name), 0.1)}
  for name in names:
    assert not held_out(Document(name), 0.0)
    group = hashlib.sha256(name.encode()).hexdigest()
    # A function mined from a file goes where the file goes.
    assert held_out(Document("def f(): ...", group), 0.05) == (name in kept)
    assert held_out(Document(name[3:], prompt=name[:3]), 0.05) == (name in kept)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
  monkeypatch.setattr(corpora.importlib.util, "find_spec", lambda name: None)
  with pytest.raises(InputError, match=r'need the package ".*\[data\]'):
    corpora.embedded.__wrapped__()
