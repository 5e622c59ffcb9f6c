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

from docmem.keyspace import Continuity, KeyPlane, Line
from docmem.published import EPOCHS, PublishedRun
from docmem.runs import Epoch, Snapshots
from docmem.style import (
    FAINT,
    GUIDANCE,
    INK,
    NEGATIVE,
    OWN,
    SIGNED,
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
    headline(
        figure,
        "Learned under its own DocRep, far less under another's",
        f"{note}; numbers: means of the last {len(recent)} epochs",
    )
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
    _plain_log_ticks(bar.ax.yaxis)
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


def _plain_log_ticks(axis: Any) -> None:
    """Ticks of a logarithmic axis as plain numbers, as 2, 5, 10, 20."""
    axis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.set_minor_formatter(NullFormatter())


@styled
def along_line(
    figure: Figure, line: Line, titles: Sequence[str], ends: tuple[int, int], note: str
) -> Figure:
    """Perplexity of every document on the way from one DocRep to another, and who is best where.

    Args:
        figure: an empty Figure.
        line: what was measured.
        titles: the documents'.
        ends: indices of the documents at its start and its end.
        note: what was trained, for the line under the title.
    """
    axes, strip = figure.subplots(2, 1, sharex=True, height_ratios=(1, 0.09))
    share, perplexity = line.share.tolist(), line.perplexity.numpy()
    for index, values in enumerate(perplexity):
        bold = index in ends
        axes.plot(
            share, values, color=document_color(index), lw=2.6 if bold else 1.1,
            alpha=1 if bold else 0.55, zorder=3 if bold else 2,
        )  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylim(1, 1.3 * perplexity[list(ends)].max())
    _plain_log_ticks(axes.yaxis)
    axes.set_ylabel("perplexity")
    step = (share[1] - share[0]) / 2
    nearest = line.nearest.numpy()
    colors = np.array([to_rgb(document_color(index)) for index in range(len(titles))])
    strip.imshow(
        colors[nearest][None], aspect="auto", interpolation="nearest",
        extent=(share[0] - step, share[-1] + step, 0, 1),
    )  # fmt: skip
    starts = [0, *(np.flatnonzero(np.diff(nearest)) + 1).tolist()]
    for start, stop in zip(starts, [*starts[1:], len(nearest)], strict=True):
        badge(strip, (share[start] + share[stop - 1]) / 2, 0.5, int(nearest[start]))
        if start:
            axes.axvline(share[start] - step, color=FAINT, lw=1, ls=(0, (4, 3)), zorder=1)
    strip.set_ylim(0, 1)
    strip.set_yticks([])
    strip.set_ylabel("best", rotation=0, ha="right", va="center")
    strip.set_xlim(share[0] - step, share[-1] + step)
    strip.set_xlabel("share of the way from the first DocRep to the second")
    for place, index, values in ((0, ends[0], perplexity), (-1, ends[1], perplexity)):
        badge(axes, share[place], float(values[index, place]), index, clip_on=False)
    first, second = (textwrap.shorten(titles[index], 40, placeholder=" …") for index in ends)
    headline(figure, f"From {first} to {second}: who is recalled on the way", note)
    return figure


@styled
def continuity(figure: Figure, measured: Continuity, note: str) -> Figure:
    """How much selection and cross entropy change, against how far the DocRep moved.

    Args:
        figure: an empty Figure.
        measured: pairs of DocReps, and what differs between them.
        note: what was trained, for the line under the title.
    """
    left, right = figure.subplots(1, 2, sharex=True)
    distance = measured.distance.numpy()
    left.loglog(distance, measured.selection.numpy(), "o", ms=4.5, color=GUIDANCE, alpha=0.7, mew=0)
    if measured.bound is not None:
        left.loglog(distance, measured.bound * distance, color=INK, lw=1.4)
        left.annotate(
            f"bound: {measured.bound:.2f} × distance", (distance[0], measured.bound * distance[-1]),
            va="top", fontweight="bold",
        )  # fmt: skip
    left.set_ylabel("change of the selection (L2)")
    left.set_title("Memory selection")
    for index, change in enumerate(measured.ce.numpy()):
        right.loglog(distance, change, "o", ms=3.6, color=document_color(index), alpha=0.65, mew=0)
    steepest = (measured.ce / measured.distance).max().item()
    right.loglog(distance, steepest * distance, color=FAINT, lw=1.4, ls=(0, (4, 3)))
    right.annotate(
        f"steepest seen: {steepest:.1f} × distance", (distance[0], steepest * distance[-1]),
        color="#555555", va="top", fontweight="bold",
    )  # fmt: skip
    right.set_ylim(bottom=1e-5)
    right.set_ylabel("change of the cross entropy (nats a token)")
    right.set_title("Cross entropy, a colour a document")
    for axes in (left, right):
        axes.set_xlabel("distance between the two DocReps")
    headline(figure, "A small step of the DocRep is a small change of what is recalled", note)
    return figure


@styled
def open_entries(
    figure: Figure, snapshots: dict[str, Snapshots], share: float, note: str
) -> Figure:
    """How many entries a document opens through training, and how alike documents are at the end.

    Args:
        figure: an empty Figure.
        snapshots: run name to its snapshots.
        share: an entry is open where its document selection is larger than this share of the
            document's largest, both in size.
        note: what was trained, for the line under the title.
    """
    grid = figure.add_gridspec(2, len(snapshots), height_ratios=(1, 1.3))
    counts = figure.add_subplot(grid[0, :])
    inks, maps = (NEGATIVE, GUIDANCE, OWN, INK), []
    last = {name: taken.document[-1] for name, taken in snapshots.items()}
    for place, (name, taken) in enumerate(snapshots.items()):
        size = taken.document.abs()  # (snapshots, n_docs, entries)
        active = (size > share * size.amax(-1, keepdim=True)).sum(-1).numpy()
        color = inks[place % len(inks)]
        counts.fill_between(
            taken.epochs, active.min(1), active.max(1), color=color, alpha=0.2, lw=0
        )
        counts.plot(taken.epochs, active.mean(1), color=color, lw=2)
        counts.annotate(
            f" {name} {active[-1].mean():.0f}", (taken.epochs[-1], active[-1].mean()), color=color,
            fontweight="bold", va="center",
        )  # fmt: skip
        axes = figure.add_subplot(grid[1, place])
        unit = last[name] / last[name].norm(dim=1, keepdim=True).clamp_min(1e-12)
        image = axes.imshow((unit @ unit.T).numpy(), cmap=SIGNED, vmin=-1, vmax=1)
        axes.set_title(name, color=color)
        marks = range(len(unit))
        axes.set_xticks(marks, [str(mark + 1) for mark in marks], fontsize=8)
        axes.set_yticks(marks, [str(mark + 1) for mark in marks], fontsize=8)
        axes.tick_params(length=0)
        axes.set_xlabel("document")
        if place == 0:
            axes.set_ylabel("document")
        maps.append(axes)
    figure.colorbar(image, ax=maps, aspect=18, label="cosine of their selections")
    entries = next(iter(last.values())).shape[-1]
    counts.set_ylim(0, 1.06 * entries)
    counts.set_xlim(0, 1.13 * max(taken.epochs[-1] for taken in snapshots.values()))
    counts.set_xlabel("epoch")
    counts.set_ylabel(f"open entries of {entries}")
    headline(figure, "How many entries a document opens, and how alike documents are", note)
    return figure


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
    _plain_log_ticks(bar.ax.yaxis)
    bar.ax.minorticks_off()
    headline(figure, "Where in the plane can the text still be read?", note)
    return figure


@styled
def published_curves(
    figure: Figure,
    published: Sequence[PublishedRun],
    histories: dict[str, Sequence[Epoch]],
    note: str,
) -> Figure:
    """The paper's curves, dotted where the records give them, and one's own runs beside them.

    Args:
        figure: an empty Figure.
        published: the paper's runs.
        histories: run name to its history; may be empty.
        note: what was trained, for the line under the title.
    """
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1.7, 1))
    marks, inks = ("o", "s", "^", "D", "v", "P"), (GUIDANCE, NEGATIVE, "#88CCEE", "#AA4499")
    for place, run in enumerate(published):
        for axes, values in ((top, run.positive_ce), (bottom, run.guidance_term)):
            axes.plot(
                EPOCHS, values, marker=marks[place % len(marks)], color=inks[place % len(inks)],
                ms=5, lw=1, ls=(0, (1, 2)), label=f"paper: {run.name}",
            )  # fmt: skip
    for place, (name, history) in enumerate(histories.items()):
        epochs = [epoch.epoch for epoch in history]
        ink = (OWN, INK)[place % 2]
        top.plot(epochs, [e.positive_ce for e in history], color=ink, lw=2.4, label=f"here: {name}")
        bottom.plot(epochs, [e.guidance for e in history], color=ink, lw=1.6)
    top.set_xscale("log")
    top.set_xticks(EPOCHS, [str(epoch) if epoch != 400 else "" for epoch in EPOCHS])
    top.minorticks_off()
    top.set_ylim(bottom=0)
    bottom.set_ylim(bottom=0)
    top.set_ylabel("cross entropy under the\nown DocRep (nats a token)")
    bottom.set_ylabel("guidance term\n(nats a token)")
    bottom.set_xlabel("epoch")
    top.legend(frameon=False, fontsize=9)
    headline(
        figure,
        "One's own run beside the published ones"
        if histories
        else "What the published runs learned",
        note,
    )
    return figure
