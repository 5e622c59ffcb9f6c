import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from docmem import explore
from docmem.errors import DocmemError
from docmem.lm.loading import LanguageModel
from docmem.plots.animation import Film, SelectionPicture, color_limits, panels_at
from docmem.training.run import Run


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as opened:
        return np.asarray(opened.convert("RGB"))


def test_frame_equals_the_animation(trained: tuple[LanguageModel, Run]) -> None:
    run = trained[1]
    scrubber = explore.scrubber(run)
    assert scrubber.epochs == run.load_snapshots().epochs == [0, 20, 40, 60]
    limits = color_limits(run.load_snapshots(), [0, 1, 2, 3])
    picture = SelectionPicture(run, limits)
    picture.figure.figure.set_dpi(explore._scrubber.DPI)
    film = Film(picture.figure.figure, picture.changing())
    for index in (2, 0):
        picture.show(panels_at(run.load_snapshots(), index), run.load_snapshots().epochs[index])
        np.testing.assert_array_equal(pixels(scrubber.frame(20 * index)), film.frame())


def test_epoch_shows_its_last_snapshot(trained: tuple[LanguageModel, Run]) -> None:
    scrubber = explore.scrubber(trained[1])
    scrubber.show(39)
    assert scrubber.epoch == 20
    assert scrubber.image.value == scrubber.frame(20) == scrubber.frame(39)
    assert scrubber.frame(20) != scrubber.frame(40)


def test_frame_is_drawn_once(
    trained: tuple[LanguageModel, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    scrubber = explore.scrubber(trained[1])
    first = scrubber.frame(40)
    monkeypatch.setattr(scrubber._film, "frame", None)
    assert scrubber.frame(40) is first


def test_slider_and_buttons_step_through_the_snapshots(trained: tuple[LanguageModel, Run]) -> None:
    scrubber = explore.scrubber(trained[1])
    assert (scrubber.epoch, scrubber.slider.value) == (60, 3)
    scrubber.slider.value = 1
    assert (scrubber.epoch, scrubber.image.value) == (20, scrubber.frame(20))
    assert scrubber.reading.value == "epoch 20 of 60"
    scrubber.back.click()
    assert (scrubber.epoch, scrubber.slider.value) == (0, 0)
    scrubber.back.click()
    assert scrubber.epoch == 0
    assert "before training" in scrubber.alt
    scrubber.forward.click()
    assert scrubber.epoch == 20
    assert "epoch 20" in scrubber.alt


def test_two_runs_share_one_clock(trained: tuple[LanguageModel, Run], whole: Run) -> None:
    scrubber = explore.scrubber({"long": trained[1], "short": whole})
    assert scrubber.epochs == [0, 3, 6, 7, 20, 40, 60]
    long, short = scrubber._pictures
    for epoch, of_long, of_short in ((0, 0, 0), (6, 0, 6), (20, 20, 7)):
        scrubber.show(epoch)
        assert long.cursor.get_xdata()[0] == of_long
        assert short.cursor.get_xdata()[0] == of_short
        index = whole.load_snapshots().epochs.index(of_short)
        for image, values in zip(
            short.images, panels_at(whole.load_snapshots(), index).values(), strict=True
        ):
            np.testing.assert_array_equal(image.get_array(), values.numpy())


def test_plain_picture_shows_the_current_epoch(trained: tuple[LanguageModel, Run]) -> None:
    run = trained[1]
    scrubber = explore.scrubber(run)
    scrubber.show(20)
    drawn = [axes.images[0].get_array() for axes in scrubber.figure().axes if axes.images]
    for image, values in zip(drawn, panels_at(run.load_snapshots(), 1).values(), strict=True):
        np.testing.assert_array_equal(image, values.numpy())


def test_scrubber_rejects_no_runs_no_snapshots_and_other_documents(
    trained: tuple[LanguageModel, Run], go: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DocmemError, match="at least one run"):
        explore.scrubber({})
    run = go()
    for path in (run.path / "snapshots").iterdir():
        path.unlink()
    with pytest.raises(DocmemError, match="has no snapshots yet"):
        explore.scrubber(run)
    run.description["documents"].reverse()
    with pytest.raises(DocmemError, match="hold different documents"):
        explore.scrubber({"a": trained[1], "b": run})
