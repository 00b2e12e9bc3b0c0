"""What a reader of gin files hands over, and what all readers say alike.

There are two: `gin_library` with the library gin, `plain_gin` where that is missing.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from phi1_jax import InputError

# Every part that a gin file may configure, so that a command which builds only some
# of them (prepare: Data) reads a whole run's file and still knows a misspelt name.
PARTS = (
  "Annotate",
  "Checkpoint",
  "Classifier",
  "Data",
  "Decontaminate",
  "Deduplicate",
  "Evaluation",
  "Exercises",
  "Filter",
  "Grade",
  "Llm",
  "Mesh",
  "Model",
  "Optimizer",
  "Publish",
  "Runtime",
  "Study",
  "Textbooks",
  "Train",
)

# Where files are looked for that are not under the working directory.
ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Bindings:
  """Everything that gin files and the command line bind.

  Attributes:
    files: the files read, in order; what a file includes comes before it.
    names: `MACRO`, `Part.parameter` and `scope/Part.parameter`.
    look_up: name of a part -> its bound parameters, macros replaced by their values;
      raises InputError for what is bound to nothing.
  """

  files: list[str]
  names: set[str]
  look_up: Callable[[str], dict[str, Any]]


def no_such_file(path: str) -> InputError:
  """The complaint about a file that is neither here nor under `ROOT`."""
  return InputError(
    f"{path}: no such gin file; expected a path from here or from the repository "
    "root, such as gin/quickstart.gin"
  )


def no_such_parameter(where: str, part: str, parameter: str, cls: type) -> InputError:
  """The complaint about a parameter that a part does not have."""
  fields = [field.name for field in dataclasses.fields(cls)]
  return InputError(
    f"{where}{part}.{parameter}: no such parameter; {part} has {', '.join(fields)}"
  )


def required(name: str) -> InputError:
  """The complaint about a parameter or macro that has to be bound and is not."""
  return InputError(f"{name}: required but not bound; give --gin.{name}=VALUE")


def unbound_macro(name: str) -> InputError:
  """The complaint about a macro that is read and that nothing binds."""
  return InputError(
    f"%{name}: the macro is read but never bound; give --gin.{name}=VALUE"
  )


def circle() -> InputError:
  """The complaint about what never ends."""
  return InputError("a gin file includes itself, or a macro reads itself, in a circle")
