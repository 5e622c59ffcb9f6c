"""The visual language, in one place: colours, type, titles, and how a drawing leaves matplotlib.

A document has the same colour and number everywhere. Signed values are red above zero, blue
below, white at zero. Titles say what to see; the line under them says what it is.
"""

import base64
import html
from collections.abc import Callable, Iterable, Sequence, Sized
from io import BytesIO
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from PIL import Image
from scipy.spatial.distance import cdist

from docmem.core.loss import Negative
from docmem.errors import Count, DocmemError, Positive, checked
from docmem.plots.writing import FONTS, LETTER, drawable
from docmem.training.history import Epoch

# Paul Tol's muted scheme, made for colour-blind readers, and a blue as the tenth.
DOCUMENT_COLORS = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933",
    "#DDCC77", "#CC6677", "#882255", "#AA4499", "#4477EE",
)  # fmt: skip
OWN, NEGATIVE, GUIDANCE = "#117733", "#EE7733", "#332288"
INK, GREY, FAINT = "#222222", "#555555", "#8A8A8A"
# Of Paul Tol's contrast schemes, made for colour-blind readers too.
ACTIVATION_COLORS = {
    "sigmoid": "#997700", "relu": "#004488", "tanh": "#BB5566", "swiglu": "#6699CC",
}  # fmt: skip
SIGNED = "RdBu_r"
SIGNED_STEPS = mpl.colormaps[SIGNED].resampled(41)
"""The same in as many colours as an animation or a small picture has room for."""
MEANINGS = (
    *DOCUMENT_COLORS, *ACTIVATION_COLORS.values(), OWN, NEGATIVE, GUIDANCE, INK, FAINT,
    *(to_hex(color) for color in SIGNED_STEPS(np.arange(SIGNED_STEPS.N))),
)  # fmt: skip
STYLE: dict[Any, Any] = {
    "font.family": FONTS,
    "font.size": 10,
    "text.hinting": "none",  # small bold numbers would lose their shape
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


@checked
def new_figure(width: Positive, height: Positive, dpi: Count = 150) -> Figure:
    """A Figure of width × height inches that belongs to no window and needs no closing."""
    return Figure(figsize=(width, height), dpi=dpi, layout="constrained")


styled = mpl.rc_context(STYLE)
"""Decorator: draw within docmem's style, leaving matplotlib's global settings alone."""


def check_some(name: str, given: Sized) -> None:
    """Raise if there is nothing to draw."""
    if not len(given):
        raise DocmemError(f"{name} is empty; give at least one to draw.")


def check_documents(titles: Sequence[str], n_docs: int, chosen: Iterable[int] = ()) -> None:
    """Raise unless each document has a title, and the chosen ones are among them."""
    if len(titles) != n_docs:
        raise DocmemError(
            f"{len(titles)} titles were given for {n_docs} documents; give one each, as run.titles."
        )
    for index in chosen:
        if not 0 <= index < n_docs:
            raise DocmemError(
                f"There is no document {index} here; they are numbered from 0 to {n_docs - 1}."
            )


def document_color(index: int) -> str:
    """The colour of document `index`; after ten, colours repeat and numbers tell them apart."""
    return DOCUMENT_COLORS[index % len(DOCUMENT_COLORS)]


def activation_color(name: str, place: int) -> str:
    """The colour of an activation; of another name, that of its place."""
    others = (INK, "#AA4499", "#44AA99", "#999933", "#332288", GREY)
    return ACTIVATION_COLORS.get(name, others[place % len(others)])


def ink_on(color: Any) -> str:
    """The ink that is read on a document's colour: white on dark ones."""
    return "#ffffff" if np.dot(to_rgb(color), (0.299, 0.587, 0.114)) < 0.55 else INK


def headline(figure: Figure, title: str, subtitle: str) -> None:
    """A title that says what is shown or was measured, over a line that says of what."""
    width, height = figure.get_size_inches()
    room = 0.98 * width * 72 / LETTER  # of letters one point high
    above = drawable(title, room / 14, lines=9, bold=True)
    below = drawable(subtitle, room / 9.5, lines=9)
    space = "\n" * (1 + below.count("\n"))
    figure.suptitle(above + space, x=0.01, ha="left", fontsize=14, fontweight="bold")
    top = 1 - (0.36 + 0.23 * above.count("\n")) / height
    figure.text(0.01, top, below, ha="left", va="top", fontsize=9.5, color=GREY)


def span(values: Iterable[float], say: Callable[[float], str] = "{:.2f}".format) -> str:
    """Numbers as words for a title: the one that all are, rounded, or the lowest to the highest."""
    values = [*values]
    low, high = say(min(values)), say(max(values))
    return low if low == high else f"{low} to {high}"


def whole_epochs(axes: Axes) -> None:
    """Ticks of an x axis of epochs at whole ones: 2, 4, 6 and not 2.5."""
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1, steps=(1, 2, 5, 10)))


