import re
import socket
import types

import jax
import pytest

from phi1_jax import InputError
from phi1_jax.training import hooks


def test_a_profile_opens_and_names_the_parts_of_the_model(tiny, run, caplog):
  """XProf shows operations by these names, which the profile holds with the program."""
  train = {"total_steps": 3, "sequences_per_device": 1}
  setup = tiny(train=train, runtime={"profile_at": 1, "profile_steps": 1})
  with caplog.at_level("INFO"):
    run(setup, [hooks.profile(setup)])
  folder = setup.workdir / "profile"
  assert f"tensorboard --logdir={folder}" in caplog.text
  (path,) = (folder / "plugins" / "profile").glob("*/*.xplane.pb")
  events = [
    dict(event.stats)
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes
    for line in plane.lines
    for event in line.events
    if event.name == "train"
  ]
  assert [event["step_num"] for event in events] == [1]
  # The program lies in there as a protocol buffer, whose strings are plain bytes.
  names = b"\n".join(re.findall(rb"jit\(step\)/[\x20-\x7e]*", path.read_bytes()))
  blocks = ("norm/", "attention/qkv/", "attention/out/", "mlp/up/", "mlp/down/")
  parts = ["optimizer/", *(f"layers/{block}" for block in blocks)]
  for part in [*parts, "embedding/", "final_norm/"]:
    assert re.search(rb"/" + part.encode(), names), part


def test_a_profiler_server(tiny):
  """It listens on the port while the process lives."""
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
  hooks.profile(tiny(runtime={"profiler_port": port}))
  socket.create_connection(("localhost", port), timeout=10).close()


STATE = types.SimpleNamespace(params={})


@pytest.mark.parametrize(
  ("arguments", "steps"),
  [
    ({}, [10]),
    ({"every": 4}, [4, 8, 10]),
    ({"steps": (0, 3)}, [0, 3, 10]),
    ({"every": 8, "steps": (2,)}, [2, 8, 10]),
  ],
)
def test_due(arguments, steps):
  hook = hooks.Hook(lambda step, state: (), **arguments)
  assert [step for step in range(11) if hook.due(step, 10)] == steps


def test_named_hooks_are_found_and_run_when_due(tiny, tmp_path, monkeypatch):
  (tmp_path / "my_hooks.py").write_text(
    "def count(setup, store):\n"
    "  return lambda step, state: [('mine/step', float(step + store.number))]\n"
    "def wrong(setup, store):\n  return {}\n"
    "def number(setup, store):\n  return lambda step, state: 3\n"
    "def nothing(setup, store):\n  return lambda step, state: None\n"
    "def fails(setup, store):\n  def run(step, state):\n    yield 'a', 1 + ''\n"
    "  return run\n"
    "def short(setup):\n  pass\n"
    "def taken(setup, store):\n"
    "  return lambda step, state: [('eval/code_loss', 3.0)]\n"
    "def number_of_ours(setup, store):\n"
    "  return lambda step, state: [('grad_norm', 3.0)]\n"
    "def text(setup, store):\n  def run(step, state):\n    yield 'a', 'high'\n"
    "  return run\n"
  )
  monkeypatch.syspath_prepend(tmp_path)
  store = types.SimpleNamespace(manifest={"tasks": {"code": {}}}, number=100)
  setup = tiny(runtime={"hooks": {"my_hooks:count": 3}})
  (hook,) = hooks.named(hooks.find(setup.config.runtime), setup, store)
  assert [step for step in range(1, 9) if hook.due(step, 8)] == [3, 6, 8]
  assert dict(hook.run(3, STATE)) == {"mine/step": 103.0}
  setup = tiny(runtime={"hooks": {"my_hooks:wrong": 3}})
  with pytest.raises(InputError, match="returned dict, expected a function"):
    hooks.named(hooks.find(setup.config.runtime), setup, store)
  for name, error, said in (
    ("number", InputError, r"my_hooks:number returned int at step 3.*\(name, value\)"),
    ("fails", TypeError, "unsupported operand"),
    ("taken", InputError, r"my_hooks:taken yielded 'eval/code_loss' = 3\.0"),
    ("number_of_ours", InputError, r"yielded 'grad_norm' = 3\.0"),
    ("text", InputError, r"my_hooks:text yielded 'a' = 'high'.*a number"),
  ):
    setup = tiny(runtime={"hooks": {f"my_hooks:{name}": 3}})
    (hook,) = hooks.named(hooks.find(setup.config.runtime), setup, store)
    with pytest.raises(error, match=said):
      hook.run(3, STATE)
  setup = tiny(runtime={"hooks": {"my_hooks:nothing": 3}})
  (hook,) = hooks.named(hooks.find(setup.config.runtime), setup, store)
  assert not dict(hook.run(3, STATE))
  with pytest.raises(InputError, match="a function of"):
    hooks.find(tiny(runtime={"hooks": {"my_hooks:short": 3}}).config.runtime)


@pytest.mark.parametrize(
  ("name", "message"),
  [
    *((name, re.escape(name)) for name in ("nowhere.at_all:x", "math", ":b")),
    ("evals.hook:humanevl", "humanevl"),
  ],
)
def test_a_named_hook_that_does_not_exist(tiny, name, message):
  setup = tiny(runtime={"hooks": {name: 3}})
  with pytest.raises(InputError, match=message):
    hooks.find(setup.config.runtime)
