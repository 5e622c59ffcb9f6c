"""Drawings of the DocRep plane: which document is recalled where, and how well."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from scipy.ndimage import distance_transform_edt, label

from docmem.errors import DocmemError, Positive, checked
from docmem.evaluation.plane import KeyPlane
from docmem.evaluation.refinement import midpoints
from docmem.plots import style
from docmem.plots.writing import drawable, shortened

# Pixels per side of a smooth map, at least.
PIXELS = 240
# Documents that have a colour each; and those that are named beside a map of more.
FEW, NAMED = len(style.DOCUMENT_COLORS), 20
# Perplexities that contour lines are drawn at.
CONTOURS = (1.2, 1.5, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)


@checked
def square(axes: Axes, extent: Positive) -> None:
    """Make `axes` the square [-extent, extent]² of the DocRep plane, with its labels."""
    axes.set(aspect="equal", xlim=(-extent, extent), ylim=(-extent, extent))
    axes.set(xlabel="DocRep, first coordinate", ylabel="second coordinate")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(3, steps=(1, 2, 5, 10)))


@checked
def plane_map(axes: Axes, values: Any, extent: Positive, **options: Any) -> AxesImage:
    """Draw values measured on a grid over [-extent, extent]² of the DocRep plane, a cell each.

    Args:
        axes: where to draw.
        values: array_like, one per grid point, [up][across]; or colours, (points, points, 3).
        extent: half the side of the grid. The outer cells reach half a cell further.
        options: of `Axes.imshow`, such as cmap, norm, or vmin and vmax.

    Raises:
        DocmemError: if the values are no grid of numbers.
    """
    try:
        grid = np.asarray(values.detach().cpu() if isinstance(values, torch.Tensor) else values)
        grid = grid if grid.dtype == np.uint8 else grid.astype(float)
    except (ValueError, TypeError) as error:
        raise DocmemError(f"values must be a grid of numbers: {error}.") from error
    if (
        grid.ndim < 2
        or grid.shape[2:] not in ((), (3,), (4,))
        or grid.shape[:1] != grid.shape[1:2]
        or len(grid) < 2
    ):
        raise DocmemError(
            f"values has the shape {grid.shape}; it must be (points, points), of 2 points or more."
        )
    reach = extent * (1 + 1 / (len(grid) - 1))
    image = axes.imshow(
        grid, origin="lower", interpolation="nearest", extent=(-reach, reach, -reach, reach),
        **options,
    )  # fmt: skip
    square(axes, reach)
    return image


def contour_levels(plane: KeyPlane) -> np.ndarray:
    """The cross entropies of the contours that the map has: logarithms of some of `CONTOURS`."""
    best, levels = plane.ce.min(0).values, np.log(CONTOURS)
    return levels[(levels > best.min().item()) & (levels < best.max().item())]


@checked
def territories(
    plane: KeyPlane,
    n_docs: int,
    banded: bool = False,
    color_of: Callable[[int], str] = style.document_color,
    ground: str = "#ffffff",
) -> np.ndarray:
    """The colours of a map, (points, points, 3): the document recalled best, deeper if better.

    Args:
        plane: the map.
        n_docs: documents.
        banded: of one depth between two contours.
        color_of: gives a document's colour.
        ground: the colour where nothing is recalled well.

    Raises:
        DocmemError: if the map is of more documents.
    """
    if n_docs <= int(plane.documents.max()):
        raise DocmemError(f"n_docs is {n_docs}, but the map is of {len(plane.doc_reps)} documents.")
    best, nearest = plane.ce.min(0).values.numpy(), plane.nearest.numpy()
    # Nothing with a document on top is as the ground, where much is read badly too.
    floor = best.min()
    ceiling = max(float(plane.ce.median()), float(np.quantile(best, 0.95)), floor + 1e-6)
    if banded:
        levels = contour_levels(plane)
        edges = np.array([best.min(), *levels, best.max()])
        best = ((edges[1:] + edges[:-1]) / 2)[np.digitize(best, levels)]
    depth = np.clip((ceiling - best) / (ceiling - floor), 0, 1)[..., None]
    colors = np.array([to_rgb(color_of(index)) for index in range(n_docs)])
    return np.array(to_rgb(ground)) + depth * 0.8 * (colors[nearest] - to_rgb(ground))


def smooth(plane: KeyPlane, points: int = PIXELS) -> KeyPlane:
    """The map with more points between its own, by cubic interpolation: a drawing without steps.

    At least so many per side; those of the given map are among them, with their values.
    """
    ce = plane.ce
    while ce.shape[1] < points:
        ce = torch.stack([midpoints(one) for one in ce]).clamp_min(0)
    reach = plane.axis[-1].item()
    axis = torch.linspace(-reach, reach, ce.shape[1])
    return KeyPlane(axis, ce, plane.doc_reps, texts=plane.texts, away=plane.away)


def value_at(plane: KeyPlane, values: np.ndarray, index: int) -> Any:
    """The value of a map (points, points) in the cell where the DocRep of `index` lies."""
    x, y = plane.doc_reps[index]
    across, up = ((plane.axis - place).abs().argmin().item() for place in (x, y))
    return values[up, across]


def outlines(axes: Axes, plane: KeyPlane) -> bool:
    """White lines between the regions of two documents, and contours of the lowest perplexity.

    Returns whether there are contours: no level may lie between the highest and the lowest.

    The contours are those of the document recalled best, thin, with their numbers on them. They
    and the white lines show without any colour where regions end and where they are deep.
    """
    ce, axis = plane.ce, plane.axis.numpy()
    best, second = ce.topk(min(2, len(ce)), 0, largest=False).values[[0, -1]].numpy()
    nearest = ce.argmin(0).numpy()  # rows: of many documents only some were read
    for row in np.unique(nearest) if (nearest != nearest[0, 0]).any() else ():
        ahead = np.where(nearest == row, second - best, best - ce[row].numpy())
        axes.contour(axis, axis, ahead, [0], colors="white", linewidths=1.6, zorder=3)
    levels = np.exp(contour_levels(plane))
    if len(levels):
        lines = axes.contour(
            axis, axis, np.exp(best), levels, colors=style.INK, linewidths=0.7, alpha=0.75, zorder=2
        )
        spots = number_spots(plane, nearest, itertools.chain.from_iterable(lines.allsegs))
        numbers = axes.clabel(lines, fmt="%g", fontsize=7.5, inline_spacing=2, manual=spots)
        for number in numbers:  # dark, also on dark regions
            number.set_path_effects([withStroke(linewidth=1.6, foreground="#FFFFFFB0")])
    return len(levels) > 0


def number_spots(
    plane: KeyPlane, nearest: np.ndarray, contours: Iterable[np.ndarray]
) -> list[np.ndarray]:
    """Where contours (points, 2) have room for their number, in each region that they cross.

    That is farthest from the region's border, the map's edge and every badge; none where all of it
    is close to one of them.
    """
    places = len(plane.axis)
    free = np.zeros((places, places), bool)
    free[1:-1, 1:-1] = (nearest[1:-1, 1:-1] == nearest[2:, 1:-1]) & (
        nearest[1:-1, 1:-1] == nearest[1:-1, 2:]
    )
    reach = plane.axis[-1].item()

    def cells(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        across, up = ((points / reach + 1) / 2 * (places - 1)).round().astype(int).T
        return up.clip(0, places - 1), across.clip(0, places - 1)

    free[cells(plane.doc_reps.numpy())] = False
    room, spots = distance_transform_edt(free), []
    for contour in contours:
        at = cells(contour)
        for region in np.unique(nearest[at]):
            inside = np.where(nearest[at] == region, room[at], 0)
            if inside.max() > places / 20:
                spots.append(contour[inside.argmax()])
    return spots


def islands(plane: KeyPlane) -> list[tuple[int, tuple[float, float]]]:
    """Documents' larger regions that their own DocRep does not lie in, each with its middle."""
    found, axis = [], plane.axis
    nearest = np.pad(plane.nearest.numpy(), 1, constant_values=-1)  # the map's edge is a border
    for index in plane.documents.tolist():
        regions, count = label(nearest == index)
        own = value_at(plane, regions[1:-1, 1:-1], index)
        for region in {*range(1, count + 1)} - {own}:
            room = distance_transform_edt(regions == region)
            up, across = np.unravel_index(room.argmax(), room.shape)
            if room.max() > len(axis) / 30:
                found.append((index, (axis[across - 1].item(), axis[up - 1].item())))
    return found


