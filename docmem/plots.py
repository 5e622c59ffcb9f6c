"""The drawings: one function a figure, data and an empty Figure in, nothing trained or measured."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from docmem.keyspace import KeyPlane
from docmem.runs import Epoch
from docmem.style import (
    GUIDANCE,
    NEGATIVE,
    OWN,
    badge,
    document_color,
    draw_history,
    headline,
    styled,
)


@styled
def losses(figure: Figure, histories: dict[str, Sequence[Epoch]], tau: float, note: str) -> Figure:
    """Training losses, a column a run; the numbers are means over the last ten epochs.

    Args:
        figure: an empty Figure.
        histories: run name to its history.
        tau: the target of the negative cross entropy, nats a token.
        note: what was trained, for the line under the title.
    """
    panels = figure.subplots(
        2, len(histories), sharex=True, sharey="row", squeeze=False, height_ratios=(2.2, 1)
    )
    everything = [epoch for history in histories.values() for epoch in history]
    highest = max(max(epoch.negative_ce, epoch.positive_ce) for epoch in everything)
    largest = max(epoch.guidance for epoch in everything)
    for column, (name, history) in enumerate(histories.items()):
        top, bottom = panels[:, column]
        draw_history(top, history, tau)
        last = history[-1]
        top.set_title(name)
        top.set_ylim(0, max(highest, tau) * 1.12)
        top.set_xlim(0, last.epoch * 1.01)
        halo = [patheffects.withStroke(linewidth=3, foreground="white")]
        recent = history[-10:]
        own, negative = (
            sum(getattr(epoch, name) for epoch in recent) / len(recent)
            for name in ("positive_ce", "negative_ce")
        )
        for place, text, color in (
            ((own + negative) / 2, f"under another's DocRep: {negative:.2f}", NEGATIVE),
            (0.4 * own, f"under its own DocRep: {own:.2f}", OWN),
        ):
            top.annotate(
                text, (last.epoch, place), (-2, 0), textcoords="offset points", ha="right",
                color=color, fontweight="bold", path_effects=halo,
            )  # fmt: skip
        top.annotate(
            f"target τ = {tau:g}", (last.epoch, tau), (-2, 4), textcoords="offset points",
            ha="right", color="#555555",
        )  # fmt: skip
        bottom.fill_between(
            [e.epoch for e in history], [e.guidance for e in history],
            color=GUIDANCE, alpha=0.85, lw=0,
        )  # fmt: skip
        bottom.set_ylim(0, 1.08 * largest)
        bottom.set_xlabel("epoch")
    panels[0, 0].set_ylabel("cross entropy\n(nats a token)")
    panels[1, 0].set_ylabel("guidance term\n(nats a token)")
    headline(figure, "Learned under its own DocRep, far less under another's", note)
    return figure


def _square(axes: Axes, extent: float) -> None:
    """A square of the DocRep plane, labelled."""
    axes.set_aspect("equal")
    axes.set_xlim(-extent, extent)
    axes.set_ylim(-extent, extent)
    axes.set_xticks((-extent, 0, extent))
    axes.set_yticks((-extent, 0, extent))
    axes.set_xlabel("DocRep, first coordinate")
    axes.set_ylabel("second coordinate")


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
    best, nearest = plane.ce.min(0).values.numpy(), plane.nearest.numpy()
    floor, ceiling = best.min(), max(float(plane.ce.median()), best.min() + 1e-6)
    depth = np.clip((ceiling - best) / (ceiling - floor), 0, 1)[..., None]
    colors = np.array([to_rgb(document_color(index)) for index in range(len(titles))])
    half_cell = float(plane.axis[1] - plane.axis[0]) / 2
    reach = extent + half_cell
    axes.imshow(
        1 - depth * 0.8 * (1 - colors[nearest]), origin="lower",
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
    _plain_log_ticks(bar.ax.yaxis)
    bar.ax.minorticks_off()
    surface = figure.add_subplot(grid[:, 0], projection="3d", computed_zorder=False)
    _draw_wells(surface, plane, perplexity, chosen, limits)
    headline(figure, "The perplexity of a document has a well around its own DocRep", note)
    return figure


def _draw_wells(
    surface: Any,
    plane: KeyPlane,
    perplexity: np.ndarray,
    chosen: Sequence[int],
    limits: tuple[float, float],
) -> None:
    """The lowest of the chosen perplexities as a surface, coloured by whose it is."""
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


def _plain_log_ticks(axis: Any) -> None:
    """Ticks of a logarithmic axis as plain numbers, as 2, 5, 10, 20."""
    axis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.set_minor_formatter(NullFormatter())
