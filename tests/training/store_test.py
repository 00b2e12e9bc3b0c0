"""A store that its sources have left behind."""

import dataclasses
import json
import os
import threading
import types
from unittest.mock import Mock

import pytest

from phi1_jax import InputError, grammar
from phi1_jax.cli import command, gin_config
from phi1_jax.data import build
from phi1_jax.data.config import CURATED_CONTENT, DataConfig
from phi1_jax.data.files import FileSource
from phi1_jax.training import store as stores
from phi1_jax.training import workdir
from phi1_jax.training.preemption import StopSignal


def store_of(**source):
  manifest = {"tasks": {"exercises": {"rate": "by_size", "sources": [source]}}}
  return types.SimpleNamespace(manifest=manifest)


def publish(folder, version, content):
  place = folder / "exercises" / version
  place.mkdir(parents=True)
  (place / CURATED_CONTENT).write_text(json.dumps({"documents": content}))


def test_another_version_of_the_grammar_is_said(tiny, caplog):
  stores.check_current(
    store_of(name=grammar.NAME, version=str(grammar.VERSION)), tiny()
  )
  assert not caplog.text
  stores.check_current(store_of(name=grammar.NAME, version="0"), tiny())
  assert "was built by version 0 of the grammar teacher; this is version" in caplog.text


def test_other_exercises_of_the_grammar_are_another_store(tiny, tmp_path):
  built = {"name": grammar.NAME, "version": str(grammar.VERSION), "exercises": 300}
  stores.check_current(store_of(**built), tiny(data={"grammar_exercises": 300}))
  with pytest.raises(InputError, match=r"grammar_exercises = 300, expected 400"):
    stores.check_current(store_of(**built), tiny(data={"grammar_exercises": 400}))
  other = {"grammar_exercises": 400, "modules": ("json",)}  # as `register` makes them
  with pytest.raises(InputError, match="grammar_exercises"):
    stores.check_current(store_of(**built), tiny(data=other))
  table = tmp_path / "mine.toml"
  table.write_text("")
  own = {"grammar_exercises": 300, "grammar_tables": (str(table),)}
  with pytest.raises(InputError, match="tables with digest"):
    stores.check_current(store_of(**built), tiny(data=own))


def test_another_content_of_a_curated_set_is_another_store(tiny, tmp_path):
  store = store_of(name="exercises", version="1.9.0", content="a")
  setup = tiny(data={"curated_directory": str(tmp_path / "sets")})
  stores.check_current(store, setup)  # the sets are not on this machine
  publish(tmp_path / "sets", "1.8.0", "old")
  publish(tmp_path / "sets", "1.9.0", "a")
  stores.check_current(store, setup)
  publish(tmp_path / "other", "1.9.0", "b")
  other = tiny(data={"curated_directory": str(tmp_path / "other")})
  with pytest.raises(InputError, match=r"\('1\.9\.0', 'a'\), .*\('1\.9\.0', 'b'\)"):
    stores.check_current(store, other)
  publish(tmp_path / "sets", "1.11.0.bak", "b")
  stores.check_current(store, setup)
  publish(tmp_path / "sets", "1.10.0", "b")
  with pytest.raises(InputError, match=r"exercises of .*'1\.9\.0', .*'1\.10\.0'"):
    stores.check_current(store, setup)
  # A run that goes on keeps its store.
  (setup.workdir / "checkpoints" / "4").mkdir(parents=True)
  stores.check_current(store, setup)


def test_a_set_whose_content_is_another_is_refused_where_it_was_noted(tmp_path):
  def facts(**source):
    task = {"rate": "by_size", "sources": [{"name": "exercises", **source}]}
    return {"tokenizer": {"name": "train"}, "tasks": {"exercises": task}}

  # A store from before it was noted goes on.
  build.refuse_other(tmp_path, facts(), facts(content="a"))
  build.refuse_other(tmp_path, facts(content="a"), facts(content="a"))
  for found in (facts(content="b"), facts(version="1.0.1")):
    with pytest.raises(InputError, match=r"Data\.tasks\.exercises\.sources\[0\]"):
      build.refuse_other(tmp_path, found, facts(content="a"))


def test_files_that_changed_after_the_build(tiny, tmp_path):
  files = [tmp_path / "a.txt", tmp_path / "b.txt"]
  for path in files:
    path.write_text("first\n")
  pattern = str(tmp_path / "*.txt")
  tasks = {"files": {"rate": "by_size", "sources": FileSource([pattern]).describe()}}
  store = types.SimpleNamespace(manifest={"tasks": tasks})
  data = {"mixture": None, "files": (pattern,), "store": str(tmp_path / "store")}
  (tmp_path / "store").mkdir()
  (tmp_path / "store" / "COMPLETED").touch()
  later = files[0].stat().st_mtime + 100
  os.utime(files[0], (later, later))  # as after a checkout: the content is the same
  stores.check_current(store, tiny(data=data))
  files[0].write_text("other\n")
  os.utime(files[0], (later, later))
  with pytest.raises(InputError, match=r"Data\.files = .*sha256"):
    stores.check_current(store, tiny(data=data))
  # As after `cp -p` of an older file of the same size.
  done = files[0].stat().st_ctime
  os.utime(files[0], (done - 100, done - 100))
  os.utime(tmp_path / "store" / "COMPLETED", (done - 50, done - 50))
  with pytest.raises(InputError, match=r"Data\.files = .*sha256"):
    stores.check_current(store, tiny(data=data))