def name_axes(axes: Axes, plane: KeyPlane) -> None:
    """Say what the axes are where DocReps lie off the plane."""
    if plane.away is not None:
        axes.set(xlabel="widest direction of the DocReps", ylabel="second widest")


def noted(plane: KeyPlane, note: str) -> str:
    """A note, after a sentence on where documents stand if their DocReps lie off the plane."""
    if plane.away is None:
        return note
    return (
        "DocReps have more than two numbers: each document stands at the nearest point of this "
        f"plane, {plane.away.mean():.2f} from its DocRep on average. {note}"
    )


@checked
@style.styled
def key_plane(figure: Figure, plane: KeyPlane, titles: Sequence[str], note: str) -> Figure:
    """Where which document is recalled, and how well.

    Up to ten documents: each point is coloured by the document it recalls best, deeper where
    better, with contours. Of more, there are not colours enough: darkness is the lowest perplexity
    of any document read, a point is a document, and twenty that lie far apart are named.

    Raises:
        DocmemError: if a document has no title.
    """
    style.check_documents(titles, len(plane.doc_reps))
    n_docs, axes, drawn = len(titles), figure.subplots(), smooth(plane)
    best = drawn.perplexity.min(0).values.numpy()
    if n_docs <= FEW:
        plane_map(axes, territories(drawn, n_docs, banded=True), float(plane.axis[-1]))
        contours = outlines(axes, drawn)
        highest, lowest = (f"{float(f'{end:.2g}'):,.10g}" for end in (best.max(), best.min()))
        named, apart = list(range(n_docs)), islands(drawn)
        for index, (across, up) in apart:
            style.badge(axes, across, up, index, n_docs=40)
        note = (
            "Each point is a DocRep, its colour the document recalled best there, deeper where "
            f"better: from perplexity {highest} to {lowest}. "
            f"{'Lines join points of equal perplexity. ' if contours else ''}"
            f"{'Small numbers: regions apart from the document’s DocRep. ' if apart else ''}{note}"
        )
    else:
        norm, reach = LogNorm(*perplexity_limits(best)), float(plane.axis[-1])
        image = plane_map(axes, best, reach, cmap="magma", norm=norm)
        perplexity_bar(figure, image, [axes], pad=0.02, location="left")
        axes.plot(*plane.doc_reps.T, "o", ms=1.4, mew=0, color="#BBBBBB")
        axes.plot(
            *plane.doc_reps[plane.documents].T, "o", ms=3.6, mew=0.5, mfc="white", mec=style.INK
        )
        named = farthest_points(plane, NAMED)
        read = f"; white or numbered: the {len(plane.ce)} read" if len(plane.ce) < n_docs else ""
        note = (
            f"Darkness: perplexity of the document recalled best there. Points: documents{read}. "
            "The title compares documents at one place; “recognised” compares places for one "
            f"document. {note}"
        )
    shown = shortened({index: titles[index] for index in named}, 24, 2 if len(named) < 13 else 1)
    for row, (index, title) in enumerate(zip(named, shown, strict=True)):
        across, up = plane.doc_reps[index].tolist()
        style.badge(axes, across, up, index, n_docs=len(named))
        y = 0.97 - row * 0.96 / max(10, len(named))
        beside = {"transform": axes.transAxes, "clip_on": False}
        style.badge(axes, 1.06, y, index, n_docs=len(named), **beside)
        axes.text(
            1.1, y, title, transform=axes.transAxes, fontsize=10.5, va="center",
            linespacing=1.0,
        )  # fmt: skip
    name_axes(axes, plane)
    style.headline(figure, recalled_there(drawn), noted(plane, note))
    return figure


