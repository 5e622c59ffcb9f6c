import importlib.util
import itertools
from pathlib import Path

import imageio.v3 as iio
import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from docmem.errors import DocmemError
from docmem.lm.loading import LanguageModel
from docmem.plots.animation import (
    FRAME_MILLISECONDS,
    HOLD_MILLISECONDS,
    SelectionPicture,
    color_limits,
    heat_map,
    memory_selection_gif,
    panels_at,
    selection_figure,
    spaced_snapshots,
    write_film,
    write_gif,
)
from docmem.plots.style import STYLE, frame_palette
from docmem.plots.writing import drawable
from docmem.training.run import Run


@pytest.mark.parametrize(("count", "frames"), [(151, 50), (51, 50), (50, 50), (1000, 50), (7, 3)])
def test_spaced_snapshots_grow_apart_and_never_repeat(count: int, frames: int) -> None:
    chosen = spaced_snapshots(count, frames)
    steps = [later - earlier for earlier, later in itertools.pairwise(chosen)]
    assert len(chosen) == min(count, frames)
    assert (chosen[0], chosen[-1]) == (0, count - 1)
    assert min(steps) >= 1
    if count > 3 * frames:
        assert sum(steps[: len(steps) // 2]) < sum(steps[len(steps) // 2 :]) / 2


def test_a_single_frame_is_the_last_snapshot() -> None:
    assert spaced_snapshots(10, 1) == [9]


def test_spaced_snapshots_keeps_all_if_fewer_than_frames() -> None:
    assert spaced_snapshots(3, 50) == [0, 1, 2]


def test_third_panel_is_the_product_of_the_others(trained: tuple[LanguageModel, Run]) -> None:
    token, document, product = panels_at(trained[1].load_snapshots(), -1).values()
    np.testing.assert_array_equal(product.numpy(), (token * document).numpy())


def test_color_limits_cover_all_frames(trained: tuple[LanguageModel, Run]) -> None:
    snapshots = trained[1].load_snapshots()
    indices = list(range(len(snapshots.epochs)))
    limits = color_limits(snapshots, indices)
    for name, limit in limits.items():
        values = np.stack([np.abs(panels_at(snapshots, i)[name].numpy()) for i in indices])
        assert (values <= limit).mean() == pytest.approx(0.995, abs=0.01)


def test_gif_plays_every_frame_and_holds_the_last(
    trained: tuple[LanguageModel, Run], tmp_path: Path
) -> None:
    run = trained[1]
    path = memory_selection_gif(run, tmp_path / "selection.gif", frames=3)
    with Image.open(path) as opened:
        assert opened.n_frames == 3
        assert opened.size == (1080, 700)
        assert opened.info["loop"] == 0
        opened.seek(2)
        assert opened.info["duration"] == HOLD_MILLISECONDS
    films = [path.with_suffix(".mp4")] if importlib.util.find_spec("imageio_ffmpeg") else []
    assert sorted(tmp_path.iterdir()) == [path, *films]


# imageio leaves the closing of ffmpeg's pipes to Python when it reads a film.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_film_lasts_as_long_as_the_gif_and_plays_on_slides(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    shades = (40, 120, 200, 240)
    pictures = [np.full((101, 163, 3), shade, dtype=np.uint8) for shade in shades]
    write_gif(tmp_path / "x.gif", pictures)
    write_film(tmp_path / "x.mp4", pictures)
    lasts = sum(iio.immeta(tmp_path / "x.gif", index=i)["duration"] for i in range(len(shades)))
    film = iio.immeta(tmp_path / "x.mp4", plugin="FFMPEG")
    assert film["duration"] == pytest.approx(lasts / 1000, abs=0.05)
    assert (film["codec"], film["size"]) == ("h264", (162, 100))
    assert film["pix_fmt"].startswith("yuv420p")
    frames = iio.imread(tmp_path / "x.mp4", plugin="FFMPEG")
    held = HOLD_MILLISECONDS // FRAME_MILLISECONDS
    expected = [*shades, *[shades[-1]] * (held - 1)]
    np.testing.assert_allclose(frames.mean((1, 2, 3)), expected, atol=3)


def test_film_is_absent_without_imageio_ffmpeg(
    trained: tuple[LanguageModel, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "selection.mp4").write_bytes(b"of an earlier run")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    path = memory_selection_gif(trained[1], tmp_path / "selection.gif", frames=2)
    assert list(tmp_path.iterdir()) == [path]


def test_film_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: object, **__: object) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(iio, "imwrite", full)
    with pytest.raises(DocmemError, match="disk full"):
        write_film(tmp_path / "x.mp4", [np.zeros((4, 4, 3), dtype=np.uint8)])
    assert not list(tmp_path.iterdir())


def test_gif_stores_only_what_changes(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 41, (200, 200))
    still = frame_palette()[noise]
    moved = still.copy()
    moved[:10, :10] = 255
    write_gif(tmp_path / "one.gif", [still])
    write_gif(tmp_path / "ten.gif", [still, moved] * 5)
    sizes = [(tmp_path / name).stat().st_size for name in ("one.gif", "ten.gif")]
    assert sizes[1] < 1.2 * sizes[0]


def test_heat_map_of_sixty_documents_names_every_fifth() -> None:
    axes = Figure(figsize=(8, 2)).subplots()
    titles = {10 * n: f"$x_{{{n}}}$ title" for n in range(60)}
    heat_map(axes, np.zeros((60, 8)), 1.0, titles, "name")
    labels = [label.get_text() for label in axes.get_yticklabels()]
    expected = [f"{index + 1}  {drawable(titles[index])}" for index in list(titles)[::5]]
    assert [label.strip("\u200e") for label in labels] == expected
    assert axes.images[0].get_extent() == [-0.5, 7.5, 59.5, -0.5]  # entries count from 0
    assert len(axes.collections[0].get_offsets()) == 60


def test_gif_keeps_colours_of_the_palette(tmp_path: Path) -> None:
    red = np.full((10, 10, 3), (103, 0, 31), dtype=np.uint8)  # the darkest of the signed map
    white = np.full((10, 10, 3), 255, dtype=np.uint8)
    write_gif(tmp_path / "x.gif", [red, white])
    with Image.open(tmp_path / "x.gif") as opened:
        np.testing.assert_array_equal(np.asarray(opened.convert("RGB")), red)
        opened.seek(1)
        np.testing.assert_array_equal(np.asarray(opened.convert("RGB")), white)


def test_selection_figure_draws_the_snapshot_and_white_at_zero(
    trained: tuple[LanguageModel, Run],
) -> None:
    run = trained[1]
    images = [axes.images[0] for axes in selection_figure(run, 1).axes if axes.images]
    drawn = panels_at(run.load_snapshots(), 1).values()
    for image, values in zip(images, drawn, strict=True):
        np.testing.assert_array_equal(image.get_array(), values.numpy())
        assert image.norm(0.0) == 0.5
        assert image.norm.vmin == -image.norm.vmax


def test_frame_shows_losses_up_to_its_epoch(trained: tuple[LanguageModel, Run]) -> None:
    run, limits = trained[1], dict.fromkeys(("token", "document", "product"), 1.0)
    picture = SelectionPicture(run, limits)
    picture.show(panels_at(run.load_snapshots(), 1), 20)
    negative, positive = picture.curves
    assert list(positive.get_ydata()) == [e.positive_ce for e in run.load_history()[:20]]
    assert list(negative.get_ydata()) == [e.negative_ce for e in run.load_history()[:20]]
    assert list(picture.cursor.get_xdata()) == [20, 20]
    assert picture.epoch.get_text() == "epoch 20 of 60"
    picture.show(panels_at(run.load_snapshots(), 1), 20.5)  # the next mean is not known yet
    assert [positive.get_xdata()[-1], *picture.cursor.get_xdata()] == [20, 20.5, 20.5]
    last = run.load_history()[19]
    assert picture.losses.get_text().startswith(f"epoch 20: own {last.positive_ce:.2f} ")
    picture.show(panels_at(run.load_snapshots(), 0), 1)
    assert positive.get_marker() == "o"  # a line of one point would not be seen
    picture.show(panels_at(run.load_snapshots(), 0), 0.5)
    assert len(positive.get_xdata()) == 0


def test_gif_frame_equals_the_figure_of_its_snapshot(
    trained: tuple[LanguageModel, Run], tmp_path: Path
) -> None:
    run = trained[1]
    path = memory_selection_gif(run, tmp_path / "selection.gif")
    index = len(run.load_snapshots().epochs) - 1
    canvas = FigureCanvasAgg(selection_figure(run, index))
    with mpl.rc_context(STYLE):
        canvas.draw()
    whole = np.asarray(canvas.buffer_rgba())[..., :3].astype(int)
    frame = iio.imread(path, index=index).astype(int)
    # Spines and ticks lie a pixel differently; colours are rounded to the palette.
    assert (np.abs(whole - frame).max(-1) > 24).mean() < 0.01
