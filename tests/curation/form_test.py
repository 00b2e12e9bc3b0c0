"""Which texts are Python 3, and which secrets are masked."""

import pytest

from phi1_jax.curation import form
from tests.curation import samples

BODY = samples.algorithm(1)


@pytest.mark.parametrize(
  ("text", "reason"),
  [
    (BODY, None),
    ("\ufeff" + BODY, None),
    ("def first[T](values: list[T]) -> T:\n  return values[0]\n" + BODY, None),
    ("try:\n  f()\nexcept OSError, ValueError:\n  pass\n" + BODY, None),
    ("type Pair = tuple[int, int]\n" + BODY, None),
    ("try:\n  f()\nexcept OSError, e:\n  pass\n" + BODY, "Python 2 syntax"),
    ("x = 0777\n" + BODY, "Python 2 syntax"),
    ("for n in xrange(9):\n  print(n)\n" + BODY, "Python 2 names"),
    ("x = unicode(raw_input())\n" + BODY, "Python 2 names"),
    ("from six.moves import xrange\nx = xrange(9)\n" + BODY, None),
    ("from compat import *\nx = xrange(9)\n" + BODY, None),
    ("def xrange(n):\n  return range(n)\nx = xrange(9)\n" + BODY, None),
    ("text = 'xrange and urllib2'\n" + BODY, None),
    ("import urllib2\n" + BODY, "Python 2 imports"),
    ("from itertools import izip\n" + BODY, "Python 2 imports"),
    ("try:\n  import urllib2\nexcept ImportError:\n  urllib2 = None\n" + BODY, None),
    ("def f(:\n" + BODY, "not Python"),
  ],
)
def test_python_3_is_more_than_what_parses(text, reason):
  assert form.problem(text) == reason


def test_a_megabyte_of_code_is_not_parsed():
  assert form.problem("x = 1\n" * 200_000) == "over 1,000,000 characters"


SECRETS = (
  ("AKIA" + "Z2" * 8, "AWS Access Key"),
  ("ghp_" + "aB3" * 12, "GitHub Token"),
  ("sk_live_" + "a1" * 12, "Stripe Access Key"),
)


@pytest.mark.parametrize(("secret", "kind"), SECRETS)
def test_keys_are_masked_and_counted(secret, kind):
  text, counts = form.mask(f"key = '{secret}'\n{BODY}")
  assert secret not in text
  assert text == f"key = '{form.KEY}'\n{BODY}"
  assert counts == {kind: 1}


def test_addresses_and_private_keys_are_masked():
  key = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIB\nAAKC\n-----END RSA PRIVATE KEY-----"
  source = (
    f'# By Jane <jane.doe@mail.example-corp.com>, see a@example.com\nK = """{key}"""\n'
  )
  text, counts = form.mask(source)
  assert counts == {"e-mail address": 1, "private key": 1}
  assert "jane" not in text
  assert "MIIE" not in text
  assert "a@example.com" in text


@pytest.mark.parametrize(
  "text",
  ["y = W@x.T\n", "@app.route\ndef f(): pass\n", f"sha = '{'0a' * 20}'\n", BODY],
)
def test_code_without_secrets_stays_as_it_is(text):
  assert form.mask(text) == (text, {})