def recalled_there(drawn: KeyPlane) -> str:
    """At how many documents' places the map as it is drawn has the document itself on top."""
    inside = (drawn.doc_reps[drawn.documents].abs() <= drawn.axis[-1]).all(1)
    read = drawn.documents[inside].tolist()
    if len(drawn.doc_reps) == 1:
        return "How well the document is recalled over the plane"
    nearest = drawn.nearest.numpy()
    own = sum(int(value_at(drawn, nearest, index) == index) for index in read)
    places = "DocReps" if drawn.away is None else "places that stand for DocReps"
    places += "" if inside.all() else " on the map"
    return f"At {own} of {len(read)} {places} the own document is recalled best"


def farthest_points(plane: KeyPlane, count: int) -> list[int]:
    """Indices of `count` of the documents read whose DocReps lie far apart, found greedily."""
    points = plane.doc_reps[plane.documents]
    distance = torch.cdist(points, points)
    chosen = [int(points.norm(dim=1).argmax())]
    while len(chosen) < min(count, len(points)):
        away = distance[:, chosen].min(1).values
        away[chosen] = -1.0  # also where others lie at their places
        chosen.append(int(away.argmax()))
    return sorted(plane.documents[chosen].tolist())


def perplexity_limits(perplexity: np.ndarray) -> tuple[float, float]:
    """Both ends of the colour scale for maps of perplexity; the upper is the 98th percentile."""
    lowest, highest = np.percentile(perplexity, (0, 98)).tolist()
    return max(1.0, lowest), max(highest, 1.01 * lowest)


