"""The memory-selection GIFs: a run's snapshots, drawn alike and played through.

Frames are spaced so that the early, fast changes are seen, and share one colour scale, so that
they can be compared. The last frame is held.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from PIL import Image
from tqdm.auto import tqdm

from docmem.core.files import replacing
from docmem.plots.style import (
    INK,
    NEGATIVE,
    OWN,
    SIGNED,
    document_color,
    draw_history,
    frame_palette,
    styled,
)
from docmem.training.run import Run
from docmem.training.selection import Snapshots

# Inches left and right of the heat maps: room for titles, or for colours alone; for the scale.
LEFT, NARROW_LEFT, RIGHT = 2.173, 0.42, 0.578
FRAME_MILLISECONDS = 140
HOLD_MILLISECONDS = 3000


def spaced_snapshots(epochs: list[int], frames: int) -> list[int]:
    """Indices of at most `frames` snapshots: the first, the last, and ever wider steps between.

    Steps grow evenly (epochs go as the square of the frame), each snapshot at most once.
    """
    if len(epochs) <= frames:
        return list(range(len(epochs)))
    wanted = np.linspace(0, 1, frames) ** 2 * (len(epochs) - 1)
    chosen: list[int] = []
    for index, place in enumerate(wanted):
        earliest = chosen[-1] + 1 if chosen else 0
        latest = len(epochs) - (frames - index)
        chosen.append(min(max(round(place), earliest), latest))
    return chosen


def panels_at(snapshots: Snapshots, index: int) -> dict[str, torch.Tensor]:
    """The three heat maps of one snapshot, by their names."""
    selection = snapshots.at(index)
    return {
        "Token selection: what the document's own text asks for": selection.token,
        "Document selection: what its DocRep opens": selection.document,
        "Document × token: what gets through": selection.product,
    }


def color_limits(snapshots: Snapshots, indices: list[int]) -> dict[str, float]:
    """For each heat map, the 99.5th percentile of its size over all frames."""
    frames = [panels_at(snapshots, index) for index in indices]
    return {
        name: float(np.quantile(np.abs(np.stack([frame[name].numpy() for frame in frames])), 0.995))
        for name in frames[0]
    }


class SelectionPicture:
    """Three heat maps and the losses so far: drawn once, then shown for one snapshot after another.

    Args:
        run: whose snapshots will be shown; its length and losses set the axes.
        limits: for each heat map the value drawn darkest, the same for all snapshots.
        figure: where to draw: empty, 7 inches high; None: a Figure of its own.
        labelled: write the documents' titles, and which curve is which, left of the maps.
        name: what the memory is called; None: by its activation.
    """

    def __init__(
        self,
        run: Run,
        limits: dict[str, float],
        figure: Figure | SubFigure | None = None,
        labelled: bool = True,
        name: str | None = None,
    ) -> None:
        self.figure = figure or Figure(figsize=(10.6, 7.0), dpi=100)
        self.labelled = labelled
        self.name = name or run.config.key_activation
        self.history = run.load_history()
        self.epochs = run.config.num_epochs
        self._build(run, limits)

    @styled
    def _build(self, run: Run, limits: dict[str, float]) -> None:
        """Everything that stays, and the artists that will change."""
        figure, tau = self.figure, run.config.target_negative_ce
        width = figure.bbox.width / figure.figure.dpi  # inches, as all that stands beside the maps
        left, right = (LEFT if self.labelled else NARROW_LEFT) / width, 1 - RIGHT / width
        grid = figure.add_gridspec(
            4, 2, height_ratios=(1, 1, 1, 0.62), width_ratios=(1, 0.012), hspace=0.34,
            wspace=0.02, left=left, right=right, top=0.9, bottom=0.085,
        )  # fmt: skip
        blank = np.zeros((len(run.titles), run.config.hook_memory_dim))
        self.images = []
        for row, (name, limit) in enumerate(limits.items()):
            axes = figure.add_subplot(grid[row, 0])
            self.images.append(heat_map(axes, blank, limit, run.titles, name))
            if not self.labelled:
                axes.set_yticklabels([])
            axes.set_xlabel("memory entry" if row == len(limits) - 1 else "", labelpad=1)
            axes.tick_params(axis="x", labelbottom=row == len(limits) - 1, labelsize=8)
            scale = figure.add_subplot(grid[row, 1])
            bar = figure.colorbar(self.images[-1], cax=scale, extend="both")
            bar.outline.set_visible(False)
            bar.locator = MaxNLocator(5, symmetric=True)
            scale.tick_params(labelsize=7.5, length=2)
        curve = figure.add_subplot(grid[3, 0])
        losses = [loss for e in self.history for loss in (e.positive_ce, e.negative_ce)]
        curve.set(xlim=(0, self.epochs), ylim=(0, 1.08 * max([tau, *losses])))
        curve.set_ylabel("nats per token" if self.labelled else "", fontsize=8)
        curve.set_xlabel("epoch", labelpad=1)
        curve.tick_params(labelsize=8)
        self.curves = draw_history(curve, [], tau)
        self.cursor = curve.axvline(0, color=INK, lw=1)
        headline = f"{self.name} memory"
        if figure is figure.figure:
            headline += ": the entries that hold each document"
        start = 0.127 / width if self.labelled else left
        figure.text(start, 0.965, headline, fontsize=13, fontweight="bold", va="center")
        for y, text, color in (
            (0.185, "cross entropy", INK),
            (0.155, "own DocRep", OWN),
            (0.125, "another's DocRep", NEGATIVE),
            (0.095, f"target τ = {tau:g}", "#555555"),
        ):
            if self.labelled:
                figure.text(
                    start, y, text, fontsize=8.5, color=color, fontweight="bold", va="center"
                )
        end = 1 - 0.742 / width
        place: dict[str, Any] = {"ha": "right", "va": "center"}
        self.epoch = figure.text(end, 0.968, "", fontsize=12, fontweight="bold", **place)
        self.losses = figure.text(end, 0.938, "", fontsize=9, color="#555555", **place)

    def show(self, panels: dict[str, torch.Tensor], done: int) -> Figure | SubFigure:
        """Show a snapshot's heat maps (n_docs, memory_dim) and the losses of its `done` epochs."""
        for image, values in zip(self.images, panels.values(), strict=True):
            image.set_data(values.numpy())
        history = self.history[:done]
        for curve, name in zip(self.curves, ("negative_ce", "positive_ce"), strict=True):
            curve.set_data([e.epoch for e in history], [getattr(e, name) for e in history])
        self.cursor.set_xdata([done, done])
        self.epoch.set_text(f"epoch {done} of {self.epochs}")
        self.losses.set_text(
            f"own {history[-1].positive_ce:.2f}   another's {history[-1].negative_ce:.2f}"
            if history
            else "before training"
        )
        return self.figure

    def changing(self) -> list[Artist]:
        """The artists that `show` changes."""
        return [*self.images, *self.curves, self.cursor, self.epoch, self.losses]


