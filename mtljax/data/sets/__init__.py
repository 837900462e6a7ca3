"""Data sets: where their files come from, how they are prepared, and how they are looked up by name."""
