"""Rivals: what one could take instead of a document memory, and when to take what.

The paper leaves it open. All have as many trained parameters, the optimizer and rate that did best
in half the time on an unreported seed, and the same seconds: they take turns with the document
memory, which trains for the epochs of its preset. Only the document in the context is not trained.

Other prose, which each reads while it is switched on, is the beginning of those articles of the
encyclopedia that the seed did not draw: nothing here was trained on them.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from docmem.errors import DocmemError
from docmem.experiments.claims import LEARNED, Claim, Claims
from docmem.experiments.drawing import MARKS, dot_rows, level, stacked
from docmem.experiments.pool import FIRST_TUNING_SEED, RunPool
from docmem.experiments.rivals import Memory, Rival, UngatedMemory, train_in_turns
from docmem.experiments.rivals_lora import LoRA, PerDocumentLoRA
from docmem.experiments.rivals_measured import measured, tokens_per_second
from docmem.experiments.rivals_prefix import Cartridge, InContext, PrefixTuning
from docmem.experiments.stats import above, between, differences, highest, more, spread, spreads
from docmem.experiments.studies.attribution import strangers
from docmem.experiments.study import Study, columns
from docmem.lm.hidden_states import cache_hidden_states
from docmem.plots.style import FAINT, GUIDANCE, INK, NEGATIVE, OWN
from docmem.training.muon import is_matrix

SEARCHED = 1 / 2
"""Of the memory's epochs: for as many seconds each rate is tried."""
NEAR, FAR = 0.05, 0.25
"""Nats per token that matter: of own cross entropies, which end near 0, and of others."""


class Kind(NamedTuple):
    """A rival, how it is drawn, what it can do, and the rates that are tried for it."""

    rival: type[Rival]
    color: str
    abilities: tuple[bool, bool, bool]
    """As in ABILITIES."""
    adamw: tuple[float, ...] = ()
    muon: tuple[float, ...] = ()


ABILITIES = ("tell whose", "forget or\nadd one", "and leave\nthe others")
"""Whether it tells whose a text is; forgets or adds one document; and leaves the others untouched.

By construction. A state per document does all: a text is read after each, and a state is thrown
away or made alone. DocReps share their weights, which `forget` and `add` train while the others are
held, not untouched. Of a single state no part is one document's: all have to be learned again."""
EACH, SHARED, SINGLE = (True, True, True), (True, True, False), (False, False, False)
KINDS = {
    "document memory": Kind(Memory, GUIDANCE, SHARED, (2e-3, 4e-3, 8e-3), (0.05, 0.08, 0.12)),
    "without keys": Kind(UngatedMemory, "#2299BB", SINGLE, (4e-3, 8e-3), (0.05, 0.08, 0.12)),
    "one LoRA": Kind(LoRA, "#882255", SINGLE, (2.5e-3, 5e-3, 1e-2), (5e-3, 1e-2)),
    "LoRA per document": Kind(PerDocumentLoRA, "#CC6677", EACH, (1e-2, 2e-2, 4e-2), (1e-2, 2e-2)),
    "prefix tuning": Kind(PrefixTuning, "#999933", EACH, (0.1, 0.3, 0.8), (10.0, 30.0)),
    "CARTRIDGE": Kind(Cartridge, "#AA4499", EACH, (0.1, 0.3, 0.8), (10.0, 30.0)),
    "in the context": Kind(InContext, INK, EACH),
}
"""By name. The document memory is tried with its procedure's own optimizer alone."""
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
ADVICE: tuple[dict[str, str], ...] = (
    {"holds": "one LoRA, where nobody asks whose a text is",
     "does not hold": "a document memory, where seconds count"},
    {"holds": "a document memory, where somebody asks whose a text is"},
    {"holds": "a LoRA per document, where no document may leak into another"},
    {"holds": "a document memory, where other prose is read with it",
     "does not hold": "one LoRA, where other prose is read with it"},
    {"holds": "the context, where nothing can be trained"},
)  # fmt: skip
"""What follows from each claim, by its verdict."""


