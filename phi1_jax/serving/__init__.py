"""A server with OpenAI's completions API: batching (engine) and HTTP (api)."""
