import _thread
import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import pytest
from toys import DOCUMENTS, assert_same

from docmem import explore
from docmem.errors import DocmemError
from docmem.explore import TrainingExplorer, _training
from docmem.lm.loading import LanguageModel
from docmem.training.config import TrainConfig
from docmem.training.history import Epoch
from docmem.training.run import Run


def begin(config: TrainConfig, lm: LanguageModel) -> TrainingExplorer:
    return explore.training(config, lm=lm, documents=DOCUMENTS)


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> Callable[..., threading.Event]:
    """Hold a training after one epoch, `then` call something, until the event returned is set."""

    def hold(epoch: int, then: Callable[[], object] = bool) -> threading.Event:
        go, on_epoch = threading.Event(), TrainingExplorer.on_epoch

        def held(self: TrainingExplorer, done: Epoch) -> bool:
            if done.epoch == epoch:
                then()
                assert go.wait(30)
            return on_epoch(self, done)

        monkeypatch.setattr(TrainingExplorer, "on_epoch", held)
        return go

    return hold


def test_explorer_trains_as_train_does(config: TrainConfig, lm: LanguageModel, whole: Run) -> None:
    explorer = begin(config, lm)
    run = explorer.wait()
    assert_same(run, whole)
    assert explorer.history == run.load_history()
    assert "Finished: 7 of 7 epochs" in explorer.status.value
    assert explorer.button.disabled


def test_stopped_training_resumes_to_the_same_run(
    config: TrainConfig, lm: LanguageModel, whole: Run, slowly: Any
) -> None:
    go = slowly(2)
    explorer = begin(config, lm)
    explorer.button.click()
    go.set()
    run = explorer.wait()
    assert not run.finished
    assert 1 <= len(run.load_history()) <= 2
    assert "and saved; train it again to go on" in explorer.status.value
    again = begin(config, lm)
    assert_same(again.wait(), whole)
    assert [epoch.epoch for epoch in again.history] == [1, 2, 3, 4, 5, 6, 7]


def test_interrupt_while_waiting_stops_cleanly(
    config: TrainConfig, lm: LanguageModel, whole: Run, slowly: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = slowly(3)
    explorer = begin(config, lm)
    join, calls = TrainingExplorer._join, []

    def interrupted(self: TrainingExplorer) -> None:
        calls.append(self)
        if len(calls) == 1:
            raise KeyboardInterrupt
        go.set()
        join(self)

    monkeypatch.setattr(TrainingExplorer, "_join", interrupted)
    run = explorer.wait()
    assert not run.finished
    assert len(run.load_history()) <= 3
    monkeypatch.setattr(TrainingExplorer, "_join", join)
    assert_same(begin(config, lm).wait(), whole)


def test_seconds_left_are_estimated_from_the_last_epochs(
    config: TrainConfig, lm: LanguageModel, slowly: Any
) -> None:
    go = slowly(1)
    explorer = begin(config, lm)
    assert explorer.seconds_left is None
    explorer.history = [Epoch(n, 1.0, 1.0, 0.0, 99.0) for n in (1, 2)]
    explorer.history += [Epoch(n, 1.0, 1.0, 0.0, 3.0) for n in range(10)]
    explorer.config = TrainConfig(num_epochs=16)
    assert explorer.seconds_left == 12
    go.set()
    explorer.close()


def test_curve_shows_the_losses_so_far(config: TrainConfig, lm: LanguageModel) -> None:
    explorer = begin(config, lm)
    run = explorer.wait()
    axes = explorer.figure().axes[0]
    _, negative, positive = axes.lines
    assert list(positive.get_ydata()) == [epoch.positive_ce for epoch in run.load_history()]
    assert list(negative.get_ydata()) == [epoch.negative_ce for epoch in run.load_history()]
    assert axes.get_xlim() == (0, 7)
    assert axes.get_ylim()[1] > max(epoch.negative_ce for epoch in run.load_history())
    assert f"{run.load_history()[-1].positive_ce:.2f} nats" in explorer.alt


def test_a_single_epoch_is_a_point(config: TrainConfig, lm: LanguageModel) -> None:
    explorer = begin(dataclasses.replace(config, num_epochs=1), lm)
    explorer.wait()
    assert [curve.get_marker() for curve in explorer.figure().axes[0].lines[1:]] == ["o", "o"]


def test_finished_run_is_shown_at_once(whole: Run, lm: LanguageModel) -> None:
    config = dataclasses.replace(whole.config, save_dir=whole.path)
    explorer = begin(config, lm)
    assert explorer.wait().finished
    assert explorer.history == whole.load_history()


def test_error_is_shown_in_the_widget_and_raised_by_wait(
    config: TrainConfig, lm: LanguageModel
) -> None:
    explorer = explore.training(config, lm=lm, documents=DOCUMENTS[:1])
    with pytest.raises(DocmemError, match="needs a second document"):
        explorer.wait()
    assert "needs a second document" in explorer.status.value
    assert not explorer.training


def test_close_ends_the_training_first(config: TrainConfig, lm: LanguageModel, slowly: Any) -> None:
    go = slowly(2)
    explorer = begin(config, lm)
    threading.Timer(0.2, go.set).start()
    explorer.close()
    assert not explorer.training
    assert explorer.widget.comm is None
    assert config.save_dir
    assert len(Run.open(config.save_dir).load_history()) <= 2


def test_wait_displays_the_explorer_and_renews_its_picture(
    config: TrainConfig, lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[dict[str, Any]] = []

    class Handle:
        def update(self, bundle: dict[str, Any], raw: bool) -> None:
            shown.append(bundle)

    def display(bundle: dict[str, Any], raw: bool, display_id: bool) -> Handle:
        shown.append(bundle)
        return Handle()

    monkeypatch.setattr("docmem.explore._explorer.display", display)
    monkeypatch.setattr(_training, "get_ipython", object)
    explorer = begin(config, lm)
    explorer.wait()
    first, last = shown
    assert last["text/plain"] == explorer.alt
    assert "after 7 of 7 epochs" in last["text/plain"]
    assert last["text/html"] != first["text/html"]


def test_a_training_is_under_way_until_its_thread_has_ended_it(
    config: TrainConfig, lm: LanguageModel, slowly: Any
) -> None:
    """Python 3.11 and 3.12 take a thread for ended whose `join` an interrupt has ended."""
    go = slowly(2, threading.Timer(0.4, _thread.interrupt_main).start)
    explorer = begin(config, lm)
    threading.Thread(target=lambda: explorer._stopping.wait() and go.set()).start()
    run = explorer.wait()
    assert not explorer.training
    assert len(run.load_history()) == 2
    assert explorer.run is run
