"""Recall: one prompt continued under a document's DocRep, another's, a mix of both, and by the LM.

Text that stands word for word in a document is marked in its colour. Beside it stands the
document's true continuation, each token shaded by its loss: darker is less expected.
"""

import html
from collections.abc import Sequence
from typing import Any

import ipywidgets
import torch
from matplotlib.colors import to_hex, to_rgb

from docmem.core.memory import DocumentMemory
from docmem.documents import Document
from docmem.errors import DocmemError
from docmem.evaluation.attribution import BASE_LM
from docmem.evaluation.continuations import (
    Comparison,
    Recalled,
    continuations,
    html_text,
    opening,
)
from docmem.evaluation.verbatim import Span, verbatim
from docmem.explore._explorer import GREY, Explorer, lm_of, reporting
from docmem.lm.loading import LanguageModel
from docmem.plots.style import INK, document_color
from docmem.training.run import Run

NEW_TOKENS = 40
DARKEST_NATS = 8.0  # the loss of a token that is shaded darkest
FAINT_TEXT = "#767676"


class RecallExplorer(Explorer):
    """A prompt continued under four conditions. Made by `recall`.

    Args:
        documents: the run's.
        lm: the LM, for the explorer alone.
        memory: the run's memory.
        layer: the hooked block, from 0.
    """

    def __init__(
        self,
        documents: Sequence[Document],
        lm: LanguageModel,
        memory: DocumentMemory,
        layer: int,
    ) -> None:
        self.documents, self.lm = list(documents), lm
        self.memory, self.layer = memory, layer
        self.rows: Comparison
        """Under the own DocRep, the other document's, the mix, and by the base LM."""
        self.table = ipywidgets.HTML(layout={"width": "100%"})
        self.recall(0, opening(self.documents[0]), min(1, len(documents) - 1))
        super().__init__(
            ipywidgets.VBox([*self._build(), self.table], layout={"max_width": "1000px"})
        )

    def recall(
        self, document: str | int, prompt: str, other: str | int, mix: float = 0.5
    ) -> Comparison:
        """Continue `prompt` under the DocRep of `document`, of `other`, a mix, and by the base LM.

        Args:
            document: whose text it is compared with.
            prompt: what the LM is given.
            other: the other document.
            mix: the other's share in the mix of the two DocReps, from 0 to 1.

        Raises:
            DocmemError: if a document is unknown, or the prompt empty or too long.
        """
        one, two = self.memory.index_of(document), self.memory.index_of(other)
        if not 0 <= mix <= 1:
            raise DocmemError(f"The share of the other is {mix}; give a number from 0 to 1.")
        own, others = self.memory.doc_reps[[one, two]]
        under = {
            f"{one + 1}  its own DocRep": own,
            f"{two + 1}  another's DocRep": others,
            f"{1 - mix:.0%} of {one + 1}, {mix:.0%} of {two + 1}": torch.lerp(own, others, mix),
            "no memory: the base LM": BASE_LM,
        }
        self.rows = continuations(
            self.lm, self.memory, self.layer, self.documents[one], prompt, under,
            max_new_tokens=NEW_TOKENS,
        )  # fmt: skip
        self.document, self.other, self.mix = one, two, mix
        self.table.value = self.html()
        return self.rows

    @property
    def prompt(self) -> str:
        """What the LM was given."""
        return self.rows[0].prompt

    # What is shown

    def _build(self) -> list[ipywidgets.Widget]:
        """The controls; each change makes a new table."""
        titles = [(f"{i + 1}  {d.title}", i) for i, d in enumerate(self.documents)]
        wide = {"width": "auto", "flex": "1 1 280px"}
        options: dict[str, Any] = {"options": titles, "layout": wide}
        one = ipywidgets.Dropdown(description="document", value=self.document, **options)
        two = ipywidgets.Dropdown(description="another", value=self.other, **options)
        prompt = ipywidgets.Text(
            description="prompt", value=self.prompt, continuous_update=False,
            layout={"width": "auto"},
        )  # fmt: skip
        mix = ipywidgets.FloatSlider(
            description="mix", value=self.mix, min=0, max=1, step=0.05, continuous_update=False,
            readout_format=".0%", layout=wide,
        )  # fmt: skip
        self.status = ipywidgets.HTML(layout={"flex": "1 1 280px"})

        def on_change(change: dict[str, Any]) -> None:
            first_words = opening(self.documents[one.value])
            if change["owner"] is one and prompt.value != first_words:
                prompt.value = first_words  # which calls this again
                return
            with reporting(self.status, "The LM is writing …"):
                self.recall(one.value, prompt.value, two.value, mix.value)

        self.controls = (one, two, prompt, mix)
        for control in self.controls:
            control.observe(on_change, "value")
        row = {"flex_flow": "row wrap"}
        return [
            ipywidgets.HBox([one, two], layout=row),
            prompt,
            ipywidgets.HBox([mix, self.status], layout=row),
        ]

    @property
    def alt(self) -> str:
        """What the table shows, in words."""
        rows = "; ".join(f"{row.under}: “{row.text.strip()}”" for row in self.rows)
        return f"After the prompt “{self.prompt}” the LM writes under four conditions. {rows}."

    def html(self) -> str:
        """The table: for each condition what the LM writes, and the true continuation's losses."""
        cell = "padding:9px 10px;vertical-align:top;border-top:1px solid #dddddd;text-align:left"
        head = f"{cell};border-top:0;font-weight:600;color:{GREY}"
        numbered = [
            f"{_badge(index)} {html_text(self.documents[index].title)}"
            for index in dict.fromkeys((self.document, self.other))
        ]
        rows = "".join(
            f'<tr style="background:#ffffff"><th scope="row" style="{cell}">'
            f'{html_text(row.under)}</th><td style="{cell}">'
            f'<span style="color:{FAINT_TEXT}">{html_text(self.prompt)}</span>'
            f'{self._marked(row)}</td><td style="{cell}">{_shaded(row)}</td></tr>'
            for row in self.rows
        )
        return (
            f'<div role="group" aria-label="{html.escape(self.alt)}" style="background:#ffffff;'
            f"color:{INK};padding:10px 12px;border:1px solid #e2e2e2;border-radius:8px;"
            f'font-family:system-ui,sans-serif;font-size:13.5px;line-height:1.6">'
            f'<div style="color:{GREY}">Marked: four words or more that stand word for word in '
            f"{' or '.join(numbered)}.</div>"
            f'<table style="width:100%;table-layout:fixed;border-collapse:collapse;color:{INK};'
            f'background:#ffffff;font-size:inherit"><thead><tr style="background:#ffffff">'
            f'<th scope="col" style="{head};width:17%">under</th>'
            f'<th scope="col" style="{head}">the LM writes</th>'
            f'<th scope="col" style="{head}">true continuation in {numbered[0]}, shaded by '
            f"loss: {_scale()}</th></tr></thead><tbody>{rows}</tbody></table></div>"
        )

    def _marked(self, row: Recalled) -> str:
        """What is written, verbatim parts in their document's colour; the longer part first."""
        spans = [(span, self.document) for span in row.verbatim]
        if self.other != self.document:
            other = self.documents[self.other].text
            spans += [(span, self.other) for span in verbatim(row.text, other)]
        chosen: list[tuple[Span, int]] = []
        for span, doc_id in sorted(spans, key=lambda one: one[0].start - one[0].end):
            if all(span.end <= other.start or other.end <= span.start for other, _ in chosen):
                chosen.append((span, doc_id))
        marked, at = "", 0
        for (start, end), doc_id in sorted(chosen):
            marked += (
                f'{html_text(row.text[at:start])}<mark style="{_in_color_of(doc_id)};'
                f'padding:1px 0">{html_text(row.text[start:end])}</mark>'
            )
            at = end
        return marked + html_text(row.text[at:])


