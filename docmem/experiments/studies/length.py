"""Memory size against document length: does a longer document take more memory?

The paper reports, for ten documents of 5 to 60 segments, correlations of 0.79 (sigmoid), 0.97
(tanh) and 0.86 (relu), and does not say in a formula what the size of a memory is. Every reading
of it that we know of is measured here: SIZES, of which the last grows with length by its very
definition, and two controls that have no part in training. All are measured twice: of twenty whole
documents, of which the embedded LM's memory learns little in the time there is, and of ten
documents cut to lengths that the seed chooses, few enough to be learned.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from docmem.documents import Document, segments
from docmem.experiments.drawing import stacked
from docmem.experiments.pool import RunPool
from docmem.experiments.stats import Verdict, spread, spreads, values_of, verdict
from docmem.experiments.studies.activation import OPEN
from docmem.experiments.study import Claim, Claims, Study, columns
from docmem.plots.style import INK, NEGATIVE, OWN, document_color
from docmem.training.run import Run

PUBLISHED = {"sigmoid": 0.79, "tanh": 0.97, "relu": 0.86}
PARTS = {
    "whole": ("all documents, every segment", OWN),
    "cut": ("ten documents, cut", NEGATIVE),
}
N_DOCS = 20
MOST_SEEDS = {"whole": 2, "cut": 3}
EVERY = {"max_segments": 10_000}
# An epoch of twenty whole articles is 33 of the preset's at its small size.
SMALL = {"num_epochs": 4, "save_freq": 4}
LENGTHS = (1, 1, 2, 2, 2, 3, 3, 4, 5, 7)
"""Segments that documents are cut to."""
SIZES = {
    "k_doc, active": f"k_doc: entries above {OPEN}",
    "k_doc, L1": "k_doc: L1 norm",
    "k_doc, L2": "k_doc: L2 norm",
    "product, active": f"k_doc × k_tok: entries above {OPEN}",
    "product, L1": "k_doc × k_tok: L1 norm",
    "product, L2": "k_doc × k_tok: L2 norm",
    "product × tokens": "k_doc × k_tok: L1 norm × tokens",
}
CONTROLS = {
    "DocRep, L2": "control: norm of the DocRep",
    "untrained k_doc, L2": "control: L2 of k_doc untrained",
}
MAIN = "product, L2"
"""The size that is drawn against length."""
BY_DEFINITION = "product × tokens"


@dataclass(frozen=True)
class Lengths:
    """Of one activation, one per seed."""

    segments: list[list[int]]
    """Of each document."""
    sizes: list[dict[str, list[float]]]
    """Each size and control of each document."""
    own: list[float]
    """Own cross entropy in the last epoch, nats per token."""

    def correlations(self, key: str) -> list[float]:
        """The correlation of one size with the number of segments, one per seed."""
        seeds = zip(self.segments, self.sizes, strict=True)
        return [correlation(lengths, sizes[key]) for lengths, sizes in seeds]


Part = Mapping[str, Lengths]


@dataclass(frozen=True)
class Results:
    """By activation, of whole documents and of cut ones."""

    whole: dict[str, Lengths]
    cut: dict[str, Lengths]

    @property
    def parts(self) -> dict[str, Part]:
        """Both, by their names in PARTS."""
        return {"whole": self.whole, "cut": self.cut}

    @property
    def seeds(self) -> dict[str, int]:
        """Seeds of each part."""
        return {name: len(part["tanh"].own) for name, part in self.parts.items()}


class Length(Study[Results]):
    """Does a longer document take more memory?"""

    results = Results
    size = (12, 11.4)
    alt = (
        "Above, size of the memory against segments of the document for sigmoid, tanh and relu, "
        "one dot per document, of whole articles and of ten cut to between one and seven "
        "segments; below, for each the correlation with length of seven sizes and two controls, "
        "with the published one as a dashed line."
    )
    shown = "Size of a memory against length of its document, by every reading of size"
    finding = "No size of a memory grows with its document, but one that counts tokens"
    needs = ("not", "not", "not", "not")
    caption = (
        f"{{results.seeds[whole]}} seeds of {PARTS['whole'][0]}, {{results.seeds[cut]}} of "
        f"{PARTS['cut'][0]}; above the first. Under the line: by its definition larger for "
        "longer texts, or untouched by training."
    )

    def measure(self, pool: RunPool) -> Results:
        """Train every activation on whole and on cut documents; take every size."""
        short = SMALL if pool.preset == "tiny" else {}

        def measured(part: str, activation: str) -> Lengths:
            rows = []
            for seed in pool.seed_numbers(MOST_SEEDS[part]):
                documents, change = pool.documents(N_DOCS), short
                if part == "cut":
                    documents = cut(pool.documents(), seed, pool.config().segment_length)
                    change = {}
                run = pool.run(seed, documents, key_activation=activation, **EVERY, **change)
                rows.append(one_run(pool, run))
            return Lengths(**columns(rows))

        return Results(**{part: {n: measured(part, n) for n in PUBLISHED} for part in PARTS})

    def _draw(self, figure: Figure, results: Results) -> None:
        above, below = stacked(figure, 1.7, 1.25)
        rows = above.subplots(len(PARTS), len(PUBLISHED), squeeze=False)
        for panels, (part, found) in zip(rows, results.parts.items(), strict=True):
            for axes, (name, one) in zip(panels, found.items(), strict=True):
                lengths, sizes = one.segments[0], one.sizes[0][MAIN]
                for index, (length, size) in enumerate(zip(lengths, sizes, strict=True)):
                    color = document_color(index)
                    axes.plot(length, size, "o", ms=7, color=color, mew=0, alpha=0.85)
                r = one.correlations(MAIN)[0]
                axes.set_title(f"{name}, {PARTS[part][0]}: r = {r:.2f}", fontsize=10)
                axes.set(xlim=(0, 1.08 * max(lengths)), ylim=(0, 1.08 * max(sizes)))
                axes.set_xlabel("segments of the document")
            panels[0].set_ylabel(SIZES[MAIN])
        panels = below.subplots(1, len(PUBLISHED), sharey=True)
        for axes, name in zip(panels, PUBLISHED, strict=True):
            draw_correlations(axes, results, name)
        below.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=2,
                     frameon=False)  # fmt: skip

    def _judge(self, results: Results) -> Claims:
        main = dict.fromkeys(PUBLISHED, MAIN)
        own = {name: spreads(values_of(part, "own"), " ") for name, part in results.parts.items()}
        yield Claim(
            f"A longer document takes more memory ({SIZES[MAIN]})",
            f"correlation with segments {every(results.whole, MAIN)}",
            grows(results.whole, main),
            published=", ".join(f"{name} {value}" for name, value in PUBLISHED.items()),
            why=f"These memories are young: own cross entropy in training {own['whole']}",
        )
        yield Claim(
            "Some reading of memory size, other than one that multiplies by tokens, goes with "
            "length (r above 0.5)",
            best_and_certain(results.whole),
            grows(results.whole, best(results.whole)),
            published="the paper gives no formula",
        )
        yield Claim(
            "A longer document takes more memory where all are learned: ten cut to "
            f"{min(LENGTHS)} to {max(LENGTHS)} segments ({SIZES[MAIN]})",
            f"correlation with segments {every(results.cut, MAIN)}; own cross entropy in training "
            f"{own['cut']}",
            grows(results.cut, main),
            published="not measured like this",
            exploratory=True,
        )
        yield Claim(
            "Some reading of it, other than one that multiplies by tokens, goes with length there",
            f"{best_and_certain(results.cut)}; control, norm of the DocRep "
            f"{every(results.cut, 'DocRep, L2')}",
            grows(results.cut, best(results.cut)),
            published="not measured like this",
            exploratory=True,
        )


def draw_correlations(axes: Axes, results: Results, activation: str) -> None:
    """Every size's correlation with length, one dot per seed, and the published one."""
    labels = {**SIZES, **CONTROLS}
    for (part, (title, color)), lower in zip(PARTS.items(), (-0.17, 0.17), strict=True):
        for place, key in enumerate(labels):
            values = results.parts[part][activation].correlations(key)
            y = place + lower
            axes.plot(values, [y] * len(values), "o", ms=5, color=color, alpha=0.4, mew=0)
            axes.plot([np.mean(values)] * 2, [y - 0.17, y + 0.17], color=color, lw=2)
        axes.plot([], [], color=color, lw=2, label=title)
    axes.axhline(len(SIZES) - 1.5, color=INK, lw=0.8)
    axes.axvline(0, color="#CCCCCC", lw=1, zorder=0)
    published = PUBLISHED[activation]
    axes.axvline(published, color=INK, lw=1.4, ls=(0, (4, 3)))
    axes.annotate(
        f"published {published}", (published, -0.5), (-3, 1), textcoords="offset points",
        ha="right", va="bottom", color=INK, annotation_clip=False, fontsize=8.5,
    )  # fmt: skip
    axes.set_yticks(range(len(labels)), list(labels.values()))
    axes.set_ylim(len(labels) - 0.5, -1.2)
    axes.set(xlim=(-1, 1), xlabel=f"correlation with length, {activation}")


