"""Exercises made worse on purpose: what changes, and that nothing else does."""

import ast

import pytest

from evals.study import variants
from phi1_jax.curation.document import Document, identify
from phi1_jax.data.documents import Document as Text
from phi1_jax.data.documents import held_out
from phi1_jax.grammar import teacher
from phi1_jax.problems.problem import Problem


@pytest.fixture(name="documents", scope="module")
def fixture_documents():
  made = teacher.exercises(3, 0, 3000, menu="composed")
  numbers = (e for e in made if e.family in ("both", "either", "ifelse", "is", "then"))
  texts = [
    e.text for e in numbers if type(ast.literal_eval(e.calls[0].arguments)) is int
  ]
  return [
    Document(identify("test", t), t, "grammar", "MIT", "exercise", str(i))
    for i, t in enumerate(texts)
  ]


def _shuffled(documents, seed):
  return variants.wrong(documents, 1, seed, "shuffled")


def _cut(document) -> variants.Parts:
  found = variants.parts(document.text)
  assert found is not None
  return found


def test_parts_put_together_are_the_exercise(documents):
  for document in documents:
    cut = _cut(document)
    assert cut.head + cut.docstring + cut.body == document.text
    assert cut.docstring.strip().startswith('"""')
    assert cut.docstring.endswith('"""\n')
    assert cut.head.startswith("def ")
    assert len(cut.arguments) == 1


@pytest.mark.parametrize(
  "text",
  ["x = 1\n", "def f(x):\n    return x\n", 'def f(x):\n    """Only."""\n', "def"],
)
def test_what_is_no_exercise_has_no_parts(text):
  assert variants.parts(text) is None


def test_names_are_replaced_at_once_and_whole():
  assert variants.renamed("a + b + ab", ["a", "b"], ["b", "a"]) == "b + a + ab"
  assert variants.renamed("x.y", [], []) == "x.y"


def test_shuffling_moves_every_body_and_keeps_what_asks_for_it(documents):
  changed = _shuffled(documents, 0)
  assert len(changed) == len(documents)
  moved = 0
  for before, after in zip(documents, changed, strict=True):
    a, b = _cut(before), _cut(after)
    assert (a.head, a.docstring) == (b.head, b.docstring)
    moved += a.body != b.body
    assert after.provenance["variant"] == {"kind": "shuffled", "of": before.id}
  assert moved >= 0.95 * len(documents)  # two may be solved alike
  assert changed == _shuffled(documents, 0) != _shuffled(documents, 1)


def test_shuffled_bodies_run_on_the_argument_of_their_function(documents):
  for document in _shuffled(documents, 0):
    cut, namespace = _cut(document), {}
    exec(document.text, namespace)
    namespace[cut.head.split("(")[0].removeprefix("def ")](3)


def test_about_the_share_asked_for_is_wrong_and_still_runs(documents):
  changed = variants.wrong(documents, 0.3, 0)
  wrong = [d for d in changed if "variant" in d.provenance]
  assert 0.2 < len(wrong) / len(documents) < 0.4
  for document in wrong:
    cut, namespace = _cut(document), {}
    exec(document.text, namespace)
    name = cut.head.split("(")[0].removeprefix("def ")
    namespace[name](3)  # a body of another function, about this one's argument


def test_no_planted_problem_is_held_out(documents):
  problem = Problem("T/0", "f", "def f(x):\n", "    return x\n", "def f(x): x\n", ())
  planted = [d for d in variants.leaked([], [problem], 4)]
  assert not any(held_out(Text(d.text, d.repository), 0.02) for d in planted)
