"""The only door to language models behind an OpenAI-compatible API."""
