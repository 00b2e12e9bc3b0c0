import pytest

from phi1_jax import InputError


@pytest.mark.parametrize(
  ("changes", "expected"),
  [
    ({"base_url": "localhost:8000"}, r"Llm.base_url: got 'localhost:8000'.*http://"),
    ({"model": ""}, "Llm.model"),
    (
      {"journal": "gs://bucket/x"},
      "Llm.journal: got 'gs://bucket/x', expected a local",
    ),
    ({"journal": "s3://bucket/x"}, "got s3://, expected"),
    ({"api": "offline"}, "one of online, batch"),
    ({"budget_usd": -1.0}, "Llm.budget_usd: got -1.0"),
    ({"budget_usd": float("nan")}, "Llm.budget_usd"),
    ({"concurrency": 0}, "Llm.concurrency: got 0, expected at least 1"),
    ({"requests_per_minute": 0}, "Llm.requests_per_minute"),
    ({"batch_requests": 50_001}, "at most 50,000"),
    ({"timeout_seconds": 0.0}, "Llm.timeout_seconds"),
    ({"extra": {"max_tokens": 5}}, "no 'max_tokens' in it"),
  ],
)
def test_refuses_by_name(configure, changes, expected):
  with pytest.raises(InputError, match=expected):
    configure(**changes)


def test_free_servers_are_fine(configure):
  assert configure(input_usd_per_million=0.0, budget_usd=0.0).budget_usd == 0
