"""A training: its settings, one guided step, the loop, and the run on disk."""
