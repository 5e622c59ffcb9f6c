import itertools
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from docmem.lm.loading import LanguageModel
from docmem.plots.animation import (
    HOLD_MILLISECONDS,
    SelectionPicture,
    color_limits,
    memory_selection_gif,
    panels_at,
    selection_figure,
    spaced_snapshots,
    write_gif,
)
from docmem.training.run import Run


@pytest.mark.parametrize(("count", "frames"), [(151, 50), (51, 50), (50, 50), (1000, 50), (7, 3)])
def test_frames_are_early_first_ever_wider_apart_and_never_twice(count: int, frames: int) -> None:
    chosen = spaced_snapshots(list(range(count)), frames)
    steps = [later - earlier for earlier, later in itertools.pairwise(chosen)]
    assert len(chosen) == min(count, frames)
    assert (chosen[0], chosen[-1]) == (0, count - 1)
    assert min(steps) >= 1
    if count > 3 * frames:
        assert sum(steps[: len(steps) // 2]) < sum(steps[len(steps) // 2 :]) / 2


def test_fewer_snapshots_than_frames_are_all_shown() -> None:
    assert spaced_snapshots([0, 10, 20], 50) == [0, 1, 2]


def test_the_product_panel_is_the_product_of_the_others(
    trained: tuple[LanguageModel, Run],
) -> None:
    token, document, product = panels_at(trained[1].load_snapshots(), -1).values()
    np.testing.assert_array_equal(product.numpy(), (token * document).numpy())


def test_one_scale_covers_all_frames(trained: tuple[LanguageModel, Run]) -> None:
    snapshots = trained[1].load_snapshots()
    indices = list(range(len(snapshots.epochs)))
    limits = color_limits(snapshots, indices)
    for name, limit in limits.items():
        values = np.stack([np.abs(panels_at(snapshots, i)[name].numpy()) for i in indices])
        assert (values <= limit).mean() == pytest.approx(0.995, abs=0.01)


def test_a_gif_plays_every_frame_and_holds_the_last(
    trained: tuple[LanguageModel, Run], tmp_path: Path
) -> None:
    run = trained[1]
    path = memory_selection_gif(run, tmp_path / "selection.gif", frames=3)
    with Image.open(path) as opened:
        assert opened.n_frames == 3
        assert opened.size == (1060, 700)
        assert opened.info["loop"] == 0
        opened.seek(2)
        assert opened.info["duration"] == HOLD_MILLISECONDS
    assert list(tmp_path.iterdir()) == [path]


def test_colours_of_the_palette_survive_the_gif(tmp_path: Path) -> None:
    red = np.full((10, 10, 3), (103, 0, 31), dtype=np.uint8)  # the darkest of the signed map
    white = np.full((10, 10, 3), 255, dtype=np.uint8)
    write_gif(tmp_path / "x.gif", [red, white])
    with Image.open(tmp_path / "x.gif") as opened:
        np.testing.assert_array_equal(np.asarray(opened.convert("RGB")), red)
        opened.seek(1)
        np.testing.assert_array_equal(np.asarray(opened.convert("RGB")), white)


def test_a_snapshot_is_drawn_unchanged_and_white_at_zero(
    trained: tuple[LanguageModel, Run],
) -> None:
    run = trained[1]
    images = [axes.images[0] for axes in selection_figure(run, 1).axes if axes.images]
    drawn = panels_at(run.load_snapshots(), 1).values()
    for image, values in zip(images, drawn, strict=True):
        np.testing.assert_array_equal(image.get_array(), values.numpy())
        assert image.norm(0.0) == 0.5
        assert image.norm.vmin == -image.norm.vmax


def test_a_frame_shows_the_losses_only_up_to_its_epoch(trained: tuple[LanguageModel, Run]) -> None:
    run, limits = trained[1], dict.fromkeys(("token", "document", "product"), 1.0)
    picture = SelectionPicture(run, limits)
    picture.show(panels_at(run.load_snapshots(), 1), 20)
    negative, positive = picture.curves
    assert list(positive.get_ydata()) == [e.positive_ce for e in run.load_history()[:20]]
    assert list(negative.get_ydata()) == [e.negative_ce for e in run.load_history()[:20]]
    assert list(picture.cursor.get_xdata()) == [20, 20]
    assert picture.epoch.get_text() == "epoch 20 of 60"


def test_a_frame_of_the_animation_is_the_figure_of_its_snapshot(
    trained: tuple[LanguageModel, Run], tmp_path: Path
) -> None:
    run = trained[1]
    path = memory_selection_gif(run, tmp_path / "selection.gif")
    index = len(run.load_snapshots().epochs) - 1
    canvas = FigureCanvasAgg(selection_figure(run, index))
    canvas.draw()
    whole = np.asarray(canvas.buffer_rgba())[..., :3].astype(int)
    frame = iio.imread(path, index=index).astype(int)
    # Spines and ticks lie a pixel differently; colours are rounded to the palette.
    assert (np.abs(whole - frame).max(-1) > 24).mean() < 0.01
