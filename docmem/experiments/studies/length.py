"""Memory size against document length: does a longer document take more memory?

The paper reports, for ten documents of 5 to 60 segments, correlations of 0.79 (sigmoid), 0.97
(tanh) and 0.86 (relu), and does not say in a formula what the size of a memory is. Every reading
of it that we know of is measured here:

    k_doc            active entries, L1 norm, L2 norm of the document selection
    k_doc × k_tok    active entries, L1 norm, L2 norm of document × token selection
    … × tokens       L1 norm of document × token selection, times the document's tokens

The last grows with length by its very definition. As controls stand two that training has no
part in: the norm of the DocRep, and the L2 norm of k_doc before training.

They are taken twice: of all twenty documents with every segment, of which the embedded LM's
memory has learned little in the time there is, and of ten documents cut to lengths that a seed
deals them, few enough to be learned.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from docmem.documents import Document, segments
from docmem.experiments.pool import Claim, RunPool, Spread, spread, verdict
from docmem.experiments.studies.activation import OPEN
from docmem.plots.style import INK, NEGATIVE, OWN, document_color, headline, styled
from docmem.training.run import Run
from docmem.training.selection import Selection

QUESTION = "Does a longer document take more memory?"
PUBLISHED = {"sigmoid": 0.79, "tanh": 0.97, "relu": 0.86}
PARTS = {"whole": "all documents, every segment", "cut": "ten documents, cut"}
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


def measure(pool: RunPool) -> dict[str, Any]:
    """Of each part, activation and seed: every document's length in segments and every size."""
    documents = pool.documents(N_DOCS)
    short = SMALL if pool.preset == "tiny" else {}
    results: dict[str, Any] = {part: {name: [] for name in PUBLISHED} for part in PARTS}
    for name in PUBLISHED:
        for seed in pool.seed_numbers(MOST_SEEDS["whole"]):
            run = pool.run(seed, documents, key_activation=name, **EVERY, **short)
            results["whole"][name].append(one_run(pool, run))
        for seed in pool.seed_numbers(MOST_SEEDS["cut"]):
            shorter = cut(pool.documents(), seed, pool.config().segment_length)
            run = pool.run(seed, shorter, key_activation=name, **EVERY)
            results["cut"][name].append(one_run(pool, run))
    return results


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
    """Lengths, sizes and their correlations of one run, and its last own cross entropy."""
    config = run.config
    lengths = [
        len(segments(document.text, config.segment_length, config.max_segments))
        for document in run.documents
    ]
    sizes = sizes_of(run, tokens_of(pool, run))
    return {
        "segments": lengths,
        "sizes": sizes,
        "correlation": {key: correlation(lengths, sizes[key]) for key in sizes},
        "own": run.load_history()[-1].positive_ce,
    }


def tokens_of(pool: RunPool, run: Run) -> Tensor:
    """Tokens of all segments of each document, (n_docs,)."""
    tokens = torch.zeros(len(run.documents))
    for index, document in enumerate(run.documents):
        texts = segments(document.text, run.config.segment_length, run.config.max_segments)
        tokens[index] = pool.lm.tokenize(texts, run.config.max_length).attention_mask.sum()
    return tokens


