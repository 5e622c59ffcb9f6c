"""Which parts of a text stand word for word in another."""

import re
from collections import defaultdict
from typing import NamedTuple

from docmem.errors import Count, checked

# A word may hold an apostrophe, a hyphen, a point or a comma between two letters or digits.
WORD = re.compile(r"\w+(?:['’.,-]\w+)*")


class Span(NamedTuple):
    """A part of a text: the characters from `start` up to `end`."""

    start: int
    end: int


@checked
def verbatim(text: str, source: str, least: Count = 4) -> list[Span]:
    """Find the parts of `text`, of at least `least` words, that stand word for word in `source`.

    Parts are searched from left to right, each is as long as possible, and they do not overlap.
    Spaces and punctuation between words are ignored; upper and lower case differ.
    """
    words = WORD.findall(source)
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
