"""The optimizer of phi-1: configuration, learning rate schedule, AdamW."""
