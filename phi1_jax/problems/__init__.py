"""Benchmarks as plain data: HumanEval and MBPP become `Problem`s, pinned by digest."""
