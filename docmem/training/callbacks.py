"""Callbacks of a training: a function, or an object with one to three methods; two loggers.

    train(config, on_epoch=print)                    # called after each epoch
    train(config, on_epoch=logger("tensorboard"))    # curves in the run's folder

An object may have `on_start(run)` before the first epoch, `on_epoch(epoch)` after each, and
`on_end(run)` after the last, or after whatever ended the training. An `on_epoch` that returns
False stops it as Ctrl-C does.
"""

import importlib
import inspect
from collections.abc import Callable
from typing import Any, Literal, Protocol, runtime_checkable

from docmem.errors import ArgumentError, DocmemError, check_type
from docmem.training.description import to_dict
from docmem.training.history import Epoch
from docmem.training.run import Run

LoggerName = Literal["tensorboard", "trackio", "wandb"]
LOG = "tensorboard"
"""The folder of TensorBoard's curves in a run's."""
LOSSES = ("positive_ce", "negative_ce", "guidance")


@runtime_checkable
class Callback(Protocol):
    """What may watch a training, besides a function."""

    def on_epoch(self, epoch: Epoch) -> bool | None:
        """Called after each epoch; False stops the training."""


@runtime_checkable
class StartCallback(Protocol):
    """What hears of the start, and perhaps of more."""

    def on_start(self, run: Run) -> None:
        """Called before the first epoch."""


@runtime_checkable
class EndCallback(Protocol):
    """What hears of the end, and perhaps of more."""

    def on_end(self, run: Run) -> None:
        """Called after whatever ended the training, an error of `on_start` too."""


OnEpoch = Callable[[Epoch], bool | None] | Callback | StartCallback | EndCallback
MOMENTS = ("on_start", "on_epoch", "on_end")


def check_watcher(watcher: OnEpoch | None) -> None:
    """Raise unless all that `watcher` has for a moment can be called with one argument."""
    if isinstance(watcher, type) and any(hasattr(watcher, moment) for moment in MOMENTS):
        name = watcher.__name__
        raise ArgumentError(f"on_epoch is the class {name}; give an object of it, as {name}().")
    for moment in MOMENTS:
        method = _method(watcher, moment)
        if inspect.iscoroutinefunction(method):
            raise ArgumentError(
                f"{moment} of what watches the training is `async`, and nothing would await it; "
                "give a plain function."
            )
        if inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
            raise ArgumentError(
                f"{moment} of what watches the training has `yield` in it, so that calling it runs "
                "nothing; give a plain function."
            )
        try:
            if method is not None:
                inspect.signature(method).bind(None)
        except ValueError:  # written in C: it does not say
            continue
        except TypeError as error:
            what = "the epoch" if moment == "on_epoch" else "the run"
            raise ArgumentError(
                f"{moment} of what watches the training is called with {what} alone, which it "
                f"does not take: {error}."
            ) from error


def tell(watcher: OnEpoch | None, moment: str, what: Run | Epoch) -> Any:
    """Call what `watcher` has for one of the `MOMENTS`."""
    method = _method(watcher, moment)
    return None if method is None else method(what)


def _method(watcher: OnEpoch | None, moment: str) -> Any:
    return getattr(watcher, moment, watcher if moment == "on_epoch" and callable(watcher) else None)


class TensorBoard:
    """Losses as curves of TensorBoard, in a folder of the run."""

    def __init__(self) -> None:
        self.library = imported("torch.utils.tensorboard", "tensorboard")
        self.writer: Any = None

    def on_start(self, run: Run) -> None:
        """Open the log."""
        self.writer = self.library.SummaryWriter(str(run.path / LOG))

    def on_epoch(self, epoch: Epoch) -> None:
        """Log the losses."""
        for name in LOSSES:
            self.writer.add_scalar(name, getattr(epoch, name), epoch.epoch)

    def on_end(self, run: Run) -> None:
        """Close the log."""
        if self.writer is not None:  # it could be opened
            self.writer.close()


class Tracker:
    """Losses and settings to trackio or Weights & Biases, which have the same functions."""

    def __init__(self, name: str) -> None:
        self.library = imported(name, name)
        self.begun = False

    def on_start(self, run: Run) -> None:
        """Begin a run of the project docmem, named as the run's folder."""
        self.library.init(project="docmem", name=run.path.name, config=to_dict(run.config))
        self.begun = True

    def on_epoch(self, epoch: Epoch) -> None:
        """Log the losses."""
        self.library.log({name: getattr(epoch, name) for name in LOSSES}, step=epoch.epoch)

    def on_end(self, run: Run) -> None:
        """End it, if it could begin."""
        if self.begun:
            self.library.finish()


def logger(name: LoggerName) -> TensorBoard | Tracker:
    """What logs a training with TensorBoard, trackio or Weights & Biases, for `on_epoch`.

    Raises:
        DocmemError: if there is no such logger, or its library is not installed.
    """
    check_type("name", name, LoggerName)
    return TensorBoard() if name == "tensorboard" else Tracker(name)


def imported(module: str, extra: str) -> Any:
    """A module of a library that is an extra; DocmemError if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DocmemError(
            f"{extra} is not installed ({error}): pip install 'docmem[{extra}]'."
        ) from error
