"""AdamW as phi-1 was trained with it: configuration, learning rate, optimizer."""
