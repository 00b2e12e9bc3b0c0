"""The command `convert`, there and back, here and on cloud storage."""

import json
import re
import subprocess
import sys

import pytest
from safetensors.numpy import load, load_file

from phi1_jax import InputError, convert, sample, storage
from phi1_jax.interop import safetensors
from phi1_jax.model.config import ModelConfig
from phi1_jax.text import tokenizer

CONFIG = ModelConfig(320, 2, 2, 4, 2, 9, 12, 16, 0.0, 0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, random_phi):
  """A tiny model in float16, as a Phi."""
  path = tmp_path_factory.mktemp("hf")
  random_phi(path, CONFIG, tokenizer.train(["a b"], 296))
  return path


def same_bits(got, folder):
  expected = load_file(folder / "model.safetensors")
  assert {name: x.tobytes() for name, x in got.items()} == {
    name: x.tobytes() for name, x in expected.items()
  }


def test_there_and_back(folder, tmp_path, capsys):
  run, again, own = tmp_path / "run", tmp_path / "again", tmp_path / "own"
  assert convert.main(["from-hf", str(folder), str(run)]) == 0
  said = capsys.readouterr().out
  parameters = f"{CONFIG.num_parameters():,} parameters"
  assert f"{folder}: phi, {parameters}, float16" in said
  assert f"{run}: {parameters} in float32, " in said
  flags = ["--dtype=float16", "--max_shard_bytes=5e3"]
  assert convert.main(["to-hf", str(run), str(again), *flags]) == 0
  assert f"{again}: {parameters} in float16, " in capsys.readouterr().out
  files = sorted(again.glob("*.safetensors"))
  assert len(files) > 1
  same_bits({n: x for path in files for n, x in load_file(path).items()}, folder)
  # Without --dtype: the checkpoint's own, float32.
  assert convert.main(["to-hf", str(run), str(own)]) == 0
  tensors = safetensors.open_folder(own)[0].tensors
  assert {tensor.dtype for tensor in tensors} == {"F32"}
  assert json.loads((own / "config.json").read_text())["torch_dtype"] == "float32"


def test_there_and_back_on_cloud_storage(folder, gcs, tmp_path, monkeypatch, capsys):
  """Both folders may be gs://, and no local folder of that name appears."""
  monkeypatch.chdir(tmp_path)
  for name in ("config.json", "model.safetensors", "tokenizer.json"):
    place = storage.parse(f"{gcs.folder}/hf/{name}")
    storage.write_bytes(place, (folder / name).read_bytes())
  hf, run, again = (f"{gcs.folder}/{name}" for name in ("hf", "run", "again"))
  assert convert.main(["from-hf", hf, run]) == 0
  assert convert.main(["to-hf", run, again, "--dtype=float16"]) == 0
  content = storage.read_bytes(storage.parse(f"{again}/model.safetensors"))
  same_bits(load(content), folder)
  assert {path.name for path in tmp_path.iterdir()} <= {"cache"}
  capsys.readouterr()
  flags = [f"--checkpoint={run}", "--prompt=a b", "--max_new_tokens=3", "--json"]
  assert sample.main(flags) == 0
  assert len(json.loads(capsys.readouterr().out)["tokens"]) <= 3


def test_another_process_says_it_in_one_line(tmp_path):
  """Exit code 2, no traceback, nothing made."""
  out = tmp_path / "out"
  words = ["-m", "phi1_jax.convert", "from-hf", str(tmp_path), str(out)]
  run = subprocess.run([sys.executable, *words], capture_output=True, text=True)
  assert run.returncode == 2
  assert run.stderr.startswith(f"error: {tmp_path}/config.json: No such file")
  assert len(run.stderr.splitlines()) == 1
  assert not out.exists()


SHARDS = "--max_shard_bytes: got .*, expected"
SCHEME = "//b/x: got .* expected a local path or gs://"


@pytest.mark.parametrize(
  ("words", "says"),
  [
    *(
      (f"to-hf a b --max_shard_bytes={n}", SHARDS) for n in ("0", "-inf", "inf", "nan")
    ),
    ("from-hf s3://b/x run", SCHEME),
    ("to-hf run abfs://b/x", SCHEME),
    ("from-hf HF EXISTING", "exists already"),
    ("", "^error: "),
    ("to-hf a", "^error: "),
    ("from-hf a b --dtype=int8", "^error: "),
  ],
)
def test_wrong_words_are_refused(words, says, folder, tmp_path, capsys):
  (tmp_path / "notes").write_text("mine")
  words = words.replace("HF", str(folder)).replace("EXISTING", str(tmp_path))
  with pytest.raises((InputError, SystemExit)) as refused:
    convert.main(words.split())
  usage = isinstance(refused.value, SystemExit)
  message = capsys.readouterr().err if usage else str(refused.value)
  assert re.search(says, message)
  assert message.count("\n") == usage
  assert [path.name for path in tmp_path.iterdir()] == ["notes"]
