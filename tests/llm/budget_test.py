import hypothesis
import pytest
from hypothesis import strategies as st

from phi1_jax.llm import budget as budgets
from phi1_jax.llm.budget import Budget, BudgetError

CALLS = st.lists(
  st.tuples(
    st.integers(0, 50), st.floats(0, 1), st.sampled_from(["settle", "release", "doubt"])
  )
)


@hypothesis.given(st.integers(0, 300), CALLS)
def test_never_above_the_cap(cap, calls):
  budget, under_way = Budget(cap), []
  for reserve, share, end in calls:
    if budget.fits(reserve):
      budget.reserve(reserve)
      under_way.append((reserve, share, end))
    else:
      assert budget.left < reserve
      with pytest.raises(BudgetError):
        budget.reserve(reserve)
    if len(under_way) > 2:
      amount, share, end = under_way.pop(0)
      if end == "settle":
        budget.settle(amount, int(amount * share))
      else:
        getattr(budget, end)(amount)
    assert budget.spent + budget.doubtful + budget.reserved == cap - budget.left <= cap
  assert budget.reserved == sum(amount for amount, *_ in under_way)


def test_a_lowered_cap_lets_nothing_through_but_what_is_free():
  budget = Budget(cap=5, spent=9)
  assert budget.left == -4
  assert not budget.fits(0)
  assert Budget(cap=0).fits(0)


def test_a_bill_above_the_worst_case_ends_all_trust():
  budget = Budget(cap=100)
  budget.reserve(10)
  budget.settle(10, 11)
  assert budget.overrun
  assert not budget.fits(0)


def test_the_message_says_how_to_go_on():
  dollar = 10**12
  text = budgets.exhausted(
    2 * dollar, [dollar, dollar // 2, 0, 3], dollar // 10, dollar // 100, 200
  )
  assert "spent $1.0000 and $0.5000 of 3 calls in doubt of $2.0000" in text
  assert "200 requests are left" in text
  assert text.count("\n") == 1
  # 1.50, 200 replies at 0.0125, and the worst case of the last one.
  assert "--gin.Llm.budget_usd=4.1;" in text