def test_files_that_are_not_there(tiny, tmp_path, caplog):
  store = types.SimpleNamespace(manifest={"tasks": {}})
  data = {"mixture": None, "files": (f"{tmp_path}/typo/*.txt",), "store": "store"}
  with pytest.raises(InputError, match=r"no file matches .*Data\.verify=False"):
    stores.check_current(store, tiny(data=data))
  stores.check_current(store, tiny(data={**data, "verify": False}))
  assert "no file matches" in caplog.text


def test_the_build_gets_the_settings_that_have_an_effect(monkeypatch):
  data = DataConfig(files=("a b/*.txt",), store="s", grammar_exercises=9)
  given = Mock()
  monkeypatch.setattr(stores.child, "run", given)
  stores._build(data, lambda: False)
  arguments = command.Parser("prepare", "", "").parse(given.call_args.args[1])
  built = gin_config.load([], arguments.gin_bindings, {"Data": DataConfig})["Data"]
  assert dataclasses.replace(built, grammar_exercises=9) == data


@pytest.mark.parametrize(
  ("data", "blamed"),
  [
    ({"mixture": "code_textbok"}, r"Data\.mixture"),
    ({"mixture": "exercises", "curated_directory": "no/such"}, "curated_directory"),
    ({"mixture": None, "files": ("no/such/*.txt",)}, "no file matches"),
    ({"mixture": "grammar_exercises", "grammar_tables": ("no.toml",)}, r"no\.toml"),
  ],
)
def test_what_a_build_would_refuse_is_refused_before_it(tiny, data, blamed):
  with pytest.raises(InputError, match=blamed):
    DataConfig(store="store", **data).check_sources()


def test_a_model_too_small_for_the_tokenizer_is_refused_before_a_build(tiny):
  data = {"store": "store", "mixture": "exercises", "tokenizer": "codegen"}
  with pytest.raises(InputError, match=r"Model\.vocabulary_size"):
    stores.check_vocabulary(tiny(data=data, model={"vocabulary_size": 300}).config)


def test_rows_without_text_do_not_refuse_a_run(tmp_path):
  """Only rows without the columns do; a build takes the rows that come later."""
  (tmp_path / "a.jsonl").write_text('{"text": ""}\n' * 1100 + '{"text": "x = 1"}\n')
  config = DataConfig(files=(f"{tmp_path}/a.jsonl",), store="store")
  config.check_sources()
  (tmp_path / "a.jsonl").write_text('{"body": "x"}\n')
  with pytest.raises(InputError, match="no text, content or code"):
    config.check_sources()


def test_seqio_is_missed_before_a_build(monkeypatch):
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  # The module's tasks may not read the curated sets.
  config = DataConfig("mine", "s", modules=("my_tasks",), curated_directory="no/such")
  with pytest.raises(InputError, match="needs seqio"):
    config.check_sources()
  monkeypatch.undo()
  config.check_sources()


def test_a_run_that_reads_a_small_store_many_times_says_so(tiny, store, caplog):
  tokens = store.manifest["tokens"]
  data = {"tokenizer": str(store.directory / "tokenizer.json")}
  few = tiny(data=data, model={"vocabulary_size": store.vocabulary_size})
  stores.check(store, few.config)
  assert not caplog.text
  steps = 60 * tokens // few.config.train.tokens_per_step
  train = dataclasses.replace(few.config.train, total_steps=steps)
  stores.check(store, dataclasses.replace(few.config, train=train))
  assert "59 times" in caplog.text or "60 times" in caplog.text


def test_a_signal_of_another_host_stops_the_build(monkeypatch):
  """The others pass it on while they wait; host 0 sees it."""
  raised, stop = threading.Event(), types.SimpleNamespace(received=False)
  monkeypatch.setattr(stores.hosts, "raise_flag", lambda name: raised.set())
  monkeypatch.setattr(stores.hosts, "flag_is_raised", lambda name: raised.is_set())
  monkeypatch.setattr(stores.hosts, "is_first", lambda: False)
  with stores._stop_of_any(stop) as stopping:
    assert not raised.wait(0.5)
    stop.received = True
    assert raised.wait(300)
  monkeypatch.undo()
  monkeypatch.setattr(stores.hosts, "flag_is_raised", lambda name: raised.is_set())
  stop.received = False
  with stores._stop_of_any(stop) as stopping:
    assert stopping()


def test_a_finished_run_is_done_unless_its_result_would_be_another(tiny, described):
  setup = tiny()
  last = setup.config.train.last_step
  step = setup.workdir / "checkpoints" / str(last)
  described(step, {})
  (step / "meta" / "metadata").unlink()
  (setup.workdir / "summary.json").write_text(json.dumps({"step": last}))
  assert not workdir.is_summed_up(setup)  # its checkpoint is damaged
  described(step, {"step": last, "config": dataclasses.asdict(setup.config)})
  assert workdir.is_summed_up(tiny(setup.workdir, train={"log_every": 5}))
  with pytest.raises(InputError, match=r"finished, with Train\.seed = 0; got 1"):
    workdir.is_summed_up(tiny(setup.workdir, train={"seed": 1}))
  step.rename(step.with_name("1"))  # the last checkpoint is gone
  assert not workdir.is_summed_up(setup)


def test_a_refused_run_leaves_no_folder(tiny, tmp_path):
  setup = dataclasses.replace(tiny(), workdir=tmp_path / "new")
  with StopSignal() as stop:
    with pytest.raises(InputError), workdir.opened(setup, stop):
      raise InputError("refused")
    assert not setup.workdir.exists()
    with workdir.opened(setup, stop):
      (setup.workdir / "metrics.jsonl").write_text("")
  assert [path.name for path in setup.workdir.iterdir()] == ["metrics.jsonl"]
