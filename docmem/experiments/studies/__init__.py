"""The studies, one per file: each a question, a measurement, a drawing, and claims."""
