"""Texts from data as figures write them: with which fonts, how wide, and where they are cut.

A width is in letters of usual prose: measured, since capitals and East Asian letters are wider.
"""

import functools
import re
import unicodedata
import warnings
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping

from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

# What draws other scripts, and emoji, on Linux, macOS and Windows, where installed.
OTHER_SCRIPTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR",
    "Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback",
    "IPAexGothic", "NanumGothic", "PingFang SC", "Hiragino Sans GB", "Hiragino Sans",
    "Apple SD Gothic Neo", "Arial Unicode MS", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic",
    "Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Thai", "Nirmala UI",
    "Noto Emoji", "Segoe UI Emoji", "Symbola",
)  # fmt: skip


def installed(fonts: Iterable[str]) -> list[str]:
    """Those fonts that this machine has, in their order."""
    here = {one.name for one in fontManager.ttflist}
    return [name for name in fonts if name in here]


FONTS = ["DejaVu Sans", *installed(OTHER_SCRIPTS)]
"""What a letter is drawn with: the first that has it. The first comes with matplotlib."""
LETTER = 0.55
"""The mean width of a letter of Latin prose in the first font, as a share of the font's size."""
SAID: set[str] = set()
"""Fonts that a warning has said to install."""


@functools.lru_cache(1000)
def letters(text: str, bold: bool = False) -> float:
    """How many letters of usual Latin prose, not bold, take the room that a text takes."""
    font = FontProperties(family=FONTS, size=100, weight="bold" if bold else "normal")
    seen = text.replace(r"\$", "$")
    return RendererAgg(1, 1, 72).get_text_width_height_descent(seen, font, False)[0] / 100 / LETTER


def drawable(text: str, width: float | None = None, lines: int = 1, bold: bool = False) -> str:
    r"""A text from data, such as a title, that matplotlib draws as it is written.

    No formula is read into it (`$` becomes `\$`, which is drawn as `$`), and what no font has a
    glyph for becomes a space or a box, of which a warning says once what to install. Applied
    twice, it changes nothing.

    Args:
        text: any text.
        width: of a line, in `letters`; None: one line of any width.
        lines: how many lines; what is longer ends in "…".
        bold: whether it will be drawn bold, which is wider.
    """
    fonts = [get_font(findfont(name)) for name in FONTS]
    text = "".join(c if c.isprintable() else " " for c in text)
    missing = {c for c in text if not any(font.get_char_index(ord(c)) for font in fonts)}
    for font in sorted({*map(font_for, missing)} - SAID):
        SAID.add(font)
        some = [c for c in dict.fromkeys(text) if c in missing and font_for(c) == font][:8]
        warnings.warn(
            f"No installed font draws letters such as {' '.join(some)}; figures have □ for each, "
            f"or a document's number for its title. Install {font}, then draw again.",
            stacklevel=2,
        )
    text = "".join("□" if c in missing else c for c in text)
    if width:
        text = "\n".join(wrapped(text, width, lines, bold))
    return re.sub(r"(?<!\\)\$", r"\$", text)


def font_for(character: str) -> str:
    """A font that has a character that matplotlib's own font lacks, and many more."""
    if unicodedata.east_asian_width(character) in "WF":
        return "Noto Emoji" if unicodedata.category(character) == "So" else "Noto Sans CJK SC"
    return f"Noto Sans {unicodedata.name(character, 'Symbols').split()[0].title()}"


def wrapped(text: str, width: float, lines: int, bold: bool) -> list[str]:
    """A text in lines of at most so many `letters`, broken at spaces where there are any."""
    found: list[str] = []
    rest = " ".join(text.split())

    def end(room: float) -> int:
        counts = range(1, len(rest) + 1)
        fit = max(1, bisect_right(counts, room, key=lambda count: letters(rest[:count], bold)))
        space = rest.rfind(" ", 0, fit + 1)
        return space if fit < len(rest) and space > 0 else fit

    while rest:
        at = end(width)
        if at < len(rest) and len(found) == lines - 1:
            at = end(width - letters(" …", bold))
            return [*found, rest[:at] + (" …" if rest[at] == " " else "…")]
        found.append(rest[:at])
        rest = rest[at:].lstrip()
    return found


def shortened(
    titles: Mapping[int, str],
    width: float,
    lines: int = 1,
    bold: bool = False,
    kind: str = "document",
) -> list[str]:
    """The titles of documents, or of others of a kind, by their indices, as `drawable`.

    Where two would look alike since they begin alike, they are shortened in the middle. A title of
    which most letters have no font becomes "document 3".
    """

    def cut(title: str) -> str:
        return drawable(title, width, lines, bold)

    def ends(title: str) -> str:
        room = width if lines > 1 else width / 2
        first, last = (drawable(text, room, bold=bold) for text in (title, title[::-1]))
        return f"{first.rstrip(' …')} {last[::-1]}" if lines == 1 else f"{first}\n{last[::-1]}"

    def known(index: int, title: str) -> str:
        boxes = drawable(title).count("□")
        return f"{kind} {index + 1}" if 2 * boxes > len("".join(title.split())) else title

    shown = [known(index, title) for index, title in titles.items()]
    times = Counter(map(cut, {*shown}))
    return [cut(title if times[cut(title)] == 1 else ends(title)) for title in shown]
