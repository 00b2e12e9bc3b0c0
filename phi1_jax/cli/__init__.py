"""What the commands share: flags, gin, progress bars, errors to exit codes."""
