"""Exercises: a signature and a docstring to be completed, with a tested solution."""

from __future__ import annotations

import dataclasses
import random
import re
import textwrap
from collections.abc import Sequence

from phi1_jax import InputError
from phi1_jax.grammar import solution, solve
from phi1_jax.grammar.reserve import Gate
from phi1_jax.grammar.rows import Tables, Task, Wording, usable
from phi1_jax.grammar.scene import Scene, choose, pick
from phi1_jax.grammar.templates import fill

LONGEST_NAME = 40
GENERIC = ("f", "func", "solve", "solution", "answer", "task", "foo", "my_function")
_PREFIXES = ("get", "find", "compute", "calculate", "my", "calc")
_EXAMPLES = (
  "Example: {} returns {}",
  "For example, {} returns {}.",
  "{} -> {}",
  "e.g. {} == {}",
)


@dataclasses.dataclass(frozen=True)
class Exercise:
  """A function to be completed, as in the paper's CodeExercises (section 2.2).

  Attributes:
    name: the function's name.
    prompt: imports, signature and docstring, with a newline at the end.
    body: the solution, indented by 4 spaces, with a newline at the end.
    calls: calls that the solution was run on.
    solution: source of a function `f`, and the values of its last parameters.
    composition: what it computes, such as ("ints", "filter:even", "map:square",
      "sum"), without constants.
    family: id of the row, such as "sum".
    frame: the sentence and the wording of its docstring.
  """

  name: str
  prompt: str
  body: str
  calls: tuple[solve.Call, ...]
  solution: tuple[str, tuple]
  composition: tuple[str, ...]
  family: str
  frame: str

  @property
  def text(self) -> str:
    """The whole program: prompt and body."""
    return self.prompt + self.body

  @property
  def tests(self) -> tuple[str, ...]:
    """Asserts that the solution passes and no constant answer does."""
    return tuple(call.test(self.name) for call in self.calls[: solve.TESTS])


def draw(rng: random.Random, tables: Tables, task: Task, gate: Gate) -> Exercise | None:
  """Return an exercise of a task, or None where the draw does not fit the tier."""
  scene = Scene(rng, tables, task)
  if not scene.sensible() or not gate.composition(scene.composition):
    return None
  function, calls = _calls(scene)
  if calls is None:
    return None
  name = _name(scene, gate)
  if name is None or not scene.name_arguments(name):
    return None
  said = _sentence(scene, gate)
  if said is None:
    return None
  sentence, frame = said
  prompt = _prompt(scene, name, sentence, calls)
  body = solution.Solution(scene, scene.names).body(pick(rng, task.bodies))
  return Exercise(
    name,
    prompt,
    _indented(body),
    calls,
    function,
    scene.composition,
    task.id,
    frame,
  )


def _calls(
  scene: Scene,
) -> tuple[tuple[str, tuple], tuple[solve.Call, ...] | None]:
  """Return the solution, and its calls; the bodies of a row give the same answers."""
  task = scene.task
  symbols = solution.symbols(scene)
  kinds = tuple(kind.id for kind in scene.kinds.values())
  values = tuple(symbols.values())
  key = (task.place, kinds, scene.composition, values)
  known = _SOLVED.get(key)
  if known is None:
    parameters = ", ".join([*scene.kinds, *symbols])
    imports = "".join(f"import {module}\n" for module in task.modules)
    labels = {label: label for label in scene.kinds}

    def source(body: str, changed: tuple[str, str] = ("", "")) -> str:
      written = solution.Solution(scene, labels, True, changed)
      return f"{imports}def f({parameters}):\n{_indented(written.body(body))}"

    first, *others = task.bodies
    mistakes = [source(first, changed) for changed in solution.mistakes(scene)]
    sources = [source(first), *mistakes]
    solved = _solved(scene, kinds, sources, values)
    for body in others:
      _check_same(scene, source(body), values, solved or ())
    known = (sources[0], values), solved
    if len(_SOLVED) >= 1 << 18:
      _SOLVED.clear()
    _SOLVED[key] = known
  return known


