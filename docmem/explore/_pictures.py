"""What the explorers measure, and their plain pictures: data and an empty Figure in."""

import heapq
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from torch import Tensor

from docmem.evaluation.plane import KeyPlane
from docmem.evaluation.search import Search
from docmem.plots import style
from docmem.plots.plane import name_axes, plane_map, territories
from docmem.plots.writing import drawable, shortened

MOST_BARS = 12


class PlaneReading(NamedTuple):
    """What is measured at one point of the DocRep plane."""

    doc_rep: Float[Tensor, " key_dim"]
    """The DocRep at the point."""
    ce: Float[Tensor, " n_docs"]
    """Cross entropy of each document under it, nats per token."""
    selection: Float[Tensor, " entries"]
    """The memory selection k_doc, always exact."""
    measured: bool
    """Whether `ce` is measured at the point; else it is interpolated in the map."""

    @property
    def perplexity(self) -> Float[Tensor, " n_docs"]:
        """The exponential of the cross entropy."""
        return self.ce.exp()

    @property
    def nearest(self) -> int:
        """The document with the lowest cross entropy."""
        return int(self.ce.argmin())


class Explanation(NamedTuple):
    """How likely a text is under each document, by the base LM, and over the DocRep plane."""

    text: str
    """The text."""
    ce: list[float]
    """Cross entropy of the text under each document, nats per token."""
    base: float
    """The same by the base LM."""
    search: Search | None
    """The map of the plane and its lowest point; None where the DocReps span no plane."""

    @property
    def best(self) -> int:
        """The document under which the text is most likely."""
        return self.ce.index(min(self.ce))


def _bars(
    axes: Axes,
    values: Sequence[float],
    start: float,
    titles: Sequence[str],
    documents: Sequence[int],
) -> str:
    """One bar per document from `start`, with its colour, number, value and title.

    `documents` are their indices in the run. Of many only those with the lowest values are drawn;
    returns a sentence about the others, or nothing.
    """
    shown = sorted(heapq.nsmallest(MOST_BARS, range(len(values)), key=values.__getitem__))
    axes.barh(
        range(len(shown)), [values[index] - start for index in shown], left=start, height=0.3,
        color=[style.document_color(documents[index]) for index in shown],
    )  # fmt: skip
    axes.set_ylim(len(shown) - 0.6, -0.8)
    axes.set_yticks(range(len(shown)), [" " * 6] * len(shown))  # room for the badges
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    names = shortened({documents[index]: titles[index] for index in shown}, 40)
    for row, (index, name) in enumerate(zip(shown, names, strict=True)):
        across = axes.get_yaxis_transform()
        style.badge(axes, -0.045, row, documents[index], transform=across, clip_on=False)
        axes.annotate(
            f"{values[index]:,.2f}  {name}",
            (start, row - 0.2), (0, 2), textcoords="offset points", fontsize=8, va="bottom",
            fontweight="bold" if values[index] == min(values) else "normal",
        )  # fmt: skip
    hidden = len(titles) - len(shown)
    return f" {hidden} documents with higher values are not shown." if hidden else ""


def _named(index: int, title: str) -> str:
    """A document in a headline: its title, or "document 3" where no font has its letters."""
    return shortened({index: title}, 150)[0]


def _draw_point(axes: Axes, x: float, y: float) -> None:
    """Where the point is: a ring seen on any colour, around a badge that may be there."""
    axes.plot(x, y, "o", ms=21, mfc="none", mec="white", mew=5, zorder=7)
    axes.plot(x, y, "o", ms=21, mfc="none", mec=style.INK, mew=2.2, zorder=8)


def _draw_badges(axes: Axes, plane: KeyPlane, documents: Sequence[int]) -> None:
    """The number of every document at its own DocRep."""
    for index, (x, y) in zip(documents, plane.doc_reps.tolist(), strict=True):
        style.badge(axes, x, y, index, n_docs=len(plane.doc_reps))


