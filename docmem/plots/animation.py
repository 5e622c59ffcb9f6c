"""The memory-selection animations: one frame per snapshot of a run, as a GIF and as a film.

Early snapshots are shown densely, since they differ most. All frames share one colour scale and
one palette, so that they can be compared. The last frame is held. The film, an .mp4 for slides,
is written beside the GIF where imageio-ffmpeg is installed (`pip install docmem[films]`).
"""

import importlib.util
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import imageio.v3 as iio
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
from docmem.errors import Count, DocmemError, OutFile, checked
from docmem.evaluation.recall import sampled
from docmem.plots import style
from docmem.plots.writing import LETTER, drawable, shortened
from docmem.training.run import Run
from docmem.training.selection import Selection, Snapshots

# Inches left of the heat maps with titles and without, and right of them, for the scale: a GIF has
# 768 pixels for the entries between, six for each of 128.
LEFT, NARROW_LEFT, RIGHT = 2.373, 0.42, 0.578
FRAME_MILLISECONDS = 150
HOLD_MILLISECONDS = 3000
"""How long the last frame is shown: a whole number of frames, so that films last as long."""
ROWS = 60
"""Documents in a heat map, at most: rows that can still be told apart."""
LABELS = 14
"""Titles that fit beside a heat map; of more documents, every so many is named."""


def spaced_snapshots(count: int, frames: int) -> list[int]:
    """Indices of at most `frames` of `count` snapshots: first and last, and growing steps between.

    One frame is the last. A step is 1 and a share of the snapshots to spare, which grows as the
    cube of the frame.
    """
    frames = min(frames, count)
    spare = (count - frames) * np.linspace(1, 0, frames) ** 3
    return [frame + round(more) for frame, more in enumerate(spare[::-1])]


def panels_at(snapshots: Snapshots, index: int) -> dict[str, torch.Tensor]:
    """The three heat maps of one snapshot, by their names: of all documents, or `ROWS` of them."""
    rows = sampled(snapshots.token.shape[1], ROWS)
    selection = Selection(*(keys[rows] for keys in snapshots.at(index)))
    return {
        "Token selection: mean over the document's own text": selection.token,
        "Document selection: of the document's DocRep": selection.document,
        "Document selection × token selection": selection.product,
    }


def color_limits(snapshots: Snapshots, indices: list[int]) -> dict[str, float]:
    """For each heat map, the 99.5th percentile of its absolute values over all frames."""
    frames = [panels_at(snapshots, index) for index in indices]
    return {
        name: float(np.percentile([frame[name].abs().numpy() for frame in frames], 99.5))
        for name in frames[0]
    }


