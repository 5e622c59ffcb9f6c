"""Memory size against document length: does a longer document take more memory?

The paper reports, for ten documents of 5 to 60 segments, correlations of 0.79 (sigmoid), 0.97
(tanh) and 0.86 (relu), and does not say in a formula what the size of a memory is. Every reading
of it that we know of is measured here, over all twenty documents, every segment of them:

    k_doc            active entries, L1 norm, L2 norm of the document selection
    k_doc × k_tok    active entries, L1 norm, L2 norm of document × token selection
    … × tokens       L1 norm of document × token selection, times the document's tokens

The last grows with length by its very definition. As controls stand two that training has no
part in: the norm of the DocRep, and the L2 norm of k_doc before training.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from docmem.documents import segments
from docmem.experiments.activation import OPEN
from docmem.experiments.lab import Claim, Lab, spread, verdict
from docmem.runs import Run
from docmem.selection import Selection
from docmem.style import FAINT, INK, document_color, headline, styled

QUESTION = "Does a longer document take more memory?"
PUBLISHED = {"sigmoid": 0.79, "tanh": 0.97, "relu": 0.86}
N_DOCS = 20
MOST_SEEDS = 2
WHOLE = {"max_segments": 10_000, "max_labels": N_DOCS}
# An epoch of twenty whole articles is 33 of the preset's at its small size.
SMALL = {"num_epochs": 10, "save_freq": 5}
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


def measure(lab: Lab) -> dict[str, Any]:
    """Of each activation and seed: every size of every document, and its length in segments."""
    changes = {**WHOLE, **(SMALL if lab.preset == "tiny" else {})}
    documents = lab.documents(N_DOCS)
    config = lab.config(**changes)
    lengths = [
        len(segments(document.text, config.segment_length, config.max_segments))
        for document in documents
    ]
    results: dict[str, Any] = {"segments": lengths}
    for name in PUBLISHED:
        results[name] = []
        for seed in lab.seed_numbers(MOST_SEEDS):
            run = lab.run(seed, documents, key_activation=name, **changes)
            sizes = sizes_of(run, tokens_of(lab, run))
            results[name].append(
                {
                    "sizes": sizes,
                    "correlation": {key: correlation(lengths, sizes[key]) for key in sizes},
                    "own": run.history[-1].positive_ce,
                }
            )
    return results


def tokens_of(lab: Lab, run: Run) -> Tensor:
    """Tokens of all segments of each document, (n_docs,)."""
    tokens = torch.zeros(len(run.documents))
    for index, document in enumerate(run.documents):
        texts = segments(document.text, run.config.segment_length, run.config.max_segments)
        tokens[index] = lab.lm.tokenize(texts, run.config.max_length).attention_mask.sum()
    return tokens


def sizes_of(run: Run, tokens: Tensor) -> dict[str, list[float]]:
    """Every size and control of every document of a run, at its last snapshot."""
    taken = run.snapshots
    last: Selection = taken.at(-1)
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


@styled
def draw(figure: Figure, results: dict[str, Any], note: str) -> Figure:
    """One size against length, a column an activation; below, the correlation of every size."""
    parts: Any = figure.subfigures(2, 1, height_ratios=(1, 1.25))
    above, below = parts
    lengths = results["segments"]
    for axes, name in zip(above.subplots(1, len(PUBLISHED)), PUBLISHED, strict=True):
        first = results[name][0]["sizes"][MAIN]
        for index, (length, size) in enumerate(zip(lengths, first, strict=True)):
            axes.plot(length, size, "o", ms=7, color=document_color(index), mew=0, alpha=0.85)
        axes.set_title(f"{name}: r = {results[name][0]['correlation'][MAIN]:.2f}")
        axes.set_xlabel("segments of the document")
        axes.set_ylim(0, 1.08 * max(first))
        axes.set_xlim(0, 1.08 * max(lengths))
        axes.set_ylabel(SIZES[MAIN])
    panels = below.subplots(1, len(PUBLISHED), sharey=True)
    for axes, (name, published) in zip(panels, PUBLISHED.items(), strict=True):
        keys = list((*SIZES, *CONTROLS))
        for place, key in enumerate(keys):
            values = [seed["correlation"][key] for seed in results[name]]
            color = FAINT if key in CONTROLS or key == BY_DEFINITION else INK
            axes.plot(values, [place] * len(values), "o", ms=6, color=color, alpha=0.4, mew=0)
            axes.plot([np.mean(values)] * 2, [place - 0.3, place + 0.3], color=color, lw=2)
        axes.axvline(published, color="#882255", lw=1.4, ls=(0, (4, 3)))
        axes.annotate(
            f"published {published}", (published, -0.5), (-3, 1), textcoords="offset points",
            ha="right", va="bottom", color="#882255", annotation_clip=False, fontsize=8.5,
        )  # fmt: skip
        axes.axvline(0, color="#CCCCCC", lw=1, zorder=0)
        axes.set_xlim(-1, 1)
        axes.set_yticks(range(len(keys)), [{**SIZES, **CONTROLS}[key] for key in keys])
        axes.set_xlabel(f"correlation with length, {name}")
    panels[0].set_ylim(len(keys) - 0.5, -1.2)
    headline(
        figure,
        "Size of a memory against length of its document, by every reading of size",
        f"{len(lengths)} documents, all their segments; {len(results['tanh'])} seeds, above the "
        f"first; grey: by its definition larger for longer texts, or untouched by training. {note}",
    )
    return figure


SIZE = (12, 8.4)
ALT = (
    "Above, size of the memory against segments of the document for sigmoid, tanh and relu, a dot "
    "a document; below, for each the correlation with length of seven sizes and two controls, "
    "with the published one as a dashed line."
)


def claims(results: dict[str, Any]) -> list[Claim]:
    """Size goes with length; and does so by more than chance of the DocReps."""

    def of(name: str, key: str) -> Any:
        return spread(seed["correlation"][key] for seed in results[name])

    own = ", ".join(f"{n} {spread(seed['own'] for seed in results[n])}" for n in PUBLISHED)
    learned = f"own cross entropy in training {own}"
    readings = [key for key in SIZES if key != BY_DEFINITION]
    means = {name: {key: of(name, key).mean for key in readings} for name in PUBLISHED}
    best = {name: max(readings, key=means[name].__getitem__) for name in PUBLISHED}
    return [
        Claim(
            f"A longer document takes more memory ({SIZES[MAIN]})",
            ", ".join(f"{name} {value}" for name, value in PUBLISHED.items()),
            "correlation with segments " + ", ".join(f"{n} {of(n, MAIN)}" for n in PUBLISHED),
            verdict(*(of(name, MAIN).mean > 0.5 for name in PUBLISHED)),
            f"These memories are young: {learned}",
        ),
        Claim(
            "Some reading of memory size, other than one that multiplies by tokens, goes with "
            "length (r above 0.5)",
            "the paper gives no formula",
            "best reading "
            + ", ".join(f"{n}: {SIZES[key]} {of(n, key)}" for n, key in best.items())
            + f"; {SIZES[BY_DEFINITION]} "
            + ", ".join(f"{n} {of(n, BY_DEFINITION)}" for n in PUBLISHED),
            verdict(*(of(name, key).mean > 0.5 for name, key in best.items())),
        ),
    ]
