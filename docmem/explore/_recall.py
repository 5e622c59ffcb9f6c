"""Recall: what the LM writes under a document's memory, another's, a mix of both, and none.

What stands word for word in a document is marked in its colour. Below, the document's true
continuation, shaded by what each token costs: the darker, the less the LM expected it.
"""

import html
import itertools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import ipywidgets
import torch
from jaxtyping import Float
from matplotlib.colors import to_hex, to_rgb
from torch import Tensor

from docmem.core.hook import attach
from docmem.core.memory import DocumentMemory
from docmem.documents import Document
from docmem.errors import DocmemError
from docmem.evaluation.verbatim import Span, verbatim
from docmem.explore._explorer import Explorer, lm_of, note, sentence
from docmem.lm.forward import forward_inputs
from docmem.lm.generation import generate, generate_text
from docmem.lm.head import token_losses
from docmem.lm.hidden_states import HiddenStateCache
from docmem.lm.loading import LanguageModel
from docmem.plots.style import INK, document_color
from docmem.training.run import Run

PROMPT_WORDS = 8
NEW_TOKENS = 40
DARKEST_NATS = 8.0  # a token this costly is shaded darkest


class Recalled(NamedTuple):
    """What the LM writes, and expects, under one memory."""

    memory: str
    """Whose memory: a name for the row."""
    text: str
    """What the LM writes after the prompt."""
    own: list[Span]
    """What stands in the document word for word."""
    other: list[Span]
    """What stands in the other document word for word."""
    losses: Float[Tensor, " tokens"]
    """Loss of each token of the document's true continuation, nats; empty if it has none."""

    @property
    def ce(self) -> float:
        """Cross entropy of the true continuation, nats per token; not a number if it has none."""
        return self.losses.mean().item()


