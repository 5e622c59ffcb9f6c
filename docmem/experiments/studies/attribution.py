"""Attribution: given a passage, which document is it from, and is it from any?

The paper leaves it open. A passage is read under every DocRep, and the DocRep plane is searched
for where it is most likely. Passages are segments: those of training, later ones of the same
articles that share no word with training, and those of strangers, articles that were never trained.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

from docmem.documents import Document, segments
from docmem.evaluation.recall import recognition
from docmem.evaluation.search import search_descent
from docmem.experiments.claims import Claim, Claims
from docmem.experiments.drawing import dots, level
from docmem.experiments.pool import RunPool
from docmem.experiments.stats import above, spread
from docmem.experiments.study import Study
from docmem.lm.cross_entropy import base_cross_entropies, cross_entropies_at
from docmem.lm.hidden_states import HiddenStateCache
from docmem.lm.loading import LanguageModel
from docmem.plots.style import FAINT, GUIDANCE, INK, NEGATIVE, OWN
from docmem.training.config import TrainConfig
from docmem.training.run import Run

LATER = 4
"""Later passages per article."""
DESCENT = {"points": 7, "steps": 15}
"""Points a side of the map that the descent starts from, and its steps."""
GROUPS = {
    "seen": (OWN, "trained"),
    "unseen": (GUIDANCE, "same articles,\nlater"),
    "strange start": (NEGATIVE, "strangers,\nstart"),
    "strange later": (NEGATIVE, "strangers,\nlater"),
}
"""Colour and label of each group of passages."""
STRANGE = {"seen": "strange start", "unseen": "strange later"}
"""The strangers at the same places of their articles."""


@dataclass(frozen=True)
class Results:
    """Of the groups `seen` and `unseen`, one entry per seed, unless said otherwise."""

    documents: int
    own: list[float]
    """Cross entropy of the documents under their own DocRep, nats per token."""
    lowest: dict[str, list[float]]
    """Share of passages whose cross entropy is lowest under their own document's DocRep."""
    descent: dict[str, list[float]]
    """Share of passages whose descent ends nearest their own document's DocRep."""
    scores: dict[str, list[list[float]]]
    """Lowest cross entropy minus the base LM's, nats per token, (seeds, passages), all groups."""

    def auc(self, name: str) -> list[float]:
        """ROC-AUC of `none of the documents`: the chance that a stranger has the higher score."""
        return list(map(roc_auc, self.scores[name], self.scores[STRANGE[name]]))


