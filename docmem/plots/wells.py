"""Perplexity over the DocRep plane as a landscape: a well at each document's DocRep."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.colors import LogNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from scipy.interpolate import RegularGridInterpolator

from docmem.errors import checked
from docmem.evaluation.plane import KeyPlane
from docmem.plots import style
from docmem.plots.plane import (
    name_axes,
    noted,
    perplexity_bar,
    perplexity_limits,
    plane_map,
    smooth,
    value_at,
)
from docmem.plots.writing import shortened

# Points per side of a surface, at least, and lines of the mesh on it.
POINTS, MESH = 120, 10
# Elevation and azimuth that surfaces are seen from, degrees.
VIEW = (36, -62)


@checked
@style.styled
def perplexity_wells(
    figure: Figure, plane: KeyPlane, titles: Sequence[str], chosen: Sequence[int], note: str
) -> Figure:
    """Perplexity of the `chosen` documents over the plane: a heat map each, and one 3-d surface.

    Raises:
        DocmemError: if none is chosen, one is not in the map, or a document has no title.
    """
    style.check_some("chosen", chosen)
    style.check_documents(titles, len(plane.doc_reps), chosen)
    perplexity = torch.stack([plane.ce_of(index) for index in chosen]).exp().numpy()
    limits = perplexity_limits(perplexity)
    norm = LogNorm(*limits)
    # Room for three maps at least: one or two, in the middle, would grow into the surface.
    rows, first = 2 * max(3, len(chosen)), max(3, len(chosen)) - len(chosen)
    grid = figure.add_gridspec(rows, 2, width_ratios=(1.75 if first == 0 else 1.7, 1))
    places = [slice(start, start + 2) for start in range(first, rows - first, 2)]
    maps = [figure.add_subplot(grid[place, 1]) for place in places]
    shown, owns = shortened({index: titles[index] for index in chosen}, 28, bold=True), []
    for axes, index, title, values in zip(maps, chosen, shown, perplexity, strict=True):
        image = plane_map(axes, values, float(plane.axis[-1]), cmap="magma", norm=norm)
        name_axes(axes, plane)
        axes.set(ylabel="", xlabel=axes.get_xlabel() if axes is maps[-1] else "")
        axes.tick_params(labelbottom=len(maps) < 4 or axes is maps[-1])
        x, y = plane.doc_reps[index].tolist()
        axes.plot(x, y, "o", ms=13, mfc="none", mec="white", mew=3.2)
        axes.plot(x, y, "o", ms=13, mfc="none", mec=style.document_color(index), mew=1.6)
        owns.append(value_at(plane, values, index))
        axes.set_title(
            f"{index + 1}  {title}\n"
            f"at the ring {rounded(owns[-1])}, lowest {rounded(values.min())}", fontsize=9,
        )  # fmt: skip
    # Of many, the maps are smaller and their titles wider.
    perplexity_bar(figure, image, maps, pad=0.17 + 0.1 * max(0, len(maps) - 3))
    surface = figure.add_subplot(grid[:, 0], projection="3d", computed_zorder=False)
    surface.set_in_layout(False)  # matplotlib 3.10 takes it for wider than the figure
    draw_wells(surface, plane, chosen, limits)
    numbers = ", ".join(str(index + 1) for index in chosen)
    at = "the own DocRep" if plane.away is None else "the place that stands for the own DocRep"
    style.headline(
        figure,
        f"{'Document' if len(chosen) == 1 else 'Documents'} {numbers}: perplexity "
        f"{style.span(owns, rounded)} at {at}, up to {rounded(perplexity.max())} in the "
        "plane",
        noted(plane, note),
    )
    return figure


def rounded(perplexity: float) -> str:
    """A perplexity in as many digits as matter."""
    return f"{perplexity:,.1f}" if perplexity < 100 else f"{float(f'{perplexity:.3g}'):,.0f}"


def draw_wells(
    surface: Any, plane: KeyPlane, chosen: Sequence[int], limits: tuple[float, float]
) -> None:
    """The lowest of the chosen documents' perplexities on 3-d Axes, coloured by whose it is.

    Drawn with more points between those measured, on which fine lines make a mesh, within limits.
    """
    plane = smooth(plane, POINTS)
    perplexity = torch.stack([plane.ce_of(index) for index in chosen]).exp().numpy()
    across, up = np.meshgrid(plane.axis.numpy(), plane.axis.numpy())
    bottom, top = np.log10(limits)
    lowest = np.log10(np.minimum(perplexity.min(0), limits[1]))
    colors = np.array([to_rgb(style.document_color(index)) for index in chosen])
    depth = np.clip((top - lowest) / (top - bottom), 0, 1)[..., None]
    ink = (0.06 + 0.86 * depth) * (1 - colors[perplexity.argmin(0)])
    places = np.arange(len(plane.axis)) * MESH % (len(plane.axis) - 1) < MESH
    ink[places[:, None] | places] += 0.07
    # As plot_surface draws it, which takes three times as long over so many cells.
    points = np.stack([across, up, lowest], -1)
    corners = (points[:-1, :-1], points[:-1, 1:], points[1:, 1:], points[1:, :-1])
    cells, shades = np.stack(corners, 2).reshape(-1, 4, 3), (1 - ink.clip(0, 1))[:-1, :-1]
    surface.add_collection3d(
        Poly3DCollection(cells, facecolors=shades.reshape(-1, 3), linewidths=0, antialiased=False)
    )
    rise = top - bottom
    for index in chosen:
        x, y = plane.doc_reps[index].tolist()
        color = style.document_color(index)
        foot, seen = pole(plane.axis.numpy(), lowest, (x, y), rise)
        surface.plot([x, x], [y, y], [seen, top + 0.04 * rise], color=color, lw=1.8)
        surface.plot([x, x], [y, y], [foot, seen], color=style.INK, lw=1, ls=":")
        surface.plot([x], [y], [foot], "o", ms=5, color=color, mec="white", mew=0.8)
        surface.text(
            x, y, top + 0.08 * rise, str(index + 1), color=style.ink_on(color), fontweight="bold",
            ha="center", va="center_baseline", fontsize=11,
            bbox={"boxstyle": "circle,pad=0.25", "fc": color, "ec": "white", "lw": 1.6},
        )  # fmt: skip
    surface.set_proj_type("ortho")
    surface.set_box_aspect((1.9, 1.9, 1.0), zoom=1.2)
    surface.view_init(*VIEW)
    surface.set(xlabel="DocRep, first coordinate", ylabel="second coordinate", zlabel="perplexity")
    name_axes(surface, plane)
    surface.set_zlim(bottom, top)
    for axis in (surface.xaxis, surface.yaxis):
        axis.set_major_locator(MaxNLocator(3, steps=(1, 2, 5, 10)))
    leads = (1, 2, 5) if rise < 3.5 else (1,)  # more would lie on top of each other
    round_numbers = [lead * 10**power for power in range(16) for lead in leads]
    marks = [mark for mark in round_numbers if limits[0] <= mark <= limits[1]]
    if len(marks) < 2:
        marks = [*MaxNLocator(4, steps=(1, 2, 5, 10)).tick_values(*limits)[1:-1]]
    labels = [f"{mark:,.12g}" for mark in marks]
    if max(map(len, labels)) > len("100,000"):  # there is no room for more
        labels = [*map(in_powers, marks)]
    surface.set_zticks(np.log10(marks), labels)
    for axis in (surface.xaxis, surface.yaxis, surface.zaxis):
        axis.pane.set_facecolor("white")
        axis._axinfo["grid"]["color"] = "#E4E4E4"


def in_powers(mark: float) -> str:
    """A number of one or more in powers of ten: 10⁶, 2 · 10⁶."""
    power = math.floor(math.log10(mark))
    ten = "10" + str(power).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    lead = f"{mark / 10**power:.3g}"
    return ten if lead == "1" else f"{lead} · {ten}"


def pole(
    axis: np.ndarray, height: np.ndarray, place: tuple[float, float], rise: float
) -> tuple[float, float]:
    """Where a pole at `place` meets the surface `height`, and from where up it is in full view.

    `rise` is the height of the box, whose sides are those that `draw_wells` sets.
    """
    elevation, azimuth = np.radians(VIEW)
    ahead = np.linspace(0, 3 * axis[-1], 200)  # over the ground, towards the viewer
    start = np.clip(place, axis[0], axis[-1])
    path = start + ahead[:, None] * (np.cos(azimuth), np.sin(azimuth))
    between = RegularGridInterpolator((axis, axis), height, bounds_error=False, fill_value=-np.inf)
    along = between(path[:, ::-1])
    sight = ahead * np.tan(elevation) * rise * 1.9 / (2 * axis[-1])
    return float(along[0]), float((along - sight).max())