class RecallExplorer(Explorer):
    """A prompt continued under four memories. Made by `recall`.

    Args:
        documents: the run's.
        lm: the LM, for the explorer alone.
        memory: the run's memory.
        layer: the hooked block.
    """

    def __init__(
        self,
        documents: Sequence[Document],
        lm: LanguageModel,
        memory: DocumentMemory,
        layer: int,
    ) -> None:
        self.documents, self.lm, self.layer = list(documents), lm, layer
        self.memory = memory.to(next(lm.blocks[layer].parameters()).device)
        # As the segments are read: words with one space between.
        self.texts = [" ".join(document.text.split()) for document in documents]
        self.document, self.other, self.mix = 0, min(1, len(documents) - 1), 0.5
        self.prompt = self.opening(0)
        self.pieces: list[str] = []
        """The true continuation, token by token."""
        self.rows: list[Recalled] = []
        """Under the own memory, the other's, the mix, and none."""
        self.table = ipywidgets.HTML(layout={"width": "100%"})
        super().__init__(
            ipywidgets.VBox([*self._build(), self.table], layout={"max_width": "1000px"})
        )
        self.recall(0, self.prompt, self.other, self.mix)

    def opening(self, document: int) -> str:
        """The first words of a document, after its title."""
        body = re.sub(r"^\s*=[^=]*=", "", self.texts[document])
        return " ".join(body.split()[:PROMPT_WORDS])

    def recall(
        self, document: str | int, prompt: str, other: str | int, mix: float = 0.5
    ) -> list[Recalled]:
        """Continue `prompt` under the memory of `document`, of `other`, a mix, and none.

        Args:
            document: whose true continuation is read.
            prompt: what the LM goes on from.
            other: the other document.
            mix: the other's share in the mix of the two DocReps, from 0 to 1.

        Raises:
            DocmemError: if a document is unknown, or the prompt empty or too long.
        """
        one, two = self.memory.index_of(document), self.memory.index_of(other)
        if not 0 <= mix <= 1:
            raise DocmemError(f"The share of the other is {mix}; give a number from 0 to 1.")
        prompt = " ".join(prompt.split())
        own, others = self.memory.doc_reps[one], self.memory.doc_reps[two]
        memories: dict[str, Tensor | None] = {
            f"{one + 1}  its own memory": own,
            f"{two + 1}  another's memory": others,
            f"{1 - mix:.0%} of {one + 1}, {mix:.0%} of {two + 1}": torch.lerp(own, others, mix),
            "no memory, the base LM": None,
        }
        written = [self._write(prompt, doc_rep) for doc_rep in memories.values()]
        pieces, losses = self._read_on(one, prompt, list(memories.values()))
        self.document, self.prompt, self.other, self.mix = one, prompt, two, mix
        self.pieces = pieces
        self.rows = [
            Recalled(
                name, text, verbatim(text, self.texts[one]), verbatim(text, self.texts[two]), loss
            )
            for name, text, loss in zip(memories, written, losses, strict=True)
        ]
        self.table.value = self.html()
        return self.rows

    def _write(self, prompt: str, doc_rep: Tensor | None) -> str:
        """What the LM writes under a DocRep, or without memory."""
        lm = self.lm
        if doc_rep is not None:
            with attach(lm.model, self.memory, self.layer) as hooked:
                return generate(hooked, lm.tokenizer, prompt, doc_rep, max_new_tokens=NEW_TOKENS)
        return generate_text(lm.model, lm.tokenizer, prompt, max_new_tokens=NEW_TOKENS)

    @torch.no_grad()
    def _read_on(
        self, document: int, prompt: str, doc_reps: Sequence[Tensor | None]
    ) -> tuple[list[str], list[Tensor]]:
        """The document's next tokens after the prompt, and their losses under each DocRep.

        None is the LM without memory. Both are empty where the document does not hold the prompt.
        """
        _, found, rest = f" {self.texts[document]}".partition(f" {prompt} ")
        if not found:
            return [], [torch.empty(0) for _ in doc_reps]
        following = " ".join(rest.split()[:NEW_TOKENS])  # as many tokens, at least
        given = self.lm.tokenize([prompt]).input_ids.shape[1]
        longest = min(given + NEW_TOKENS, self.lm.context or given + NEW_TOKENS)
        batch = self.lm.tokenize([f"{prompt} {following}"], longest)
        cache = HiddenStateCache(self.lm, [batch], [0], self.layer)
        losses = []
        for doc_rep in doc_reps:
            if doc_rep is None:
                logits = self.lm.model(**forward_inputs(self.lm.model, batch)).logits
            else:
                logits = cache.logits(0, self.memory, doc_rep)
            losses.append(token_losses(logits, batch)[0, given - 1 :].cpu())
        return self._pieces(batch.input_ids[0].tolist(), given), losses

    def _text(self, ids: list[int]) -> str:
        """Tokens as text."""
        return cast(str, self.lm.tokenizer.decode(ids, skip_special_tokens=True))

    def _pieces(self, ids: list[int], given: int) -> list[str]:
        """The text of each token from number `given` on; together they are the whole text."""
        texts = [self._text(ids[:count]) for count in range(given, len(ids) + 1)]
        return [longer[len(shorter) :] for shorter, longer in itertools.pairwise(texts)]

    # What is shown

    def _build(self) -> list[ipywidgets.Widget]:
        """The controls; each change is followed by the LM's answer."""
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

        def changed(change: dict[str, Any]) -> None:
            if change["owner"] is one and prompt.value != self.opening(one.value):
                prompt.value = self.opening(one.value)  # which comes back here
                return
            self.status.value = note("The LM is writing …", "#555555")
            try:
                self.recall(one.value, prompt.value, two.value, mix.value)
                self.status.value = ""
            except Exception as error:
                self.status.value = note(sentence(error), "#a11212")
                if not isinstance(error, DocmemError):
                    raise

        self.controls = (one, two, prompt, mix)
        for control in self.controls:
            control.observe(changed, "value")
        row = {"flex_flow": "row wrap"}
        return [
            ipywidgets.HBox([one, two], layout=row),
            prompt,
            ipywidgets.HBox([mix, self.status], layout=row),
        ]

    @property
    def alt(self) -> str:
        """What the table shows, in words."""
        rows = "; ".join(f"{row.memory}: “{row.text.strip()}”" for row in self.rows)
        return f"After the prompt “{self.prompt}” the LM writes under four memories. {rows}."

    def html(self) -> str:
        """The table: a row a memory, what it writes, and what it expects of the document."""
        cell = "padding:9px 10px;vertical-align:top;border-top:1px solid #dddddd;text-align:left"
        head = f"{cell};border-top:0;font-weight:600;color:#555555"
        texts = (self.document, self.other)
        numbered = [f"{badge(index)} {html.escape(self.documents[index].title)}" for index in texts]
        rows = "".join(
            f'<tr style="background:#ffffff"><th scope="row" style="{cell}">'
            f'{html.escape(row.memory)}</th><td style="{cell}">'
            f'<span style="color:#767676">{html.escape(self.prompt)}</span>'
            f"{self._marked(row)}</td>"
            f'<td style="{cell}">{self._shaded(row)}</td></tr>'
            for row in self.rows
        )
        return (
            f'<div role="group" aria-label="{html.escape(self.alt)}" style="background:#ffffff;'
            f"color:{INK};padding:10px 12px;border:1px solid #e2e2e2;border-radius:8px;"
            f'font-family:system-ui,sans-serif;font-size:13.5px;line-height:1.6">'
            f'<div style="color:#555555">Marked: four words or more that stand word for word in '
            f"{' or '.join(dict.fromkeys(numbered))}.</div>"
            f'<table style="width:100%;table-layout:fixed;border-collapse:collapse;color:{INK};'
            f'background:#ffffff;font-size:inherit"><thead><tr style="background:#ffffff">'
            f'<th scope="col" style="{head};width:17%">memory</th>'
            f'<th scope="col" style="{head}">the LM writes</th>'
            f'<th scope="col" style="{head}">{numbered[0]} goes on, shaded by '
            f"loss: {_scale()}</th></tr></thead><tbody>{rows}</tbody></table></div>"
        )

    def _marked(self, row: Recalled) -> str:
        """What is written, verbatim parts in their document's colour; the longer part first."""
        spans = [(span, self.document) for span in row.own]
        spans += [(span, self.other) for span in row.other if self.other != self.document]
        chosen: list[tuple[Span, int]] = []
        for span, doc_id in sorted(spans, key=lambda one: one[0].start - one[0].end):
            if all(span.end <= other.start or other.end <= span.start for other, _ in chosen):
                chosen.append((span, doc_id))
        marked, at = "", 0
        for span, doc_id in sorted(chosen):
            color = document_color(doc_id)
            marked += html.escape(row.text[at : span.start])
            marked += (
                f'<mark style="background:{tint(color, 0.22)};color:{INK};'
                f'border-bottom:2px solid {color};padding:1px 0">'
                f"{html.escape(row.text[span.start : span.end])}</mark>"
            )
            at = span.end
        return marked + html.escape(row.text[at:])

    def _shaded(self, row: Recalled) -> str:
        """The true continuation, each token shaded by its loss."""
        if not self.pieces:
            return (
                '<span style="color:#767676">The prompt does not stand in this document, '
                "so it has no true continuation.</span>"
            )
        shaded = "".join(
            f'<span title="{loss:.2f} nats" style="background:{_shade(loss)};color:{INK};'
            f'padding:1px 0">{html.escape(piece)}</span>'
            for piece, loss in zip(self.pieces, row.losses.tolist(), strict=True)
        )
        return f'{shaded}<br><span style="color:#555555">{row.ce:.2f} nats per token</span>'


