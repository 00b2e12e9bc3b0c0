import ast
import itertools
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.extraction import Extraction, code_block, extract

F = "def f(x):\n  return x\n"
G = "def f(x):\n  return 2\n"
STUB = 'def f(x):\n  import math\n  """Doc."""\n'
RE = "import re\n\ndef f(x):\n  return re\n"
SAME = None  # the code is the whole program


def test_keeps_what_the_entry_point_reaches_and_states_what_it_drops():
  table = "TABLE = {}\nfor i in range(3):\n  TABLE[i] = i\nTABLE.update({4: 4})\n"
  helper = "def helper(x):\n  return m.floor(x) + TABLE[x]\n"
  program = "import re\nimport math as m\ndef unused(x):\n  return re\n" + helper
  program += "@staticmethod\ndef decorated():\n  pass\n" + table
  program += "def f(x):\n  return helper(x)\n  y = 1 1\n"
  program += "print(f(1))\nif __name__ == '__main__':\n  f(2)\nThe end.\n"
  found = extract(program, "f")
  code = "import math as m\n" + helper + table + "def f(x):\n  return helper(x)\n"
  assert found.code == code
  assert found.dropped == (
    "import re: not needed",
    "def unused(x):: not needed",
    "@staticmethod: not needed",
    "y = 1 1: not Python",
    "print(f(1)): not needed",
    "if __name__ == '__main__':: main block",
    "The end.: not Python",
  )


@pytest.mark.parametrize(
  ("prompt", "answer", "code"),
  [
    # Prose, before and after, in quotes of any kind.
    ("", "Here's the code:\n" + F + "It's done.\n", F),
    # A definition that was not finished, and one whose end is missing.
    ("", F + "def g(x):\n  return (1,\n", F),
    ("", "def f(x):\n  return x\n  y = [1,\n", F),
    ("", "def f(x):\n  return x\n  y = '''a\n", F),
    # No `return` is no reason to drop a function.
    ("", "def f(x):\n  x.sort()\n", SAME),
    # The first that does something: neither the prompt's stub nor the rambling.
    ("", 'def f(x):\n  """Doc."""\n' + F + "def f(x):\n  return 3\n", F),
    *(("", f"def f(x):\n  {body}\n" + F, F) for body in ("...", "pass")),
    ("", "def f(x):\n  raise NotImplementedError\n" + F, F),
    # Column 0 inside of strings and brackets.
    ("", 'def f(x):\n  """a\nb = 1\n"""\n  return x\n', SAME),
    ("", "def f(x):\n  return [\n1,\n]\n", SAME),
    ("", "T = (\n1,\n)\ndef f(x):\n  return T\n", SAME),
    ("", "def f(x):\n  return '\\'\"'\n", SAME),
    ("", 'def f(x):\n  return """\\"""\nprint(1)\n"""\n', SAME),
    ("", "def f(x):\n  return x # it's (\n", SAME),
    # Statements of several parts.
    (
      "",
      "try:\n  import a\nexcept ImportError:\n  a = 0\ndef f(x):\n  return a\n",
      SAME,
    ),
    ("", "if 1:\n  t = 1\nelse:\n  t = 2\ndef f(x):\n  return t\n", SAME),
    ("", "from a import *\n" + F, SAME),
    ("", "from __future__ import annotations\n" + F, SAME),
    ("", "class A:\n  b = 1\nclass B(A):\n  pass\ndef f(x):\n  return B\n", SAME),
    ("", "@lru\ndef f(x):\n  return x\nlru = 1\n", SAME),
    ("", "def g(x):\n  return h(x)\nh = f = lambda x: g\n", SAME),
    ("", "async def f(x):\n  return x\n", SAME),
    # Fences: the block that has it, with what the prompt imports; or all before them.
    ("", "Yes!\n```python\nimport re\n" + F + "```\nBye `f`.\n```\nf(1)\n```\n", F),
    ("", "import re\n\n```python\ndef f(x):\n  return re\n```\n", RE),
    ("", F + "```\nThat was it.\n", F),
    # Fences in texts, glued to a line, indented, of a stub, of imports.
    ("", 'def f(x):\n  """\n  ```\n  f(1)\n  ```\n  """\n  return 2\n', SAME),
    ("", "Sure:\n```python\ndef f(x):\n  return 2```\n", G),
    ("", "1. It:\n   ```python\n   def f(x):\n     return 2\n   ```\n", G),
    ("", "```\ndef f(x):\n  pass\n```\nand\n```\n" + G + "```\n", G),
    ("", "```\nimport re\n```\n```\ndef f(x):\n  return re\n```\n", RE),
    # Drafts and end tokens.
    ("", "<think>\n```\n" + F + "```\n</think>\n```\n" + G + "```\n", G),
    ("", "def f(x):\n  return 2</s>\n", G),
    ("", "def f(x):\n  return 2<|endoftext|>def f(x):\n", G),
    ("", "def f(x):\n  return '</s>'\n", SAME),
    ("", " def f(x):\n   return 2\n", G),
    # The border says that the prompt's function is a stub, though it has a statement.
    (STUB, "\n" + F, F),
    (STUB, "  return x\n", SAME),
    (STUB, "Here:\n```\n  return x\n```\n", STUB + "  return x\n"),
    # Deep trees.
    ("", F + "if a:\n  pass\n" + "elif b:\n  pass\n" * 1500, F),
    *(("", F + f"if x{p * n}:\n  pass\n", F) for p in ("+1", ".a") for n in (500, 950)),
    ("", "def g(x):\n  return x\n", ""),
  ],
)
def test_the_answer_is_found(prompt, answer, code):
  found = extract(prompt + answer, "f", border=len(prompt)).code
  expected = (prompt + answer if code is SAME else code).strip()
  assert found.replace("\n\n\n", "\n\n").strip() == expected


