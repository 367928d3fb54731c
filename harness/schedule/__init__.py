"""Which cells are missing, in which order they run, and on what."""
