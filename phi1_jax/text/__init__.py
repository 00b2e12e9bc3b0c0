"""Text: the tokenizer."""