@pytest.mark.parametrize(
  ("prompt", "answer", "code", "dropped"),
  [
    (STUB, "  return '</s>'\n\nThat adds a tag.\n", STUB + "  return '</s>'", 1),
    ("", "So:\n```python\n{}```\n", "def f(x):\n  return x.strip('<|end|>')\n", 1),
    ("", "So:\n```\n{}```\n", "def f(x):\n  return '<think>a</think>'  # </s>\n", 1),
    ("", "Before </s>:\n```\n{}```\n", F, 1),  # the code comes later
    ("", "{}</s>\n```\n" + G + "```\n", F.rstrip(), 1),
    (STUB, "  return 3</s>\n```\n" + G + "```\n", STUB + "  return 3", 1),
    (STUB, "By </s>:\n  - </s>\n```\n{}```\n", F, 2),
    ("", "```\n{}</s>def g(): pass\n", F, 1),
    ("", "<think>\n" + G + "</think><think></think>\n```\n{}```\n", F, 1),
    ("", "```\n{}```\n<think>\n```\n" + G + "```\n</think>\n", F, 0),
    (STUB, "\n  return 2<|im_end|>\n  return 3\n", STUB + "\n  return 2", 1),
  ],
)
def test_tokens_in_strings_are_code(prompt, answer, code, dropped):
  found = extract(prompt + answer.replace("{}", code), "f", border=len(prompt))
  assert found.code.strip() == code.strip()
  assert len(found.dropped) == dropped, found.dropped


def test_states_which_thoughts_and_ends_were_cut_off():
  found = extract("<think>\nHm.</think>\n" + F + "</s>\nabc", "f")
  assert found == Extraction("\n" + F, ("<think>: a thought", "</s>: after the end"))
  found = extract("def g(x):\n  return x\n", "f")
  assert found == Extraction("", ("everything: no definition of f",), False)


PIECES = ["</s>", "<|end|>", "<think>", "</think>", "\n```\n", "```", "'", '"', "\\"]
PIECES += ['"""', "'''", "\n", "#", " ", "a", "\ndef f(x):\n", "(", "\n~~~\n", "{"]
STRINGS = st.lists(st.sampled_from(PIECES)).map("".join)
PROSE = ["It's", '"""', "'''", "so:", "</s>", "(", "\n", " ", '"', "#", "done</s>"]


def _literal(text, quote):
  """Python's text for a string, over several lines where it has several."""
  if len(quote) == 1:
    return repr(text)
  text = text.replace("\\", "\\\\").replace(quote[0], "\\" + quote[0])
  return quote + text + quote


LITERALS = st.builds(_literal, STRINGS, st.sampled_from(["'", '"""', "'''"]))


@given(
  st.lists(LITERALS, min_size=1), LITERALS, *[st.lists(st.sampled_from(PROSE))] * 2
)
def test_a_fence_takes_nothing_from_a_program(strings, docstring, before, after):
  program = f"T = [{', '.join(strings)}]  # it's```\n@str\n"
  program += f"def f(x):\n  {docstring}\n  return T, {strings[0]}\n"
  answer = "".join(before) + f"\n```python\n{program}```\n" + "".join(after)
  assert ast.dump(ast.parse(extract(answer, "f").code)) == ast.dump(ast.parse(program))


USES_T = "def f(x):\n  return T[x]\n"
FILL = "def fill(t):\n  t.append(1)\nT = []\n"


