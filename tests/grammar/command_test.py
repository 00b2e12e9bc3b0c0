"""`python -m phi1_jax.grammar` shows exercises of a row."""

import pytest

from phi1_jax.grammar.__main__ import main


def test_the_exercises_of_a_row_are_shown_with_asserts_that_they_pass(capsys):
  assert main(["--task=fare", "--count=2"]) == 0
  printed = capsys.readouterr().out
  assert printed.count("def ") == 2
  space = {}
  exec(printed, space)


@pytest.mark.parametrize(
  ("flags", "named"),
  [(["--task=nothing"], "nothing"), (["--tables=absent.toml"], "absent.toml")],
)
def test_what_is_not_there_is_refused(flags, named, capsys):
  assert main(flags) == 2
  assert named in capsys.readouterr().err
