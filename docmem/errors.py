"""The one error that docmem raises, and the checks that raise it.

Every message is a sentence or two: what was wrong, what was expected, what to do.
"""

import difflib
import math
from collections.abc import Iterable
from typing import Any, get_args


class DocmemError(Exception):
    """An error the reader can act on: what was wrong, what was expected, what to do."""


def check_choice(name: str, value: str, kind: Any) -> None:
    """Raise unless `value` is one of the strings of the Literal type `kind`."""
    if value not in get_args(kind):
        raise DocmemError(f"{name} is {value!r}; choose one of {', '.join(get_args(kind))}.")


def check_count(name: str, value: object, least: int = 1) -> None:
    """Raise unless `value` is a whole number not below `least`."""
    if not isinstance(value, int) or value < least:
        raise DocmemError(f"{name} is {value!r}; it must be a whole number, at least {least}.")


def check_at_least(name: str, value: object, least: float) -> None:
    """Raise unless `value` is a finite number not below `least`."""
    if not isinstance(value, int | float) or not math.isfinite(value) or value < least:
        raise DocmemError(f"{name} is {value}; it must be a finite number, at least {least}.")


def check_positive(name: str, value: object) -> None:
    """Raise unless `value` is a finite number above zero."""
    if not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise DocmemError(f"{name} is {value}; it must be a finite number above 0.")


def did_you_mean(title: str, titles: Iterable[str]) -> str:
    """A suffix for an error, "Did you mean …?"; empty if no title is close."""
    near = difflib.get_close_matches(title, list(titles), n=3, cutoff=0.3)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
