"""Tokenizers of a Hugging Face folder, taken over or written there."""

import json

import pytest
from transformers import AutoTokenizer

from phi1_jax import InputError
from phi1_jax.interop import hf_tokenizer
from phi1_jax.text import tokenizer


def spellings(content):
  """The same encoder as other versions of the library and its converters spell it."""
  content["pre_tokenizer"]["trim_offsets"] = False
  processor = {"add_prefix_space": True, "trim_offsets": False, "use_regex": True}
  content["post_processor"] = {"type": "ByteLevel", **processor}
  content["model"]["vocab"]["<|endoftext|>"] = 50256
  content["model"]["continuing_subword_prefix"] = ""
  merges = content["model"]["merges"]
  if not isinstance(merges[0], str):
    content["model"]["merges"] = [" ".join(pair) for pair in merges]


def prefix_space(content):
  content["pre_tokenizer"]["add_prefix_space"] = True


def other_ids(content):
  first, second, *_ = (x for x in content["added_tokens"] if not x["special"])
  first["content"], second["content"] = second["content"], first["content"]


@pytest.fixture(scope="module")
def codegens(tmp_path_factory):
  """The bytes of CodeGen's tokenizer.json."""
  path = tmp_path_factory.mktemp("codegen") / "tokenizer.json"
  tokenizer.codegen().save(path)
  return path.read_bytes()


@pytest.mark.parametrize("change", [spellings, prefix_space, other_ids])
def test_what_encodes_as_codegens_becomes_codegens_and_another_is_kept(
  tmp_path, codegens, change
):
  folder = tmp_path / "in"
  folder.mkdir()
  content = json.loads(codegens)
  change(content)
  (folder / "tokenizer.json").write_text(json.dumps(content))
  found, origin = hf_tokenizer.take_over(folder, tmp_path, 51200)
  if change is spellings:
    assert origin == "tokenizer.json, encodes as CodeGen's"
    assert (tmp_path / "tokenizer.json").read_bytes() == codegens
    assert found is tokenizer.codegen()
  else:
    assert origin == "tokenizer.json"
    assert found.digest != tokenizer.codegen().digest
    assert tokenizer.load(tmp_path / "tokenizer.json").digest == found.digest


def test_old_files_or_none(tmp_path):
  """The files of codegen-350M-mono, from GPT-2's."""
  vocabulary, merges = tokenizer.gpt2()
  vocabulary[tokenizer.END_OF_TEXT] = len(vocabulary)
  lines = ["#version: 0.2", *map(" ".join, merges)]
  added = {" " * n: 50288 - n for n in range(2, 32)}
  added |= {"\t" * n: 50296 - n for n in range(2, 10)}
  folder = tmp_path / "in"
  folder.mkdir()
  with pytest.raises(InputError, match="has 50295 ids, expected at most the model's 3"):
    hf_tokenizer.take_over(folder, tmp_path, 320)
  found, origin = hf_tokenizer.take_over(folder, tmp_path, 51200)
  assert found.digest == tokenizer.codegen().digest
  assert origin == "CodeGen's, as the folder has none"
  (folder / "vocab.json").write_text(json.dumps(vocabulary))
  (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
  (folder / "added_tokens.json").write_text(json.dumps(added))
  found, origin = hf_tokenizer.take_over(folder, tmp_path, 51200)
  assert origin == "vocab.json and merges.txt, encodes as CodeGen's"
  assert found.digest == tokenizer.codegen().digest
  (folder / "added_tokens.json").write_text(json.dumps(added | {"\t\t": 50300}))
  with pytest.raises(InputError, match="has id 50300, expected 50294"):
    hf_tokenizer.take_over(folder, tmp_path, 51200)
  (folder / "vocab.json").write_text("{")
  with pytest.raises(InputError, match=r"vocab\.json.*cannot be read"):
    hf_tokenizer.take_over(folder, tmp_path, 51200)


@pytest.mark.parametrize("name", ["codegen", "trained"])
def test_transformers_encodes_as_we_do(tmp_path, twins, name):
  ours = tokenizer.codegen() if name == "codegen" else twins.small_tokenizer()
  hf_tokenizer.write(tmp_path, ours, 2048)
  (tmp_path / "config.json").write_text('{"model_type": "phi"}')
  theirs = AutoTokenizer.from_pretrained(tmp_path)
  code = "def f(x):\n    if x:\n\t\treturn 'été'  # 東京\n\n\n        pass\n"
  for text in (code + " " * 70, "  1234 5678\r\n\u00a0!? it's <b>\x00"):
    assert theirs(text)["input_ids"] == ours.encode(text)
    assert theirs.decode(ours.encode(text)) == text
  assert theirs.eos_token_id == ours.eos_id
  assert theirs.model_max_length == 2048