def plain_log_ticks(axis: Any) -> None:
    """Ticks of a logarithmic axis as plain numbers, as 2, 5, 10, 20."""
    axis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())


def png_bytes(figure: Figure) -> bytes:
    """The figure as a PNG of 256 colours, which look the same and take a third of the room."""
    whole, small = BytesIO(), BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(whole, format="png", pil_kwargs={"compress_level": 0})  # read at once
    with Image.open(whole) as opened:
        few = few_colors(np.asarray(opened.convert("RGB")))
    few.save(small, format="PNG", optimize=True)
    return small.getvalue()


def few_colors(rgb: np.ndarray) -> Image.Image:
    """A picture, (height, width, 3) bytes, in 256 colours.

    Those that mean something and the most frequent, 96 in all, stay as they are, so that documents
    and areas keep their colours. Of the others, in shades and at the edges of letters, each becomes
    the nearest of these, of 80 that leave no hue out, and of 80 that are near the most used; these
    are moved to the mean of what is nearest to them, so that no area takes the hue of another.
    """
    codes = rgb.astype(np.uint32) @ np.array((1 << 16, 1 << 8, 1), np.uint32)
    counts = np.bincount(codes.ravel(), minlength=1 << 24)
    colors = counts.nonzero()[0]
    meaning = np.isin(colors, [int(color[1:], 16) for color in MEANINGS])
    by_use = colors[np.lexsort((-counts[colors], ~meaning))]
    triples = np.stack((by_use >> 16, by_use >> 8 & 255, by_use & 255), -1).astype(np.uint8)
    palette, rare = triples[:96], triples[96:]
    if len(rare):
        weights = counts[by_use[96:]].clip(max=50)  # no shade outweighs all
        used = rare.repeat(weights, axis=0)
        for method, some in (("MAXCOVERAGE", rare), ("MEDIANCUT", used)):
            found = Image.fromarray(some[None]).quantize(80, Image.Quantize[method]).getpalette()
            palette = np.concatenate((palette, np.reshape(found or [], (-1, 3))[:80]))
        nearest = cdist(rare, palette, "sqeuclidean").argmin(1)
        masses = np.bincount(nearest, weights, len(palette))
        sums = [np.bincount(nearest, weights * part, len(palette)) for part in rare.T]
        moved = (masses > 0) & (np.arange(len(palette)) >= 96)
        palette[moved] = np.round(np.stack(sums, 1)[moved] / masses[moved, None])
    index = np.zeros(1 << 24, np.uint8)
    index[by_use] = cdist(triples, palette, "sqeuclidean").argmin(1)
    few = Image.fromarray(index[codes])
    few.putpalette(palette.astype(np.uint8).tobytes())
    return few


def show(picture: Figure | bytes, alt: str) -> None:
    """Display a figure, or the bytes of a GIF, in a notebook, with its alt text.

    A figure's travels as the image's metadata, which JupyterLab reads and every IPython keeps. A
    GIF goes as HTML, since readers of notebooks that have no kernel know no other way to show one.
    """
    from IPython.display import display

    if isinstance(picture, bytes):
        source = f"data:image/gif;base64,{base64.b64encode(picture).decode()}"
        page = f'<img src="{source}" alt="{html.escape(alt)}">'
        display({"text/html": page, "text/plain": alt}, raw=True)
        return
    data = {"image/png": base64.b64encode(png_bytes(picture)).decode(), "text/plain": alt}
    display(data, metadata={"image/png": {"alt": alt}}, raw=True)


