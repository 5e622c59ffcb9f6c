"""The drawings: one function a figure, data and a Figure in, nothing trained or measured here.

One visual language throughout. A document has the same colour and number everywhere. Signed
values are red above zero, blue below, white at zero. Titles say what to see; axes carry units.
"""

import base64
import textwrap
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, TwoSlopeNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from docmem.keyspace import KeyPlane
from docmem.runs import Epoch

# Paul Tol's muted scheme, made for colour-blind readers, and an orange as the tenth.
DOCUMENT_COLORS = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933",
    "#DDCC77", "#CC6677", "#882255", "#AA4499", "#EE7733",
)  # fmt: skip
OWN, NEGATIVE, GUIDANCE, INK, FAINT = "#117733", "#EE7733", "#332288", "#222222", "#8A8A8A"
SIGNED = "RdBu_r"
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def new_figure(width: float, height: float, dpi: int = 150) -> Figure:
    """A Figure of width × height inches that belongs to no window and needs no closing."""
    return Figure(figsize=(width, height), dpi=dpi, layout="constrained")


def styled(function: Any) -> Any:
    """Draw within docmem's style, leaving matplotlib's global settings alone."""

    def inner(*args: Any, **kwargs: Any) -> Any:
        with mpl.rc_context(STYLE):
            return function(*args, **kwargs)

    inner.__doc__, inner.__name__ = function.__doc__, function.__name__
    return inner


def document_color(index: int) -> str:
    """The colour of document `index`; after ten they come round again, told apart by number."""
    return DOCUMENT_COLORS[index % len(DOCUMENT_COLORS)]


def headline(figure: Figure, title: str, subtitle: str) -> None:
    """A title that says what to see, over a line that says what it is."""
    wrapped = textwrap.fill(subtitle, int(figure.get_size_inches()[0] * 14))
    figure.suptitle(f"{title}\n", x=0.01, ha="left", fontsize=14, fontweight="bold")
    height = figure.get_size_inches()[1]
    figure.text(0.01, 1 - 0.36 / height, wrapped, ha="left", va="top", fontsize=9.5, color="#555555")


def png_bytes(figure: Figure) -> bytes:
    """The figure as a PNG."""
    buffer = BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def show(picture: Figure | bytes, alt: str) -> None:
    """Display a figure, or the bytes of a GIF, in a notebook, with its alt text.

    The alt text travels as the image's metadata, which JupyterLab reads and every IPython keeps.
    """
    from IPython.display import display

    kind = "image/gif" if isinstance(picture, bytes) else "image/png"
    content = picture if isinstance(picture, bytes) else png_bytes(picture)
    data = {kind: base64.b64encode(content).decode(), "text/plain": alt}
    display(data, metadata={kind: {"alt": alt}}, raw=True)


def pixels(figure: Figure) -> np.ndarray:
    """The figure as an array (height, width, 3) of bytes."""
    canvas = FigureCanvasAgg(figure)
    with mpl.rc_context(STYLE):
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def frame_palette() -> np.ndarray:
    """The 256 colours of an animation, (256, 3) bytes: the signed map, the documents, inks.

    Fixed, not fitted, so that a value has the same colour in every frame and every GIF.
    """
    signed = mpl.colormaps[SIGNED](np.linspace(0, 1, 151))[:, :3]
    inks = [np.array(to_rgb(color)) for color in (OWN, NEGATIVE, INK, *DOCUMENT_COLORS)]
    faded = [1 - share * (1 - ink) for ink in inks for share in (1, 0.7, 0.4)]
    greys = np.linspace(0, 1, 256 - len(signed) - len(faded) - 1)[:, None].repeat(3, 1)
    return np.round(np.concatenate([signed, faded, greys, [[1, 1, 1]]]) * 255).astype(np.uint8)


def draw_history(axes: Axes, history: Sequence[Epoch], tau: float) -> None:
    """Both cross entropies over epochs, on an existing Axes, τ dashed."""
    epochs = [epoch.epoch for epoch in history]
    axes.axhline(tau, color=FAINT, lw=1, ls=(0, (4, 3)))
    for name, color, label in (
        ("negative_ce", NEGATIVE, "another's DocRep"),
        ("positive_ce", OWN, "own DocRep"),
    ):
        values = [getattr(epoch, name) for epoch in history]
        axes.plot(epochs, values, color=color, lw=1.8, label=label)


