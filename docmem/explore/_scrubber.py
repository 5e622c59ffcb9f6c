"""The scrubber: runs played through their snapshots, side by side on one clock.

The frames are those of the animations (`docmem.plots.animation`).
"""

import bisect
import math
from collections.abc import Mapping

import ipywidgets
from matplotlib.figure import Figure

from docmem.errors import DocmemError, checked
from docmem.explore._explorer import Explorer, png_of
from docmem.plots import animation
from docmem.plots.style import after_own, highest_loss
from docmem.training.run import Run, check_together

MAP_INCHES = 3.92  # of each heat map where several runs stand side by side, its scale included
DPI = 115


class ScrubberExplorer(Explorer):
    """Play, pause and step through the snapshots of a run, or of several on one clock.

    Args:
        runs: a run, or several by name on the same documents, each with snapshots.

    Raises:
        DocmemError: if there is no run, one has no snapshots, or their documents differ.
    """

    @checked
    def __init__(self, runs: Run | Mapping[str, Run]) -> None:
        self.runs = {runs.config.key_activation: runs} if isinstance(runs, Run) else dict(runs)
        check_together([*self.runs.values()])
        self.snapshots = {name: run.load_snapshots() for name, run in self.runs.items()}
        self.limits = {
            name: animation.color_limits(taken, list(range(len(taken.epochs))))
            for name, taken in self.snapshots.items()
        }
        self.epochs = sorted({e for taken in self.snapshots.values() for e in taken.epochs})
        """When any of the runs has a snapshot: the ticks of the clock."""
        self.epoch = self.epochs[-1]
        """The epoch shown."""
        self._drawn: dict[float, bytes] = {}
        figure, self._pictures = self._draw()
        changing = [artist for picture in self._pictures for artist in picture.changing()]
        self._film = animation.Film(figure, changing)
        self.image = ipywidgets.Image(
            value=self.frame(self.epoch), format="png", layout={"width": "100%"}
        )
        last = len(self.epochs) - 1
        self.play = ipywidgets.Play(
            value=last, max=last, interval=animation.FRAME_MILLISECONDS, description="Play"
        )
        self.slider = ipywidgets.IntSlider(
            value=last, max=last, description="snapshot", readout=False,
            layout={"flex": "1 1 200px", "width": "auto"},
        )  # fmt: skip
        self.back, self.forward = (
            ipywidgets.Button(description=sign, tooltip=what, layout={"width": "36px"})
            for sign, what in (("‹", "one snapshot back"), ("›", "one snapshot on"))
        )
        self.reading = ipywidgets.Label(self._words(), layout={"min_width": "110px"})
        row = ipywidgets.HBox(
            [self.play, self.back, self.forward, self.slider, self.reading],
            layout={"align_items": "center", "flex_flow": "row wrap"},
        )
        width = f"{figure.bbox.width / DPI * 100:.0f}px"
        super().__init__(ipywidgets.VBox([self.image, row], layout={"max_width": width}))
        self._link = ipywidgets.jslink((self.play, "value"), (self.slider, "value"))
        self.slider.observe(lambda change: self.show(self.epochs[change["new"]]), "value")
        self.back.on_click(lambda _: self.step(-1))
        self.forward.on_click(lambda _: self.step(1))

    @checked
    def show(self, epoch: float) -> None:
        """Show every run's last snapshot up to `epoch`."""
        self.epoch = self.epochs[self._tick(epoch)]
        self.image.value = self.frame(self.epoch)
        self.reading.value = self._words()
        self.slider.value = self._tick(self.epoch)

    @checked
    def step(self, ticks: int) -> None:
        """Go on by so many snapshots, or back."""
        tick = min(max(self._tick(self.epoch) + ticks, 0), len(self.epochs) - 1)
        self.show(self.epochs[tick])

    @checked
    def frame(self, epoch: float) -> bytes:
        """The picture of an epoch as a PNG; drawn once, then kept."""
        epoch = self.epochs[self._tick(epoch)]
        if epoch not in self._drawn:
            self._set(self._pictures, epoch)
            self._drawn[epoch] = png_of(self._film.frame())
        return self._drawn[epoch]

    def figure(self) -> Figure:
        """The picture of the current epoch."""
        figure, pictures = self._draw()
        self._set(pictures, self.epoch)
        return figure

    @property
    def alt(self) -> str:
        """What the picture shows, in words."""
        losses = []
        for name, picture in zip(self.runs, self._pictures, strict=True):
            done = picture.history[: int(self.epoch)]
            losses.append(
                f"{name}: own {done[-1].positive_ce:.2f}, "
                f"{after_own(picture.negative)} {done[-1].negative_ce:.2f} nats"
                if done
                else f"{name}: {'in the first epoch' if self.epoch else 'before training'}"
            )
        return (
            f"Token selection, document selection and their product as heat maps, documents down "
            f"and memory entries across, at epoch {self.epoch:.4g}, over the losses so far. "
            f"{'; '.join(losses)}."
        )

    def close(self) -> None:
        """Close the widget and the clock's link."""
        self._link.close()
        super().close()

    def _tick(self, epoch: float) -> int:
        """The last tick of the clock up to `epoch`; before the first, the first."""
        if math.isnan(epoch):
            raise DocmemError("epoch is nan; it must be a number.")
        return max(0, bisect.bisect_right(self.epochs, epoch) - 1)

    def _words(self) -> str:
        return f"epoch {self.epoch:.4g} of {self.epochs[-1]:.4g}"

    def _set(self, pictures: list[animation.SelectionPicture], epoch: float) -> None:
        """Make every picture show its run's last snapshot up to `epoch`."""
        for picture, taken in zip(pictures, self.snapshots.values(), strict=True):
            index = max(0, bisect.bisect_right(taken.epochs, epoch) - 1)
            picture.show(animation.panels_at(taken, index), taken.epochs[index])

    def _draw(self) -> tuple[Figure, list[animation.SelectionPicture]]:
        """One run as its animation draws it; several in a row, titles left of the first."""
        if len(self.runs) == 1:
            ((name, run),) = self.runs.items()
            figure = Figure(figsize=(10.8, 7.0), dpi=DPI)
            return figure, [animation.SelectionPicture(run, self.limits[name], figure, name=name)]
        widths = [
            (animation.NARROW_LEFT if place else animation.LEFT) + MAP_INCHES + animation.RIGHT
            for place in range(len(self.runs))
        ]
        figure = Figure(figsize=(sum(widths), 7.0), dpi=DPI)
        parts = figure.subfigures(1, len(widths), width_ratios=widths, wspace=0, squeeze=False)[0]
        top = max(
            highest_loss(run.load_history(), run.config.target_negative_ce)
            for run in self.runs.values()
        )
        return figure, [
            animation.SelectionPicture(
                self.runs[name], self.limits[name], part, place == 0, name, top
            )
            for place, (part, name) in enumerate(zip(parts, self.runs, strict=True))
        ]


scrubber = ScrubberExplorer