class SelectionPicture:
    """Three heat maps and the losses so far, drawn once and then updated for each snapshot.

    Args:
        run: whose snapshots will be shown; its length and losses set the axes.
        limits: for each heat map the value drawn darkest, the same for all snapshots.
        figure: where to draw: empty, 7 inches high; None: a Figure of its own.
        labelled: write the documents' titles, and which curve is which, left of the maps.
        name: what the memory is called; None: by its activation.
        top: of the losses' axis, at least, nats per token.
    """

    @style.styled
    def __init__(
        self,
        run: Run,
        limits: dict[str, float],
        figure: Figure | SubFigure | None = None,
        labelled: bool = True,
        name: str | None = None,
        top: float = 0,
    ) -> None:
        figure = figure or Figure(figsize=(10.8, 7.0), dpi=100)
        self.figure = figure
        self.history = run.load_history()
        self.negative = style.NEGATIVE_LABELS[run.config.negative_key_type]
        self.epochs = run.config.num_epochs
        tau = run.config.target_negative_ce
        width = figure.bbox.width / figure.figure.dpi  # inches, as all that stands beside the maps
        left, right = (LEFT if labelled else NARROW_LEFT) / width, 1 - RIGHT / width
        grid = figure.add_gridspec(
            4, 2, height_ratios=(1, 1, 1, 0.62), width_ratios=(1, 0.012), hspace=0.34,
            wspace=0.02, left=left, right=right, top=0.89, bottom=0.085,
        )  # fmt: skip
        titles = {index: run.titles[index] for index in sampled(len(run.titles), ROWS).tolist()}
        blank = np.zeros((len(titles), run.config.hook_memory_dim))
        self.images = []
        for row, (panel, limit) in enumerate(limits.items()):
            axes, lowest = figure.add_subplot(grid[row, 0]), row == len(limits) - 1
            self.images.append(heat_map(axes, blank, limit, titles, panel))
            if not labelled:
                axes.set_yticklabels([])
            axes.set_xlabel("memory entry" if lowest else "", labelpad=1)
            axes.tick_params(axis="x", labelbottom=lowest, labelsize=8)
            axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
            scale = figure.add_subplot(grid[row, 1])
            bar = figure.colorbar(self.images[-1], cax=scale, extend="both")
            bar.outline.set_visible(False)
            bar.locator = MaxNLocator(5, symmetric=True)
            scale.tick_params(labelsize=7.5, length=2)
        curve = figure.add_subplot(grid[3, 0])
        highest = max(top, style.highest_loss(self.history, tau))
        curve.set(xlim=(0, self.epochs), ylim=(0, 1.08 * highest))
        curve.set_ylabel("nats per token" if labelled else "", fontsize=8)
        curve.set_xlabel("epoch", labelpad=1)
        curve.tick_params(labelsize=8)
        self.curves = style.draw_history(curve, [], tau, run.config.negative_key_type)
        self.cursor = curve.axvline(0, color=style.INK, lw=1)
        whole = figure is figure.figure
        # Of several side by side the name ends before the epoch, letters being 0.12 inches wide.
        letters = 24 if whole else max(6, int((width - 3) / 0.12) - 7)
        headline, says = f"{drawable(name or run.config.key_activation, letters)} memory", []
        if whole:
            headline += ": selection of each entry by each document"
            lm = Path(run.description["lm"]["name"]).name
            says.append(f"LM {drawable(lm, 40)}, seed {run.config.seed}")
        every = style.stride(len(titles), LABELS)
        if labelled and every > 1:
            says.append(f"{len(titles)} of {len(run.titles)} documents, one in {every} is named")
        start = 0.127 / width if labelled else left
        figure.text(start, 0.965, headline, fontsize=13, fontweight="bold", va="center")
        figure.text(start, 0.938, "; ".join(says), fontsize=9, color=style.GREY, va="center")
        words = {
            "cross entropy": style.INK,
            "own DocRep": style.OWN,
            self.negative: style.NEGATIVE,
            f"target τ = {tau:g}": style.GREY,
        }
        for line, (text, color) in enumerate(words.items() if labelled else ()):
            y = 0.185 - 0.03 * line
            figure.text(start, y, text, fontsize=8.5, color=color, weight="bold", va="center")
        end = 1 - 0.742 / width
        place: dict[str, Any] = {"ha": "right", "va": "center"}
        self.epoch = figure.text(end, 0.972, "", fontsize=12, fontweight="bold", **place)
        self.losses = figure.text(end, 0.943, "", fontsize=9, color=style.GREY, **place)

    def show(self, panels: dict[str, torch.Tensor], done: float) -> Figure | SubFigure:
        """Show a snapshot's heat maps (n_docs, memory_dim) and the losses of the epochs done."""
        for image, values in zip(self.images, panels.values(), strict=True):
            image.set_data(values.numpy())
        history = self.history[: int(done)]
        style.renew_history(self.curves, history)
        self.cursor.set_xdata([done, done])
        self.epoch.set_text(f"epoch {done:.4g} of {self.epochs}")
        self.losses.set_text(
            f"epoch {history[-1].epoch}: own {history[-1].positive_ce:.2f}   "
            f"{style.after_own(self.negative)} {history[-1].negative_ce:.2f}"
            if history
            else "in the first epoch"
            if done
            else "before training"
        )
        return self.figure

    def changing(self) -> list[Artist]:
        """The artists that `show` changes."""
        return [*self.images, *self.curves, self.cursor, self.epoch, self.losses]


