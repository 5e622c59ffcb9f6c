"""How fast docmem is, against what else one could do and against the hardware's limit.

    python -m benchmarks                  # all of it, RESULTS.md and results.json written here
    python -m benchmarks --only plane     # one part again, the others kept as they were

`README.md` says what is compared and what the words mean.
"""
