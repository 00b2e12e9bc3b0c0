"""The top floor: judges checkpoints on HumanEval and MBPP (`python -m evals`)."""
