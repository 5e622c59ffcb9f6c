"""The memory-selection GIFs: a run's snapshots, drawn alike and played through.

Frames are spaced so that the early, fast changes are seen, and share one colour scale, so that
they can be compared. The last frame is held.
"""

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from tqdm.auto import tqdm

from docmem import plots
from docmem.files import replacing
from docmem.runs import Run, Snapshots

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


def selection_figure(
    run: Run,
    index: int = -1,
    *,
    snapshots: Snapshots | None = None,
    limits: dict[str, float] | None = None,
) -> Figure:
    """One snapshot of a run: token selection, document selection, their product, losses so far.

    Args:
        run: a run with snapshots.
        index: which snapshot; the last by default.
        snapshots: the run's, where they are already read.
        limits: the values drawn darkest, a heat map; None: fitted to all snapshots.

    Raises:
        DocmemError: if the run has no snapshots.
    """
    snapshots = snapshots or run.snapshots
    history, config = run.history, run.config
    everything = list(range(len(snapshots.epochs)))
    highest = max([config.target_negative_ce, *(max(e.positive_ce, e.negative_ce) for e in history)])
    return plots.selection_frame(
        Figure(figsize=(12.0, 8.4), dpi=100),
        panels_at(snapshots, index),
        limits or color_limits(snapshots, everything),
        run.titles,
        history[: snapshots.epochs[index]],
        epochs=config.num_epochs,
        highest=highest,
        tau=config.target_negative_ce,
        headline_text=f"{config.key_activation} memory: the entries that hold each document",
    )


def memory_selection_gif(run: Run, path: Path, *, frames: int = 50) -> Path:
    """Draw a run's snapshots into an animated GIF, 1200 × 840 pixels, and return its path.

    Args:
        run: a run with snapshots.
        path: the file to write.
        frames: how many snapshots to show, at most.

    Raises:
        DocmemError: if the run has no snapshots, or the file cannot be written.
    """
    snapshots = run.snapshots
    indices = spaced_snapshots(snapshots.epochs, frames)
    limits = color_limits(snapshots, indices)
    pictures = [
        plots.pixels(selection_figure(run, index, snapshots=snapshots, limits=limits))
        for index in tqdm(indices, desc=path.name, unit="frame")
    ]
    write_gif(path, pictures)
    return path


def write_gif(path: Path, pictures: list[np.ndarray]) -> None:
    """Write frames (height, width, 3) as a looping GIF in docmem's palette, the last held."""
    palette = Image.new("P", (1, 1))
    palette.putpalette(plots.frame_palette().tobytes())
    shared = [
        Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE)
        for picture in pictures
    ]
    durations = [FRAME_MILLISECONDS] * (len(shared) - 1) + [HOLD_MILLISECONDS]
    with replacing(path) as temporary:
        shared[0].save(
            temporary, format="GIF", save_all=True, append_images=shared[1:], duration=durations,
            loop=0, optimize=False, disposal=1,
        )  # fmt: skip
