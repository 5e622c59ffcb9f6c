"""Which parts of a text stand word for word in another."""

import re
from collections import defaultdict
from typing import NamedTuple

from docmem.errors import Count, checked

# Scripts without spaces between words: Thai, Lao, Burmese, Khmer, kana, Chinese characters.
SPACELESS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uff66-\uff9f"
)
# There each character counts as a word. Elsewhere one may hold an apostrophe, a hyphen, a point or
# a comma between two letters or digits.
LETTERS = rf"(?:(?![{SPACELESS}])\w)+"
WORD = re.compile(rf"(?=\w)[{SPACELESS}]|{LETTERS}(?:['’.,-]{LETTERS})*")


class Span(NamedTuple):
    """A part of a text: the characters from `start` up to `end`."""

    start: int
    end: int


@checked
def verbatim(text: str, source: str, least: Count = 4) -> list[Span]:
    """Find the parts of `text`, of at least `least` words, that stand word for word in `source`.

    Parts are searched from left to right, each is as long as possible, and they do not overlap.
    Spaces and punctuation between words are ignored; upper and lower case differ. Of a further
    last word the beginning will do, for an LM is stopped anywhere. In scripts without spaces each
    character is a word.
    """
    words, found = WORD.findall(source), [*WORD.finditer(text)]
    places: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place in range(len(words) - least + 1):
        places[tuple(words[place : place + least])].append(place)
    written = [one.group() for one in found]
    cut = len(found) - 1 if found and found[-1].end() == len(text) else -1

    def same(here: int, there: int) -> bool:
        word, known = written[here], words[there]
        return word == known or (here == cut and known.startswith(word))

    spans, at = [], 0
    while at < len(found):
        longest = 0
        for place in places.get(tuple(written[at : at + least]), ()):
            length = least
            most = min(len(found) - at, len(words) - place)
            while length < most and same(at + length, place + length):
                length += 1
            longest = max(longest, length)
        if longest:
            spans.append(Span(found[at].start(), found[at + longest - 1].end()))
        at += longest or 1
    return spans


def new_spans(text: str, source: str, prompt: str) -> list[Span]:
    """The same for what was written after a prompt; parts that only repeat it do not count."""
    return [
        Span(start, end)
        for start, end in verbatim(text, source)
        if verbatim(text[start:end], prompt) != [(0, end - start)]
    ]


def letters(text: str) -> int:
    """How many characters of a text are in words."""
    return sum(map(len, WORD.findall(text)))
