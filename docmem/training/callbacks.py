"""What watches a training: a function, or an object with some of three methods; and two such.

    train(config, on_epoch=print)                    # called after each epoch
    train(config, on_epoch=logger("tensorboard"))    # curves in the run's folder

An object may have `on_start(run)` before the first epoch, `on_epoch(epoch)` after each, and
`on_end(run)` after the last, or after whatever ended the training. An `on_epoch` that returns
False stops it as Ctrl-C does.
"""

import importlib
from collections.abc import Callable
from typing import Any, Literal, Protocol, runtime_checkable

from docmem.errors import DocmemError, check_type
from docmem.training.description import to_dict
from docmem.training.history import Epoch
from docmem.training.run import Run

LoggerName = Literal["tensorboard", "trackio", "wandb"]
LOSSES = ("positive_ce", "negative_ce", "guidance")


@runtime_checkable
class Callback(Protocol):
    """What may watch a training, besides a function."""

    def on_epoch(self, epoch: Epoch) -> bool | None:
        """Called after each epoch; False stops the training."""


OnEpoch = Callable[[Epoch], bool | None] | Callback


def tell(watcher: OnEpoch | None, moment: str, what: Run | Epoch) -> Any:
    """Call what `watcher` has for a moment: `on_start`, `on_epoch` or `on_end`."""
    plain = watcher if moment == "on_epoch" else None
    method: Any = getattr(watcher, moment, plain)
    return None if method is None else method(what)


class TensorBoard:
    """Losses as curves of TensorBoard, in the folder `tensorboard` of the run."""

    def __init__(self) -> None:
        self.library = imported("torch.utils.tensorboard", "tensorboard")

    def on_start(self, run: Run) -> None:
        """Open the log."""
        self.writer = self.library.SummaryWriter(str(run.path / "tensorboard"))

    def on_epoch(self, epoch: Epoch) -> None:
        """Log the losses."""
        for name in LOSSES:
            self.writer.add_scalar(name, getattr(epoch, name), epoch.epoch)

    def on_end(self, run: Run) -> None:
        """Close the log."""
        self.writer.close()


class Tracker:
    """Losses and settings to trackio or Weights & Biases, which have the same functions."""

    def __init__(self, name: str) -> None:
        self.library = imported(name, name)

    def on_start(self, run: Run) -> None:
        """Begin a run of the project docmem, named as the run's folder."""
        self.library.init(project="docmem", name=run.path.name, config=to_dict(run.config))

    def on_epoch(self, epoch: Epoch) -> None:
        """Log the losses."""
        self.library.log({name: getattr(epoch, name) for name in LOSSES}, step=epoch.epoch)

    def on_end(self, run: Run) -> None:
        """End it."""
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