def perplexity_bar(
    figure: Figure, image: AxesImage, maps: list[Axes], pad: float, location: str = "right"
) -> None:
    """The scale of maps of perplexity, beside them."""
    bar = figure.colorbar(
        image, ax=maps, label="perplexity", extend="max", pad=pad, aspect=40, location=location
    )
    style.plain_log_ticks(bar.ax.yaxis)
    bar.ax.minorticks_off()


@checked
@style.styled
def forgetting(figure: Figure, maps: dict[str, KeyPlane], index: int, note: str) -> Figure:
    """Perplexity of document `index` over the plane, one map for each way of forgetting it.

    Raises:
        DocmemError: if there is no map, or the document is not in one.
    """
    style.check_some("maps", maps)
    panels = list(figure.subplots(1, len(maps), squeeze=False)[0])
    perplexity = [plane.ce_of(index).exp().numpy() for plane in maps.values()]
    norm = LogNorm(*perplexity_limits(np.stack(perplexity)))
    for axes, (name, plane), values in zip(panels, maps.items(), perplexity, strict=True):
        axis = plane.axis.numpy()
        image = plane_map(axes, values, float(axis[-1]), cmap="magma", norm=norm)
        up, across = np.unravel_index(values.argmin(), values.shape)
        axes.plot(axis[across], axis[up], "x", ms=9, color="white", mew=4)
        axes.plot(axis[across], axis[up], "x", ms=9, color=style.INK, mew=2)
        name_axes(axes, plane)
        axes.set_title(f"{drawable(name)}\nlowest perplexity {values.min():,.1f}", fontsize=10)
        axes.label_outer()
    perplexity_bar(figure, image, panels, pad=0.02)
    style.headline(figure, "Perplexity of one document over the plane, and its lowest point", note)
    return figure
