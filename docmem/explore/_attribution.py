"""Attribution: whose text is this? Read under each document, and searched for in the plane."""

from typing import Any, NamedTuple

import ipywidgets
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from docmem.core.memory import DocumentMemory
from docmem.documents import segments
from docmem.editing.doc_reps import plane_extent
from docmem.errors import DocmemError
from docmem.evaluation.attribution import BASE_LM, attribute
from docmem.evaluation.plane import plane_of
from docmem.explore._explorer import Explorer, lm_of, note, sentence
from docmem.explore._pictures import explanation
from docmem.lm.cross_entropy import cross_entropies_at
from docmem.lm.hidden_states import HiddenStateCache
from docmem.lm.loading import LanguageModel
from docmem.plots.style import new_figure, png_bytes
from docmem.training.run import Run

COARSE, FINE = 15, 5  # points a side of the map, and of each refinement around its lowest point
REFINEMENTS = 3


class Explanation(NamedTuple):
    """How a text is explained by documents, and by points of the DocRep plane."""

    text: str
    """The text."""
    ce: list[float]
    """Cross entropy of the text under each document, nats per token."""
    bare: float
    """The same by the LM without memory."""
    doc_reps: Float[Tensor, "n_docs 2"] | None
    """The documents' own points; None where the DocReps span no plane, as all that follows."""
    axis: Float[Tensor, " points"] | None
    """Coordinates of the map, the same across and up."""
    over_plane: Float[Tensor, "points points"] | None
    """Cross entropy of the text over the map: [up, across]."""
    point: tuple[float, float] | None
    """The point that explains the text best."""
    lowest: float | None
    """Cross entropy of the text there."""

    @property
    def best(self) -> int:
        """The document that explains the text best."""
        return self.ce.index(min(self.ce))


class AttributionExplorer(Explorer):
    """A text and what explains it. Made by `attribution`.

    Args:
        titles: the documents'.
        lm: the LM, for the explorer alone.
        memory: the run's memory.
        layer: the hooked block.
        text: the first text to explain.
    """

    def __init__(
        self, titles: list[str], lm: LanguageModel, memory: DocumentMemory, layer: int, text: str
    ) -> None:
        self.titles, self.lm, self.memory, self.layer = titles, lm, memory, layer
        self.explanation = self._explained(text)
        self.area = ipywidgets.Textarea(
            value=text, rows=4, layout={"width": "auto"}, continuous_update=False
        )
        self.button = ipywidgets.Button(description="Whose text is this?", layout={"width": "auto"})
        self.status = ipywidgets.HTML()
        self.image = ipywidgets.Image(format="png", layout={"width": "100%"})
        super().__init__(
            ipywidgets.VBox(
                [self.area, ipywidgets.HBox([self.button, self.status]), self.image],
                layout={"max_width": "1000px"},
            )
        )
        self.image.value = png_bytes(self.figure())
        self.button.on_click(self._clicked)

    def explain(self, text: str) -> Explanation:
        """Read a text under every document, without memory, and over the DocRep plane.

        Raises:
            DocmemError: if the text is shorter than two tokens or longer than the LM's context.
        """
        self.explanation = self._explained(text)
        self.image.value = png_bytes(self.figure())
        return self.explanation

    def _explained(self, text: str) -> Explanation:
        if not text.split():
            raise DocmemError("There is no text yet; paste a sentence or more.")
        by_title = {a.title: a.ce for a in attribute(self.lm, self.memory, self.layer, text)}
        ce, bare = [by_title[title] for title in self.titles], by_title[BASE_LM]
        doc_reps = self.memory.doc_reps.cpu()
        if min(doc_reps.shape) < 2:  # one document, or DocReps of length 1: no plane
            return Explanation(text, ce, bare, None, None, None, None, None)
        origin, axes = plane_of(doc_reps)
        points = (doc_reps - origin) @ axes.T
        cache = HiddenStateCache(self.lm, [self.lm.tokenize([text])], [0], self.layer)

        def measured(across: Tensor, up: Tensor) -> Tensor:
            """The text's cross entropy at every point of a grid: [up, across]."""
            grid = torch.cartesian_prod(up, across).flip(1)
            found = cross_entropies_at(cache, self.memory, origin + grid @ axes)[0]
            return found.reshape(len(up), len(across))

        axis = torch.linspace(-1, 1, COARSE) * plane_extent(points)
        over_plane = measured(axis, axis)
        point, lowest = _lowest(over_plane, axis, axis)
        step = float(axis[1] - axis[0])
        for _ in range(REFINEMENTS):
            across, up = (c + step * torch.linspace(-1, 1, FINE) for c in point)
            nearer, value = _lowest(measured(across, up), across, up)
            if value < lowest:
                point, lowest = nearer, value
            step *= 2 / (FINE - 1)
        return Explanation(text, ce, bare, points, axis, over_plane, point, lowest)

    def _clicked(self, _: Any) -> None:
        """Explain what stands in the text area."""
        self.status.value = note("Reading …", "#555555")
        try:
            self.explain(self.area.value)
            self.status.value = ""
        except Exception as error:
            self.status.value = note(sentence(error), "#a11212")
            if not isinstance(error, DocmemError):
                raise

    @property
    def alt(self) -> str:
        """What the picture shows, in words."""
        found = self.explanation
        words = (
            f"Cross entropy of the text “{found.text}” under each of {len(self.titles)} documents: "
            f"lowest under {self.titles[found.best]}, {found.ce[found.best]:.2f} nats per token; "
            f"{found.bare:.2f} by the LM without memory."
        )
        if found.point is None:
            return words
        x, y = found.point
        place = f"at ({x:.2f}, {y:.2f})"
        return f"{words} Over the DocRep plane the lowest is {found.lowest:.2f}, {place}."

    def figure(self) -> Figure:
        """The cross entropies as bars, and over the plane."""
        return explanation(new_figure(11, 5.6), self.explanation, self.titles)


def _lowest(ce: Tensor, across: Tensor, up: Tensor) -> tuple[tuple[float, float], float]:
    """Where a grid [up, across] is lowest, and how low."""
    row, column = divmod(int(ce.argmin()), len(across))
    return (float(across[column]), float(up[row])), float(ce[row, column])


def attribution(
    run: Run, *, lm: LanguageModel | None = None, text: str | None = None
) -> AttributionExplorer:
    """Paste a text; see which document explains it, and which point of the plane.

    Args:
        run: a trained run.
        lm: the run's LM; None: loaded.
        text: the text to begin with; None: a passage of the run's third document, or its last.

    Raises:
        DocmemError: if the run has no memory, `lm` is another LM, or the text cannot be read.
    """
    if text is None:
        document = run.documents[min(2, len(run.documents) - 1)]
        words = segments(document.text, run.config.segment_length, 1)[0].split()
        text = " ".join(words[len(words) // 2 :])
    memory = run.load_memory()
    return AttributionExplorer(
        run.titles, lm_of(run, lm), memory, run.config.hook_memory_layer, text
    )
