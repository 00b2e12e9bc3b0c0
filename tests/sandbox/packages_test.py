"""Installed packages, in environments of several kinds."""

import json

import pytest

from phi1_jax import InputError
from phi1_jax.sandbox import packages


@pytest.fixture
def install(tmp_path, monkeypatch):
  """Installs files as a distribution, in an environment behind a link."""
  (tmp_path / "real").mkdir()
  (tmp_path / "link").symlink_to(tmp_path / "real")
  monkeypatch.syspath_prepend(str(tmp_path / "link"))

  def install(name, *files, needs=(), editable=False):
    info = tmp_path / "real" / f"{name}-1.dist-info"
    for file in files:
      path = tmp_path / "real" / file
      path.parent.mkdir(exist_ok=True)
      path.touch()
    info.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1"]
    lines += [f"Requires-Dist: {need}" for need in needs]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    (info / "RECORD").write_text(
      "".join(f"{f},,\n" for f in [*files, info.name + "/M"])
    )
    if editable:
      origin = {"url": "file:///x", "dir_info": {"editable": True}}
      (info / "direct_url.json").write_text(json.dumps(origin))
    return tmp_path / "real"

  return install


def test_an_environment_behind_a_link(install):
  folder = install("pkg_a", "pkg_a/__init__.py", "pkg_a.libs/x.so", needs=["pkg_b"])
  install("pkg_b", needs=["pkg_c>1"])  # has requirements alone
  install("pkg_c", "pkg_c.py")
  found = packages.find(["pkg_a"])
  names = ["pkg_a", "pkg_a.libs", "pkg_c.py"]
  assert found.paths == tuple(str(folder / name) for name in names)


@pytest.mark.parametrize(
  ("file", "editable"),
  [("__editable___pkg_finder.py", True), ("pkg.pth", False)],
)
def test_an_editable_install_is_refused(install, file, editable):
  install("pkg_d", "pkg_d/__init__.py", needs=["pkg_e"])
  install("pkg_e", file, editable=editable)
  with pytest.raises(InputError, match="pkg_e is an editable install"):
    packages.find(["pkg_d"])
