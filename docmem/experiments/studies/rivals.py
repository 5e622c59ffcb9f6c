"""Rivals: what one could take instead of a document memory, and when to take what.

The paper leaves it open. All have as many trained parameters, and the optimizer and rate that did
best in half the epochs on an unreported seed. They take turns with the document memory, which
trains for the epochs of its preset, until each has had at least as many epochs and seconds: what it
knew after equal seconds is read off its curve. Only the document in the context is not trained.

Other prose, which each reads while it is switched on, is the beginning of those articles of the
encyclopedia that the seed did not draw: nothing here was trained on them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from docmem.experiments.claims import LEARNED, Claim, Claims
from docmem.experiments.drawing import MARKS, dot_rows, level, stacked
from docmem.experiments.pool import RunPool
from docmem.experiments.rivals import train_in_turns
from docmem.experiments.rivals_measured import measured, tokens_per_second
from docmem.experiments.rivals_rates import ABILITIES, KINDS, SINGLE, Tried, search
from docmem.experiments.stats import above, between, differences, highest, more, spread, spreads
from docmem.experiments.studies.attribution import strangers
from docmem.experiments.study import Study, columns
from docmem.lm.hidden_states import cache_hidden_states
from docmem.plots.style import FAINT, INK, NEGATIVE, OWN

NEAR, FAR = 0.05, 0.25
"""Nats per token that matter: of own cross entropies, which end near 0, and of others."""


PER_DOCUMENT = ("LoRA per document", "prefix tuning", "CARTRIDGE")
PANELS = {
    "cross entropy\n(nats per token)": ("other", "lowest_pair", "own"),
    "tokens\ncompleted (%)": ("completed_other", "completed_own"),
    "passages given to\ntheir document (%)": ("attributed",),
    f"seconds until own\nis {LEARNED:g} nat per token": ("reached",),
    "tokens written\nper second": ("speed",),
    "other prose costs\nmore (nats per token)": ("harm",),
    "kB to store,\nper document": ("kilobytes",),
}
"""The measures in a panel, by its label."""
ADDRESSES = {
    "own": ("own address", OWN),
    "other": ("another's, mean", NEGATIVE),
    "lowest_pair": ("another's, lowest pair", FAINT),
}
"""What is read under which address, and its colour."""


@dataclass(frozen=True)
class Measured:
    """One rival; one entry per seed. Cross entropies in nats per token."""

    own: list[float]
    """Under the own address; a single address is own and another's in one."""
    other: list[float]
    """Under another's, mean."""
    lowest_pair: list[float]
    completed_own: list[float]
    """Tokens completed correctly, %."""
    completed_other: list[float]
    attributed: list[float]
    """Trained passages that cost least under their document's address, %."""
    harm: list[float]
    """Cross entropy of other prose, mean over addresses, minus the base LM's."""
    speed: list[float]
    """Tokens written per second, in one row."""
    parameters: list[int]
    """Trained ones."""
    kilobytes: list[float]
    """To store, per document."""
    seconds: list[list[float]]
    """Time spent until the end of each epoch, (seeds, epochs)."""
    losses: list[list[float]]
    """Own cross entropy in training, (seeds, epochs)."""

    @property
    def gap(self) -> tuple[float, ...]:
        """Another's minus own cross entropy."""
        return differences(self.other, self.own)

    @property
    def reached(self) -> list[float]:
        """Seconds until an epoch's own cross entropy was at most LEARNED; nan if it never was."""
        return [
            next((t for t, ce in zip(*pair, strict=True) if ce <= LEARNED), math.nan)
            for pair in zip(self.seconds, self.losses, strict=True)
        ]


@dataclass(frozen=True)
class Results:
    """By rival."""

    rivals: dict[str, Measured]
    base_speed: list[float]
    """Tokens that the base LM writes per second, one per seed."""
    steps: int
    """Of an epoch."""
    tried: dict[str, list[Tried]]
    """On the tuning seed."""

    def after_equal_steps(self) -> dict[str, list[float]]:
        """Own cross entropy in training, of the memory's last epoch, by rival; one per seed."""
        epochs = [len(losses) for losses in self.rivals["document memory"].losses]
        return {
            name: [losses[n - 1] for losses, n in zip(one.losses, epochs, strict=True)]
            for name, one in self.rivals.items()
            if any(one.losses)
        }

    def after_equal_seconds(self) -> dict[str, list[float]]:
        """The same of the epoch in which the memory's seconds ended."""
        ends = [seconds[-1] for seconds in self.rivals["document memory"].seconds]
        return {
            name: [
                next(ce for t, ce in zip(*curve, strict=True) if t >= end)
                for *curve, end in zip(one.seconds, one.losses, ends, strict=True)
            ]
            for name, one in self.rivals.items()
            if any(one.losses)
        }