def _blamed(scene: Scene) -> str:
  """Return the places of the user's parts in a composition, or that of the task."""
  parts = [bound.part.place for bound in (*scene.chain, *scene.bound.values())]
  own = ", ".join(filter(None, parts))
  task = scene.task.place
  return f"{own} code, in {task}" if own else f"{task} body"


def _check_same(
  scene: Scene, source: str, constants: tuple, calls: Sequence[solve.Call]
) -> None:
  """Raise if another body of a row gives another answer than the first."""
  try:
    with solve.limited():
      function = solve.compiled(source)
      for call in calls:
        given = eval(f"({call.arguments},)")
        answer = solve.literal(function(*given, *constants))
        if answer != call.answer:
          raise ValueError(f"{answer} for ({call.arguments}), not {call.answer}")
  except Exception as error:
    raise InputError(
      f"{_blamed(scene)}: got a body that gives {type(error).__name__} ({error}), "
      "expected the answers of the first body; change it"
    ) from error


_SOLVED: dict[tuple, tuple[tuple[str, tuple], tuple[solve.Call, ...] | None]] = {}


def _indented(body: str) -> str:
  return "    " + body.replace("\n", "\n    ") + "\n"


def _solved(
  scene: Scene,
  kinds: tuple[str, ...],
  sources: Sequence[str],
  constants: tuple,
) -> tuple[solve.Call, ...] | None:
  """Run a solution and wrong ones; see `solve.solved`."""
  task = scene.task
  given = list(task.inputs) or _inputs(scene.tables, task, kinds)
  try:
    with solve.limited():
      functions = [solve.compiled(source) for source in sources]
      return solve.solved(functions, given, constants, f"{task.id}{kinds}{constants}")
  except Exception as error:
    if task.composed and isinstance(error, IndexError):
      return None  # one part leaves an empty word, which has no first letter
    raise InputError(
      f"{_blamed(scene)}: got {type(error).__name__} ({error}), expected an answer "
      f"for every input of {', '.join(kinds)}; change the code, or add a check\n"
      f"{sources[0]}"
    ) from error


_INPUTS: dict[tuple, list[tuple]] = {}


def _inputs(tables: Tables, task: Task, kinds: tuple[str, ...]) -> list[tuple]:
  key = (task.place, kinds)
  if key not in _INPUTS:
    given = solve.inputs(tuple(tables.kinds[id].pool for id in kinds))
    if task.check:
      labels = [label for label, _, _ in task.args]
      try:
        with solve.limited():
          fits = eval(f"lambda {', '.join(labels)}: {task.check}")
          given = [each for each in given if fits(*each)]
        if not given:
          raise ValueError(f"no input of {', '.join(kinds)} passes")
      except Exception as error:
        raise InputError(
          f"{task.place} check: got {task.check!r} ({type(error).__name__}: {error}), "
          f"expected a Python condition of {', '.join(labels)}; change it"
        ) from None
    _INPUTS[key] = given
  return _INPUTS[key]


def _name(scene: Scene, gate: Gate) -> str | None:
  """Return a name of the tier, or None."""
  rng = scene.rng
  if gate.tier == "train" and rng.random() < 0.05:
    return pick(rng, GENERIC)
  if gate.tier == "train" and rng.random() < 0.1:  # a name that says nothing
    words, _ = scene.tables.names
    name = f"{pick(rng, words)}_{pick(rng, words)}"
    return name if gate.name(name) else None
  for _ in range(6):
    names = scene.task.names
    name = scene.function_name(names[int(rng.random() ** 1.3 * len(names))])
    if rng.random() < 0.08 and not name.startswith(("is_", "has_", *_PREFIXES)):
      name = f"{pick(rng, _PREFIXES)}_{name}"
    if len(name) <= LONGEST_NAME and usable(name) and gate.name(name):
      return name
  return None


