"""Loss, step, loop and hooks of training."""
