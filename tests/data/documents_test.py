"""The split by hash."""

import hashlib

from phi1_jax.data.documents import Document, held_out


def test_held_out_is_a_matter_of_the_group_alone():
  names = [f"file {i}" for i in range(20_000)]
  kept = [name for name in names if held_out(Document(name), 0.05)]
  assert 850 < len(kept) < 1150  # 1000 +- 5 standard deviations
  assert set(kept) <= {name for name in names if held_out(Document(name), 0.1)}
  assert not any(held_out(Document(name), 0.0) for name in names)
  for name in names[:1000]:
    group = hashlib.sha256(name.encode()).hexdigest()
    # A function mined from a file goes where the file goes.
    assert held_out(Document("def f(): ...", group), 0.05) == (name in kept)
    assert held_out(Document(name[3:], prompt=name[:3]), 0.05) == (name in kept)
