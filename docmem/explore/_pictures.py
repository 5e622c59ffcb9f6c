"""The plain pictures of the explorers: data and an empty Figure in, the Figure out."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from docmem.evaluation.plane import KeyPlane
from docmem.plots import territories
from docmem.plots.style import FAINT, INK, SIGNED, badge, document_color, headline, styled

if TYPE_CHECKING:
    from docmem.explore._attribution import Explanation
    from docmem.explore._plane import PlaneReading


def _drawable(text: str) -> str:
    """A text that matplotlib draws as it is: no formula, and no character without a shape."""
    return "".join(c if c.isprintable() else " " for c in text).replace("$", r"\$")


def _square(axes: Axes, reach: float) -> None:
    """A square of the DocRep plane, labelled."""
    axes.set(aspect="equal", xlim=(-reach, reach), ylim=(-reach, reach))
    axes.set(xlabel="DocRep, first coordinate", ylabel="second coordinate")


def _bars(axes: Axes, values: Sequence[float], start: float, titles: list[str]) -> None:
    """A bar a document from `start`, in its colour, number, value and title with it."""
    order = range(len(titles))
    axes.barh(
        order, [value - start for value in values], left=start, height=0.3,
        color=[document_color(index) for index in order],
    )  # fmt: skip
    axes.set_ylim(len(titles) - 0.6, -0.8)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    for index, title in enumerate(titles):
        badge(axes, -0.045, index, index, transform=axes.get_yaxis_transform(), clip_on=False)
        axes.annotate(
            f"{values[index]:,.2f}  {textwrap.shorten(title, 40, placeholder=' …')}",
            (start, index - 0.2), (0, 2), textcoords="offset points", fontsize=8, va="bottom",
            fontweight="bold" if values[index] == min(values) else "normal",
        )  # fmt: skip


def _point(axes: Axes, x: float, y: float) -> None:
    """Where the point is: a ring seen on any colour."""
    axes.plot(x, y, "o", ms=17, mfc="none", mec="white", mew=5, zorder=7)
    axes.plot(x, y, "o", ms=17, mfc="none", mec=INK, mew=2.2, zorder=8)


@styled
def plane_reading(
    figure: Figure,
    plane: KeyPlane,
    titles: list[str],
    reading: "PlaneReading",
    point: tuple[float, float],
    limit: float,
    written: str,
) -> Figure:
    """The map with a point, the perplexities there, the memory selection, and what is written.

    Args:
        figure: an empty Figure.
        plane: the map.
        titles: the documents'.
        reading: what the point gives.
        point: where it is.
        limit: the selection drawn darkest.
        written: prompt and continuation.
    """
    grid = figure.add_gridspec(3, 2, width_ratios=(1, 0.85), height_ratios=(1, 0.075, 0.13))
    axes = figure.add_subplot(grid[0, 0])
    reach = 1.5 * float(plane.axis[-1]) - 0.5 * float(plane.axis[-2])  # half a cell further
    axes.imshow(
        territories(plane, len(titles)), origin="lower", interpolation="nearest",
        extent=(-reach, reach, -reach, reach),
    )  # fmt: skip
    _square(axes, reach)
    for index, (x, y) in enumerate(plane.doc_reps.tolist()):
        badge(axes, x, y, index)
    _point(axes, *point)
    perplexity = reading.perplexity.tolist()
    bars = figure.add_subplot(grid[0, 1])
    bars.set(xscale="log", xlim=(1, 1.1 * max(2.0, *perplexity)), xlabel="perplexity")
    bars.xaxis.set_major_locator(LogLocator(10))
    bars.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    bars.xaxis.set_minor_formatter(NullFormatter())
    _bars(bars, perplexity, 1, titles)
    strip = figure.add_subplot(grid[1, :])
    strip.imshow(
        reading.selection.numpy()[None], aspect="auto", interpolation="nearest", cmap=SIGNED,
        norm=TwoSlopeNorm(0, -limit, limit),
    )  # fmt: skip
    strip.set_yticks([])
    strip.set_title("Memory selection: an entry a cell, red above zero, blue below", fontsize=9)
    strip.tick_params(labelsize=8)
    text = figure.add_subplot(grid[2, :])
    text.axis("off")
    text.text(
        0, 0.9, textwrap.fill(_drawable(written), 125), va="top", style="italic",
        fontsize=9.5,
    )  # fmt: skip
    headline(
        figure,
        f"Recalled best here: {titles[reading.nearest]}",
        f"DocRep ({point[0]:.2f}, {point[1]:.2f}). Perplexity of every document there, "
        f"{'measured' if reading.measured else 'interpolated in the map'}.",
    )
    return figure


@styled
def explanation(figure: Figure, found: "Explanation", titles: list[str]) -> Figure:
    """Cross entropy of a text under each document, and over the plane with its lowest point.

    Args:
        figure: an empty Figure.
        found: what was measured of the text.
        titles: the documents'.
    """
    bars, *maps = figure.subplots(1, 1 if found.axis is None else 2, squeeze=False)[0]
    highest = max(*found.ce, found.bare)
    bars.set(xlim=(0, 1.06 * highest), xlabel="cross entropy (nats per token)")
    _bars(bars, found.ce, 0, titles)
    bars.axvline(found.bare, color=FAINT, lw=1.4, ls=(0, (4, 3)), zorder=0)
    bars.annotate(
        f"without memory {found.bare:.2f}", (found.bare, 1), (0, 3), ha="center", color="#555555",
        xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=8.5,
    )  # fmt: skip
    for axes in maps:
        _draw_text_map(axes, found)
    headline(
        figure,
        f"{titles[found.best]} explains this text best"
        if found.ce[found.best] < found.bare
        else "No document explains this text better than the LM alone",
        f"“{_drawable(textwrap.shorten(found.text, 150, placeholder=' …'))}”",
    )
    return figure


def _draw_text_map(axes: Axes, found: "Explanation") -> None:
    """The text's cross entropy over the plane, the documents, and the lowest point."""
    assert found.axis is not None and found.over_plane is not None
    assert found.doc_reps is not None and found.point is not None
    axis = found.axis.numpy()
    mesh = axes.pcolormesh(axis, axis, found.over_plane.numpy(), cmap="magma", shading="nearest")
    bar = axes.figure.colorbar(mesh, ax=axes, pad=0.02, aspect=35, shrink=0.85)
    bar.set_label("cross entropy of the text (nats per token)", fontsize=8.5)
    bar.outline.set_visible(False)
    _square(axes, float(1.5 * axis[-1] - 0.5 * axis[-2]))
    for index, (x, y) in enumerate(found.doc_reps.tolist()):
        badge(axes, x, y, index)
    x, y = found.point
    _point(axes, x, y)
    axes.set_title(f"Lowest at the ring: {found.lowest:.2f} at ({x:.2f}, {y:.2f})", fontsize=9.5)