@styled
def losses(figure: Figure, histories: dict[str, Sequence[Epoch]], tau: float, note: str) -> Figure:
    """Training losses, a column a run.

    Args:
        figure: an empty Figure.
        histories: run name to its history.
        tau: the target of the negative cross entropy, nats a token.
        note: what was trained, for the line under the title.
    """
    panels = figure.subplots(
        2, len(histories), sharex=True, sharey="row", squeeze=False, height_ratios=(2.2, 1)
    )
    highest = max(e.negative_ce for history in histories.values() for e in history)
    for column, (name, history) in enumerate(histories.items()):
        top, bottom = panels[:, column]
        draw_history(top, history, tau)
        last = history[-1]
        top.set_title(name)
        top.set_ylim(0, max(highest, tau) * 1.12)
        top.set_xlim(0, last.epoch * 1.01)
        halo = [patheffects.withStroke(linewidth=3, foreground="white")]
        for value, text, color, shift in (
            (last.negative_ce, "under another's DocRep", NEGATIVE, -26),
            (last.positive_ce, "under its own DocRep", OWN, 20),
        ):
            top.annotate(
                f"{text}: {value:.2f}", (last.epoch, value), (-2, shift),
                textcoords="offset points", ha="right", color=color, fontweight="bold",
                path_effects=halo,
            )  # fmt: skip
        top.annotate(
            f"target τ = {tau:g}", (last.epoch, tau), (-2, 4), textcoords="offset points",
            ha="right", color="#555555",
        )  # fmt: skip
        bottom.fill_between(
            [e.epoch for e in history], [e.guidance for e in history],
            color=GUIDANCE, alpha=0.85, lw=0,
        )  # fmt: skip
        bottom.set_ylim(0)
        bottom.set_xlabel("epoch")
    panels[0, 0].set_ylabel("cross entropy\n(nats a token)")
    panels[1, 0].set_ylabel("guidance term\n(nats a token)")
    headline(figure, "Each document is learned under its own DocRep only", note)
    return figure


def _heat_map(
    axes: Axes, values: np.ndarray, limit: float, titles: Sequence[str], name: str
) -> Any:
    """One selection as a heat map: documents down, entries across, white at zero."""
    image = axes.imshow(
        values, aspect="auto", interpolation="nearest", cmap=SIGNED,
        norm=TwoSlopeNorm(0, -limit, limit),
    )  # fmt: skip
    axes.set_yticks(range(len(titles)), titles, fontsize=8.5)
    axes.tick_params(length=0, axis="y", pad=13)
    axes.scatter(
        np.full(len(titles), -0.009), range(len(titles)), transform=axes.get_yaxis_transform(),
        c=[document_color(index) for index in range(len(titles))], marker="s", s=44, clip_on=False,
    )  # fmt: skip
    axes.set_title(name, fontsize=10)
    for spine in axes.spines.values():
        spine.set_visible(True)
    return image


@styled
def selection_frame(
    figure: Figure,
    panels: dict[str, torch.Tensor],
    limits: dict[str, float],
    titles: Sequence[str],
    history: Sequence[Epoch],
    epochs: int,
    highest: float,
    tau: float,
    headline_text: str,
) -> Figure:
    """One frame of the memory selection: three heat maps and the losses so far.

    Args:
        figure: an empty Figure.
        panels: panel name to selection (n_docs, memory_dim).
        limits: panel name to the value that is drawn darkest, the same in all frames.
        titles: the documents'.
        history: the epochs up to this frame; empty before training.
        epochs: how long the run is, for the axis of the losses.
        highest: the largest loss of the run, for the same.
        tau: the target of the negative cross entropy, nats a token.
        headline_text: what to see.
    """
    figure.set_layout_engine("none")
    grid = figure.add_gridspec(
        4, 2, height_ratios=(1, 1, 1, 0.62), width_ratios=(1, 0.012), hspace=0.34, wspace=0.02,
        left=0.2, right=0.2 + 896 * 1.02 / 1200, top=0.9, bottom=0.085,
    )  # fmt: skip
    for row, (name, values) in enumerate(panels.items()):
        axes = figure.add_subplot(grid[row, 0])
        image = _heat_map(axes, values.numpy(), limits[name], titles, name)
        if row < 2:
            axes.set_xticks([])
        bar = figure.colorbar(image, cax=figure.add_subplot(grid[row, 1]), extend="both")
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=7.5, length=2)
        bar.locator = mpl.ticker.MaxNLocator(5, symmetric=True)
        bar.update_ticks()
    axes.tick_params(labelsize=8)
    axes.set_xlabel("memory entry", fontsize=9, labelpad=1)
    curve = figure.add_subplot(grid[3, 0])
    curve.set_xlim(0, epochs)
    curve.set_ylim(0, highest * 1.08)
    curve.set_ylabel("nats a token", fontsize=8)
    curve.set_xlabel("epoch", fontsize=9, labelpad=1)
    curve.tick_params(labelsize=8)
    draw_history(curve, history, tau)
    done = history[-1].epoch if history else 0
    curve.axvline(done, color=INK, lw=1)
    if history:
        last = history[-1]
        curve.plot([done, done], [last.negative_ce, last.positive_ce], "o", color=INK, ms=3)
        values = f"own {last.positive_ce:.2f}   another's {last.negative_ce:.2f}"
    else:
        values = "before training"
    figure.text(0.012, 0.965, headline_text, fontsize=13, fontweight="bold", va="center")
    figure.text(
        0.945, 0.965, f"epoch {done} of {epochs}", fontsize=12, ha="right", va="center",
        fontweight="bold",
    )  # fmt: skip
    left = 0.012
    for y, text, color in (
        (0.185, "cross entropy", INK),
        (0.155, "own DocRep", OWN),
        (0.125, "another's DocRep", NEGATIVE),
        (0.095, f"target τ = {tau:g}", "#555555"),
    ):
        figure.text(left, y, text, fontsize=8.5, color=color, fontweight="bold", va="center")
    figure.text(0.945, 0.937, values, fontsize=9, ha="right", va="center", color="#555555")
    return figure


