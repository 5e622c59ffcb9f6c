"""Attribution: given a passage, which document is it from, and is it from any?

The paper leaves it open. A passage is read under every DocRep, and its place in the plane is
searched for by descent. Passages are segments: those of training, later ones of the same
articles that share no word with training, and those of articles that were never trained.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

from docmem.core.memory import DocumentMemory
from docmem.documents import Document, segments
from docmem.evaluation.plane import plane_of
from docmem.experiments.drawing import dots
from docmem.experiments.pool import Claim, RunPool, spread, verdict
from docmem.experiments.stats import clearly_above
from docmem.lm.cross_entropy import base_cross_entropies, on_device_of
from docmem.lm.hidden_states import HiddenStateCache
from docmem.lm.loading import LanguageModel
from docmem.plots.style import FAINT, GUIDANCE, INK, NEGATIVE, OWN, headline, styled
from docmem.training.run import Run

QUESTION = "Given a passage: which document is it from, and is it from any of them?"
LATER = 4
"""Later passages an article."""
GRID, STEPS, LR = 7, 15, 0.05
"""The descent: from the best point of a GRID × GRID map, STEPS of Adam."""
GROUPS = ("seen", "unseen", "strange start", "strange later")


def passages(run: Run, strangers: Sequence[Document]) -> dict[str, list[tuple[int, str]]]:
    """Index of the document and text of each passage, by group; strangers count from 0 too.

    Starts and later passages stand at the same places of known and of strange articles. The
    segment after the last of training, which shares half its words with it, is passed over.
    """
    config = run.config
    start = slice(config.max_segments)
    later = slice(config.max_segments + 1, config.max_segments + 1 + 2 * LATER, 2)

    def cut(documents: Sequence[Document], which: slice) -> list[tuple[int, str]]:
        return [
            (index, text)
            for index, document in enumerate(documents)
            for text in segments(document.text, config.segment_length)[which]
        ]

    places = (run.documents, start), (run.documents, later), (strangers, start), (strangers, later)
    return {name: cut(*place) for name, place in zip(GROUPS, places, strict=True)}


def read(lm: LanguageModel, run: Run, texts: Sequence[str]) -> HiddenStateCache:
    """A cache with a passage a batch."""
    batches = [lm.tokenize([text], run.config.max_length) for text in texts]
    return HiddenStateCache(lm, batches, range(len(texts)), run.config.hook_memory_layer)


@torch.no_grad()
def explained(
    cache: HiddenStateCache, memory: DocumentMemory, doc_reps: Float[Tensor, "points key_dim"]
) -> Float[Tensor, "passages points"]:
    """Cross entropy of each passage under each DocRep, nats per token."""
    memory = on_device_of(cache, memory)
    rows = [cache.cross_entropies(i, memory, doc_reps) for i in range(len(cache.batches))]
    return torch.stack(rows).cpu()


def descend(cache: HiddenStateCache, memory: DocumentMemory) -> Float[Tensor, "passages key_dim"]:
    """The DocRep that explains each passage best, by descent in the plane of the DocReps."""
    doc_reps = memory.doc_reps.cpu()
    memory = on_device_of(cache, memory)
    origin, axes = plane_of(doc_reps)
    reach = max(1.0, ((doc_reps - origin) @ axes.T).abs().max().item())
    axis = torch.linspace(-reach, reach, GRID)
    grid = torch.cartesian_prod(axis, axis)
    starts = grid[explained(cache, memory, origin + grid @ axes).argmin(1)]
    found = []
    for index, start in enumerate(starts):
        point = start[None].clone().requires_grad_()
        optimizer = torch.optim.Adam([point], lr=LR)
        for _ in range(STEPS):
            optimizer.zero_grad()
            ce = cache.cross_entropies(index, memory, origin + point @ axes)[0]
            ce.backward(inputs=[point])
            optimizer.step()
        found.append((origin + point.detach() @ axes)[0])
    return torch.stack(found)


def measure(pool: RunPool) -> dict[str, Any]:
    """Of each seed: accuracy by lowest cross entropy and by descent, scores, ROC-AUC.

    `hits` is the share of seeds that give each later passage to its document.
    """
    lm = pool.lm
    known = len(pool.documents())
    strangers = dataclasses.replace(pool, fast=False).documents(2 * known)[known:]
    seeds, hits = [], []
    for run in pool.runs():
        memory = run.load_memory()
        scores: dict[str, list[float]] = {}
        right: dict[str, Tensor] = {}
        accuracy: dict[str, dict[str, float]] = {}
        for name, group in passages(run, strangers).items():
            doc_ids = torch.tensor([doc_id for doc_id, _ in group])
            cache = read(lm, run, [text for _, text in group])
            ce = explained(cache, memory, memory.doc_reps)
            scores[name] = (ce.min(1).values - base_cross_entropies(cache)).tolist()
            if name in ("seen", "unseen"):
                points = descend(cache, memory)
                nearest = torch.cdist(points, memory.doc_reps).argmin(1)
                right[name] = (ce.argmin(1) == doc_ids).float()
                accuracy[name] = {
                    "lowest": right[name].mean().item(),
                    "descent": (nearest == doc_ids).float().mean().item(),
                }
        hits.append(right["unseen"])
        seeds.append({"accuracy": accuracy, "scores": scores, "auc": {
            "seen": auc(scores["seen"], scores["strange start"]),
            "unseen": auc(scores["unseen"], scores["strange later"]),
        }})  # fmt: skip
    return {"documents": known, "strangers": len(strangers), "seeds": seeds,
            "hits": torch.stack(hits).mean(0).tolist()}  # fmt: skip


def auc(known: Sequence[float], strange: Sequence[float]) -> float:
    """ROC-AUC of `none of them` by the score: the chance that a stranger scores higher."""
    labels = [0] * len(known) + [1] * len(strange)
    return float(roc_auc_score(labels, [*known, *strange]))


@styled
def draw(figure: Figure, results: dict[str, Any], note: str) -> Figure:
    """Accuracies, scores of every passage, ROC curves."""
    seeds, chance = results["seeds"], 1 / results["documents"]
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.15, 1.5, 1))
    names = {
        f"{group},\nby {how}": [100 * seed["accuracy"][group][key] for seed in seeds]
        for group in ("seen", "unseen")
        for key, how in (("lowest", "lowest CE"), ("descent", "descent"))
    }
    dots(left, names)
    left.axhline(100 * chance, color=FAINT, lw=1, ls=(0, (4, 3)))
    left.annotate("chance", (-0.5, 100 * chance), (0, 3), textcoords="offset points",
                  color="#555555")  # fmt: skip
    left.set_ylim(0, 105)
    left.set_ylabel("passages given to their document (%)")
    left.tick_params(axis="x", labelsize=9)
    left.set_title("Which document?")
    colors = dict(zip(GROUPS, (OWN, GUIDANCE, NEGATIVE, NEGATIVE), strict=True))
    for place, name in enumerate(GROUPS):
        values = sorted(score for seed in seeds for score in seed["scores"][name])
        spots = [place + 0.3 * math.sin(7 * index) for index in range(len(values))]
        middle.plot(spots, values, "o", ms=4, mew=0, alpha=0.4, color=colors[name])
    middle.axhline(0, color=INK, lw=1)
    middle.set_xticks(range(4), ["trained", "same articles,\nlater", "strangers,\nstart",
                                 "strangers,\nlater"], fontsize=9)  # fmt: skip
    middle.set_ylabel("lowest CE - CE of the base LM (nats per token)")
    middle.set_title("Is it any of them? A passage a dot")
    for group, strange in (("seen", "strange start"), ("unseen", "strange later")):
        for number, seed in enumerate(seeds):
            scores = [*seed["scores"][group], *seed["scores"][strange]]
            truth = [0] * len(seed["scores"][group]) + [1] * len(seed["scores"][strange])
            false, true, _ = roc_curve(truth, scores)
            mean = spread(one["auc"][group] for one in seeds).mean
            label = f"{group}: AUC {mean:.2f}" if number == 0 else None
            right.plot(false, true, color=colors[group], lw=1.6, alpha=0.6, label=label)
    right.plot((0, 1), (0, 1), color=FAINT, lw=1, ls=(0, (4, 3)))
    right.set_aspect("equal")
    right.set_xlabel("known passages called strange")
    right.set_ylabel("strange passages found")
    right.set_title("ROC of “none of them”")
    right.legend(loc="lower right", frameon=False, fontsize=9)
    seen, unseen = (
        spread(seed["accuracy"][group]["lowest"] for seed in seeds).mean
        for group in ("seen", "unseen")
    )
    title = "Which document a passage is from"
    if seen > 0.95 and unseen < 0.5:
        title = "A trained passage names its document, the rest of the article seldom does"
    headline(figure, title, note)
    return figure


SIZE = (13, 4.8)
ALT = (
    "Left: share of passages given to their document, for trained and later passages, by lowest "
    "cross entropy and by descent in the plane, one dot per seed; middle: each passage's lowest cross "
    "entropy minus the base LM's, for trained, later and strange passages; right: ROC curves."
)


def claims(results: dict[str, Any]) -> list[Claim]:
    """Trained passages are attributed; later ones at chance or above; strangers told apart."""
    seeds, chance = results["seeds"], 1 / results["documents"]

    def accuracy(group: str, how: str) -> Any:
        return spread(seed["accuracy"][group][how] for seed in seeds)

    seen, found = accuracy("seen", "lowest"), accuracy("seen", "descent")
    later = accuracy("unseen", "lowest")
    known, unseen = (spread(seed["auc"][group] for seed in seeds) for group in ("seen", "unseen"))
    hits = results["hits"]
    above = clearly_above(hits, [chance] * len(hits))  # over passages: the seeds share them
    return [
        Claim(
            "A trained passage costs least under its own document's DocRep",
            "left open",
            f"share of passages {seen}",
            verdict(seen.mean > 0.95),
        ),
        Claim(
            "Descent in the plane for the DocRep that explains a trained passage best ends "
            "nearest its own document's",
            "left open",
            f"share of passages {found}",
            verdict(found.mean > 0.95, found.mean > 0.5),
        ),
        Claim(
            "A passage of the same article that was not trained is attributed too",
            "left open",
            f"share of {len(hits)} passages {later}, chance {chance:.2f}",
            verdict(above, later.mean > 0.5),
            exploratory=True,
        ),
        Claim(
            "Lowest cross entropy minus the base LM's tells trained passages from strangers'",
            "left open",
            f"ROC-AUC {known}",
            verdict(known.mean > 0.95),
        ),
        Claim(
            "The same tells the rest of the trained articles from strangers'",
            "left open",
            f"ROC-AUC {unseen}, chance 0.50",
            verdict(unseen.mean > 0.75),
        ),
    ]
