import json

import pytest
from transformers import AutoTokenizer

from phi1_jax import InputError
from phi1_jax.interop import hf_tokenizer
from phi1_jax.text import tokenizer

TEXTS = (
  "def f(x):\n    if x:\n\t\treturn 'été'  # 東京\n\n\n        pass\n" + " " * 70,
  "  1234 5678\r\n\u00a0!? it's <b>\x00",
)


def spellings(content):
  """The same encoder as other versions of the library and its converters spell it."""
  content["pre_tokenizer"]["trim_offsets"] = False
  content["post_processor"] = {
    "type": "ByteLevel",
    "add_prefix_space": True,
    "trim_offsets": False,
    "use_regex": True,
  }
  content["model"]["vocab"]["<|endoftext|>"] = 50256
  content["model"]["continuing_subword_prefix"] = ""
  content["model"]["merges"] = [
    " ".join(pair) if isinstance(pair, list) else pair
    for pair in content["model"]["merges"]
  ]


def prefix_space(content):
  content["pre_tokenizer"]["add_prefix_space"] = True


def other_ids(content):
  first, second, *_ = (x for x in content["added_tokens"] if not x["special"])
  first["content"], second["content"] = second["content"], first["content"]


def saved(folder, change):
  folder.mkdir()
  tokenizer.codegen().save(folder / "tokenizer.json")
  content = json.loads((folder / "tokenizer.json").read_text())
  change(content)
  (folder / "tokenizer.json").write_text(json.dumps(content))
  return folder


def test_what_encodes_as_codegens_becomes_codegens(tmp_path):
  folder = saved(tmp_path / "in", spellings)
  found, origin = hf_tokenizer.take_over(folder, tmp_path, 51200)
  assert origin == "tokenizer.json, encodes as CodeGen's"
  tokenizer.codegen().save(tmp_path / "codegens.json")
  codegens = (tmp_path / "codegens.json").read_bytes()
  assert (tmp_path / "tokenizer.json").read_bytes() == codegens
  assert found is tokenizer.codegen()


@pytest.mark.parametrize("change", [prefix_space, other_ids])
def test_what_encodes_otherwise_is_kept(tmp_path, change):
  folder = saved(tmp_path / "in", change)
  found, origin = hf_tokenizer.take_over(folder, tmp_path, 51200)
  assert origin == "tokenizer.json"
  assert found.digest == tokenizer.load(folder / "tokenizer.json").digest
  assert tokenizer.load(str(tmp_path)).digest == found.digest


def old_files(folder):
  """The files of codegen-350M-mono, from GPT-2's."""
  folder.mkdir()
  vocabulary, merges = tokenizer.gpt2()
  vocabulary[tokenizer.END_OF_TEXT] = len(vocabulary)
  (folder / "vocab.json").write_text(json.dumps(vocabulary))
  lines = ["#version: 0.2", *map(" ".join, merges)]
  (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
  added = {" " * n: 50288 - n for n in range(2, 32)}
  added |= {"\t" * n: 50296 - n for n in range(2, 10)}
  (folder / "added_tokens.json").write_text(json.dumps(added))
  return added


def test_old_files(tmp_path):
  old_files(tmp_path / "in")
  found, origin = hf_tokenizer.take_over(tmp_path / "in", tmp_path, 51200)
  assert origin == "vocab.json and merges.txt, encodes as CodeGen's"
  assert found.digest == tokenizer.codegen().digest


def test_old_files_with_a_hole(tmp_path):
  added = old_files(tmp_path / "in")
  added["\t" * 2] = 50300
  (tmp_path / "in" / "added_tokens.json").write_text(json.dumps(added))
  with pytest.raises(InputError, match="has id 50300, expected 50294"):
    hf_tokenizer.take_over(tmp_path / "in", tmp_path, 51200)
  (tmp_path / "in" / "vocab.json").write_text("{")
  with pytest.raises(InputError, match=r"vocab\.json.*cannot be read"):
    hf_tokenizer.take_over(tmp_path / "in", tmp_path, 51200)


def test_none(tmp_path):
  found, origin = hf_tokenizer.take_over(tmp_path, tmp_path, 51200)
  assert (found.digest, origin) == (
    tokenizer.codegen().digest,
    "CodeGen's, as the folder has none",
  )
  empty = tmp_path / "empty"
  empty.mkdir()
  with pytest.raises(
    InputError, match="has 50295 ids, expected at most the model's 320"
  ):
    hf_tokenizer.take_over(empty, tmp_path, 320)


@pytest.mark.parametrize("name", ["codegen", "trained"])
def test_transformers_encodes_as_we_do(tmp_path, twins, name):
  ours = tokenizer.codegen() if name == "codegen" else twins.small_tokenizer()
  hf_tokenizer.write(tmp_path, ours, 2048)
  (tmp_path / "config.json").write_text('{"model_type": "phi"}')
  theirs = AutoTokenizer.from_pretrained(tmp_path)
  for text in TEXTS:
    assert theirs(text)["input_ids"] == ours.encode(text)
    assert theirs.decode(ours.encode(text)) == text
  assert theirs.eos_token_id == ours.eos_id
  assert theirs.model_max_length == 2048
