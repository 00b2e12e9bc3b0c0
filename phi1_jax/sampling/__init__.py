"""Text from checkpoints: methods, stopping, the decode loop, the sampler."""