def sizes_of(run: Run, tokens: Tensor) -> dict[str, list[float]]:
    """Every size and control of every document of a run, at its last snapshot."""
    taken = run.load_snapshots()
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
    """One size against length, a row a part, a column an activation; every correlation below."""
    parts: Any = figure.subfigures(2, 1, height_ratios=(1.7, 1.25))
    above, below = parts
    rows = above.subplots(len(PARTS), len(PUBLISHED), squeeze=False)
    for (part, title), panels in zip(PARTS.items(), rows, strict=True):
        for axes, name in zip(panels, PUBLISHED, strict=True):
            first = results[part][name][0]
            lengths, sizes = first["segments"], first["sizes"][MAIN]
            for index, (length, size) in enumerate(zip(lengths, sizes, strict=True)):
                axes.plot(length, size, "o", ms=7, color=document_color(index), mew=0, alpha=0.85)
            axes.set_title(f"{name}, {title}: r = {first['correlation'][MAIN]:.2f}", fontsize=10)
            axes.set_xlabel("segments of the document")
            axes.set_ylim(0, 1.08 * max(sizes))
            axes.set_xlim(0, 1.08 * max(lengths))
        panels[0].set_ylabel(SIZES[MAIN])
    panels = below.subplots(1, len(PUBLISHED), sharey=True)
    keys = list((*SIZES, *CONTROLS))
    for axes, (name, published) in zip(panels, PUBLISHED.items(), strict=True):
        for place, key in enumerate(keys):
            for part, lower in (("whole", -0.17), ("cut", 0.17)):
                values = [seed["correlation"][key] for seed in results[part][name]]
                color, y = COLORS[part], place + lower
                axes.plot(values, [y] * len(values), "o", ms=5, color=color, alpha=0.4, mew=0)
                axes.plot([np.mean(values)] * 2, [y - 0.17, y + 0.17], color=color, lw=2)
        axes.axhline(len(SIZES) - 1.5, color=INK, lw=0.8)
        axes.axvline(published, color=INK, lw=1.4, ls=(0, (4, 3)))
        axes.annotate(
            f"published {published}", (published, -0.5), (-3, 1), textcoords="offset points",
            ha="right", va="bottom", color=INK, annotation_clip=False, fontsize=8.5,
        )  # fmt: skip
        axes.axvline(0, color="#CCCCCC", lw=1, zorder=0)
        axes.set_xlim(-1, 1)
        axes.set_yticks(range(len(keys)), [{**SIZES, **CONTROLS}[key] for key in keys])
        axes.set_xlabel(f"correlation with length, {name}")
    panels[0].set_ylim(len(keys) - 0.5, -1.2)
    for part, title in PARTS.items():
        panels[0].plot([], [], color=COLORS[part], lw=2, label=title)
    below.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=2,
                 frameon=False)  # fmt: skip
    title = "Size of a memory against length of its document, by every reading of size"
    if all(claim.verdict == "not" for claim in claims(results)):
        title = "No size of a memory grows with its document, but one that counts tokens"
    headline(
        figure,
        title,
        f"{len(results['whole']['tanh'])} seeds of {PARTS['whole']}, {len(results['cut']['tanh'])} "
        f"of {PARTS['cut']}; above the first. Under the line: by its definition larger for longer "
        f"texts, or untouched by training. {note}",
    )
    return figure


COLORS = {"whole": OWN, "cut": NEGATIVE}
SIZE = (12, 11.4)
ALT = (
    "Above, size of the memory against segments of the document for sigmoid, tanh and relu, a dot "
    "a document, of whole articles and of ten cut to between one and seven segments; below, for "
    "each the correlation with length of seven sizes and two controls, with the published one as "
    "a dashed line."
)


def claims(results: dict[str, Any]) -> list[Claim]:
    """Size goes with length, by the main reading, by some other, and where texts are learned."""

    def of(part: str, name: str, key: str) -> Spread:
        return spread(seed["correlation"][key] for seed in results[part][name])

    def every(part: str, key: str) -> str:
        return ", ".join(f"{name} {of(part, name, key)}" for name in PUBLISHED)

    def own(part: str) -> str:
        found = results[part]
        return ", ".join(f"{n} {spread(seed['own'] for seed in found[n])}" for n in PUBLISHED)

    def best(part: str) -> dict[str, str]:
        readings = [key for key in SIZES if key != BY_DEFINITION]
        return {n: max(readings, key=lambda key: of(part, n, key).mean) for n in PUBLISHED}

    def said(part: str) -> str:
        return "best reading " + ", ".join(
            f"{name}: {SIZES[key]} {of(part, name, key)}" for name, key in best(part).items()
        )

    def held(part: str) -> str:
        return verdict(*(of(part, name, key).mean > 0.5 for name, key in best(part).items()))

    return [
        Claim(
            f"A longer document takes more memory ({SIZES[MAIN]})",
            ", ".join(f"{name} {value}" for name, value in PUBLISHED.items()),
            f"correlation with segments {every('whole', MAIN)}",
            verdict(*(of("whole", name, MAIN).mean > 0.5 for name in PUBLISHED)),
            f"These memories are young: own cross entropy in training {own('whole')}",
        ),
        Claim(
            "Some reading of memory size, other than one that multiplies by tokens, goes with "
            "length (r above 0.5)",
            "the paper gives no formula",
            f"{said('whole')}; {SIZES[BY_DEFINITION]} {every('whole', BY_DEFINITION)}",
            held("whole"),
        ),
        Claim(
            "A longer document takes more memory where all are learned: ten cut to "
            f"{min(LENGTHS)} to {max(LENGTHS)} segments ({SIZES[MAIN]})",
            "not measured like this",
            f"correlation with segments {every('cut', MAIN)}; own cross entropy in training "
            f"{own('cut')}",
            verdict(*(of("cut", name, MAIN).mean > 0.5 for name in PUBLISHED)),
            exploratory=True,
        ),
        Claim(
            "Some reading of it, other than one that multiplies by tokens, goes with length there",
            "not measured like this",
            f"{said('cut')}; {SIZES[BY_DEFINITION]} {every('cut', BY_DEFINITION)}; control, norm "
            f"of the DocRep {every('cut', 'DocRep, L2')}",
            held("cut"),
            exploratory=True,
        ),
    ]