def every(part: Part, key: str) -> str:
    """The correlations of one size of each activation, as text."""
    return spreads({name: one.correlations(key) for name, one in part.items()}, " ")


def best(part: Part) -> dict[str, str]:
    """Of each activation, the size that goes with length most; not the one that must."""
    keys = [key for key in SIZES if key != BY_DEFINITION]
    return {
        name: max(keys, key=lambda key: spread(one.correlations(key)).mean)
        for name, one in part.items()
    }


def best_and_certain(part: Part) -> str:
    """The correlations of each activation's best size, and of the one that must grow, as text."""
    found = {
        f"{name}: {SIZES[key]}": part[name].correlations(key) for name, key in best(part).items()
    }
    certain = f"{SIZES[BY_DEFINITION]} {every(part, BY_DEFINITION)}"
    return f"best reading {spreads(found, ' ')}; {certain}"


def grows(part: Part, keys: Mapping[str, str]) -> Verdict:
    """Whether each activation's size of `keys` goes with length: r above 0.5."""
    return verdict(*(spread(part[name].correlations(key)).mean > 0.5 for name, key in keys.items()))


def cut(documents: Sequence[Document], seed: int, segment_length: int) -> list[Document]:
    """Each document's beginning, as long as one of LENGTHS that the seed deals it.

    A document that is shorter stays whole.
    """
    deal = torch.randperm(len(documents), generator=torch.Generator().manual_seed(seed))
    shorter = []
    for document, place in zip(documents, deal.tolist(), strict=True):
        words = segment_length + (LENGTHS[place % len(LENGTHS)] - 1) * (segment_length // 2)
        text = " ".join(document.text.split()[:words])
        shorter.append(Document(document.title, text))
    return shorter


def one_run(pool: RunPool, run: Run) -> dict[str, Any]:
    """Lengths and sizes of one run, and its last own cross entropy."""
    config, lengths, tokens = run.config, [], []
    for document in run.documents:
        texts = segments(document.text, config.segment_length, config.max_segments)
        lengths.append(len(texts))
        tokens.append(pool.lm.tokenize(texts, config.max_length).attention_mask.sum())
    own = run.load_history()[-1].positive_ce
    return {"segments": lengths, "sizes": sizes_of(run, torch.stack(tokens)), "own": own}


def sizes_of(run: Run, tokens: Int[Tensor, " n_docs"]) -> dict[str, list[float]]:
    """Every size and control of every document of a run, at its last snapshot."""
    taken = run.load_snapshots()
    last = taken.at(-1)
    sizes = {
        "product × tokens": last.product.norm(p=1, dim=1) * tokens,
        "DocRep, L2": taken.doc_reps[-1].norm(dim=1),
        "untrained k_doc, L2": taken.document[0].norm(dim=1),
    }
    for name, selection in (("k_doc", last.document), ("product", last.product)):
        sizes[f"{name}, active"] = (selection.abs() > OPEN).sum(1).float()
        sizes[f"{name}, L1"] = selection.norm(p=1, dim=1)
        sizes[f"{name}, L2"] = selection.norm(dim=1)
    return {key: sizes[key].tolist() for key in (*SIZES, *CONTROLS)}


def correlation(left: Sequence[float], right: Sequence[float]) -> float:
    """Pearson's; 0 where either is the same for all, which goes with nothing."""
    if np.ptp(left) == 0 or np.ptp(right) == 0:
        return 0.0
    return float(np.corrcoef(left, right)[0, 1])