def heat_map(
    axes: Axes, values: np.ndarray, limit: float, titles: Sequence[str], name: str
) -> AxesImage:
    """One selection as a heat map: documents down, entries across, white at zero."""
    image = axes.imshow(
        values, aspect="auto", interpolation="nearest", cmap=SIGNED,
        norm=TwoSlopeNorm(0, -limit, limit),
    )  # fmt: skip
    short = [textwrap.shorten(title, 34, placeholder=" …") for title in titles]
    axes.set_yticks(range(len(titles)), short, fontsize=7.5)
    axes.tick_params(length=0, axis="y", pad=11)
    axes.scatter(
        np.full(len(titles), -0.009), range(len(titles)), transform=axes.get_yaxis_transform(),
        c=[document_color(index) for index in range(len(titles))], marker="s", s=34, clip_on=False,
    )  # fmt: skip
    axes.set_title(name, fontsize=9)
    return image


def selection_figure(run: Run, index: int = -1) -> Figure:
    """One snapshot of a run, the last by default, on the scale of all its snapshots.

    Raises:
        DocmemError: if the run has no snapshots.
    """
    snapshots = run.load_snapshots()
    limits = color_limits(snapshots, list(range(len(snapshots.epochs))))
    picture = SelectionPicture(run, limits)
    picture.show(panels_at(snapshots, index), snapshots.epochs[index])
    return picture.figure.figure


class Film:
    """A figure drawn again and again, of which only some artists change.

    Args:
        figure: drawn once, all but `changing`.
        changing: drawn for every frame.
    """

    def __init__(self, figure: Figure, changing: Sequence[Artist]) -> None:
        self.canvas, self.changing = FigureCanvasAgg(figure), changing
        for artist in changing:
            artist.set_animated(True)  # left out of draw()
        self.canvas.draw()
        self.still = self.canvas.copy_from_bbox(figure.bbox)

    def frame(self) -> np.ndarray:
        """The figure as it is now, (height, width, 3) bytes."""
        self.canvas.restore_region(self.still)
        for artist in self.changing:
            artist.draw(self.canvas.get_renderer())
        return np.asarray(self.canvas.buffer_rgba())[..., :3].copy()


def memory_selection_gif(run: Run, path: Path, *, frames: int = 50) -> Path:
    """Draw a run's snapshots into an animated GIF, 1060 × 700 pixels, and return its path.

    Args:
        run: a run with snapshots.
        path: the file to write.
        frames: how many snapshots to show, at most.

    Raises:
        DocmemError: if the run has no snapshots, or the file cannot be written.
    """
    snapshots = run.load_snapshots()
    indices = spaced_snapshots(snapshots.epochs, frames)
    picture = SelectionPicture(run, color_limits(snapshots, indices))
    film = Film(picture.figure.figure, picture.changing())
    pictures = []
    for index in tqdm(indices, desc=path.name, unit="frame"):
        picture.show(panels_at(snapshots, index), snapshots.epochs[index])
        pictures.append(film.frame())
    write_gif(path, pictures)
    return path


def write_gif(path: Path, pictures: list[np.ndarray]) -> None:
    """Write frames (height, width, 3) as a looping GIF in docmem's palette, the last held."""
    palette = Image.new("P", (1, 1))
    palette.putpalette(frame_palette().tobytes())
    shared = [
        Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE)
        for picture in pictures
    ]
    # With optimize, and an index of the palette to spare, Pillow stores only what changes.
    durations = [FRAME_MILLISECONDS] * (len(shared) - 1) + [HOLD_MILLISECONDS]
    with replacing(path) as temporary:
        shared[0].save(
            temporary, format="GIF", save_all=True, append_images=shared[1:], duration=durations,
            loop=0, optimize=True, disposal=1,
        )  # fmt: skip