def heat_map(
    axes: Axes, values: np.ndarray, limit: float, titles: Mapping[int, str], name: str
) -> AxesImage:
    """Draw one selection: documents down, entries across; white at zero.

    `titles` are those of the rows, by the documents' indices. Documents are numbered from 1, as in
    all figures; entries from 0, as where they are indexed.
    """
    n_docs, size = len(titles), min(7.5, 92 / min(len(titles), LABELS))
    named = range(0, n_docs, style.stride(n_docs, LABELS))
    room = (LEFT - 0.3) * 72 / size / LETTER - 4  # letters, besides the number
    shown = [
        f"\u200e{index + 1}  {title}"  # left to right, whatever the title
        for index, title in zip(titles, shortened(titles, room), strict=True)
    ]
    image = axes.imshow(
        values, aspect="auto", interpolation="nearest", cmap=style.SIGNED,
        norm=TwoSlopeNorm(0, -limit, limit),
    )  # fmt: skip
    axes.set_yticks(named, [shown[row] for row in named], fontsize=size)
    axes.tick_params(length=0, axis="y", pad=11)
    axes.scatter(
        np.full(n_docs, -0.009), range(n_docs), transform=axes.get_yaxis_transform(),
        c=[style.document_color(index) for index in titles], marker="s", clip_on=False,
        s=34 * min(1, LABELS / n_docs) ** 2, linewidths=0,
    )  # fmt: skip
    axes.set_title(name, fontsize=9)
    return image


@checked
def selection_figure(run: Run, index: int = -1) -> Figure:
    """One snapshot of a run, the last by default, on the colour scale of all its snapshots.

    Raises:
        DocmemError: if the run has no snapshots, or no such one.
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


@checked
@style.styled
def memory_selection_gif(run: Run, path: OutFile, *, frames: Count = 50) -> Path:
    """Draw a run's snapshots into an animated GIF, 1060 × 700 pixels, and return its path.

    The same frames become an .mp4 of the same name where imageio-ffmpeg is installed; where it is
    not, a film that an earlier run left there is deleted, since it shows other numbers.

    Args:
        run: a run with snapshots.
        path: the file to write.
        frames: how many snapshots to show, at most.

    Raises:
        DocmemError: if the run has no snapshots, or the file cannot be written or is no .gif.
    """
    path = Path(path)
    if path.suffix.lower() != ".gif":  # an .mp4 would be replaced by the film
        raise DocmemError(f"{path} does not end in .gif; give the GIF a name that does.")
    snapshots = run.load_snapshots()
    indices = spaced_snapshots(len(snapshots.epochs), frames)
    picture = SelectionPicture(run, color_limits(snapshots, indices))
    film = Film(picture.figure.figure, picture.changing())
    pictures: list[np.ndarray] = []

    def drawn() -> Iterator[np.ndarray]:
        for index in tqdm(indices, desc=path.name, unit="frame"):
            picture.show(panels_at(snapshots, index), snapshots.epochs[index])
            pictures.append(film.frame())
            yield pictures[-1]

    if importlib.util.find_spec("imageio_ffmpeg"):
        write_film(path.with_suffix(".mp4"), drawn())  # ffmpeg works while the next one is drawn
    else:
        path.with_suffix(".mp4").unlink(missing_ok=True)
        deque(drawn(), maxlen=0)
    write_gif(path, pictures)
    return path


def write_gif(path: Path, pictures: list[np.ndarray]) -> None:
    """Write frames (height, width, 3) as a looping GIF in docmem's palette, the last held."""
    colors = style.frame_palette()
    palette = Image.new("P", (1, 1))
    palette.putpalette(colors.tobytes())
    indices = [
        np.asarray(Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE))
        for picture in pictures
    ]
    durations = [FRAME_MILLISECONDS] * (len(pictures) - 1) + [HOLD_MILLISECONDS]
    with replacing(path) as temporary:
        # The index after the last colour is transparent: it stands where a frame changes nothing.
        iio.imwrite(
            temporary, indices, plugin="pillow", extension=".gif", save_all=True,
            palette=colors.tobytes() + bytes(3), transparency=len(colors), duration=durations,
            loop=0, optimize=True, disposal=1,
        )  # fmt: skip


def write_film(path: Path, pictures: Iterable[np.ndarray]) -> None:
    """Write frames (height, width, 3) as an H.264 film that slides play, as long as the GIF."""

    def held() -> Iterator[np.ndarray]:
        for picture in pictures:
            height, width = (side // 2 * 2 for side in picture.shape[:2])  # yuv420p: even sides
            yield (last := picture[:height, :width])
        yield from [last] * (HOLD_MILLISECONDS // FRAME_MILLISECONDS - 1)

    with replacing(path) as temporary:
        some: Any = held()  # is_batch: it takes them one by one
        iio.imwrite(
            temporary, some, is_batch=True, plugin="FFMPEG", extension=".mp4",
            fps=1000 / FRAME_MILLISECONDS, codec="libx264",
            pixelformat="yuv420p", quality=7, macro_block_size=2,
            output_params=["-preset", "veryfast", "-f", "mp4"],
        )  # fmt: skip
