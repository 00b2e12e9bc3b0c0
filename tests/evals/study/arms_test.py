"""The arms and what was expected of them."""

from evals.study import arms

TIERS = ("near", "middle", "far")


def test_every_arm_has_a_name_of_its_own_and_pruned_ones_follow_tau():
  found = arms.arms((0.95, 0.8))
  names = [arm.name for arm in found]
  assert len(names) == len(set(names)) == 14
  assert names[:3] == list(arms.TEXTS)
  assert {"pruned_0.95", "pruned_0.8", arms.FULL, "shuffled"} < set(names)
  starts = {arm.text for arm in found if arm.exercises and arm.text}
  assert starts == set(arms.TEXTS)


def _shares(**others):
  shares = {
    arm.name: {"near": 0.5, "middle": 0.3, "far": 0.1} for arm in arms.arms((0.8,))
  }
  shares |= {name: {"near": value} for name, value in others.items()}
  return shares


def _held(text, shares):
  rows = arms.verdicts(TIERS, 0.8, shares)
  return next(row["holds"] for row in rows if text in row["text"])


def test_predictions_come_true_or_not_with_the_numbers():
  low = _shares(
    shuffled=0.1, few=0.1, nearest=0.2, raw=0.0, filtered=0.0, textbooks=0.04
  )
  for text in ("shuffled", "few exercises leave", "copying", "no arm solves"):
    assert _held(text, low) is True
  high = _shares(
    shuffled=0.2, few=0.4, nearest=0.3, raw=0.0, filtered=0.0, textbooks=0.06
  )
  for text in ("shuffled", "few exercises leave", "copying", "no arm solves"):
    assert _held(text, high) is False


def test_a_prediction_shows_the_numbers_that_decide_it():
  rows = arms.verdicts(TIERS, 0.8, _shares(shuffled=0.1))
  shuffled = next(row for row in rows if "shuffled" in row["text"])
  assert shuffled["numbers"] == [["shuffled", "near", 0.1], [arms.FULL, "near", 0.5]]
  assert all(row["numbers"] for row in rows)


def test_a_prediction_about_what_was_not_judged_is_open():
  shares = _shares()
  del shares["shuffled"]
  assert _held("shuffled", shares) is None


def test_the_order_of_tiers_is_checked_at_both_ends():
  shares = _shares()
  assert _held("is solved best", shares) is True
  shares[arms.FULL] = {"near": 0.2, "middle": 0.3, "far": 0.1}
  assert _held("is solved best", shares) is False
