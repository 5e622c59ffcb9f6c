"""Live training: both losses, the seconds left, and a stop button that keeps the run.

Training runs in a thread, so that the widget answers; `wait` returns the run.
"""

import atexit
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

import ipywidgets
import numpy as np
from IPython import get_ipython
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from docmem.documents import Document
from docmem.errors import checked, counted
from docmem.explore import _explorer
from docmem.lm.loading import LanguageModel
from docmem.plots import style
from docmem.training.config import TrainConfig
from docmem.training.history import Epoch
from docmem.training.run import Run
from docmem.training.train import train

REDRAW_SECONDS = 0.5  # at most so often: drawing takes time from training
RECENT = 10  # epochs that the seconds left are reckoned from
HINT = "Stop ends after this epoch and saves. If the button does not answer, use the kernel's ■."


class _Curve:
    """The losses over a training of known length: drawn once, then renewed.

    A thread renews it, and must not use matplotlib's global settings at the same time as another
    drawing; so all styling is done at the start.
    """

    @style.styled
    def __init__(self, config: TrainConfig) -> None:
        self.figure = Figure(figsize=(8.2, 3.7), dpi=130, layout="constrained")
        self.axes, tau = self.figure.subplots(), config.target_negative_ce
        self.negative = style.after_own(style.NEGATIVE_LABELS[config.negative_key_type])
        self.curves = style.draw_history(self.axes, [], tau, config.negative_key_type)
        self.axes.set(xlim=(0, config.num_epochs), ylim=(0, 1.3 * max(tau, 1)))
        self.axes.set(xlabel="epoch", ylabel="cross entropy (nats per token)")
        self.labels = [
            self.axes.annotate(
                "", (0, 0), (5, up), textcoords="offset points", color=color, fontweight="bold",
                va="center", fontsize=9, annotation_clip=False,
            )
            for color, up in ((style.NEGATIVE, 6), (style.OWN, -6))  # apart where both curves begin
        ]  # fmt: skip
        style.headline(
            self.figure,
            f"{config.key_activation} memory, {counted(config.num_epochs, 'epoch')}",
            f"Cross entropy of the documents under their own DocRep, and under {self.negative}. "
            f"Dashed: target τ = {tau:g}.",
        )

    def show(self, history: Sequence[Epoch]) -> Figure:
        """Draw the losses so far."""
        style.renew_history(self.curves, history)
        for label, whose, name in zip(
            self.labels, (self.negative, "own"), style.CURVES, strict=True
        ):
            if history:
                last = getattr(history[-1], name)
                label.set_text(f"{whose} {last:.2f}")
                label.xy = (history[-1].epoch, last)
        highest = style.highest_loss(history, 0)
        self.axes.set_ylim(0, max(self.axes.get_ylim()[1], 1.08 * highest))
        return self.figure

    def png(self) -> bytes:
        """The picture as a PNG."""
        canvas = FigureCanvasAgg(self.figure)
        canvas.draw()
        return _explorer.png_of(np.asarray(canvas.buffer_rgba())[..., :3])


