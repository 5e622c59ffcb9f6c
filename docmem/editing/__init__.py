"""A trained memory changed: documents added, forgotten, placed."""
