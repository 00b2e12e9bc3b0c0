"""An LLM grades completions from 0 to 10, as the paper's section 4 did."""
