"""What an experiment is: a measurement with a schema, a drawing, and claims.

    class Activation(Study[Results]):
        '''Which entries does a document open?'''
        ...

`measure` returns a frozen dataclass that JSON can hold, with a list over seeds wherever there are
seeds. Drawing and claims take nothing else: a figure is redrawn without a model.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Generic, TypeVar

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.text import Text

from docmem.experiments.claims import Claims, Judged, Verdict, judge
from docmem.experiments.pool import RunPool
from docmem.plots.style import STYLE, headline, new_figure

R = TypeVar("R")
EPOCHS = "{hook_memory_dim} entries, {num_epochs} epochs of {method}"
USUAL = f"{{max_labels}} documents of at most {{max_segments}} segments, {EPOCHS}"
DOTS, DRAWN = "a dot for each of {seeds} seeds", "A seed draws documents, DocReps and weights."
"""Parts of what is said of a training, with its settings' names to be filled in."""


class Study(ABC, Generic[R]):
    """One experiment, its docstring the question; `R` is the frozen dataclass of its results."""

    results: type[R]
    """The schema of its results."""
    size: ClassVar[tuple[float, float]]
    """Width and height of its figure, inches."""
    alt: ClassVar[str]
    """What the figure shows, for readers who do not see it."""
    shown: ClassVar[str]
    """The figure's title, which only says what is shown."""
    finding: ClassVar[str]
    """The title instead, where the claims have the verdicts that it `needs`."""
    needs: ClassVar[tuple[Verdict | None, ...]] = ()
    """One per claim, None where any will do; the claims after the last decide nothing."""
    caption: ClassVar[str] = ""
    """How to read the figure, for the line under its title; `{results.…}` is filled in."""
    trains: ClassVar[str] = f"{USUAL}, {DOTS}, unless said otherwise. {DRAWN}"
    """What was trained, after the caption; settings, the optimizer's `{method}`, `{seeds}`."""

    @abstractmethod
    def measure(self, pool: RunPool) -> R:
        """Train what is needed and measure it."""

    @abstractmethod
    def _draw(self, figure: Figure, results: R) -> None:
        """Draw the panels on an empty Figure."""

    @abstractmethod
    def _claims(self, results: R) -> Claims:
        """Yield what is claimed, with the numbers that decide it."""

    def claims(self, results: R) -> list[Judged]:
        """The claims with what the results decide of them, all together."""
        return judge(self._claims(results))

    def title(self, results: R) -> str:
        """What the figure says: it follows from the numbers, or only says what is shown."""
        pairs = zip(self.needs, self.claims(results), strict=False)
        found = all(needed in (None, judged.verdict) for needed, judged in pairs)
        return self.finding if self.needs and found else self.shown

    def figure(self, results: R, note: str) -> Figure:
        """The whole figure.

        Args:
            results: what was measured.
            note: what was trained, for the end of the line under the title.
        """
        figure = new_figure(*self.size)
        with mpl.rc_context(STYLE):
            self._draw(figure, results)
            for text in figure.findobj(Text):  # labels are typed with a hyphen
                text.set_text(text.get_text().replace(" - ", " − "))
            caption = self.caption.format(results=results)
            headline(figure, self.title(results), f"{caption} {note}".lstrip())
        return figure


def columns(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """From one row per seed: each key's values over the seeds, the fields of a dataclass."""
    listed = list(rows)
    return {key: [row[key] for row in listed] for key in listed[0]}
