"""Results of `docmem.recall` and `docmem.compare`: what the LM wrote, as text and as a table."""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxtyping import Float
from tabulate import tabulate
from torch import Tensor

from docmem.documents import Document
from docmem.errors import DocmemError, did_you_mean
from docmem.evaluation.verbatim import Span, letters, new_spans

INK, GREY, FAINT, MARK = "#222222", "#555555", "#767676", "#117733"
DARKEST_NATS = 8.0  # the loss of a token that is shaded darkest


class Source(NamedTuple):
    """A document whose words are marked in what the LM writes."""

    label: str
    """What the table calls it."""
    color: str
    """The colour of its marks, #rrggbb."""
    text: str
    """Its text."""


@dataclass(frozen=True, eq=False, repr=False)
class Recalled:
    """A prompt continued under one condition, and the document that it is compared with."""

    document: Document
    """The document."""
    prompt: str
    """What the LM was given."""
    under: str
    """The condition: whose DocRep was in force, all entries, or the base LM."""
    text: str
    """What the LM wrote after the prompt, greedily."""
    pieces: list[str]
    """The document's true continuation of the prompt, token by token; empty if it has none."""
    losses: Float[Tensor, " tokens"]
    """Loss of each of these tokens under the condition, nats."""

    @property
    def truth(self) -> str:
        """The document's true continuation; empty if the prompt is not in the document."""
        return "".join(self.pieces)

    @property
    def ce(self) -> float:
        """Cross entropy of the true continuation, nats per token; NaN if there is none."""
        return self.losses.mean().item()

    @property
    def verbatim(self) -> list[Span]:
        """The parts of `text`, of four words or more, that stand word for word in the document.

        Those that only repeat the prompt do not count.
        """
        return new_spans(self.text, self.document.text, self.prompt)

    def __str__(self) -> str:
        return str(Comparison((self,)))

    def __repr__(self) -> str:
        return repr(Comparison((self,)))

    def _repr_html_(self) -> str:
        return Comparison((self,)).html()


class Comparison(tuple[Recalled, ...]):
    """One prompt continued under several conditions: one result for each, by place or by name."""

    def __getitem__(self, which: Any) -> Any:
        """A result by its place, or by the name of its condition; DocmemError if none has it."""
        if not isinstance(which, str):
            return super().__getitem__(which)
        names = [row.under for row in self]
        if which not in names:
            hint = did_you_mean(which, names)
            raise DocmemError(f"No condition of this comparison is called {which!r}.{hint}")
        return self[names.index(which)]

    def __repr__(self) -> str:
        """What a notebook keeps beside the table: the numbers, without what the LM wrote."""
        rows = [
            f"{row.under}: {_share(row)} verbatim"
            + (f", {row.ce:.2f} nats per token" if row.pieces else "")
            for row in self
        ]
        return f"After “{self[0].prompt}”, {'; '.join(rows)}."

    def __str__(self) -> str:
        first = self[0]
        table = [
            (row.under, row.text.strip(), _share(row), f"{row.ce:.2f}" if row.pieces else "–")
            for row in self
        ]
        truth = [(f"{first.document.title} itself", first.truth.strip(), "", "")]
        writes = f"after “{first.prompt}” the LM writes"
        heads = ("under", writes, "verbatim,\n≥ 4 words", "nats per token")
        return tabulate(
            table + truth if first.truth else table,
            heads,
            maxcolwidths=[24, 52, None, None],
            disable_numparse=True,
        )

    def _repr_html_(self) -> str:
        return self.html()

    def html(self, sources: Sequence[Source] = ()) -> str:
        """The table: for each condition what the LM writes, and the true continuation's losses.

        Args:
            sources: the documents whose words are marked; none: the one compared with.
        """
        first = self[0]
        if not sources:
            sources = [Source(first.document.title, MARK, first.document.text)]
        cell = "padding:9px 10px;vertical-align:top;border-top:1px solid #dddddd;text-align:left"
        cell += ";overflow-wrap:anywhere"  # an LM may write a word that is wider than its column
        head = f'<th scope="col" style="{cell};border-top:0;font-weight:600;color:{GREY}'
        rows = "".join(
            f'<tr style="background:#ffffff"><th scope="row" style="{cell}">'
            f'{html_text(row.under)}</th><td style="{cell}">{_grey(row.prompt, FAINT)}'
            f'{_marked(row, sources)}</td><td style="{cell}">{_shaded(row)}</td></tr>'
            for row in self
        )
        labels = " or ".join(_mark(source.label, source.color) for source in sources)
        scale = "".join(_shade(f" {nats} ", nats) for nats in range(0, int(DARKEST_NATS) + 1, 2))
        return (
            f'<div style="background:#ffffff;color:{INK};padding:10px 12px;'
            f"border:1px solid #e2e2e2;border-radius:8px;"
            f'font-family:system-ui,sans-serif;font-size:13.5px;line-height:1.6">'
            f'<div style="color:{GREY}">Marked: four words or more that stand word for word in '
            f"{labels}, and not in the prompt.</div>"
            f'<table style="width:100%;table-layout:fixed;border-collapse:collapse;color:{INK};'
            f'background:#ffffff;font-size:inherit"><thead><tr style="background:#ffffff">'
            f'{head};width:17%">under</th>{head}">the LM writes</th>{head}">true continuation in '
            f"{html_text(sources[0].label)}, shaded by loss: {scale} nats</th></tr></thead>"
            f"<tbody>{rows}</tbody></table></div>"
        )


