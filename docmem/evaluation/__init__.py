"""What a memory holds: recall, attribution, the DocRep plane, continuity."""
