"""What a compiled program needs on a machine that is not here."""
