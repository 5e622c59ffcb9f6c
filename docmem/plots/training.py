"""Drawings of a training: its losses, its selections, and the published ones beside it."""

from collections.abc import Sequence

from matplotlib import patheffects
from matplotlib.figure import Figure

from docmem.evaluation.published import EPOCHS, PublishedRun
from docmem.plots.style import GUIDANCE, INK, NEGATIVE, OWN, SIGNED, draw_history, headline, styled
from docmem.training.history import Epoch
from docmem.training.selection import Snapshots


@styled
def losses(figure: Figure, histories: dict[str, Sequence[Epoch]], tau: float, note: str) -> Figure:
    """Training losses, a column a run; the numbers are means over the last ten epochs.

    Args:
        figure: an empty Figure.
        histories: run name to its history.
        tau: the target of the negative cross entropy, nats per token.
        note: what was trained, for the line under the title.
    """
    panels = figure.subplots(
        2, len(histories), sharex=True, sharey="row", squeeze=False, height_ratios=(2.2, 1)
    )
    everything = [epoch for history in histories.values() for epoch in history]
    highest = max(max(epoch.negative_ce, epoch.positive_ce) for epoch in everything)
    largest = max(epoch.guidance for epoch in everything)
    for column, (name, history) in enumerate(histories.items()):
        top, bottom = panels[:, column]
        draw_history(top, history, tau)
        last = history[-1]
        top.set_title(name)
        top.set_ylim(0, max(highest, tau) * 1.12)
        top.set_xlim(0, last.epoch * 1.01)
        halo = [patheffects.withStroke(linewidth=3, foreground="white")]
        recent = history[-10:]
        own, negative = (
            sum(getattr(epoch, name) for epoch in recent) / len(recent)
            for name in ("positive_ce", "negative_ce")
        )
        for place, text, color in (
            ((own + negative) / 2, f"under another's DocRep: {negative:.2f}", NEGATIVE),
            (0.4 * own, f"under its own DocRep: {own:.2f}", OWN),
        ):
            top.annotate(
                text, (last.epoch, place), (-2, 0), textcoords="offset points", ha="right",
                color=color, fontweight="bold", path_effects=halo,
            )  # fmt: skip
        top.annotate(
            f"target τ = {tau:g}", (last.epoch, tau), (-2, 4), textcoords="offset points",
            ha="right", color="#555555",
        )  # fmt: skip
        bottom.fill_between(
            [e.epoch for e in history], [e.guidance for e in history],
            color=GUIDANCE, alpha=0.85, lw=0,
        )  # fmt: skip
        bottom.set_ylim(0, 1.08 * largest)
        bottom.set_xlabel("epoch")
    panels[0, 0].set_ylabel("cross entropy\n(nats per token)")
    panels[1, 0].set_ylabel("guidance term\n(nats per token)")
    headline(
        figure,
        "Learned under its own DocRep, far less under another's",
        f"{note}; numbers: means of the last {len(recent)} epochs",
    )
    return figure


@styled
def open_entries(
    figure: Figure, snapshots: dict[str, Snapshots], share: float, note: str
) -> Figure:
    """How many entries a document opens through training, and how alike documents are at the end.

    Args:
        figure: an empty Figure.
        snapshots: run name to its snapshots.
        share: an entry is open where its document selection is larger than this share of the
            document's largest, both in size.
        note: what was trained, for the line under the title.
    """
    grid = figure.add_gridspec(2, len(snapshots), height_ratios=(1, 1.3))
    counts = figure.add_subplot(grid[0, :])
    inks, maps = (NEGATIVE, GUIDANCE, OWN, INK), []
    last = {name: taken.document[-1] for name, taken in snapshots.items()}
    for place, (name, taken) in enumerate(snapshots.items()):
        size = taken.document.abs()  # (snapshots, n_docs, entries)
        active = (size > share * size.amax(-1, keepdim=True)).sum(-1).numpy()
        color = inks[place % len(inks)]
        counts.fill_between(
            taken.epochs, active.min(1), active.max(1), color=color, alpha=0.2, lw=0
        )
        counts.plot(taken.epochs, active.mean(1), color=color, lw=2)
        counts.annotate(
            f" {name} {active[-1].mean():.0f}", (taken.epochs[-1], active[-1].mean()), color=color,
            fontweight="bold", va="center",
        )  # fmt: skip
        axes = figure.add_subplot(grid[1, place])
        unit = last[name] / last[name].norm(dim=1, keepdim=True).clamp_min(1e-12)
        image = axes.imshow((unit @ unit.T).numpy(), cmap=SIGNED, vmin=-1, vmax=1)
        axes.set_title(name, color=color)
        marks = range(len(unit))
        axes.set_xticks(marks, [str(mark + 1) for mark in marks], fontsize=8)
        axes.set_yticks(marks, [str(mark + 1) for mark in marks], fontsize=8)
        axes.tick_params(length=0)
        axes.set_xlabel("document")
        if place == 0:
            axes.set_ylabel("document")
        maps.append(axes)
    figure.colorbar(image, ax=maps, aspect=18, label="cosine of their selections")
    entries = next(iter(last.values())).shape[-1]
    counts.set_ylim(0, 1.06 * entries)
    counts.set_xlim(0, 1.13 * max(taken.epochs[-1] for taken in snapshots.values()))
    counts.set_xlabel("epoch")
    counts.set_ylabel(f"open entries of {entries}")
    headline(figure, "How many entries a document opens, and how alike documents are", note)
    return figure


@styled
def published_curves(
    figure: Figure,
    published: Sequence[PublishedRun],
    histories: dict[str, Sequence[Epoch]],
    note: str,
) -> Figure:
    """The paper's curves, dotted where the records give them, and one's own runs beside them.

    Args:
        figure: an empty Figure.
        published: the paper's runs.
        histories: run name to its history; may be empty.
        note: what was trained, for the line under the title.
    """
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1.7, 1))
    marks, inks = ("o", "s", "^", "D", "v", "P"), (GUIDANCE, NEGATIVE, "#88CCEE", "#AA4499")
    for place, run in enumerate(published):
        for axes, values in ((top, run.positive_ce), (bottom, run.guidance_term)):
            axes.plot(
                EPOCHS, values, marker=marks[place % len(marks)], color=inks[place % len(inks)],
                ms=5, lw=1, ls=(0, (1, 2)), label=f"paper: {run.name}",
            )  # fmt: skip
    for place, (name, history) in enumerate(histories.items()):
        epochs = [epoch.epoch for epoch in history]
        ink = (OWN, INK)[place % 2]
        top.plot(epochs, [e.positive_ce for e in history], color=ink, lw=2.4, label=f"here: {name}")
        bottom.plot(epochs, [e.guidance for e in history], color=ink, lw=1.6)
    top.set_xscale("log")
    top.set_xticks(EPOCHS, [str(epoch) if epoch != 400 else "" for epoch in EPOCHS])
    top.minorticks_off()
    top.set_ylim(bottom=0)
    bottom.set_ylim(bottom=0)
    top.set_ylabel("cross entropy under the\nown DocRep (nats per token)")
    bottom.set_ylabel("guidance term\n(nats per token)")
    bottom.set_xlabel("epoch")
    top.legend(frameon=False, fontsize=9)
    headline(
        figure,
        "One's own run beside the published ones"
        if histories
        else "What the published runs learned",
        note,
    )
    return figure
