import json

import matplotlib.figure
import matplotlib.image
import numpy as np
import pytest

from phi1_jax import InputError
from phi1_jax.telemetry.plot import plot_loss


def write(path, rows):
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return path


def rows(count):
  for step in range(1, count + 1):
    yield {
      "step": step,
      "loss": 10 / step if step != 3 else None,
      "learning_rate": 1e-3,
      "tokens_seen": 100 * step,
    }
    if step % 5 == 0:
      yield {"step": step, "eval/loss": 11 / step, "eval/code/loss": 9 / step}


def test_the_picture_holds_the_numbers(tmp_path, monkeypatch):
  figures, make = [], matplotlib.figure.Figure

  def noted(**sizes):
    figures.append(make(**sizes))
    return figures[0]

  monkeypatch.setattr(matplotlib.figure, "Figure", noted)
  metrics = write(tmp_path / "metrics.jsonl", rows(200))
  sizes = {"name": "phi-1", "num_parameters": 1_418_270_720}
  plot_loss(metrics, tmp_path / "loss.png", **sizes)
  (figure,) = figures
  assert matplotlib.image.imread(tmp_path / "loss.png").shape == (840, 1200, 4)
  assert figure.get_suptitle() == "phi-1 · 1.42B parameters · 20.0k tokens"
  top, bottom = figure.axes
  raw, smoothed, held_out, code = top.lines
  assert len(raw.get_xdata()) == 199  # the null is left out
  assert len(smoothed.get_xdata()) == 199
  np.testing.assert_allclose(held_out.get_ydata(), 11 / np.arange(5, 201, 5))
  np.testing.assert_allclose(code.get_ydata(), 9 / np.arange(5, 201, 5))
  labels = [text.get_text() for text in top.get_legend().get_texts()]
  assert labels == ["train  0.050", "held out  0.055", "held out, code  0.045"]
  assert bottom.lines[0].get_ydata().tolist() == [1e-3] * 200


@pytest.mark.parametrize("count", [1, 2, 7])
def test_short_runs_can_be_drawn(tmp_path, count):
  metrics = write(tmp_path / "metrics.jsonl", rows(count))
  plot_loss(metrics, tmp_path / "loss.png", name="x")
  assert (tmp_path / "loss.png").stat().st_size > 1000
  write(metrics, [{"step": 1, "loss": None}])
  with pytest.raises(InputError, match="holds no loss to draw yet"):
    plot_loss(metrics, tmp_path / "loss.png", name="x")
