"""The only client for OpenAI-compatible APIs, with a journal and a budget.

config        settings (gin name: `Llm`)
request       a request, its key, bounds on its tokens
reply         parses raw replies
conversation  what to do about a reply that cannot be used
client        the run's side: requests in, outcomes out
sender        a subprocess that sends, pays and writes; it outlives a killed run
batches       OpenAI's Batch API, for the sender
endpoint      one HTTP request
journal       the SQLite file
completions   completions and chat without a journal, for `evals --base_url`
"""
