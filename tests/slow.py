"""Values of a parametrized test that only `make test-slow` tries."""

import pytest


def slow(*values: object) -> object:
    """One case of a parametrized test, as a slow test."""
    return pytest.param(*values, marks=pytest.mark.slow)
