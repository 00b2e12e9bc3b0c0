"""Data: corpora, seqio tasks and mixtures, the token store, the loader."""