def verbatim_share(results: Iterable[Recalled]) -> float:
    """Share of the letters written, over all results, that are in a result's `verbatim`.

    NaN if no word was written.
    """
    results = list(results)
    written = sum(letters(row.text) for row in results)
    copied = sum(letters(row.text[start:end]) for row in results for start, end in row.verbatim)
    return copied / written if written else float("nan")


def _share(row: Recalled) -> str:
    """The share of one result as text; a dash where no word was written."""
    return f"{verbatim_share([row]):.0%}" if letters(row.text) else "–"


def html_text(text: str) -> str:
    """A text as HTML that shows as it is: no tags, and no `$…$` for MathJax to typeset."""
    return html.escape(text).replace("$", "<span>$</span>")


def _grey(text: str, color: str = GREY) -> str:
    return f'<span style="color:{color}">{html_text(text)}</span>'


def _mark(text: str, color: str) -> str:
    """Text that belongs to a document: on a tint of its colour, underlined in it."""
    style = f"background:{color}38;color:{INK};border-bottom:2px solid {color};padding:1px 0"
    return f'<mark style="{style}">{html_text(text)}</mark>'


def marked_pieces(
    text: str, prompt: str, sources: Sequence[Source]
) -> list[tuple[str, Source | None]]:
    """A text in pieces, each with the source that it stands in word for word, or None.

    Where two sources overlap, the longer part counts; what only repeats the prompt is in none.
    """
    spans = [(span, source) for source in sources for span in new_spans(text, source.text, prompt)]
    chosen: list[tuple[Span, Source]] = []
    for span, source in sorted(spans, key=lambda one: one[0].start - one[0].end):
        if all(span.end <= other.start or other.end <= span.start for other, _ in chosen):
            chosen.append((span, source))
    pieces: list[tuple[str, Source | None]] = []
    at = 0
    for (start, end), source in sorted(chosen):
        pieces += [(text[at:start], None), (text[start:end], source)]
        at = end
    return [piece for piece in [*pieces, (text[at:], None)] if piece[0]]


def _marked(row: Recalled, sources: Sequence[Source]) -> str:
    """What the LM wrote, with its verbatim parts marked."""
    return "".join(
        html_text(piece) if source is None else _mark(piece, source.color)
        for piece, source in marked_pieces(row.text, row.prompt, sources)
    )


def _shade(text: str, loss: float) -> str:
    """Text on white for a loss of 0, on a darker grey for a larger one, readable on all."""
    alpha = round(255 * 0.45 * min(max(loss / DARKEST_NATS, 0), 1))
    style = f"background:{INK}{alpha:02x};color:{INK};padding:1px 0"
    return f'<span title="{loss:.2f} nats" style="{style}">{html_text(text)}</span>'


def _shaded(row: Recalled) -> str:
    """The true continuation, each token shaded by its loss."""
    if not row.pieces:
        return _grey("No true continuation: nothing follows this prompt in the document.", FAINT)
    tokens = zip(row.pieces, row.losses.tolist(), strict=True)
    return f"{''.join(_shade(*token) for token in tokens)}<br>" + _grey(
        f"{row.ce:.2f} nats per token"
    )
