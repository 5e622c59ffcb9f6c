"""Which parts of a text stand word for word in another."""

import re
from collections import defaultdict
from typing import NamedTuple

# A word may hold an apostrophe, a hyphen, a decimal point or a comma between digits.
WORD = re.compile(r"\w+(?:['’.,-]\w+)*")


class Span(NamedTuple):
    """A part of a text: characters from `start` up to `end`."""

    start: int
    end: int


def verbatim(text: str, source: str, least: int = 4) -> list[Span]:
    """The runs of at least `least` words of `text` that `source` holds word for word.

    Each run is as long as it can be from where it begins, read from the left, and runs do not
    overlap. Spaces and punctuation between words do not count; capitals do.
    """
    words = [match.group() for match in WORD.finditer(source)]
    places: dict[str, list[int]] = defaultdict(list)
    for place, word in enumerate(words):
        places[word].append(place)
    found = list(WORD.finditer(text))
    spans, at = [], 0
    while at < len(found):
        longest = 0
        for place in places[found[at].group()]:
            length = 0
            while (
                at + length < len(found)
                and place + length < len(words)
                and found[at + length].group() == words[place + length]
            ):
                length += 1
            longest = max(longest, length)
        if longest >= least:
            spans.append(Span(found[at].start(), found[at + longest - 1].end()))
        at += longest if longest >= least else 1
    return spans
