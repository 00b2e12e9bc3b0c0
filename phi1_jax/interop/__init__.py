"""Other projects' checkpoints, read into ours and written from them."""