@pytest.mark.parametrize(
  "program",
  [
    "import sys\nsys.set_int_max_str_digits(0)\ndef f(x):\n  return str(9**x)\n",
    "def f(x):\n  return f.k\nsetattr(f, 'k', 3)\n",
    "c = 0\ndef f(x):\n  global c\n  c += 1\n  return c\n",
    "import functools as t\n@t.singledispatch\ndef f(x):\n  return x\n"
    "@f.register(int)\ndef _(x):\n  return 2\n@f.register(str)\ndef _(x):\n  pass\n",
    "import sys\nsys.setrecursionlimit(9999)\n" + F,
    "import random\nrandom.seed(0)\ndef f(x):\n  return __import__('random')\n",
    "from decimal import *\ngetcontext().prec = 50\ndef f(x):\n  return Decimal(x)\n",
    "T = []\ndef sieve():\n  T.append(2)\nsieve()\n" + USES_T,
    "T = []\ndef add():\n  T.append(2)\ndef init():\n  add()\ninit()\n" + USES_T,
    "T = None\ndef init():\n  global T\n  T = [1]\ninit()\n" + USES_T,
    FILL + "fill(T)\n" + USES_T,
    FILL + "for i in range(3):\n  fill(T)\n" + USES_T,
    "import heapq\nT = []\nheapq.heappush(T, 3)\n" + USES_T,
    "T = {}\ndef reg(g):\n  T[g.__name__] = g\n  return g\n@reg\ndef helper(x):\n"
    "  return x\ndef f(x):\n  return T['helper'](x)\n",
    "class A:\n  pass\nsetattr(A, 'k', 3)\ndef f(x):\n  return A.k\n",
    "import functools\n" + F + "f = functools.lru_cache(None)(f)\n",
    "def wrap(g):\n  return g\n" + F + "f = wrap(f)\n",
  ],
)
def test_keeps_what_sets_up(program):
  trial = "print(f(1))\nassert f(1) == 1\ndef test():\n  assert f(1)\ntest()\n"
  trial += "n = int(input())\nif __name__ == '__main__':\n  test()\n"
  assert extract(program + trial, "f").code == program


@pytest.mark.parametrize(
  "dropped",
  [
    "def check(g):\n  T.append(g(1))\ncheck(f)\n",
    "def main():\n  T.append(f(1))\nmain()\n",
    "T[0] = int(input())\n",
    "unknown(T)\n",
    "x = [1]\n",  # the name of a parameter
    "def h():\n  n = 1\nn = 2\n",
    "print(T)\n",
    "def f(x):\n  return 3\nf = wrap(f)\n",  # of the second definition
  ],
)
def test_leaves_out_what_tries_out(dropped):
  program = "T = []\n" + USES_T
  assert extract(program + dropped, "f").code == program


def test_names_that_tests_use_are_kept():
  program = "class Node:\n  pass\n" + F
  assert "Node" not in extract(program, "f").code
  assert "Node" in extract(program, "f", ["Node", "print"]).code


LINES = ["def g(x):\n  return f(x)\n", "'''\n", '"\n', "(\n", "x = 'a\\\n", "f = (f\n"]
LINES += ["@a\n", "\\\\\n", "```\n", "```\n\\'''\n", "if x:\n", '\\"']


@pytest.mark.parametrize("line", [*LINES, "def h(x):\n  T.append(h(x))\nh(T)\n"])
def test_time_is_linear(line):
  def calls(size):
    """The number of calls, of functions in C too."""
    count = itertools.count()
    program = F + line * (size // len(line))
    sys.setprofile(lambda *_: next(count))
    try:
      extract(program, "f")
    finally:
      sys.setprofile(None)
    return next(count)

  assert calls(8_000) < 5 * calls(2_000)


@given(st.text(alphabet="def f(x):\n '\"#\\[]{}`@=1\0\ud800é", max_size=200))
def test_any_text_is_extracted_from(text):
  found = extract(F + text, "f")
  assert "def f(x)" in found.code or found.dropped


@pytest.mark.parametrize(
  ("answer", "code"),
  [
    # In a list: the fences are indented, and the first block is no Python.
    (
      "- run\n  ```bash\n  echo\n  ```\n  ```python\n  def f(x):\n    return x\n  ```",
      F,
    ),
    (F + "\nIt works.<|im_end|>\nuser\n" + G, F),  # a made-up next turn
    ("def f(x):\n  return x, '#'<|im_end|>\n", "def f(x):\n  return x, '#'\n"),
  ],
)
def test_chat_answers_in_lists_and_before_another_turn(answer, code):
  found = extract(answer, "f", chat=True).code
  assert ast.dump(ast.parse(found)) == ast.dump(ast.parse(code))
  if "```" in answer:
    assert ast.parse(code_block(answer, "f"))
