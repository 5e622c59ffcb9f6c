"""Drawings of the DocRep plane: territories, wells, and what forgetting leaves."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, to_rgb
from matplotlib.figure import Figure

from docmem.evaluation.plane import KeyPlane
from docmem.plots.style import INK, badge, document_color, headline, plain_log_ticks, styled


def _square(axes: Axes, extent: float) -> None:
    """A square of the DocRep plane, labelled."""
    axes.set_aspect("equal")
    axes.set_xlim(-extent, extent)
    axes.set_ylim(-extent, extent)
    axes.set_xticks((-extent, 0, extent))
    axes.set_yticks((-extent, 0, extent))
    axes.set_xlabel("DocRep, first coordinate")
    axes.set_ylabel("second coordinate")


def territories(plane: KeyPlane, n_docs: int) -> np.ndarray:
    """The colours of a map, (points, points, 3): the document recalled best, deeper if better."""
    best, nearest = plane.ce.min(0).values.numpy(), plane.nearest.numpy()
    floor, ceiling = best.min(), max(float(plane.ce.median()), best.min() + 1e-6)
    depth = np.clip((ceiling - best) / (ceiling - floor), 0, 1)[..., None]
    colors = np.array([to_rgb(document_color(index)) for index in range(n_docs)])
    return 1 - depth * 0.8 * (1 - colors[nearest])


@styled
def key_plane(figure: Figure, plane: KeyPlane, titles: Sequence[str], note: str) -> Figure:
    """The territories: each point coloured by the document it recalls best, deeper where better.

    Args:
        figure: an empty Figure.
        plane: what was measured.
        titles: the documents'.
        note: what was trained, for the line under the title.
    """
    axes = figure.subplots()
    extent = float(plane.axis[-1])
    half_cell = float(plane.axis[1] - plane.axis[0]) / 2
    reach = extent + half_cell
    axes.imshow(
        territories(plane, len(titles)), origin="lower",
        extent=(-reach, reach, -reach, reach), interpolation="nearest",
    )  # fmt: skip
    _square(axes, reach)
    axes.set_xticks((-extent, 0, extent))
    axes.set_yticks((-extent, 0, extent))
    for index, (x, y) in enumerate(plane.doc_reps.tolist()):
        badge(axes, x, y, index)
    for index, title in enumerate(titles):
        y = 0.97 - index * 0.93 / max(10, len(titles))
        badge(axes, 1.06, y, index, transform=axes.transAxes, clip_on=False)
        axes.text(
            1.1, y, textwrap.fill(title, 26), transform=axes.transAxes, fontsize=10.5,
            va="center", linespacing=1.0,
        )  # fmt: skip
    headline(figure, "Every document holds a territory around its DocRep", note)
    return figure


@styled
def perplexity_wells(
    figure: Figure, plane: KeyPlane, titles: Sequence[str], chosen: Sequence[int], note: str
) -> Figure:
    """Perplexity of a few documents over the plane: a heat map each, and one 3-d surface.

    Args:
        figure: an empty Figure.
        plane: what was measured.
        titles: the documents'.
        chosen: indices of the documents that are drawn, two or more.
        note: what was trained, for the line under the title.
    """
    extent = float(plane.axis[-1])
    axis, perplexity = plane.axis.numpy(), plane.perplexity.numpy()[list(chosen)]
    limits = max(1.0, float(perplexity.min())), float(np.quantile(perplexity, 0.98))
    norm = LogNorm(*limits)
    grid = figure.add_gridspec(len(chosen), 2, width_ratios=(1.9, 1))
    maps = []
    for row, index in enumerate(chosen):
        axes = figure.add_subplot(grid[row, 1])
        maps.append(axes)
        image = axes.pcolormesh(
            axis, axis, perplexity[row], cmap="magma", norm=norm, shading="nearest"
        )
        _square(axes, extent)
        axes.set_ylabel("")
        if row < len(chosen) - 1:
            axes.set_xlabel("")
        x, y = plane.doc_reps[index].tolist()
        axes.plot(x, y, "o", ms=13, mfc="none", mec="white", mew=3.2)
        axes.plot(x, y, "o", ms=13, mfc="none", mec=document_color(index), mew=1.6)
        short = textwrap.shorten(titles[index], 24, placeholder=" …")
        axes.set_title(f"{index + 1}  {short}", fontsize=10)
    bar = figure.colorbar(image, ax=maps, label="perplexity", extend="max", pad=0.1, aspect=40)
    plain_log_ticks(bar.ax.yaxis)
    bar.ax.minorticks_off()
    surface = figure.add_subplot(grid[:, 0], projection="3d", computed_zorder=False)
    surface.set_in_layout(False)  # matplotlib 3.10 takes it for wider than the figure
    draw_wells(surface, plane, perplexity, chosen, limits)
    headline(figure, "The perplexity of a document has a well around its own DocRep", note)
    return figure


def draw_wells(
    surface: Any,
    plane: KeyPlane,
    perplexity: np.ndarray,
    chosen: Sequence[int],
    limits: tuple[float, float],
) -> None:
    """The lowest of some documents' perplexities as a surface, coloured by whose it is.

    Args:
        surface: 3-d Axes.
        plane: what was measured.
        perplexity: of the chosen documents, (chosen, points, points).
        chosen: their indices.
        limits: lowest and highest perplexity on the axis.
    """
    across, up = np.meshgrid(plane.axis.numpy(), plane.axis.numpy())
    bottom, top = np.log10(limits)
    lowest = np.log10(np.minimum(perplexity.min(0), limits[1]))
    colors = np.array([to_rgb(document_color(index)) for index in chosen])
    depth = np.clip((top - lowest) / (top - bottom), 0, 1)[..., None]
    ink = (0.06 + 0.86 * depth) * (1 - colors[perplexity.argmin(0)])
    surface.plot_surface(
        across, up, lowest, facecolors=1 - ink,
        rstride=1, cstride=1, linewidth=0.3, edgecolor="#00000018", shade=False, antialiased=True,
    )  # fmt: skip
    for index in chosen:
        x, y = plane.doc_reps[index].tolist()
        surface.plot([x, x], [y, y], [bottom, top * 1.04], color=document_color(index), lw=1.8)
        surface.text(
            x, y, top * 1.08, str(index + 1), color=document_color(index), fontweight="bold",
            ha="center", fontsize=13,
        )  # fmt: skip
    surface.set_box_aspect((1.9, 1.9, 1.0), zoom=1.2)
    surface.view_init(elev=36, azim=-62)
    surface.set_xlabel("DocRep, first coordinate")
    surface.set_ylabel("second coordinate")
    surface.set_zlabel("perplexity")
    surface.set_zlim(bottom, top)
    ends = (float(plane.axis[0]), 0, float(plane.axis[-1]))
    surface.set_xticks(ends)
    surface.set_yticks(ends)
    round_numbers = [lead * 10**power for power in range(5) for lead in (1, 2, 5)]
    marks = [mark for mark in round_numbers if limits[0] <= mark <= limits[1]]
    surface.set_zticks(np.log10(marks), [str(mark) for mark in marks])
    for axis in (surface.xaxis, surface.yaxis, surface.zaxis):
        axis.pane.set_facecolor("white")
        axis._axinfo["grid"]["color"] = "#E4E4E4"


@styled
def forgetting(figure: Figure, maps: dict[str, KeyPlane], index: int, note: str) -> Figure:
    """Perplexity of one document over the plane, a map each way of forgetting it.

    Args:
        figure: an empty Figure.
        maps: name to the plane; row `index` of each is the document's.
        index: the document's row.
        note: what was done, for the line under the title.
    """
    panels = figure.subplots(1, len(maps), squeeze=False)[0]
    perplexity = {name: plane.perplexity[index].numpy() for name, plane in maps.items()}
    everything = np.stack(list(perplexity.values()))
    norm = LogNorm(max(1.0, everything.min()), np.quantile(everything, 0.98))
    for axes, (name, plane) in zip(panels, maps.items(), strict=True):
        axis = plane.axis.numpy()
        image = axes.pcolormesh(
            axis, axis, perplexity[name], cmap="magma", norm=norm, shading="nearest"
        )
        _square(axes, float(axis[-1]))
        up, across = np.unravel_index(perplexity[name].argmin(), perplexity[name].shape)
        axes.plot(axis[across], axis[up], "x", ms=9, color="white", mew=4)
        axes.plot(axis[across], axis[up], "x", ms=9, color=INK, mew=2)
        axes.set_title(f"{name}\nlowest perplexity {perplexity[name].min():,.1f}", fontsize=10)
        if axes is not panels[0]:
            axes.set_ylabel("")
    bar = figure.colorbar(image, ax=list(panels), label="perplexity", extend="max", aspect=30)
    plain_log_ticks(bar.ax.yaxis)
    bar.ax.minorticks_off()
    headline(figure, "Where in the plane can the text still be read?", note)
    return figure