class TrainingExplorer(_explorer.Explorer):
    """Train as `docmem.train` does, with a live curve, the seconds left and a stop button.

        run = explore.training(config).wait()

    Training begins at once, or goes on from the last checkpoint. The explorer shows itself as the
    last line of a cell, or when waited for. A finished run is shown whole.

    Args:
        config: all settings.
        lm: the LM; None: the one that `config` names.
        documents: what to memorise; None: what `config` names.
    """

    @checked
    def __init__(
        self,
        config: TrainConfig,
        *,
        lm: LanguageModel | None = None,
        documents: Sequence[Document] | None = None,
    ) -> None:
        self.config = config
        self.history: list[Epoch] = []
        """The losses so far."""
        self.run: Run | None = None
        """The run, once it has ended."""
        self.error: Exception | None = None
        """What ended it early, if anything."""
        self._stopping, self._ended = threading.Event(), threading.Event()
        self._drawn = 0.0
        self._curve = _Curve(config)
        self.image = ipywidgets.Image(format="png", layout={"width": "100%"})
        self.image.value = self._curve.png()
        self.button = ipywidgets.Button(description="Stop", icon="stop")
        self.status = ipywidgets.HTML(_explorer.note("Reading the documents …"))
        row = ipywidgets.HBox(
            [self.button, self.status, ipywidgets.HTML(_explorer.note(HINT, style.GREY))],
            layout={"align_items": "center", "flex_flow": "row wrap"},
        )
        super().__init__(ipywidgets.VBox([self.image, row], layout={"max_width": "900px"}))
        _explorer.answer_during_cell(self.button)
        self.button.on_click(lambda _: self.stop())
        own = _explorer.with_own_modules(lm) if lm is not None else None
        self._thread = threading.Thread(target=self._train, args=(own, documents), daemon=True)
        atexit.register(self._end)  # a script may end before
        self._thread.start()

    @property
    def training(self) -> bool:
        """Whether it is still under way."""
        return not self._ended.is_set()

    @property
    def seconds_left(self) -> float | None:
        """As the last epochs went; None before the first."""
        recent = self.history[-RECENT:]
        if not recent:
            return None
        left = self.config.num_epochs - len(self.history)
        return left * sum(epoch.seconds for epoch in recent) / len(recent)

    def stop(self) -> None:
        """End the epoch, save, and stop; the same configuration goes on from there."""
        self._stopping.set()
        self.button.disabled = True
        if self.training:
            self.status.value = _explorer.note("Stopping after this epoch …")

    def wait(self) -> Run:
        """Wait for the end and return the run, finished or stopped.

        An interrupt (■, or Ctrl-C) stops the training as the button does; a second one stops
        the waiting alone.

        Raises:
            DocmemError: as `train`.
        """
        if self._shown is None and get_ipython() is not None:
            self._ipython_display_()
        try:
            self._join()
        except KeyboardInterrupt:
            self.stop()
            self._join()
        self.refresh()
        if self.error is not None:
            raise self.error
        assert self.run is not None
        return self.run

    def close(self) -> None:
        """Stop the training, wait until it is saved, and close the widget."""
        self.stop()
        self._join()
        super().close()

    def _end(self) -> None:
        """Where a script ends before its training: stop that, and wait until it is saved."""
        self._stopping.set()
        print("docmem: the training ends after this epoch and is saved.", file=sys.stderr)
        with suppress(KeyboardInterrupt):
            self._join()

    def _join(self) -> None:
        """Wait for the thread, open to an interrupt on every system.

        An interrupt of `Thread.join` would make Python 3.11 and 3.12 take the thread for ended.
        """
        while not self._ended.wait(0.2):
            pass

    def _train(self, lm: LanguageModel | None, documents: Sequence[Document] | None) -> None:
        """The thread: train, and say how it ended."""
        try:
            self.run = train(self.config, lm=lm, documents=documents, on_epoch=self, progress=False)
            self.history = self.run.load_history()
            self._draw()
            self.status.value = _explorer.note(self._ending())
        except Exception as error:
            self.error = error
            self.status.value = _explorer.note(_explorer.error_sentence(error), _explorer.RED)
        finally:
            atexit.unregister(self._end)
            self.button.disabled = True
            self._ended.set()

    def on_start(self, run: Run) -> None:
        """Called by `train`: begin with the losses of a run that it goes on with."""
        self.history = run.load_history()

    def on_epoch(self, epoch: Epoch) -> bool:
        """Called by `train`: show the epoch; False once a stop is asked for."""
        self.history = [*self.history[: epoch.epoch - 1], epoch]
        if time.monotonic() - self._drawn > REDRAW_SECONDS:
            self._draw()
        if not self._stopping.is_set():
            self.status.value = _explorer.note(
                f"Epoch {epoch.epoch} of {self.config.num_epochs}, {self.seconds_left:.0f} s left"
            )
        return not self._stopping.is_set()

    def _draw(self) -> None:
        """Renew the picture in the widget."""
        self._curve.show(self.history)
        self.image.value = self._curve.png()
        self._drawn = time.monotonic()

    def _ending(self) -> str:
        """How the training ended, in a sentence."""
        epochs = f"{len(self.history)} of {counted(self.config.num_epochs, 'epoch')}"
        if len(self.history) == self.config.num_epochs:
            seconds = sum(epoch.seconds for epoch in self.history)
            return f"Finished: {epochs}, trained in {seconds:.0f} s."
        return f"Stopped after {epochs} and saved; train it again to go on."

    @property
    def alt(self) -> str:
        """What the picture shows, in words."""
        if not self.history:
            epochs = counted(self.config.num_epochs, "epoch")
            return f"Both losses of a training of {epochs}, not begun yet."
        last = self.history[-1]
        done = f"{last.epoch} of {counted(self.config.num_epochs, 'epoch')}"
        return (
            f"Both losses after {done}: "
            f"{last.positive_ce:.2f} nats per token under the own DocRep, "
            f"{last.negative_ce:.2f} under {self._curve.negative}."
        )

    def figure(self) -> Figure:
        """The losses so far."""
        return _Curve(self.config).show(self.history)


training = TrainingExplorer
