"""Drawings of what lies between DocReps: a line through the plane, and how smooth it is."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from docmem.errors import DocmemError, checked
from docmem.evaluation.continuity import Continuity
from docmem.evaluation.plane import Line
from docmem.plots import style
from docmem.plots.writing import shortened


@checked
@style.styled
def along_line(
    figure: Figure, line: Line, titles: Sequence[str], ends: tuple[int, int], note: str
) -> Figure:
    """Perplexity of every document from one DocRep to another, and which is recalled best where.

    `ends` are the indices of the documents at the start and the end of `line`.

    Raises:
        DocmemError: if these are not two documents of the line, or a document has no title.
    """
    style.check_documents(titles, len(line.ce), ends)
    if len(ends) != 2:
        raise DocmemError(f"ends is {ends}; give the documents at the start and at the end.")
    axes, strip = figure.subplots(2, 1, sharex=True, height_ratios=(1, 0.09))
    share, perplexity = line.share.tolist(), line.perplexity.numpy()
    highest = perplexity[list(ends)].max()
    for index, values in enumerate(perplexity):
        bold = index in ends
        axes.plot(
            share, values, color=style.document_color(index), lw=2.6 if bold else 1.1,
            alpha=1 if bold else 0.55, zorder=3 if bold else 2,
        )  # fmt: skip
        inside = np.flatnonzero(values <= highest)
        if not bold and len(inside):  # numbered at a place of its own, so that numbers seldom meet
            wanted = (index + 1) * (len(share) - 1) / (len(titles) + 1)
            at = inside[np.abs(inside - wanted).argmin()]
            style.badge(axes, share[at], values[at], index, n_docs=max(40, len(titles)))
    axes.set_yscale("log")
    axes.set_ylim(1, 1.3 * highest)
    style.plain_log_ticks(axes.yaxis)
    axes.set_ylabel("perplexity")
    step = (share[1] - share[0]) / 2
    nearest = line.nearest.numpy()
    colors = np.array([to_rgb(style.document_color(index)) for index in range(len(titles))])
    strip.imshow(
        colors[nearest][None], aspect="auto", interpolation="nearest",
        extent=(share[0] - step, share[-1] + step, 0, 1),
    )  # fmt: skip
    starts = [0, *(np.flatnonzero(np.diff(nearest)) + 1).tolist()]
    for start, stop in zip(starts, [*starts[1:], len(nearest)], strict=True):
        style.badge(strip, (share[start] + share[stop - 1]) / 2, 0.5, int(nearest[start]))
        if start:
            axes.axvline(share[start] - step, color=style.FAINT, lw=1, ls=(0, (4, 3)), zorder=1)
    strip.set_ylim(0, 1)
    strip.set_yticks([])
    strip.set_ylabel("best", rotation=0, ha="right", va="center")
    strip.set_xlim(share[0] - step, share[-1] + step)
    strip.set_xlabel("share of the way from the first DocRep to the second")
    for place, index in zip((0, -1), ends, strict=True):
        style.badge(axes, share[place], float(perplexity[index, place]), index, clip_on=False)
    met = len({*nearest.tolist()})
    first, second = shortened({index: titles[index] for index in ends}, 40)
    style.headline(
        figure,
        f"From {first} to {second}, "
        f"{'one document is' if met == 1 else f'{met} documents are'} recalled best",
        f"{'Dashed: the document recalled best changes. ' if met > 1 else ''}{note}",
    )
    return figure


@checked
@style.styled
def continuity(figure: Figure, measured: Continuity, note: str) -> Figure:
    """How much selection and cross entropy change, against how far the DocRep moved."""
    left, right = figure.subplots(1, 2, sharex=True)
    distance = measured.distance.numpy()
    left.loglog(
        distance, measured.selection.numpy(), "o", ms=4.5, color=style.GUIDANCE, alpha=0.7, mew=0
    )
    if measured.bound is not None:
        left.loglog(distance, measured.bound * distance, color=style.INK, lw=1.4)
        left.annotate(
            f"bound: {measured.bound:.2f} × distance", (distance[0], measured.bound * distance[-1]),
            va="top", fontweight="bold",
        )  # fmt: skip
    left.set_ylabel("change of the selection (L2)")
    left.set_title("Memory selection")
    for index, change in enumerate(measured.ce.numpy()):
        right.loglog(
            distance, change, "o", ms=3.6, color=style.document_color(index), alpha=0.65, mew=0
        )
    steepest = (measured.ce / measured.distance).max().item()
    right.loglog(distance, steepest * distance, color=style.FAINT, lw=1.4, ls=(0, (4, 3)))
    right.annotate(
        f"steepest measured: {steepest:.1f} × distance", (distance[0], steepest * distance[-1]),
        color=style.GREY, va="top", fontweight="bold",
    )  # fmt: skip
    right.set_ylim(bottom=1e-5)
    right.set_ylabel("change of the cross entropy (nats per token)")
    right.set_title("Cross entropy, one colour per document")
    for axes in (left, right):
        axes.set_xlabel("distance between the two DocReps")
    style.headline(
        figure,
        f"Steepest measured: {steepest:.1f} nats per token for each unit that the DocRep moves",
        note,
    )
    return figure