@style.styled
def plane_reading(
    figure: Figure,
    plane: KeyPlane,
    titles: list[str],
    reading: PlaneReading,
    point: tuple[float, float],
    limit: float,
    written: str,
    documents: Sequence[int],
) -> Figure:
    """The map with a point, the perplexities there, the memory selection, and what is written.

    `limit` is the selection drawn darkest; `documents` are their indices in the run, by which they
    are numbered and coloured.
    """
    grid = figure.add_gridspec(3, 2, width_ratios=(1, 0.85), height_ratios=(1, 0.075, 0.13))
    axes = figure.add_subplot(grid[0, 0])
    drawn = territories(
        plane, len(titles), color_of=lambda row: style.document_color(documents[row])
    )
    plane_map(axes, drawn, float(plane.axis[-1]))
    _draw_badges(axes, plane, documents)
    _draw_point(axes, *point)
    perplexity = reading.perplexity.tolist()
    bars = figure.add_subplot(grid[0, 1])
    rest = _bars(bars, perplexity, 1, titles, documents)
    bars.set(xscale="log", xlim=(1, 1.1 * max(2.0, bars.dataLim.xmax)), xlabel="perplexity")
    style.plain_log_ticks(bars.xaxis)
    bars.xaxis.set_major_locator(LogLocator(10))  # perplexities may span four decades
    strip = figure.add_subplot(grid[1, :])
    strip.imshow(
        reading.selection.numpy()[None], aspect="auto", interpolation="nearest",
        cmap=style.SIGNED_STEPS, vmin=-limit, vmax=limit,
    )  # fmt: skip
    strip.set_yticks([])
    strip.set_title("Memory selection: one cell per entry, red above zero, blue below", fontsize=9)
    strip.tick_params(labelsize=8)
    strip.set_xlabel("memory entry", fontsize=8)
    text = figure.add_subplot(grid[2, :])
    text.axis("off")
    text.text(0, 0.9, textwrap.fill(drawable(written), 125), va="top", style="italic", fontsize=9.5)
    name_axes(axes, plane)
    what, nearest = "DocRep", reading.nearest
    if plane.away is not None:  # a point is no whole DocRep
        own = plane.document_at(point)
        what = "Point of the plane"
        if own is not None:
            what = f"The DocRep of {_named(documents[own], titles[own])}, shown at"
    style.headline(
        figure,
        f"Recalled best here: {_named(documents[nearest], titles[nearest])}",
        f"{what} ({point[0]:.2f}, {point[1]:.2f}). Perplexity of each document there, "
        f"{'measured' if reading.measured else 'interpolated in the map'}.{rest}",
    )
    return figure


@style.styled
def explanation(figure: Figure, found: Explanation, titles: list[str]) -> Figure:
    """Cross entropy of a text under each document, and over the plane with its lowest point."""
    bars, *maps = figure.subplots(1, 1 if found.search is None else 2, squeeze=False)[0]
    rest = _bars(bars, found.ce, 0, titles, range(len(titles)))
    bars.set(
        xlim=(0, 1.06 * max(found.base, bars.dataLim.xmax)), xlabel="cross entropy (nats per token)"
    )
    bars.axvline(found.base, color=style.FAINT, lw=1.4, ls=(0, (4, 3)), zorder=0)
    bars.annotate(
        f"base LM {found.base:.2f}", (found.base, 1), (0, 3), ha="center", color=style.GREY,
        xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=8.5,
    )  # fmt: skip
    if found.search is not None:
        _draw_text_map(maps[0], found.search)
    style.headline(
        figure,
        f"The text is most likely under {_named(found.best, titles[found.best])}"
        if found.ce[found.best] < found.base
        else "The text is most likely by the base LM",
        f"“{drawable(found.text, 150)}”{rest}",
    )
    return figure


def _draw_text_map(axes: Axes, search: Search) -> None:
    """The text's cross entropy over the plane, the documents, and the lowest point."""
    image = plane_map(axes, search.plane.ce[0], float(search.plane.axis[-1]), cmap="magma")
    bar = axes.figure.colorbar(image, ax=axes, pad=0.02, aspect=35, shrink=0.85)
    bar.set_label("cross entropy of the text (nats per token)", fontsize=8.5)
    bar.outline.set_visible(False)
    _draw_badges(axes, search.plane, range(len(search.plane.doc_reps)))
    name_axes(axes, search.plane)
    x, y = search.points[0].tolist()
    _draw_point(axes, x, y)
    reach = max(axes.get_xlim()[1], 1.08 * abs(x), 1.08 * abs(y))  # refined, it may lie outside
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach))
    axes.set_title(f"Lowest at the ring: {search.ce[0]:.2f} at ({x:.2f}, {y:.2f})", fontsize=9.5)
