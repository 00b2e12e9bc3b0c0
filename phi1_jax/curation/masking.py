"""Masks of secrets, keys and e-mail addresses.

detect-secrets gives the patterns of keys: those with a fixed form, not its guesses by
entropy or by the name of a variable, which take hashes and test data for secrets.
"""

import collections
import functools
import re
from collections.abc import Callable

from phi1_jax.text import source

EMAIL = "email@example.com"
KEY = "MASKED_KEY"
# detect-secrets only; private keys are replaced as a whole below.
_PLUGINS = (
  ("aws", "AWSKeyDetector"),
  ("azure_storage_key", "AzureStorageKeyDetector"),
  ("discord", "DiscordBotTokenDetector"),
  ("github_token", "GitHubTokenDetector"),
  ("gitlab_token", "GitLabTokenDetector"),
  ("jwt", "JwtTokenDetector"),
  ("mailchimp", "MailchimpDetector"),
  ("npm", "NpmDetector"),
  ("openai", "OpenAIDetector"),
  ("pypi_token", "PypiTokenDetector"),
  ("sendgrid", "SendGridDetector"),
  ("slack", "SlackDetector"),
  ("square_oauth", "SquareOAuthDetector"),
  ("stripe", "StripeDetector"),
  ("telegram_token", "TelegramBotTokenDetector"),
  ("twilio", "TwilioKeyDetector"),
)
_PRIVATE = re.compile(
  r"(-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----)"
  r"(?:(?!-----END).)*?(?=-----END [A-Z0-9 ]*PRIVATE KEY|\Z)",
  re.DOTALL,
)
# The domain ends in one of the frequent ones: `a @ b.T` is a product of matrices.
_ADDRESS = re.compile(
  r"\b[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,4}"
  r"(?:com|org|net|edu|gov|info|io|dev|me|de|uk|fr|nl|ru|cn|jp|in|it|es|se|ch|at|ca|au"
  r"|br|us|eu|be|pl|cz|dk|fi|no|il|kr|tw|nz|pt|gr|hu|ua|tr)\b"
)
_EXAMPLES = re.compile(r"@(?:[\w.-]+\.)?example\.(?:com|org|net|edu)$|\.example$")


def mask(text: str) -> tuple[str, dict[str, int]]:
  """Return a text with secrets and addresses replaced, and how many of each kind.

  A text that parses still parses: a replacement that would break it is not made.
  """
  counts: collections.Counter[str] = collections.Counter()
  masked = text
  if "@" in text:
    masked = _ADDRESS.sub(_counting(counts, "e-mail address", _email), masked)
  if "PRIVATE KEY" in text:
    masked = _PRIVATE.sub(
      _counting(counts, "private key", lambda m: f"{m[1]}\n{KEY}\n"), masked
    )
  if _long().search(masked):
    for kind, patterns in _patterns():
      for pattern in patterns:
        masked = pattern.sub(_counting(counts, kind, _key), masked)
  if masked != text and _breaks(text, masked):
    return text, {}
  return masked, dict(counts)


def _counting(
  counts: collections.Counter[str], kind: str, replace: Callable[[re.Match], str]
) -> Callable[[re.Match], str]:
  def replaced(match: re.Match) -> str:
    new = replace(match)
    counts[kind] += new != match[0]
    return new

  return replaced


def _email(match: re.Match) -> str:
  return match[0] if _EXAMPLES.search(match[0]) else EMAIL


def _key(match: re.Match) -> str:
  """Return the match with its secret masked: the last long group, or all of it."""
  groups = [group for group in match.groups() if group and len(group) > len(KEY)]
  return match[0].replace(groups[-1] if groups else match[0], KEY)


@functools.cache
def _long() -> re.Pattern[str]:
  """Return the pattern of what every key has: 20 characters in a row, one a digit."""
  return re.compile(r"(?=[\w./+=-]{0,60}\d)[\w./+=-]{20}")


@functools.cache
def _patterns() -> tuple[tuple[str, tuple[re.Pattern[str], ...]], ...]:
  import importlib

  found = []
  for module, name in _PLUGINS:
    plugin = getattr(importlib.import_module(f"detect_secrets.plugins.{module}"), name)
    found.append((plugin.secret_type, tuple(plugin.denylist)))
  return tuple(found)


def _breaks(before: str, after: str) -> bool:
  return source.parse(before) is not None and source.parse(after) is None
