"""The arms of a study."""

from evals.study import arms


def test_every_arm_has_a_name_of_its_own_and_pruned_ones_follow_tau():
  found = arms.arms((0.95, 0.8))
  names = [arm.name for arm in found]
  assert len(names) == len(set(names)) == 14
  assert names[:3] == list(arms.TEXTS)
  assert {"pruned_0.95", "pruned_0.8", arms.FULL, "shuffled"} < set(names)
  starts = {arm.text for arm in found if arm.exercises and arm.text}
  assert starts == set(arms.TEXTS)
