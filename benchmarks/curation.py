"""How curation grows with the corpus: CPU time and memory of every stage.

    python benchmarks/curation.py --files=750,1500,3000,6000 --plot=growth.png

The corpus consists of files of the installed packages, whose names count as
repositories. Each stage is a command with one worker; its time includes its start, a
second or more. Ratios compare the largest corpus with the smallest one. MBPP's file is
needed: PHI1_JAX_BENCHMARKS=FOLDER.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

STAGES = (
  *("deduplicate", "annotate", "train-classifier", "filter", "decontaminate"),
  "publish",
)


def collect(corpus: Path, number: int) -> None:
  """Link files of 1 to 200 kB, taking one of each package in turn."""
  root = Path(sysconfig.get_path("purelib"))
  packages = {
    folder.name: [
      path
      for path in sorted(folder.rglob("*.py"))
      if 1_000 <= path.stat().st_size <= 200_000
    ]
    for folder in sorted(root.iterdir())
    if folder.is_dir()
  }
  found: list[tuple[str, Path]] = []
  turn = 0
  while len(found) < number:
    row = [(name, files[turn]) for name, files in packages.items() if turn < len(files)]
    if not row:
      raise SystemExit(f"{root} has {len(found)} files, expected {number}")
    found += row
    turn += 1
  for name, path in found[:number]:
    link = corpus / name / path.relative_to(root)
    link.parent.mkdir(parents=True, exist_ok=True)
    os.link(path, link)


def run(stage: str, corpus: Path, work: Path) -> dict[str, Any]:
  """Run a stage; return documents read and kept, CPU seconds, and peak MiB."""
  bindings = {
    "deduplicate": {
      "Deduplicate.inputs": f"('{corpus}',)",
      "Deduplicate.maximum_loss": "1.0",  # packages repeat files of theirs
    },
    "filter": {"Filter.licences": "()"},
    "publish": {"Publish.directory": f"'{work / 'curated'}'"},
  }
  command = [sys.executable, "-m", "phi1_jax.curate", stage, "--workers=1"]
  command += [f"--gin_file=gin/curate/{stage}.gin", f"--workdir={work / stage}"]
  command += [f"--gin.{k}={v}" for k, v in bindings.get(stage, {}).items()]
  process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
  _, status, usage = os.wait4(process.pid, 0)
  if status:
    raise SystemExit(f"{stage} ended with status {status}")
  stats = json.loads((work / stage / "stats.json").read_text())
  return {
    "stage": stage,
    "read": stats["read"],
    "kept": stats["kept"],
    "cpu_seconds": usage.ru_utime + usage.ru_stime,
    "peak_mib": stats["run"]["peak_memory_mib"],
  }


def plot(rows: list[dict[str, Any]], path: str) -> None:
  """Draw CPU time and memory over the number of documents that a stage read."""
  import matplotlib

  matplotlib.use("Agg")
  from matplotlib import pyplot as plt

  figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
  shown = ("cpu_seconds", "CPU seconds"), ("peak_mib", "peak memory (MiB)")
  for axis, (field, label) in zip(axes, shown, strict=True):
    for stage in STAGES:
      own = [row for row in rows if row["stage"] == stage]
      axis.plot(
        [row["files"] for row in own], [row[field] for row in own], "o-", label=stage
      )
    axis.set(xlabel="files in the corpus", ylabel=label, ylim=(0, None))
    axis.grid(alpha=0.3)
  axes[1].legend(fontsize="small")
  figure.savefig(path, dpi=110)


def main() -> None:
  """Run all stages on corpora that grow, and print a table."""
  parser = argparse.ArgumentParser(description="Growth of curation.")
  parser.add_argument("--files", default="750,1500,3000,6000")
  parser.add_argument("--plot", help="a PNG file to draw")
  arguments = parser.parse_args()
  sizes = [int(size) for size in arguments.files.split(",")]
  rows = []
  print("| files | stage | read | kept | CPU s | documents per CPU s | peak MiB |")
  print(f"|{'---|' * 7}")
  for size in sizes:
    # On the file system of the packages, so that their files can be linked.
    root = Path(tempfile.mkdtemp(dir=sysconfig.get_path("data")))
    try:
      collect(root / "corpus", size)
      for stage in STAGES:
        row = {"files": size, **run(stage, root / "corpus", root / "work")}
        rows.append(row)
        rate = row["read"] / row["cpu_seconds"]
        print(
          f"| {size:,} | {stage} | {row['read']:,} | {row['kept']:,} | "
          f"{row['cpu_seconds']:.1f} | {rate:.0f} | {row['peak_mib']:.0f} |",
          flush=True,
        )
    finally:
      shutil.rmtree(root)
  print(f"from {sizes[0]:,} to {sizes[-1]:,} files, {sizes[-1] / sizes[0]:g} times:")
  for stage in STAGES:
    first, *_, last = (row for row in rows if row["stage"] == stage)
    ratios = {k: last[k] / first[k] for k in ("read", "cpu_seconds", "peak_mib")}
    print(f"  {stage}: " + ", ".join(f"{k} x {v:.2f}" for k, v in ratios.items()))
  if arguments.plot:
    plot(rows, arguments.plot)


if __name__ == "__main__":
  main()
