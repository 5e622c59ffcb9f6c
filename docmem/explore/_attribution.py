"""Attribution: which document is a text from? Read under each, and searched for in the plane."""

import ipywidgets
from matplotlib.figure import Figure

from docmem.documents import segments
from docmem.errors import DocmemError, checked, counted
from docmem.evaluation.attribution import BASE_LM, attribute
from docmem.evaluation.plane import why_no_plane
from docmem.evaluation.search import search_grid
from docmem.explore._explorer import Explorer, lm_of, reporting
from docmem.explore._pictures import Explanation, explanation
from docmem.lm.hidden_states import HiddenStateCache
from docmem.lm.loading import LanguageModel
from docmem.plots.style import new_figure, png_bytes
from docmem.training.run import Run


class AttributionExplorer(Explorer):
    """Paste a text; see under which document, and where in the plane, it is most likely.

    Args:
        run: a trained run.
        lm: the run's LM; None: loaded.
        text: the first text; None: a passage of the run's third document, or of its last.

    Raises:
        DocmemError: if the run has no memory, `lm` is another LM, or the text cannot be read.
    """

    @checked
    def __init__(
        self, run: Run, *, lm: LanguageModel | None = None, text: str | None = None
    ) -> None:
        self.titles, self.layer = run.titles, run.config.hook_memory_layer
        self.memory, self.lm = run.load_memory(), lm_of(run, lm)
        if text is None:
            document = run.documents[min(2, len(run.documents) - 1)]
            words = segments(document.text, run.config.segment_length, 1)[0].split()
            text = self.lm.beginning(" ".join(words[len(words) // 2 :]), run.config.max_length)
        self.area = ipywidgets.Textarea(
            value=text, rows=4, layout={"width": "auto"}, continuous_update=False
        )
        self.button = ipywidgets.Button(
            description="Which document is it from?", layout={"width": "auto"}
        )
        self.status = ipywidgets.HTML()
        self.image = ipywidgets.Image(format="png", layout={"width": "100%"})
        self.explain(text)
        row = ipywidgets.HBox([self.button, self.status])
        parts = [self.area, row, self.image]
        super().__init__(ipywidgets.VBox(parts, layout={"max_width": "1000px"}))
        self.button.on_click(self._on_click)

    @checked
    def explain(self, text: str) -> Explanation:
        """Read a text under every document, by the base LM, and over the DocRep plane.

        Raises:
            DocmemError: if the text is shorter than two tokens or longer than the LM's context.
        """
        if not text.split():
            raise DocmemError("There is no text yet; paste a sentence or more.")
        ce_of = {a.title: a.ce for a in attribute(self.lm, self.memory, self.layer, text)}
        search = None
        if not why_no_plane(*self.memory.doc_reps.shape):
            batch = self.lm.tokenize([text])
            cache = HiddenStateCache(self.lm, [batch], [0], self.layer)
            search = search_grid(cache, self.memory)
        ce = [ce_of[title] for title in self.titles]
        self.explanation = Explanation(text, ce, ce_of[BASE_LM], search)
        self.area.value, self.image.value = text, png_bytes(self.figure())
        return self.explanation

    def _on_click(self, _: ipywidgets.Button) -> None:
        """Explain the text in the text area."""
        with reporting(self.status, "Reading …"):
            self.explain(self.area.value)

    @property
    def alt(self) -> str:
        """What the picture shows, in words."""
        found = self.explanation
        words = (
            f"Cross entropy of the text “{found.text}” under each of "
            f"{counted(len(self.titles), 'document')}: "
            f"lowest under {self.titles[found.best]}, {found.ce[found.best]:.2f} nats per token; "
            f"{found.base:.2f} by the base LM."
        )
        if found.search is None:
            return words
        x, y = found.search.points[0].tolist()
        lowest = found.search.ce[0].item()
        return f"{words} Over the DocRep plane the lowest is {lowest:.2f}, at ({x:.2f}, {y:.2f})."

    def figure(self) -> Figure:
        """The cross entropies as bars, and over the plane."""
        return explanation(new_figure(11, 5.6), self.explanation, self.titles)


attribution = AttributionExplorer
