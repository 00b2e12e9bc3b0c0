"""Without gin, the same configuration, from every file that there is."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.config import EvaluationConfig
from evals.grading.asking import GradeConfig
from evals.study.config import StudyConfig
from phi1_jax import InputError, curate
from phi1_jax.cli import gin_config, gin_library, plain_gin
from phi1_jax.training.setup import CONFIGURABLES

ROOT = Path(__file__).parents[2]
FILES = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("gin/**/*.gin"))
BUILT = {**CONFIGURABLES, "Evaluation": EvaluationConfig}
OTHERS = {"Grade": GradeConfig, "Study": StudyConfig}
CLASSES = {**BUILT, **OTHERS, **curate.CONFIGURABLES}


@dataclasses.dataclass(frozen=True)
class Anything:
  """A part for values of any type: the readers must agree before types are checked."""

  x: object = None


def read(reader, files, lines=()):
  """Part -> its bound parameters, and the names of everything bound."""
  found = reader.read(files, lines, CLASSES)
  return {part: found.look_up(part) for part in CLASSES}, found.names


def outcome(monkeypatch, reader, files, bindings):
  """What `load` builds, or its complaint."""
  monkeypatch.setattr(gin_config, "reader", reader)
  try:
    return gin_config.load(files, bindings, BUILT)
  except InputError as error:
    return str(error)


@pytest.mark.parametrize("path", FILES)
def test_recipes(path, monkeypatch):
  assert read(plain_gin, [path]) == read(gin_library, [path])
  # Complaints too: a file of parts leaves the other parts unbound.
  bindings = [("Train.seed", "7"), ("Mesh.fsdp", "2")]
  assert outcome(monkeypatch, plain_gin, [path], bindings) == outcome(
    monkeypatch, gin_library, [path], bindings
  )


@pytest.mark.parametrize("path", sorted(FILES))
def test_runs_are_built_whole(path, monkeypatch):
  """At least the runs themselves give objects, not two equal complaints."""
  if Path(path).parent == Path("gin"):
    bindings = [
      ("Evaluation.task_set", "humaneval-164"),
      ("Evaluation.prompt_style", "as-is"),
    ]
    built = outcome(monkeypatch, plain_gin, [path], bindings)
    assert type(built["Train"]) is CLASSES["Train"], built


def test_several_files_and_flags(monkeypatch):
  files = ["gin/quickstart.gin", "gin/models/phi1_small.gin"]
  flags = ["TOTAL_STEPS = 7", "Model.num_layers = 3", "Data.rates = {'a': 1e-1}"]
  parts, names = read(plain_gin, files, flags)
  assert (parts, names) == read(gin_library, files, flags)
  assert parts["Train"]["total_steps"] == 7
  assert parts["Model"]["num_layers"] == 3  # the flag, not phi1_small's 20
  assert parts["Model"]["embed_dim"] == 1024


LITERALS = st.recursive(
  st.none()
  | st.booleans()
  | st.integers()
  | st.floats(allow_nan=False, allow_infinity=False)
  | st.text(),
  lambda inner: (
    st.lists(inner, max_size=3)
    | st.lists(inner, max_size=3).map(tuple)
    | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
  ),
  max_leaves=8,
)


@given(value=LITERALS, comment=st.sampled_from(["", "  # a = 'b'", "#%c"]))
def test_literals(value, comment):
  lines = [f"Data.rates = {value!r}{comment}"]
  for reader in (plain_gin, gin_library):
    (found,) = read(reader, [], lines)[0]["Data"].values()
    assert found == value
    assert repr(found) == repr(value)  # True is not 1


@pytest.mark.parametrize(
  "text",
  [
    "Data.rates = {\n  'a': 1,  # why\n\n  'b': (2,\n  3),\n}\n",
    "Data.modules = [\n  'a',\n  'b'\n]\n\n# end",
    "Data.store = (\n  'a'\n  'b')\n",
    "Data.store = '''a\nb'''\n",
    "Data.store = \\\n  'a'\n",
    "Data.store = 'a' 'b'",
    "Data.store = ('a')",
    "Data.modules = ('a',)",
    "Data.modules = ()",
    "  Data.store = 'a'\n",
    "Data.store='a'",
    "A = 1\nA = 2\nB = %A\nTrain.seed = %B\nA = -3\n",
    "Train.seed = - 1_000",
    "Train.seed = 0x1F",
    "Data.store = 'a#b'  # c",
    "Data.store = r'\\d'",
    "include 'gin/models/micro.gin'\nModel.num_layers = 5\n",
    "Model.num_layers = 5\ninclude 'gin/models/micro.gin'\n",
    "\n\n",
    "# only a comment",
  ],
)
def test_layouts(text, tmp_path):
  path = tmp_path / "a.gin"
  path.write_text(text)
  assert read(plain_gin, [str(path)]) == read(gin_library, [str(path)])


@pytest.mark.parametrize("path", FILES)
def test_files_that_were_read(path):
  """In the same order, which error messages rely on."""
  plain = plain_gin.read([path], [], CLASSES)
  assert plain.files == gin_library.read([path], [], CLASSES).files