def _sentence(scene: Scene, gate: Gate) -> tuple[str, str] | None:
  """Return what the docstring says, and the id of its frame and wording."""
  rng, task = scene.rng, scene.task
  for _ in range(12):
    wording: Wording = pick(rng, task.wordings)
    id, frame, _ = choose(rng, *scene.tables.frames[wording.form])
    if gate.wording(id, wording.id):
      break
  else:
    return None
  given = any(piece[0] == "given" for piece in frame if not isinstance(piece, str))
  scene.speak(given)
  introduction = scene.given() if given else ""
  said = fill(pick(rng, wording.templates), scene.text)
  sentence = _capital(
    fill(
      frame,
      lambda name, mode: (
        introduction
        if name == "given"
        else (_capital(said) if mode == "capital" else said)
      ),
    )
  )
  if task.notes:
    sentence += f" {_capital(fill(pick(rng, task.notes), scene.text))}"
  point = rng.random()
  if point < 0.1 and sentence.endswith("."):
    sentence = sentence[:-1]
  if point < 0.03:
    sentence = sentence[0].lower() + sentence[1:]
  return sentence, f"{id} {wording.id}"


def _capital(text: str) -> str:
  return text[0].upper() + text[1:]


def _typed(style: str, text: str) -> str:
  if style == "builtin":
    return text
  text = re.sub(r"\b(list|dict|set|tuple)\[", lambda m: m[0].capitalize(), text)
  return re.sub(r"^(.+) \| None$", r"Optional[\1]", text)


def _signature(scene: Scene, name: str) -> tuple[list[str], str]:
  """Return the imports and the `def` line."""
  task, point = scene.task, scene.rng.random()
  style = "none" if point < 0.55 else "builtin" if point < 0.9 else "typing"
  header = [f"import {module}" for module in task.modules]
  arguments = list(scene.names.values())
  if style == "none":
    return header, f"def {name}({', '.join(arguments)}):"
  types = [_typed(style, kind.type) for kind in scene.kinds.values()]
  returns = _typed(style, str(scene.returns))
  needed = set(re.findall(r"\b[A-Z]\w+(?=\[)", " ".join([*types, returns])))
  if needed:
    header.append(f"from typing import {', '.join(sorted(needed))}")
  listed = [f"{a}: {t}" for a, t in zip(arguments, types, strict=True)]
  return header, f"def {name}({', '.join(listed)}) -> {returns}:"


def _prompt(
  scene: Scene, name: str, sentence: str, calls: tuple[solve.Call, ...]
) -> str:
  """Return imports, signature and docstring."""
  rng = scene.rng
  header, line = _signature(scene, name)
  examples = _examples(rng, name, calls)
  quotes = 'r"""' if "\\" in sentence + "".join(examples) else '"""'
  text = textwrap.wrap(sentence, 80) if len(sentence) > 80 else [sentence]
  point = rng.random()
  if point < 0.08:
    text[0] = f" {text[0]}"
  elif point < 0.2:
    text.insert(0, "")
  text[0] = f"{quotes}{text[0]}"
  if examples:
    text += ["", *examples] if rng.random() < 0.6 else examples
  if len(text) == 1 and point >= 0.08:
    text[0] += '"""'
  else:
    text.append('"""')
  lines = [line, *(f"    {each}".rstrip() for each in text)]
  return "\n".join([*header, "", ""] * bool(header) + lines) + "\n"


def _examples(
  rng: random.Random, name: str, calls: tuple[solve.Call, ...]
) -> list[str]:
  """Return lines of examples, now and then."""
  point = rng.random()
  if point >= 0.21:
    return []
  short = [call for call in calls[::-1] if len(call.arguments + call.answer) < 46]
  shown = [call for call in short if call.answer != "None"]
  if point < 0.17:
    count = 2 if point < 0.05 else 1
    lines = [(f">>> {name}({c.arguments})", c.answer) for c in shown[:count]]
    return [line for pair in lines for line in pair]
  if not shown:
    return []
  form = pick(rng, _EXAMPLES)
  return [form.format(f"{name}({shown[0].arguments})", shown[0].answer)]
