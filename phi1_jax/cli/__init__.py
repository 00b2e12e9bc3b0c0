"""Shared by all commands: flags, gin, progress bars, errors to exit codes."""
