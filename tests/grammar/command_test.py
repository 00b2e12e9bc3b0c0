"""`python -m phi1_jax.grammar` shows exercises of a row."""

import pathlib
import re

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
  [
    (["--task=nothing"], "nothing"),
    (["--task=palindrom"], "such as palindrome"),
    (["--tables=absent.toml"], "absent.toml"),
  ],
)
def test_what_is_not_there_is_refused(flags, named, capsys):
  assert main(flags) == 2
  assert named in capsys.readouterr().err


def test_an_abbreviated_flag_is_refused_in_one_line(capsys):
  with pytest.raises(SystemExit) as exit:
    main(["--table=mine.toml"])
  assert exit.value.code == 2
  assert capsys.readouterr().err.count("\n") == 1


def test_the_rows_of_the_page_give_exercises(tmp_path, capsys):
  page = pathlib.Path(__file__).parents[2] / "docs" / "exercises.md"
  flags = []
  for number, row in enumerate(
    re.findall(r"```toml\n(.*?)```", page.read_text(), re.S)
  ):
    (tmp_path / f"{number}.toml").write_text(row)
    flags.append(f"--tables={tmp_path / f'{number}.toml'}")
  for task, says in (("taxed", "10 percent"), ("issquare", "perfect square")):
    assert main([*flags, f"--task={task}", "--count=5"]) == 0
    assert " ".join(capsys.readouterr().out.split()).count(says) >= 5
