"""The paper's claim in miniature: arms trained alike, judged alike, compared."""
