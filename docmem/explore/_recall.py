"""Recall: one prompt continued under a document's DocRep, another's, a mix of both, and by the LM.

Text that stands word for word in a document is marked in its colour. Beside it stands the
document's true continuation, each token shaded by its loss: darker is less expected.
"""

from typing import Any

import ipywidgets
import torch
from matplotlib.figure import Figure

from docmem import plots
from docmem.errors import DocmemError, checked
from docmem.evaluation.attribution import BASE_LM
from docmem.evaluation.continuations import continuations, opening
from docmem.evaluation.recalled import Comparison, Source
from docmem.explore._explorer import Explorer, lm_of, reporting
from docmem.lm.loading import LanguageModel
from docmem.plots.style import document_color, new_figure
from docmem.training.run import Run

NEW_TOKENS = 40


class RecallExplorer(Explorer):
    """Choose a document and a prompt; see what the LM writes with and without the memory.

    Args:
        run: a trained run.
        lm: the run's LM; None: loaded.

    Raises:
        DocmemError: if the run has no memory, or `lm` is another LM.
    """

    @checked
    def __init__(self, run: Run, *, lm: LanguageModel | None = None) -> None:
        self.documents, self.layer = run.documents, run.config.hook_memory_layer
        self.memory, self.lm = run.load_memory(), lm_of(run, lm)
        self.rows: Comparison
        """Under the own DocRep, the other document's, the mix, and by the base LM."""
        self.table = ipywidgets.HTML(layout={"width": "100%"})
        self.controls: tuple[Any, ...] = ()
        first = self.lm.prompt(opening(self.documents[0]), NEW_TOKENS)
        self.recall(0, first, min(1, len(self.documents) - 1))
        super().__init__(
            ipywidgets.VBox([*self._build(), self.table], layout={"max_width": "1000px"})
        )

    @checked
    def recall(
        self, document: str | int, prompt: str, other: str | int, mix: float = 0.5
    ) -> Comparison:
        """Continue `prompt` under the DocRep of `document`, of `other`, a mix, and by the base LM.

        With a document and itself, under its own DocRep and by the base LM.

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
        under = {f"{one + 1}  its own DocRep": own}
        if one != two:
            mixed = f"{1 - mix:.0%} of {one + 1}, {mix:.0%} of {two + 1}"
            under |= {f"{two + 1}  another's DocRep": others, mixed: torch.lerp(own, others, mix)}
        under["no memory: the base LM"] = BASE_LM
        self.rows = continuations(
            self.lm, self.memory, self.layer, self.documents[one], prompt, under,
            max_new_tokens=NEW_TOKENS,
        )  # fmt: skip
        self.document, self.other, self.mix = one, two, mix
        self.table.value = self.html()
        for control, value in zip(self.controls, (one, two, prompt, mix), strict=False):
            control.unobserve(self._on_change, "value")
            control.value = value
            control.observe(self._on_change, "value")
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
        self.controls = (one, two, prompt, mix)
        for control in self.controls:
            control.observe(self._on_change, "value")
        row = {"flex_flow": "row wrap"}
        return [
            ipywidgets.HBox([one, two], layout=row),
            prompt,
            ipywidgets.HBox([mix, self.status], layout=row),
        ]

    def _on_change(self, change: dict[str, Any]) -> None:
        """Recall what the controls say; another document brings its own first words."""
        one, two, prompt, mix = self.controls
        first_words = self.lm.prompt(opening(self.documents[one.value]), NEW_TOKENS)
        if change["owner"] is one and prompt.value != first_words:
            prompt.value = first_words  # which calls this again
            return
        with reporting(self.status, "The LM is writing …"):
            self.recall(one.value, prompt.value, two.value, mix.value)

    @property
    def alt(self) -> str:
        """What the table shows, in words."""
        rows = "; ".join(f"{row.under}: “{row.text.strip()}”" for row in self.rows)
        conditions = f"{len(self.rows)} conditions"
        return f"After the prompt “{self.prompt}” the LM writes under {conditions}. {rows}."

    def html(self) -> str:
        """The table: for each condition what the LM writes, and the true continuation's losses."""
        return self.rows.html(self.sources)

    def figure(self) -> Figure:
        """What the LM wrote, as a figure: the table without the true continuation."""
        return plots.recalled(new_figure(9, 6), self.rows, "", self.sources)

    @property
    def sources(self) -> list[Source]:
        """The two documents whose words are marked."""
        return [
            Source(f"{i + 1}  {self.documents[i].title}", document_color(i), self.documents[i].text)
            for i in dict.fromkeys((self.document, self.other))
        ]


recall = RecallExplorer