def tint(color: str, share: float) -> str:
    """A colour thinned with white to `share` of itself, as #rrggbb."""
    red, green, blue = (1 - share * (1 - part) for part in to_rgb(color))
    return to_hex((red, green, blue))


def badge(index: int) -> str:
    """A document's number on its colour, as HTML."""
    color = document_color(index)
    return (
        f'<span style="background:{tint(color, 0.22)};color:{INK};border-bottom:2px solid '
        f'{color};padding:0 6px;font-weight:700">{index + 1}</span>'
    )


def _shade(loss: float) -> str:
    """White for a token that costs nothing, grey that text stays readable on for a costly one."""
    return tint(INK, 0.45 * min(loss / DARKEST_NATS, 1))


def _scale() -> str:
    """The shading's scale as HTML."""
    steps = "".join(
        f'<span style="background:{_shade(loss)};color:{INK};padding:1px 6px">{loss}</span>'
        for loss in range(0, int(DARKEST_NATS) + 1, 2)
    )
    return f"{steps} nats"


def recall(run: Run, *, lm: LanguageModel | None = None) -> RecallExplorer:
    """Choose a document and a prompt; see what the LM writes with and without its memory.

    Args:
        run: a trained run.
        lm: the run's LM; None: loaded.

    Raises:
        DocmemError: if the run has no memory, or `lm` is another LM.
    """
    memory = run.load_memory()
    return RecallExplorer(run.documents, lm_of(run, lm), memory, run.config.hook_memory_layer)