def tint(color: str, share: float) -> str:
    """A colour thinned with white to `share` of itself, as #rrggbb."""
    red, green, blue = (1 - share * (1 - part) for part in to_rgb(color))
    return to_hex((red, green, blue))


def _in_color_of(index: int) -> str:
    """The style of text that belongs to a document."""
    color = document_color(index)
    return f"background:{tint(color, 0.22)};color:{INK};border-bottom:2px solid {color}"


def _badge(index: int) -> str:
    """A document's number in its colour, as HTML."""
    style = f"{_in_color_of(index)};padding:0 6px;font-weight:700"
    return f'<span style="{style}">{index + 1}</span>'


def _shaded(row: Recalled) -> str:
    """The true continuation, each token shaded by its loss."""
    if not row.pieces:
        return (
            f'<span style="color:{FAINT_TEXT}">The prompt does not stand in this document, '
            "so it has no true continuation.</span>"
        )
    shaded = "".join(
        f'<span title="{loss:.2f} nats" style="background:{shade(loss)};color:{INK};'
        f'padding:1px 0">{html_text(piece)}</span>'
        for piece, loss in zip(row.pieces, row.losses.tolist(), strict=True)
    )
    return f'{shaded}<br><span style="color:{GREY}">{row.ce:.2f} nats per token</span>'


def shade(loss: float) -> str:
    """White for a loss of 0, darker for a larger one; text stays readable on the darkest."""
    return tint(INK, 0.45 * min(loss / DARKEST_NATS, 1))


def _scale() -> str:
    """The scale of the shading as HTML."""
    steps = "".join(
        f'<span style="background:{shade(loss)};color:{INK};padding:1px 6px">{loss}</span>'
        for loss in range(0, int(DARKEST_NATS) + 1, 2)
    )
    return f"{steps} nats"


def recall(run: Run, *, lm: LanguageModel | None = None) -> RecallExplorer:
    """Choose a document and a prompt; see what the LM writes with and without the memory.

    Args:
        run: a trained run.
        lm: the run's LM; None: loaded.

    Raises:
        DocmemError: if the run has no memory, or `lm` is another LM.
    """
    memory = run.load_memory()
    return RecallExplorer(run.documents, lm_of(run, lm), memory, run.config.hook_memory_layer)