@dataclass(frozen=True)
class Tried:
    """A rate on the tuning seed."""

    optimizer: str
    lr: float
    own: float | None = None
    """Own cross entropy, nats per token; None: it diverged."""

    @property
    def settings(self) -> dict[str, Any]:
        """What it changes in a TrainConfig."""
        name = "muon_lr" if self.optimizer == "muon" else "lr"
        return {"optimizer": self.optimizer, name: self.lr}


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
        """Own cross entropy in the last epoch that all who are trained had the time for."""
        trained = {name: one.losses for name, one in self.rivals.items() if any(one.losses)}
        fewest = [min(map(len, seed)) for seed in zip(*trained.values(), strict=True)]
        return {
            name: [seed[epochs - 1] for seed, epochs in zip(losses, fewest, strict=True)]
            for name, losses in trained.items()
        }

    @property
    def advice(self) -> str:
        """When to take what, by the verdicts."""
        judged = zip(ADVICE, Rivals().claims(self), strict=False)
        taken = [text for texts, one in judged if (text := texts.get(one.verdict))]
        return f"Take {'; '.join(taken)}. " if taken else ""


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
    shown = "As many parameters, the same seconds: what each rival knows, and of which document"
    finding = "In the same seconds the memory learns more than what is trained for each document"
    needs = (None, "holds")
    caption = (
        "Seconds end with an epoch, so rivals of few epochs had more of them. Compare harm only "
        "where own is alike. Under a name: trained parameters. One state for all documents has no "
        "other address. Dashed: the base LM's speed."
    )

    def measure(self, pool: RunPool) -> Results:
        """Find the rates, then train all rivals for the same seconds and measure them."""
        tried = search(pool)
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
            style |= {"marker": ".", "ms": 4}  # some had time for a single epoch
            for seconds, losses in zip(one.seconds, one.losses, strict=True):
                by_seconds.plot(seconds, losses, **style)
                steps = results.steps * np.arange(1, 1 + len(losses))
                (curves[name],) = by_steps.plot(steps, losses, **style)
        level(by_steps, LEARNED, "learned", "right", color=FAINT, ls=(0, (4, 3)))
        by_seconds.set(xlabel="seconds of training", xlim=(0, None), ylim=(0, None))
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
        below.legend(loc="outside lower left", ncols=3, frameon=False, fontsize=9)
        for row, (name, one) in enumerate(results.rivals.items()):
            panels[0].text(
                -0.08, row, f"{name}\n{one.parameters[0] / 1000:.0f} k", color=KINDS[name].color,
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
        shared = ("without keys", "one LoRA")
        best = {
            name: min(some, key=lambda one: math.inf if one.own is None else one.own)
            for name, some in results.tried.items()
        }
        at_lowest, at_highest = (
            ", ".join(
                name for name, one in best.items()
                if one.lr == end(each.lr for each in results.tried[name]
                                 if each.optimizer == one.optimizer)
            ) or "none"
            for end in (min, max)
        )  # fmt: skip
        yield Claim(
            "At equal seconds what all documents share, a memory without keys or one LoRA, knows "
            f"them better than a document memory, by more than {NEAR:g} nats",
            [
                above(f"own, memory - {name}, nats", differences(memory.own, found[name].own), NEAR)
                for name in shared
            ],
            note=f"after equal steps {spreads(results.after_equal_steps(), ' ')}; the lowest rate "
            f"tried did best for {at_lowest}, the highest for {at_highest}",
            exploratory=True,
        )
        yield Claim(
            "A document memory knows them better than what is trained for each document: a LoRA, "
            "a prefix, a CARTRIDGE",
            [
                more(f"own, {name} - memory, nats", found[name].own, memory.own, NEAR)
                for name in PER_DOCUMENT
            ],
        )
        yield Claim(
            "A LoRA per document keeps documents further apart than a document memory",
            [more("other - own, LoRA - memory, nats", each.gap, memory.gap, FAR)],
            own=highest([memory.own, each.own]),
        )
        yield Claim(
            "A document memory harms other prose less than one LoRA",
            [more("harm, LoRA - memory, nats", lora.harm, memory.harm, FAR)],
            note=f"harm {spread(memory.harm)} by the memory, {spread(lora.harm)} by the LoRA; they "
            f"have not learned as much: own cross entropy {spread(memory.own)} by the "
            f"memory, {spread(lora.own)} by the LoRA",
            own=highest([memory.own, lora.own]),
        )
        context = found["in the context"]
        idle = spread(context.own).mean > LEARNED
        yield Claim(
            "A document memory knows a document better than the LM that has it in its context",
            [more("own, context - memory, nats", context.own, memory.own, FAR)],
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
                between(f"other - own, {name}, nats", found[name].gap, -0.001, 0.001)
                for name in shared
            ],
            check=True,
        )


def color_of(measure: str) -> str:
    """The colour of a measure: its address's, if it has one."""
    return ADDRESSES.get(measure.removeprefix("completed_"), ("", INK))[1]


def search(pool: RunPool) -> dict[str, list[Tried]]:
    """Try every rate of every rival on the tuning seed, each for the same seconds."""
    seed = FIRST_TUNING_SEED
    documents, config = pool.documents(seed), pool.config(seed=seed)
    memory = Memory(pool.lm, documents, config)
    for _ in range(math.ceil(SEARCHED * config.num_epochs)):
        memory.epoch()

    def results_of(kind: Kind) -> Iterator[Tried]:
        for optimizer in ("adamw", "muon"):
            if kind.rival is Memory and optimizer != config.optimizer:
                continue
            for rate in getattr(kind, optimizer):
                tried = Tried(optimizer, rate)
                rival = kind.rival(pool.lm, documents, replace(config, **tried.settings))
                if optimizer == "muon" and not any(map(is_matrix, rival.trained)):
                    continue  # there is nothing for it to move
                try:
                    rival.train_for(memory.seconds[-1])
                    yield replace(tried, own=rival.own_cross_entropy())
                except DocmemError:
                    yield tried

    return {name: list(results_of(kind)) for name, kind in KINDS.items() if kind.adamw}


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
