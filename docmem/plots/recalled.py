"""What the LM wrote after one prompt under several conditions, with a document's words marked."""

import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from docmem.errors import checked
from docmem.evaluation.recalled import MARK, Comparison, Recalled, Source, marked_pieces
from docmem.plots.style import INK, check_some, headline, styled
from docmem.plots.writing import FONTS, drawable

# Letters in a line of writing, and in the names to its left.
COLUMNS, NAMES = 84, 27
# A letter's width and a line's height, inches: all letters of this font are as wide.
LETTER, LINE = 0.0815, 0.22
FONT: dict[str, Any] = {"family": ["DejaVu Sans Mono", *FONTS], "fontsize": 9.7}


class Word(NamedTuple):
    """A word of a paragraph and its place in it."""

    text: str
    line: int
    column: int
    source: Source | None
    """Where it stands word for word."""
    goes_on: bool
    """Whether the word before, in the same line, is of the same part."""


def columns(text: str) -> int:
    """How many letters wide a text is: those of East Asia are twice as wide."""
    return len(text) + sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)


def words_of(row: Recalled, sources: Sequence[Source]) -> Iterator[Word]:
    """The words that the LM wrote, wrapped at COLUMNS."""
    line = column = 0
    apart = True
    for piece, source in marked_pieces(row.text, row.prompt, sources):
        if column and not apart and not piece[0].isspace():
            column -= 1  # the piece goes on within a word
        goes_on, apart = False, piece[-1].isspace()
        for word in piece.split():
            longest = COLUMNS if columns(word) == len(word) else COLUMNS // 2
            for part in textwrap.wrap(drawable(word), longest):
                if column + columns(part) > COLUMNS:
                    line, column, goes_on = line + 1, 0, False
                yield Word(part, line, column, source, goes_on)
                column, goes_on = column + columns(part) + 1, True


@checked
@styled
def recalled(figure: Figure, rows: Comparison, note: str, sources: Sequence[Source] = ()) -> Figure:
    """A paragraph for each condition; what stands word for word in a source is marked.

    Args:
        figure: an empty Figure, which becomes as large as what is written.
        rows: what the LM wrote.
        note: what is said under the title, last.
        sources: the documents whose words are marked; none: the one compared with.

    Raises:
        DocmemError: if there is no row.
    """
    check_some("rows", rows)
    first = rows[0]
    sources = sources or [Source(first.document.title, MARK, first.document.text)]
    paragraphs = [[*words_of(row, sources)] for row in rows]
    names = [
        textwrap.wrap(drawable(row.under), NAMES - 2)
        + ([f"{row.ce:.2f} nats per token"] if row.pieces else [])
        for row in rows
    ]
    heights = [
        1 + max(len(name), words[-1].line + 1 if words else 1)
        for name, words in zip(names, paragraphs, strict=True)
    ]
    width, height, top = LETTER * (NAMES + COLUMNS), LINE * sum(heights), 0.7
    figure.set_layout_engine("none")
    figure.set_size_inches(width + 0.4, height + top)
    axes = figure.add_axes((0.2 / (width + 0.4), 0, width / (width + 0.4), height / (height + top)))
    axes.set(xlim=(-NAMES, COLUMNS), ylim=(sum(heights), 0))
    axes.set_axis_off()
    at = 0
    for name, words, lines in zip(names, paragraphs, heights, strict=True):
        axes.axhline(at, color="#DDDDDD", lw=0.8)
        for row, line in enumerate(name):
            weight = "bold" if row == 0 else "normal"
            axes.text(-NAMES, at + row + 0.75, line, va="center", fontsize=9, fontweight=weight)
        for word in words:
            y = at + word.line + 0.75
            if word.source is not None:
                start = word.column - word.goes_on
                size = (word.column + columns(word.text) - start, 0.92)
                tint = Rectangle((start, y - 0.48), *size, fc=word.source.color, alpha=0.22, lw=0)
                axes.add_patch(tint)
            axes.text(word.column, y, word.text, va="center", color=INK, **FONT)
        at += lines
    whose = " or ".join(source.label for source in sources)
    said = f"Marked: four words or more that stand word for word in {whose}, and not in the prompt."
    prompt = textwrap.shorten(first.prompt, 60, placeholder=" …")
    headline(figure, f"What the LM writes after “{prompt}”", f"{said} {note}".rstrip())
    return figure
