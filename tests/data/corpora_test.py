"""The embedded corpora: what is in them, and what is not."""

import importlib.util

import pytest

from phi1_jax import InputError
from phi1_jax.data import corpora
from phi1_jax.data.corpora import Corpus, Document, Drop


@pytest.fixture
def corpus(tmp_path):
  def write(**files: bytes) -> Corpus:
    for name, content in files.items():
      (tmp_path / f"{name}.py").write_bytes(content)
    paths = tuple(sorted(f"{name}.py" for name in files))
    return Corpus("c", "1", "MIT", "https://example.org", tmp_path, paths)

  return write


def test_every_corpus_has_a_licence_and_no_tests_or_tables():
  found = {corpus.name: corpus for corpus in corpora.embedded()}
  assert list(found) == ["algorithms", "cpython", "more-itertools", "networkx", "sympy"]
  licences = {"MIT", "PSF-2.0", "BSD-3-Clause"}
  for corpus in found.values():
    assert corpus.licence in licences
    assert corpus.version[0].isdigit()
    assert list(corpus.paths) == sorted(set(corpus.paths))
    for path in corpus.paths:
      parts = set(path.split("/"))
      assert not parts & {"tests", "test", "idlelib", "site-packages", "encodings"}
      assert not path.startswith("_sysconfigdata")
  assert len(found["cpython"].paths) > 300
  assert len(found["algorithms"].paths) > 300


def test_a_description_changes_with_the_bytes_and_names_no_path(corpus, tmp_path):
  before = corpus(a=b"x = 1\n").describe()
  assert before == corpus(a=b"x = 1\n").describe()
  assert before["sha256"] != corpus(a=b"x = 2\n").describe()["sha256"]
  assert str(tmp_path) not in str(before)
  assert set(before) == {"name", "version", "licence", "home", "sha256"}


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
  made = corpus(bad=content)
  for extract in (corpora.code, corpora.textbooks, corpora.mined_exercises):
    assert extract(made, "bad.py") == Drop(reason)


def test_code_is_the_file_byte_for_byte(corpus):
  content = b"x = 'a'\r\nif x:\r\n\ty = '<|endoftext|>'\r\n"
  found = corpora.code(corpus(a=content), "a.py")
  assert isinstance(found, list)
  assert [document.text.encode() for document in found] == [content]


def test_what_comes_from_one_file_has_one_group(corpus):
  prose = "Words about sums.\n" * 30
  content = f'"""{prose}"""\n\ndef f(x):\n  """Doc."""\n  return x\n'.encode()
  made = corpus(a=content)
  found = [
    document
    for extract in (corpora.code, corpora.textbooks, corpora.mined_exercises)
    if isinstance(documents := extract(made, "a.py"), list)
    for document in documents
  ]
  assert len(found) == 3
  assert len({document.group for document in found}) == 1
  assert found[1].text == f"a\n=\n\n{prose.strip()}\n"
  assert all(isinstance(document, Document) for document in found)


def test_docstrings_with_lone_surrogates_are_left_out(corpus):
  content = b'"""\\ud800 ' + b"words\n" * 100 + b'"""\n'
  assert corpora.textbooks(corpus(a=content), "a.py") == []


def test_the_topics_of_help_are_textbook_pages():
  library = next(corpus for corpus in corpora.embedded() if corpus.name == "cpython")
  pages = corpora.textbooks(library, "pydoc_data/topics.py")
  assert isinstance(pages, list)
  assert len(pages) > 70
  assert any('The "for" statement' in page.text for page in pages)
  assert corpora.code(library, "pydoc_data/topics.py") == []


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
  real = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util, "find_spec", lambda name: None if name == "sympy" else real(name)
  )
  with pytest.raises(InputError, match=r'"sympy".*\.\[data\]'):
    corpora.embedded.__wrapped__()
