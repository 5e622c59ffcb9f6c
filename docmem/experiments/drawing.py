"""What the experiments' figures share: numbers with their spread over seeds, always shown."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec

from docmem.experiments.stats import values_of
from docmem.plots.plane import plane_map
from docmem.plots.style import FAINT, GREY, INK, badge

MARKS = "o^sD"
"""Of the series that share a panel, in their order."""
DOT: dict[str, Any] = {"ms": 5, "alpha": 0.45, "mew": 0, "clip_on": False}


def stacked(figure: Figure, *heights: float) -> Any:
    """Figures one below the other, of these heights."""
    return figure.subfigures(len(heights), 1, height_ratios=heights)


def dots(
    axes: Axes,
    groups: Mapping[str, Sequence[float]],
    color: str = INK,
    mark: str = "o",
    shift: float = 0,
    half: float = 0.25,
    **settings: Any,
) -> None:
    """One dot per seed and a bar at the mean of several, for each named group along the x axis.

    `shift` is to the right of a group's tick, which are 1 apart, `half` of the length of a bar;
    `settings` are of the Axes, such as title and ylabel.
    """
    for tick, values in enumerate(groups.values()):
        place = tick + shift
        axes.plot([place] * len(values), values, mark, color=color, **DOT)
        if len(values) > 1:
            axes.plot([place - half, place + half], [np.mean(values)] * 2, color=color, lw=2)
    axes.set_xticks(range(len(groups)), list(groups))
    axes.set(xlim=(-0.6, len(groups) - 0.4), **settings)


def dot_series(
    axes: Axes, series: Mapping[str, tuple[str, Mapping[str, Sequence[float]]]], **settings: Any
) -> None:
    """`dots` of several series, side by side in each group: told apart by place, mark and colour.

    `series` are colour and groups of each, by its name in the legend.
    """
    width = 0.8 / len(series)
    for turn, (label, (color, groups)) in enumerate(series.items()):
        shift, mark = (turn - (len(series) - 1) / 2) * width, MARKS[turn]
        dots(axes, groups, color, mark, shift, min(0.25, 0.42 * width), **settings)
        axes.plot([], [], mark, ls="-", lw=2, ms=5, color=color, label=label)


def dot_panels(
    panels: Iterable[Axes], measures: Mapping[str, str], groups: Mapping[str, Any]
) -> None:
    """One panel of dots per measure, from 0 unless a number is below, with a column per group.

    `measures` go from a field that every group has, a list over seeds, to its label; there may be
    more panels. `groups` are by what stands under their columns.
    """
    for axes, (key, label) in zip(panels, measures.items(), strict=False):
        values = values_of(groups, key)
        lowest = min(map(min, values.values()))
        dots(axes, values, ylabel=label, ylim=(0 if lowest >= 0 else None, None))
        if lowest < 0:
            axes.axhline(0, color=FAINT, lw=1, zorder=0)


@dataclass(frozen=True)
class PlaneMap:
    """What a map of the DocRep plane shows."""

    values: list[list[float]]
    """One per point, [up][across]."""
    doc_reps: list[list[float]]
    """The DocReps that the memory has, (n_docs, 2)."""


def plane_maps(
    figure: Figure,
    cells: Iterable[SubplotSpec],
    maps: Mapping[str, PlaneMap],
    extent: float,
    cmap: str,
    limits: tuple[float, float],
    numbered: Mapping[str, int],
    label: str,
) -> None:
    """Maps by title, a cell each, with one colour bar and a dot on every DocRep.

    Each is [-extent, extent]². `limits` are the values at the ends of the colours; `numbered` the
    document whose number stands in place of a dot, by title.
    """
    panels = []
    for cell, (title, one) in zip(cells, maps.items(), strict=True):
        axes = figure.add_subplot(cell)
        panels.append(axes)
        image = plane_map(axes, one.values, extent, cmap=cmap, vmin=limits[0], vmax=limits[1])
        if len(panels) > 1:
            axes.set_ylabel("")
            axes.tick_params(labelleft=False)
        for index, (x, y) in enumerate(one.doc_reps):
            if index == numbered.get(title):
                badge(axes, x, y, index)
            else:
                axes.plot(x, y, "o", ms=4, color=INK, mec="white", mew=0.6)
        axes.set_title(title)
    highest = max(float(np.max(one.values)) for one in maps.values())
    extend = "max" if highest > limits[1] else "neither"
    figure.colorbar(image, ax=panels, label=label, aspect=14, pad=0.01, extend=extend)


def dot_rows(
    axes: Axes, rows: Sequence[Sequence[float]], color: str = INK, mark: str = "o"
) -> None:
    """A row for each of several things: one dot per seed and a bar at their mean."""
    for place, values in enumerate(rows):
        axes.plot(values, [place] * len(values), mark, color=color, **DOT)
        if values:
            axes.plot([np.mean(values)] * 2, [place - 0.3, place + 0.3], color=color, lw=2)


def level(axes: Axes, y: float, text: str, side: str = "left", **style: Any) -> None:
    """A line across the panel at `y`, named at its left or right end."""
    axes.axhline(y, lw=1, **style)
    place, away = (0, 3) if side == "left" else (1, -3)
    axes.annotate(
        text, (place, y), (away, 3), xycoords=axes.get_yaxis_transform(),
        textcoords="offset points", ha=side, color=GREY,
    )  # fmt: skip


def shade(place: int, count: int) -> str:
    """The colour of one of `count` settings that have an order."""
    return mpl.colors.to_hex(mpl.colormaps["plasma"](place / count))


def band(
    axes: Axes, x: Sequence[float], seeds: Sequence[Sequence[float]], color: str, label: str
) -> None:
    """The mean over seeds, (seeds, len(x)), in a band of one standard deviation to either side."""
    curves = np.asarray(seeds)
    mean = curves.mean(0)
    axes.plot(x, mean, color=color, lw=2, label=label)
    if len(curves) > 1:
        sd = curves.std(0, ddof=1)
        axes.fill_between(x, mean - sd, mean + sd, color=color, alpha=0.18, lw=0)