def _badge(axes: Axes, x: float, y: float, index: int, **options: Any) -> None:
    """The number of document `index`, from 1, on a disc of its colour."""
    color = document_color(index)
    dark = np.dot(to_rgb(color), (0.299, 0.587, 0.114)) < 0.55
    axes.scatter(x, y, s=190, color=color, edgecolor="white", lw=1.6, zorder=5, **options)
    axes.text(
        x, y, str(index + 1), ha="center", va="center_baseline", fontsize=8, zorder=6,
        color="white" if dark else INK, fontweight="bold", **{"clip_on": True, **options},
    )  # fmt: skip


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
        _badge(axes, x, y, index)
    for index, title in enumerate(titles):
        y = 0.97 - index * 0.93 / max(10, len(titles))
        _badge(axes, 1.06, y, index, transform=axes.transAxes, clip_on=False)
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
    perplexity = plane.perplexity.numpy()[list(chosen)]
    norm = LogNorm(max(1.0, perplexity.min()), np.quantile(perplexity, 0.98))
    grid = figure.add_gridspec(len(chosen), 2, width_ratios=(1.9, 1))
    maps = []
    for row, index in enumerate(chosen):
        axes = figure.add_subplot(grid[row, 1])
        maps.append(axes)
        image = axes.pcolormesh(
            plane.axis, plane.axis, perplexity[row], cmap="magma", norm=norm, shading="nearest"
        )
        _square(axes, extent)
        axes.set_ylabel("")
        if row < len(chosen) - 1:
            axes.set_xlabel("")
        x, y = plane.doc_reps[index].tolist()
        axes.plot(x, y, "o", ms=13, mfc="none", mec="white", mew=3.2)
        axes.plot(x, y, "o", ms=13, mfc="none", mec=document_color(index), mew=1.6)
        axes.set_title(f"{index + 1}  {textwrap.shorten(titles[index], 30, placeholder=" …")}", fontsize=10)
    bar = figure.colorbar(image, ax=maps, label="perplexity", extend="max", pad=0.03, aspect=40)
    _plain_log_ticks(bar.ax.yaxis)
    bar.ax.minorticks_off()
    surface = figure.add_subplot(grid[:, 0], projection="3d", computed_zorder=False)
    _draw_wells(surface, plane, perplexity, chosen, (float(norm.vmin), float(norm.vmax)))
    headline(figure, "A document is legible only near its own DocRep", note)
    return figure


def _draw_wells(
    surface: Any,
    plane: KeyPlane,
    perplexity: np.ndarray,
    chosen: Sequence[int],
    limits: tuple[float, float],
) -> None:
    """The lowest of the chosen perplexities as a surface, coloured by whose it is."""
    across, up = np.meshgrid(plane.axis, plane.axis)
    bottom, top = np.log10(limits)
    lowest = np.log10(np.minimum(perplexity.min(0), limits[1]))
    colors = np.array([to_rgb(document_color(index)) for index in chosen])
    depth = np.clip((top - lowest) / (top - bottom), 0, 1)[..., None]
    surface.plot_surface(
        across, up, lowest, facecolors=1 - (0.06 + 0.86 * depth) * (1 - colors[perplexity.argmin(0)]),
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
    marks = [mark for mark in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if limits[0] <= mark <= limits[1]]
    surface.set_zticks(np.log10(marks), [str(mark) for mark in marks])
    for axis in (surface.xaxis, surface.yaxis, surface.zaxis):
        axis.pane.set_facecolor("white")
        axis._axinfo["grid"]["color"] = "#E4E4E4"


def _plain_log_ticks(axis: Any) -> None:
    """Ticks of a logarithmic axis as plain numbers: 2, 5, 10, 20, …"""
    axis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.set_minor_formatter(NullFormatter())