def frame_palette() -> np.ndarray:
    """The colours of an animation, (255, 3) bytes: the signed map, the documents, inks.

    One of the 256 that a GIF can have is left free, for what does not change.
    Fixed, not fitted, so that a value has the same colour in every frame and every GIF.
    """
    signed = SIGNED_STEPS(np.arange(SIGNED_STEPS.N))[:, :3]
    inks = [np.array(to_rgb(color)) for color in (OWN, NEGATIVE, INK, *DOCUMENT_COLORS)]
    faded = [1 - share * (1 - ink) for ink in inks for share in (1, 0.7, 0.4)]
    greys = np.linspace(0, 0.95, 255 - len(signed) - len(faded) - 1)[:, None].repeat(3, 1)
    return np.round(np.concatenate([signed, faded, greys, [[1, 1, 1]]]) * 255).astype(np.uint8)


NEGATIVES: dict[Negative | None, str] = {
    "other": "another document's DocRep",
    "random": "a random DocRep",
    "zero": "the origin",
    "perturb": "the own DocRep, perturbed",
    None: "the negative DocRep",
}
"""The negatives in words, by the setting's values; None: of runs that differ in it."""
NEGATIVE_LABELS = NEGATIVES | {"other": "another's DocRep", "perturb": "a perturbed DocRep"}
"""The same in a few words, for beside "own DocRep"."""


def after_own(words: str) -> str:
    """Words for a negative where "own DocRep" was just said: another's, or a random one."""
    return words.replace("'s DocRep", "'s").replace("DocRep", "one")


CURVES = ("negative_ce", "positive_ce")
"""What `draw_history` draws, in this order."""


def highest_loss(history: Sequence[Epoch], tau: float) -> float:
    """The highest that `draw_history` draws: of both cross entropies and τ."""
    return max([tau, *(max(epoch.positive_ce, epoch.negative_ce) for epoch in history)])


def draw_history(
    axes: Axes, history: Sequence[Epoch], tau: float, negative: Negative | None
) -> list[Line2D]:
    """Draw both cross entropies over epochs and τ as a dashed line; returns the two curves."""
    epochs = [epoch.epoch for epoch in history]
    axes.axhline(tau, color=GREY, lw=1, ls=(0, (4, 3)))
    whole_epochs(axes)
    curves = []
    for name, color, label in zip(
        CURVES, (NEGATIVE, OWN), (NEGATIVE_LABELS[negative], "own DocRep"), strict=True
    ):
        values = [getattr(epoch, name) for epoch in history]
        marker = "o" if len(history) == 1 else None  # one point makes no line
        curves += axes.plot(epochs, values, marker=marker, color=color, lw=1.8, label=label)
    return curves


def renew_history(curves: Sequence[Line2D], history: Sequence[Epoch]) -> None:
    """Let the curves of `draw_history` show another history; the axes keep their limits."""
    for curve, name in zip(curves, CURVES, strict=True):
        curve.set_data([epoch.epoch for epoch in history], [getattr(one, name) for one in history])
        curve.set_marker("o" if len(history) == 1 else "")  # one point makes no line


def badge(axes: Axes, x: float, y: float, index: int, *, n_docs: int = 1, **options: Any) -> None:
    """The number of document `index`, from 1, on a disc of its colour at (x, y).

    With more than 20 documents, badges are smaller. `options` go to both the disc and the number,
    such as transform and clip_on.
    """
    fill = document_color(index)
    shrink = min(1.0, (20 / n_docs) ** 0.5)
    number = str(index + 1)
    axes.scatter(
        x, y, s=190 * shrink**2, color=fill, edgecolor="white", lw=1.6 * shrink, zorder=5,
        **options,
    )  # fmt: skip
    axes.text(
        x, y, number, ha="center", va="center_baseline", zorder=6,
        fontsize=8 * shrink * min(1, 1.75 / len(number)),
        color=ink_on(fill), fontweight="bold", **{"clip_on": True, **options},
    )  # fmt: skip


def stride(count: int, fitting: int) -> int:
    """Label one in how many of `count` rows, so that at most `fitting` labels are drawn?"""
    return -(-count // fitting)