class Attribution(Study[Results]):
    """Given a passage: which document is it from, and is it from any of them?"""

    results = Results
    size = (13, 4.8)
    alt = (
        "Left: share of passages given to their document, for trained and later passages, by "
        "lowest cross entropy and by descent in the plane, one dot per seed; middle: each "
        "passage's lowest cross entropy minus the base LM's, for trained, later and strange "
        "passages; right: ROC curves."
    )

    shown = "Which document a passage is from, and whether it is from any"
    finding = "Trained passages are attributed to their document, and told from strangers'"
    needs = ("holds", None, "holds")

    def measure(self, pool: RunPool) -> Results:
        """Read every passage under every DocRep, and search the plane for it."""
        scores: dict[str, list[list[float]]] = {name: [] for name in GROUPS}
        lowest: dict[str, list[float]] = {name: [] for name in STRANGE}
        descent: dict[str, list[float]] = {name: [] for name in STRANGE}
        own = []
        for seed in pool.seed_numbers():
            run, known = pool.run(seed), pool.documents(seed)
            memory = run.load_memory()
            own.append(recognition(pool.cache_hidden_states(run), memory).own)
            for name, group in passages(run.config, known, strangers(pool, seed)).items():
                doc_ids = torch.tensor([doc_id for doc_id, _ in group])
                cache = cache_passages(pool.lm, run, [text for _, text in group])
                ce = cross_entropies_at(cache, memory, memory.doc_reps)
                scores[name].append((ce.min(1).values - base_cross_entropies(cache)).tolist())
                if name in STRANGE:
                    lowest[name].append(share(ce.argmin(1) == doc_ids))
                    found = search_descent(cache, memory, **DESCENT).doc_reps
                    nearest = torch.cdist(found, memory.doc_reps.cpu()).argmin(1)
                    descent[name].append(share(nearest == doc_ids))
        return Results(len(memory.doc_reps), own, lowest, descent, scores)

    def _draw(self, figure: Figure, results: Results) -> None:
        left, middle, right = figure.subplots(1, 3, width_ratios=(1.15, 1.5, 1))
        ways = {"lowest CE": results.lowest, "descent": results.descent}
        groups = {
            f"{label.splitlines()[-1]},\nby {how}": [100 * share for share in shares[name]]
            for name, (_, label) in GROUPS.items()
            for how, shares in ways.items()
            if name in shares
        }
        dots(left, groups, title="Which document?", ylabel="passages given to their document (%)")
        level(left, 100 / results.documents, "chance", color=FAINT, ls=(0, (4, 3)))
        left.tick_params(axis="x", labelsize=9)
        left.set_ylim(0, 105)
        for place, (name, (color, _)) in enumerate(GROUPS.items()):
            values = sorted(score for seed in results.scores[name] for score in seed)
            # Neighbours in value stand far apart: steps of the golden section.
            spots = [place + 0.6 * (0.618 * index % 1) - 0.3 for index in range(len(values))]
            middle.plot(spots, values, "o", ms=4, mew=0, alpha=0.4, color=color)
        middle.axhline(0, color=INK, lw=1)
        middle.set_xticks(range(4), [label for _, label in GROUPS.values()], fontsize=9)
        middle.set_ylabel("lowest cross entropy - the base LM's\n(nats per token)")
        middle.set_title("Is it any of them? One dot per passage")
        for name, other in STRANGE.items():
            kind = GROUPS[name][1].replace("\n", " ")
            named: str | None = f"{kind}: AUC {spread(results.auc(name)).mean:.2f}"
            for known, strange in zip(results.scores[name], results.scores[other], strict=True):
                false, true, _ = roc_curve(*labelled(known, strange))
                right.plot(false, true, color=GROUPS[name][0], lw=1.6, alpha=0.6, label=named)
                named = None
        right.plot((0, 1), (0, 1), color=FAINT, lw=1, ls=(0, (4, 3)))
        right.set_aspect("equal")
        right.set_xlabel("share of passages of known articles\ntaken for strangers'", fontsize=9)
        right.set_ylabel("share of strangers' passages\ntaken for strangers'", fontsize=9)
        right.set_title("ROC of “none of them”")
        right.legend(loc="lower right", frameon=False, fontsize=9)

    def _claims(self, results: Results) -> Claims:
        lowest, own = results.lowest, results.own
        yield Claim(
            "A trained passage costs least under its own document's DocRep, and descent in the "
            "plane for the DocRep that explains it best ends nearest that one",
            [
                above("share of passages, by lowest cross entropy", lowest["seen"], 0.95),
                above("by descent", results.descent["seen"], 0.95),
            ],
            own=own,
        )
        chance = 1 / results.documents
        over = [one - chance for one in lowest["unseen"]]
        yield Claim(
            "A passage of the same article that was not trained is attributed more often than by "
            "chance",
            [above(f"share of passages minus chance ({chance:.2f})", over, 0, margin=0.05)],
            own=own,
        )
        yield Claim(
            "Lowest cross entropy minus the base LM's tells trained passages from strangers'",
            [above("ROC-AUC", results.auc("seen"), 0.95)],
            own=own,
        )
        yield Claim(
            "The same tells the rest of the trained articles from strangers'",
            [above("ROC-AUC", results.auc("unseen"), 0.75)],
            own=own,
        )


def strangers(pool: RunPool, seed: int) -> list[Document]:
    """As many documents as a seed draws, of those that it did not draw."""
    whole = dataclasses.replace(pool, fast=False)  # a fast pool gives no more than it trains
    count = len(pool.documents(seed))
    return whole.documents(seed, 2 * count)[count:]


def passages(
    config: TrainConfig, known: Sequence[Document], strangers: Sequence[Document]
) -> dict[str, list[tuple[int, str]]]:
    """Index of the document and text of each passage, by group; strangers count from 0 too.

    Starts and later passages stand at the same places of known and of strange articles. The
    segment after the last of training, which shares half its words with it, is left out.
    """
    start = slice(config.max_segments)
    later = slice(config.max_segments + 1, config.max_segments + 1 + 2 * LATER, 2)
    places = (known, start), (known, later), (strangers, start), (strangers, later)
    return {
        name: [
            (index, text)
            for index, document in enumerate(documents)
            for text in segments(document.text, config.segment_length)[which]
        ]
        for name, (documents, which) in zip(GROUPS, places, strict=True)
    }


def cache_passages(lm: LanguageModel, run: Run, texts: Sequence[str]) -> HiddenStateCache:
    """A cache with one passage per batch."""
    batches = [lm.tokenize([text], run.config.max_length) for text in texts]
    return HiddenStateCache(lm, batches, range(len(texts)), run.config.hook_memory_layer)


def share(right: Bool[Tensor, "*passages"]) -> float:
    """The share of passages of which something is so."""
    return right.float().mean().item()


def labelled(known: Sequence[float], strange: Sequence[float]) -> tuple[list[int], list[float]]:
    """Scores of passages, and before them whether each is a stranger's."""
    return [0] * len(known) + [1] * len(strange), [*known, *strange]


def roc_auc(known: Sequence[float], strange: Sequence[float]) -> float:
    """ROC-AUC of `none of them` by the score: the chance that a stranger scores higher."""
    return float(roc_auc_score(*labelled(known, strange)))
