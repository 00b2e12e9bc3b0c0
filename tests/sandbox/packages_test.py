"""Installed packages, in environments of several kinds."""

import json

import pytest

from phi1_jax import InputError
from phi1_jax.sandbox import packages


@pytest.fixture
def install(tmp_path, monkeypatch):
  """Installs files as a distribution, in an environment behind a link."""
  real = tmp_path / "real"
  real.mkdir()
  (tmp_path / "link").symlink_to(real)
  monkeypatch.syspath_prepend(str(tmp_path / "link"))

  def install(name, *files, needs=(), editable=False):
    info = f"{name}-1.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1"]
    lines += [f"Requires-Dist: {need}" for need in needs]
    contents = dict.fromkeys(files, "") | {f"{info}/METADATA": "\n".join(lines) + "\n"}
    contents[f"{info}/RECORD"] = "".join(f"{f},,\n" for f in [*files, f"{info}/M"])
    if editable:
      origin = {"url": "file:///x", "dir_info": {"editable": True}}
      contents[f"{info}/direct_url.json"] = json.dumps(origin)
    for file, content in contents.items():
      (real / file).parent.mkdir(exist_ok=True)
      (real / file).write_text(content)
    return real

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
