"""Drawings of a training: its losses, its selections, and the published losses beside it."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from docmem.core.loss import Negative
from docmem.errors import DocmemError, NotNegative, check_at_least, checked
from docmem.evaluation.published import EPOCHS, PublishedRun
from docmem.plots import style
from docmem.plots.writing import LETTER, drawable, shortened
from docmem.training.history import Epoch
from docmem.training.selection import Snapshots

# Runs side by side; more are drawn below.
ACROSS = 3


@checked
@style.styled
def losses(
    figure: Figure,
    histories: Mapping[str, Sequence[Epoch]],
    tau: NotNegative | Mapping[str, NotNegative],
    note: str,
    negative: Negative | None = "other",
) -> Figure:
    """Training losses by run name, two panels per run, and the target `tau`, or that of each run.

    The numbers are those of the last epoch. `negative` is the runs' negative_key_type; None: they
    differ in it.

    Raises:
        DocmemError: if there is no run, one has no epoch yet, or one has no target.
    """
    style.check_some("histories", histories)
    targets = tau if isinstance(tau, Mapping) else dict.fromkeys(histories, tau)
    for name, history in histories.items():
        style.check_some(f"The history of {name!r}", history)
        if name not in targets:
            raise DocmemError(
                f"tau has no target for {name!r}; give one for each run, or a number."
            )
        check_at_least(f"tau of {name!r}", targets[name], 0)
    rows = -(-len(histories) // ACROSS)
    columns = -(-len(histories) // rows)
    panels = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=(2.2, 1) * rows)
    tops, bottoms = panels[::2].ravel(), panels[1::2].ravel()
    for unused in (*tops[len(histories) :], *bottoms[len(histories) :]):
        unused.remove()
    room = 0.8 * figure.get_figwidth() / columns * 72 / 11 / LETTER  # letters above a panel
    names = shortened(dict(enumerate(histories)), room, bold=True, kind="run")
    highest = max(style.highest_loss(one, targets[name]) for name, one in histories.items())
    largest = max(epoch.guidance for history in histories.values() for epoch in history)
    ends = [history[-1] for history in histories.values()]
    last = max(epoch.epoch for epoch in ends)
    for place, (name, history) in enumerate(histories.items()):
        top, bottom = tops[place], bottoms[place]
        curves = style.draw_history(top, history, targets[name], negative)
        for curve, key in zip(curves, style.CURVES, strict=True):
            curve.set_label(f"{curve.get_label()}: {getattr(history[-1], key):.2f}")
        top.lines[0].set_label(f"target τ = {targets[name]:g}")
        top.legend(
            handles=[*top.lines], loc="upper right", frameon=False, borderpad=0,
            fontsize=9.5, handlelength=1.4,
        )  # fmt: skip
        top.set(xlim=(0.5, last + 0.5), ylim=(0, 1.42 * highest), title=names[place])  # and legend
        top.tick_params(labelbottom=False, labelleft=place % columns == 0)
        epochs = [epoch.epoch for epoch in history]
        bottom.stairs(
            [epoch.guidance for epoch in history], [epochs[0] - 0.5, *(e + 0.5 for e in epochs)],
            color=style.GUIDANCE, alpha=0.85, fill=True,
        )  # fmt: skip
        style.whole_epochs(bottom)
        if not any(epoch.guidance for epoch in history):  # an empty panel says nothing
            bottom.text(
                0.5, 0.5, "zero in every epoch", transform=bottom.transAxes, color=style.GREY,
                ha="center", va="center",
            )  # fmt: skip
        bottom.set(xlim=(0.5, last + 0.5), ylim=(0, 1.08 * largest or 1), xlabel="epoch")
        bottom.tick_params(labelleft=place % columns == 0)
        if place % columns == 0:
            top.set_ylabel("cross entropy\n(nats per token)")
            bottom.set_ylabel("guidance term,\nα included")
    under = style.after_own(style.NEGATIVES[negative])
    style.headline(
        figure,
        f"Losses end at {style.span(epoch.positive_ce for epoch in ends)} under the own DocRep, "
        f"{style.span(epoch.negative_ce for epoch in ends)} under {under}",
        f"Each point: mean of an epoch; numbers: the last one's. {note}",
    )
    return figure


@checked
@style.styled
def open_entries(
    figure: Figure, snapshots: dict[str, Snapshots], share: float, note: str
) -> Figure:
    """How many entries a document opens through training, and how alike documents are at the end.

    An entry is open where its document selection is larger than this `share` of the document's
    largest, both in absolute value.

    Raises:
        DocmemError: if there are no snapshots.
    """
    style.check_some("snapshots", snapshots)
    grid = figure.add_gridspec(2, len(snapshots), height_ratios=(1, 1.3))
    counts = figure.add_subplot(grid[0, :])
    maps, opened = [], []
    for place, (name, taken) in enumerate(snapshots.items()):
        size = taken.document.abs()  # (snapshots, n_docs, entries)
        active = (size > share * size.amax(-1, keepdim=True)).sum(-1).numpy()
        color, shown = style.activation_color(name, place), drawable(name, 30)
        opened.append(active[-1].mean())
        counts.fill_between(
            taken.epochs, active.min(1), active.max(1), color=color, alpha=0.2, lw=0
        )
        counts.plot(
            taken.epochs, active.mean(1), color=color, lw=2,
            label=f"{shown}: {opened[-1]:.0f} at the end",
        )  # fmt: skip
        axes = figure.add_subplot(grid[1, place])
        last = taken.document[-1]
        unit = last / last.norm(dim=1, keepdim=True).clamp_min(1e-12)
        image = axes.imshow((unit @ unit.T).numpy(), cmap=style.SIGNED, vmin=-1, vmax=1)
        axes.set_title(shown, color=color)
        marks = range(0, len(unit), style.stride(len(unit), max(1, 36 // len(snapshots))))
        axes.set_xticks(marks, [str(mark + 1) for mark in marks], fontsize=8)
        axes.set_yticks(marks, [str(mark + 1) for mark in marks], fontsize=8)
        axes.tick_params(length=0)
        axes.set(xlabel="document", ylabel="" if place else "document")
        maps.append(axes)
    figure.colorbar(image, ax=maps, aspect=18, label="cosine of their selections")
    sizes = [taken.document.shape[-1] for taken in snapshots.values()]
    of = f"of {sizes[0]} " if len({*sizes}) == 1 else ""  # of several sizes there is no one count
    counts.legend(
        loc="lower right", bbox_to_anchor=(1, 1), frameon=False,
        ncols=len(snapshots) if len(snapshots) < 4 else 2,  # more in a row are too wide
        labelcolor="linecolor", prop={"weight": "bold"}, handlelength=1.4,
    )  # fmt: skip
    counts.set(ylim=(0, 1.06 * max(sizes)), xlabel="epoch", ylabel=f"open entries {of}".rstrip())
    counts.set_xlim(left=0)
    style.whole_epochs(counts)
    style.headline(
        figure,
        f"At the end a document opens {style.span(opened, '{:.0f}'.format)} {of}entries",
        note,
    )
    return figure


@checked
@style.styled
def published_curves(
    figure: Figure,
    published: Sequence[PublishedRun],
    histories: Mapping[str, Sequence[Epoch]],
    note: str,
) -> Figure:
    """The paper's curves, marked where its records give values, and one's own runs beside them.

    `histories` are one's own, by run name; there may be none.
    """
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1.7, 1))
    marks = ("o", "s", "^", "D", "v", "P")
    for place, run in enumerate(published):
        for axes, values in ((top, run.positive_ce), (bottom, run.guidance_term)):
            axes.plot(
                EPOCHS, values, marker=marks[place % len(marks)],
                color=style.activation_color(run.key_activation, place), ms=5, lw=1,
                ls=(0, (1, 2)), label=f"paper: {run.name}",
            )  # fmt: skip
    for place, (name, history) in enumerate(histories.items()):
        epochs = [epoch.epoch for epoch in history]
        ink = style.activation_color(name, place)
        own, label = [epoch.positive_ce for epoch in history], f"here: {drawable(name, 40)}"
        top.plot(epochs, own, color=ink, lw=2.4, label=label)
        bottom.plot(epochs, [epoch.guidance for epoch in history], color=ink, lw=1.6)
    top.set_xscale("log")
    top.set_xticks(EPOCHS, [str(epoch) if epoch != 400 else "" for epoch in EPOCHS])
    top.minorticks_off()
    top.set_ylim(bottom=0)
    bottom.set_ylim(bottom=0)
    top.set_ylabel("cross entropy under the\nown DocRep (nats per token)")
    bottom.set_ylabel("guidance term,\nα included")
    bottom.set_xlabel("epoch")
    top.legend(frameon=False, fontsize=9)
    style.headline(
        figure, f"Losses of the published runs{' and of runs here' if histories else ''}", note
    )
    return figure
