import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load, load_file

from phi1_jax import InputError, convert, sample, storage
from phi1_jax.interop import hf_config, layouts, safetensors
from phi1_jax.model.config import ModelConfig
from phi1_jax.text import tokenizer

CONFIG = ModelConfig(320, 2, 2, 4, 2, 9, 12, 16, 0.0, 0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A tiny model in float16, as a Phi."""
  path = tmp_path_factory.mktemp("hf")
  shapes = {name: x.shape for name, x in layouts.PHI.tensors(CONFIG).items()}
  generator = np.random.default_rng(0)
  arrays = (
    generator.standard_normal(shape).astype(np.float16) for shape in shapes.values()
  )
  safetensors.write(path, shapes, np.dtype("float16"), arrays, 10**9)
  content = hf_config.from_model_config(CONFIG, 257, "float16")
  (path / "config.json").write_text(json.dumps(content))
  tokenizer.train(["a b"], 296).save(path / "tokenizer.json")
  return path


def test_there_and_back(folder, tmp_path, capsys):
  run, again = tmp_path / "run", tmp_path / "again"
  assert convert.main(["from-hf", str(folder), str(run)]) == 0
  said = capsys.readouterr().out
  parameters = CONFIG.num_parameters()
  assert f"{folder}: phi, {parameters:,} parameters, float16" in said
  assert f"{run}: {parameters:,} parameters in float32, " in said
  assert f"next: python -m phi1_jax.sample --checkpoint={run}" in said
  flags = ["--dtype=float16", "--max_shard_bytes=5e3"]
  assert convert.main(["to-hf", str(run), str(again), *flags]) == 0
  said = capsys.readouterr().out
  assert f"{again}: {parameters:,} parameters in float16, " in said
  assert "next: python -c" in said
  assert str(again) in said.splitlines()[-1]
  files = sorted(again.glob("*.safetensors"))
  assert len(files) > 1
  got = {name: x for path in files for name, x in load_file(path).items()}
  expected = load_file(folder / "model.safetensors")
  assert got.keys() == expected.keys()
  for name, x in expected.items():
    assert got[name].tobytes() == x.tobytes(), name
  # Without --dtype: the checkpoint's own, float32.
  convert.main(["to-hf", str(run), str(tmp_path / "own")])
  tensors = safetensors.open_folder(tmp_path / "own")[0].tensors
  assert {tensor.dtype for tensor in tensors} == {"F32"}
  content = json.loads((tmp_path / "own" / "config.json").read_text())
  assert content["torch_dtype"] == "float32"


def test_there_and_back_on_cloud_storage(folder, gcs, tmp_path, monkeypatch, capsys):
  """Both folders may be gs://, and no local folder of that name appears."""
  monkeypatch.chdir(tmp_path)
  for name in ("config.json", "model.safetensors", "tokenizer.json"):
    place = storage.parse(f"{gcs.folder}/hf/{name}")
    storage.write_bytes(place, (folder / name).read_bytes())
  hf, run, again = (f"{gcs.folder}/{name}" for name in ("hf", "run", "again"))
  assert convert.main(["from-hf", hf, run]) == 0
  assert convert.main(["to-hf", run, again, "--dtype=float16"]) == 0
  got = storage.read_bytes(storage.parse(f"{again}/model.safetensors"))
  expected = load_file(folder / "model.safetensors")
  assert {name: x.tobytes() for name, x in load(got).items()} == {
    name: x.tobytes() for name, x in expected.items()
  }
  assert {path.name for path in tmp_path.iterdir()} <= {"cache"}
  capsys.readouterr()
  flags = [f"--checkpoint={run}", "--prompt=a b", "--max_new_tokens=3", "--json"]
  assert sample.main(flags) == 0
  assert len(json.loads(capsys.readouterr().out)["tokens"]) <= 3


@pytest.mark.parametrize("words", [["from-hf", "s3://b/x", "run"], ["to-hf", "run"]])
def test_other_schemes_are_refused(words):
  with pytest.raises(InputError, match=r"//b/x: got .* expected a local path or gs://"):
    convert.main([*words, "abfs://b/x"][:3])


def test_another_process_says_it_in_one_line(tmp_path):
  """Exit code 2, no traceback, nothing made."""
  out = tmp_path / "out"
  run = subprocess.run(
    [sys.executable, "-m", "phi1_jax.convert", "from-hf", str(tmp_path), str(out)],
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert run.returncode == 2
  assert run.stderr.startswith(f"error: {tmp_path}/config.json: No such file")
  assert len(run.stderr.splitlines()) == 1
  assert not out.exists()


@pytest.mark.parametrize("number", ["0", "-1", "0.5", "inf", "-inf", "1e999", "nan"])
def test_bad_sizes(number):
  with pytest.raises(InputError, match=r"--max_shard_bytes: got .*, expected"):
    convert.main(["to-hf", "a", "b", f"--max_shard_bytes={number}"])


@pytest.mark.parametrize(
  "words", [[], ["from-hf"], ["to-hf", "a"], ["from-hf", "a", "b", "--dtype=int8"]]
)
def test_bad_flags(words, capsys):
  with pytest.raises(SystemExit) as ended:
    convert.main(words)
  assert ended.value.code == 2
  message = capsys.readouterr().err
  assert message.startswith("error: ")
  assert message.count("\n") == 1


def test_what_exists_is_not_touched(folder, tmp_path):
  (tmp_path / "notes").write_text("mine")
  with pytest.raises(InputError, match="exists already"):
    convert.main(["from-hf", str(folder), str(tmp_path)])
  assert [path.name for path in tmp_path.iterdir()] == ["notes"]