class Rivals(Study[Results]):
    """What could one take instead of a document memory, and when?"""

    results = Results
    size = (14, 8)
    alt = (
        "Above, own cross entropy of six rivals over seconds of training and over steps. Below, a "
        "row for each and for the document in the context, one dot per seed: cross entropy and "
        "tokens completed under the own and another's address, passages given to their document, "
        "harm to other prose, seconds to learn, size, speed, and what each can do."
    )
    shown = "As many parameters, no fewer seconds or steps: what each knows, of which document"
    finding = (
        "The memory learns faster than what is trained for each document; a LoRA for each keeps "
        "them further apart"
    )
    needs = (None, "holds", None, "holds")
    caption = (
        "Below, each has had at least the memory's epochs and seconds. Compare harm only where own "
        "is alike. Under a name: trained parameters. One state for all documents has no other "
        "address. Dashed: the base LM's speed."
    )

    def measure(self, pool: RunPool) -> Results:
        """Find the rates, then train all rivals beside the memory and measure them."""
        tried = search(pool, KINDS)
        best = {
            name: min(some, key=lambda one: math.inf if one.own is None else one.own).settings
            for name, some in tried.items()
        }
        rows, base_speed, steps = zip(
            *(one_seed(pool, seed, best) for seed in pool.seed_numbers()), strict=True
        )
        found = {name: Measured(**columns(some)) for name, some in columns(rows).items()}
        return Results(found, list(base_speed), steps[0], tried)

    def _draw(self, figure: Figure, results: Results) -> None:
        above, below = stacked(figure, 1, 1.3)
        by_seconds, by_steps = above.subplots(1, 2, sharey=True)
        curves = {}
        # Some colours are near each other; the kinds of line are not.
        for (name, one), line in zip(results.rivals.items(), cycle(("-", "--", ":", "-."))):
            if not any(one.losses):
                continue  # it is not trained
            style = {"color": KINDS[name].color, "ls": line, "lw": 1.5, "alpha": 0.75}
            for seconds, losses in zip(one.seconds, one.losses, strict=True):
                by_seconds.plot(seconds, losses, **style)
                steps = results.steps * np.arange(1, 1 + len(losses))
                (curves[name],) = by_steps.plot(steps, losses, **style)
        level(by_steps, LEARNED, "learned", "right", color=FAINT, ls=(0, (4, 3)))
        by_seconds.set(xlabel="seconds of training", xscale="log", ylim=(0, None))
        by_seconds.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        by_seconds.xaxis.set_major_formatter("{x:g}")
        by_seconds.xaxis.set_minor_formatter("")
        by_seconds.set_ylabel("own cross entropy in training\n(nats per token)")
        by_steps.set(xlabel="steps", xlim=(0, None))
        by_steps.legend(
            curves.values(), curves, frameon=False, fontsize=9, loc="upper right", handlelength=3
        )
        marks = dict(zip(ADDRESSES, MARKS, strict=False))
        *panels, last = below.subplots(1, len(PANELS) + 1, sharey=True)
        for axes, (label, measures) in zip(panels, PANELS.items(), strict=True):
            for key in measures:
                rows = [  # one state has no pair
                    [] if key == "lowest_pair" and KINDS[name].abilities == SINGLE
                    else getattr(one, key)
                    for name, one in results.rivals.items()
                ]  # fmt: skip
                dot_rows(axes, rows, color_of(key), marks.get(key.removeprefix("completed_"), "o"))
            axes.set_xlabel(label, fontsize=9)
        for axes in (*panels, last):  # stripes, so that the eye keeps its row
            for row in range(0, len(results.rivals), 2):
                axes.axhspan(row - 0.5, row + 0.5, color="#F3F3F3", lw=0, zorder=0)
        roots = lambda x: np.sqrt(np.maximum(x, 0)), np.square  # the own lie close to 0
        panels[0].set_xscale("function", functions=roots)
        panels[0].set_xticks((0.1, 1, 3, 6), ("0.1", "1", "3", "6"))
        for axes in panels[:5]:
            axes.set_xlim(0)
        for row, one in enumerate(results.rivals.values()):
            reached = sum(map(math.isfinite, one.reached))
            if any(one.losses) and reached < len(one.reached):
                text = f"{reached} of {len(one.reached)}" if reached else "in none of the seeds"
                panels[3].text(0.5, row - 0.28, text, ha="left", va="center", fontsize=8)
        panels[4].axvline(np.mean(results.base_speed), color=FAINT, lw=1, ls=(0, (4, 3)))
        panels[5].axvline(0, color=FAINT, lw=1)
        panels[6].set_xscale("log")
        panels[6].xaxis.set_major_formatter("{x:,.0f}")
        panels[6].xaxis.set_major_locator(LogLocator(subs=(2,)))
        panels[6].xaxis.set_minor_formatter("")
        for key, (label, color) in ADDRESSES.items():
            panels[0].plot([], [], marks[key], ls="-", ms=5, color=color, lw=2, label=label)
        below.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9)
        for row, (name, one) in enumerate(results.rivals.items()):
            trained = f"{one.parameters[0] / 1000:.0f} k" if one.parameters[0] else "none"
            panels[0].text(
                -0.08, row, f"{name}\n{trained}", color=KINDS[name].color,
                fontweight="bold", ha="right", va="center",
                transform=panels[0].get_yaxis_transform(),
            )  # fmt: skip
            for place, able in enumerate(KINDS[name].abilities):
                last.text(place, row, "✓" if able else "–", ha="center", va="center")
        panels[0].set(yticks=[], ylim=(len(results.rivals) - 0.5, -0.5))
        last.set_xlim(-0.5, len(ABILITIES) - 0.5)
        last.set_xticks(range(len(ABILITIES)), ABILITIES, rotation=90, fontsize=9)

    def _claims(self, results: Results) -> Claims:
        found = results.rivals
        memory, lora, each = (found[n] for n in ("document memory", "one LoRA", PER_DOCUMENT[0]))
        in_time = results.after_equal_seconds()
        shared = ("without keys", "one LoRA")
        at_ends = []
        for name, some in results.tried.items():
            best = min(some, key=lambda one: math.inf if one.own is None else one.own)
            rates = [one.lr for one in some if one.optimizer == best.optimizer]
            if best.lr in (min(rates), max(rates)):
                at_ends.append(name)
        yield Claim(
            "At equal seconds what all documents share, a memory without keys or one LoRA, knows "
            f"them better than a document memory, by more than {NEAR:g} nats",
            [
                above(
                    f"own, memory − {name}, nats",
                    differences(in_time["document memory"], in_time[name]),
                    NEAR,
                )
                for name in shared
            ],
            note=f"in training, after equal steps: {spreads(results.after_equal_steps(), ' ')}; "
            f"the lowest or the highest rate tried did best for {' and '.join(at_ends) or 'none'}",
            exploratory=True,
        )
        yield Claim(
            "At equal seconds a document memory knows them better than what is trained for each "
            "document: a LoRA, a prefix, a CARTRIDGE",
            [
                more(f"own, {name} − memory, nats", in_time[name], in_time["document memory"], NEAR)
                for name in PER_DOCUMENT
            ],
            exploratory=True,
        )
        yield Claim(
            "And still does where that has had as many steps, too",
            [
                more(f"own, {name} − memory, nats", found[name].own, memory.own, NEAR)
                for name in PER_DOCUMENT
            ],
            exploratory=True,
        )
        yield Claim(
            "A LoRA per document keeps documents further apart than a document memory",
            [more("other − own, LoRA − memory, nats", each.gap, memory.gap, FAR)],
            note=f"lowest pair {spread(each.lowest_pair)} by the LoRAs, "
            f"{spread(memory.lowest_pair)} by the memory; own cross entropy {spread(each.own)} and "
            f"{spread(memory.own)}",
            own=highest([memory.own, each.own]),
            exploratory=True,
        )
        yield Claim(
            "A document memory harms other prose less than one LoRA",
            [more("harm, LoRA − memory, nats", lora.harm, memory.harm, FAR)],
            note=f"harm {spread(memory.harm)} by the memory, {spread(lora.harm)} by the LoRA; own "
            f"cross entropy {spread(memory.own)} by the memory, {spread(lora.own)} by the LoRA",
            own=highest([memory.own, lora.own]),
            exploratory=True,
        )
        context = found["in the context"]
        idle = spread(context.own).mean > LEARNED
        yield Claim(
            "A document memory knows a document better than the LM that has it in its context",
            [more("own, context − memory, nats", context.own, memory.own, FAR)],
            note=f"{spread(context.own)} in the context, {spread(context.other)} with another "
            f"document there{': an LM that gains so little by reading is no rival' if idle else ''}"
            f"; kB to store, per document: {spread(context.kilobytes)}, the memory's "
            f"{spread(memory.kilobytes)}",
            own=context.own,
            exploratory=True,
        )
        yield Claim(
            "A single state reads a text alike, whosever it is said to be",
            [
                between(f"other − own, {name}, nats", found[name].gap, -0.001, 0.001)
                for name in shared
            ],
            check=True,
        )


def color_of(measure: str) -> str:
    """The colour of a measure: its address's, if it has one."""
    return ADDRESSES.get(measure.removeprefix("completed_"), ("", INK))[1]


def one_seed(
    pool: RunPool, seed: int, settings: Mapping[str, dict[str, Any]]
) -> tuple[dict[str, dict[str, Any]], float, int]:
    """The numbers of each rival, tokens per second of the base LM, and steps of an epoch."""
    lm, documents, config = pool.lm, pool.documents(seed), pool.config(seed=seed)
    made = {
        name: kind.rival(lm, documents, replace(config, **settings.get(name, {})))
        for name, kind in KINDS.items()
    }
    first, *others = [one for one in made.values() if one.trained]
    train_in_turns(first, others, config.num_epochs)
    passages = cache_hidden_states(lm, documents, replace(config, batch_size=1))
    prose = cache_hidden_states(lm, strangers(pool, seed), config)
    base, *speeds = tokens_per_second(list(made.values()), passages)
    rows = {
        name: {"speed": speed, **measured(one, passages, prose)}
        for (name, one), speed in zip(made.items(), speeds, strict=True)
    }
    return rows, base, len(first.cache.batches)
