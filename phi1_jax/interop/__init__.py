"""Other projects' checkpoints: tables between their parameter names and ours."""
