"""Placing: DocReps that say what a document is about, against those of a usual training.

The paper leaves it open. The LM's mean hidden states of the documents become their DocReps
(`docmem.editing.place`). As a control the same DocReps are dealt out to the documents at random:
the geometry stays, the meaning goes. All three start from the same weights, seed by seed.

Two documents are alike as far as the TF-IDF vectors of their whole texts point the same way
(cosine), a measure that knows no LM and no DocRep. Unseen passages are those of `attribution`:
later in the same articles, and apart from what was trained.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import rankdata
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor
from torch.nn import functional

from docmem.core.memory import DocumentMemory
from docmem.documents import Document
from docmem.editing.place import doc_reps_from_lm, mean_states
from docmem.evaluation.cached import measure
from docmem.evaluation.plane import plane_of
from docmem.experiments.claims import Claim, Claims
from docmem.experiments.drawing import dots, level
from docmem.experiments.pool import RunPool
from docmem.experiments.stats import (
    OWN_MARGIN,
    above,
    below,
    correlation,
    differences,
    more,
    spread,
    values_of,
)
from docmem.experiments.studies.attribution import cache_passages, passages, share
from docmem.experiments.study import Study, columns
from docmem.lm.cross_entropy import base_cross_entropies, cross_entropies_at
from docmem.lm.loading import LanguageModel
from docmem.plots.plane import square
from docmem.plots.style import FAINT, INK, badge
from docmem.training.run import Run

PLACINGS = {"usual": "usual", "lm": "\nthe LM's", "shuffled": "shuffled"}
"""Label of each placing, the middle one lower so that they do not touch."""
ALIKE, NEAR, SHARE = 0.3, 0.25, 0.05
"""A rank correlation that counts; differences that matter: nats per token, and of shares."""
DRAWN = 8
"""Pairs of documents that are joined by a line, the most alike ones."""
PANELS = {
    "own": ("Trained text,\nown DocRep", "cross entropy (nats per token)", 1),
    "unseen_own": (
        "Unseen passages,\nown DocRep", "cross entropy - base LM's (nats per token)", 1
    ),
    "attributed": ("Unseen passages\nattributed", "passages given to their document (%)", 100),
}  # fmt: skip
"""Title, label and unit of each."""


@dataclass(frozen=True)
class Placed:
    """One way to place documents; one entry per seed. Cross entropies in nats per token."""

    own: list[float]
    """Cross entropy of the trained text under the own DocRep."""
    recognised: list[int]
    """Documents recognised."""
    unseen_own: list[float]
    """Cross entropy of unseen passages minus the base LM's, under the own DocRep."""
    attributed: list[float]
    """Share of unseen passages given to their document."""
    near: list[float]
    """Rank correlation of likeness with nearness of DocReps."""
    selected: list[float]
    """Rank correlation of likeness with the cosine of memory selections."""
    map: list[list[float]]
    """DocReps of the first seed in their plane, (n_docs, 2)."""


@dataclass(frozen=True)
class Results:
    """By placing."""

    titles: list[str]
    """Of the first seed's documents."""
    likeness: list[list[float]]
    """Of every two of them, (n_docs, n_docs)."""
    by_states: list[float]
    """Share of unseen passages whose mean hidden state is nearest their document's, by seed."""
    placings: dict[str, Placed]


class Placing(Study[Results]):
    """Do like documents become neighbours where the LM places them? Does it help?"""

    results = Results
    size = (14, 5.2)
    alt = (
        "Left, the plane with the numbered documents where a usual training and where the LM puts "
        "them, thin lines between the documents most alike in their words; right, one dot per seed "
        "for usual, the LM's and shuffled DocReps: own cross entropy of trained text, that of "
        "unseen passages minus the base LM's, and the share of unseen passages given to their "
        "document."
    )
    shown = "Where documents lie: as usual, and where the LM places them"
    finding = "Like documents become neighbours where the LM places them"
    needs = ("holds",)
    caption = (
        f"Lines join the {DRAWN} pairs most alike in their words; ρ: rank correlation of likeness "
        "with nearness, over all pairs of a seed's documents, mean ± standard deviation over "
        "seeds. Documents are numbered as seed 1 draws them; numbers that would overlap are moved "
        "apart."
    )

    def measure(self, pool: RunPool) -> Results:
        """Compare places with likeness; train from every placing, measure known and unseen text."""
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in PLACINGS}
        maps: dict[str, list[list[float]]] = {}
        by_states, likenesses = [], []
        for seed in pool.seed_numbers():
            usual, documents = pool.run(seed), pool.documents(seed)
            trained = pool.cache_hidden_states(usual)
            unseen = Unseen(pool.lm, usual, documents)
            from_lm = doc_reps_from_lm(trained, len(documents), usual.config.key_dim)
            deal = torch.randperm(len(documents), generator=torch.Generator().manual_seed(seed))
            likenesses.append(likeness(documents))
            by_states.append(unseen.by_states(mean_states(trained, len(documents))))
            for name, doc_reps in zip(PLACINGS, (None, from_lm, from_lm[deal]), strict=True):
                run = pool.run(seed, documents, doc_reps)
                memory = run.load_memory()
                known = measure(run, lambda: pool.lm).recognition
                row = {"own": known.own, "recognised": known.recognised}
                row |= unseen.measure(memory)
                rows[name].append(row | neighbours(likenesses[-1], memory))
                origin, axes = plane_of(memory.doc_reps)
                maps.setdefault(name, ((memory.doc_reps - origin) @ axes.T).tolist())
        return Results(
            [document.title for document in pool.documents(1)],
            likenesses[0].tolist(),
            by_states,
            {name: Placed(**columns(rows[name]), map=maps[name]) for name in PLACINGS},
        )

    def _draw(self, figure: Figure, results: Results) -> None:
        placings = results.placings
        panels = figure.subplots(1, 5, width_ratios=(1.7, 1.7, 1, 1, 1))
        titles = {
            name: f"{label} DocReps, seed 1;\nall seeds: ρ = {spread(placings[name].near)}"
            for name, label in (("usual", "Usual"), ("lm", "The LM's"))
        }
        reach = 1.12 * max(np.abs(placings[name].map).max() for name in titles)
        for axes, (name, title) in zip(panels, titles.items(), strict=False):
            draw_places(axes, np.array(placings[name].map), np.array(results.likeness))
            square(axes, reach)
            axes.set_title(title)
        numbered = [f"{index} {title}" for index, title in enumerate(results.titles, 1)]
        unbroken = "    ".join(one.replace(" ", "\u00a0") for one in numbered)
        figure.supxlabel(textwrap.fill(unbroken, 150), x=0.01, ha="left", fontsize=9.5)
        labelled = {PLACINGS[name].strip(): one for name, one in placings.items()}
        for axes, (key, (title, label, unit)) in zip(panels[2:], PANELS.items(), strict=True):
            groups = values_of(labelled, key, unit)
            values = [value for group in groups.values() for value in group]
            ends = (min(0, 1.1 * min(values)), max(0, 1.1 * max(values)))
            dots(axes, groups, title=title, ylabel=label, ylim=ends)
            axes.tick_params(axis="x", labelsize=8)
        chance = 100 / len(results.titles)
        level(panels[4], chance, "chance", "right", color=FAINT, ls=(0, (4, 3)))

    def _claims(self, results: Results) -> Claims:
        usual, lm, shuffled = (results.placings[name] for name in PLACINGS)
        controls = {"usual": usual, "shuffled": shuffled}
        chance, gap = 1 / len(results.titles), differences(lm.own, usual.own)
        yield Claim(
            "Where the LM places them, documents alike in their words become neighbours",
            [above("rank correlation of likeness with nearness", lm.near, ALIKE)],
            note=f"of the unseen passages {spread(results.by_states)} have their mean state "
            f"nearest their own document's, chance {chance:.2f}",
        )
        yield Claim(
            "Documents alike in their words then open like entries, more than as usual",
            [more("rank correlation, LM's minus usual", lm.selected, usual.selected, 0.1)],
            note=f"the LM's {spread(lm.selected)}",
            own=lm.own,
        )
        yield Claim(
            f"They are memorised as well, to {OWN_MARGIN:g} nats",
            [below("own cross entropy, LM's minus usual", gap, OWN_MARGIN)],
            note=f"{spread(lm.recognised)} of {len(results.titles)} recognised",
            exploratory=True,
        )
        yield Claim(
            "Unseen passages of the same documents cost less under their own DocRep than with "
            "usual or shuffled DocReps",
            [
                more(f"cross entropy, {name} minus LM's", one.unseen_own, lm.unseen_own, NEAR)
                for name, one in controls.items()
            ],
            own=lm.own,
        )
        yield Claim(
            "More of them are attributed than with usual or shuffled DocReps",
            [
                more(f"share, LM's minus {name}", lm.attributed, one.attributed, SHARE)
                for name, one in controls.items()
            ],
            note=f"the LM's {spread(lm.attributed)}, chance {chance:.2f}",
            own=lm.own,
        )


class Unseen:
    """Unseen passages of a run's documents, read once for all memories."""

    def __init__(self, lm: LanguageModel, run: Run, documents: Sequence[Document]) -> None:
        cut = passages(run.config, documents, [])["unseen"]
        self.doc_ids = torch.tensor([doc_id for doc_id, _ in cut])
        self.cache = cache_passages(lm, run, [text for _, text in cut])
        self.base = base_cross_entropies(self.cache)

    def measure(self, memory: DocumentMemory) -> dict[str, float]:
        """Cross entropy minus the base LM's under the own DocRep; share attributed."""
        ce = cross_entropies_at(self.cache, memory, memory.doc_reps)  # (passages, n_docs)
        own = ce.gather(1, self.doc_ids[:, None])[:, 0]
        return {
            "unseen_own": (own - self.base).mean().item(),
            "attributed": share(ce.argmin(1) == self.doc_ids),
        }

    def by_states(self, means: Float[Tensor, "n_docs d_model"]) -> float:
        """Share whose mean hidden state lies nearest its own document's, both centred."""
        states = mean_states(self.cache, len(self.doc_ids))
        nearest = torch.cdist(states - states.mean(0), means - means.mean(0)).argmin(1)
        return share(nearest == self.doc_ids)


def likeness(documents: Sequence[Document]) -> np.ndarray:
    """Cosine of the documents' TF-IDF vectors, English stop words left out, (n_docs, n_docs)."""
    vectors = TfidfVectorizer(stop_words="english").fit_transform([d.text for d in documents])
    return (vectors @ vectors.T).toarray()


@torch.no_grad()
def neighbours(alike: np.ndarray, memory: DocumentMemory) -> dict[str, float]:
    """Rank correlation of likeness with nearness of DocReps, and with cosines of selections."""
    selections = functional.normalize(memory.select(memory.doc_reps), dim=1)
    return {
        "near": rank_correlation(alike, nearness(memory.doc_reps)),
        "selected": rank_correlation(alike, (selections @ selections.T).numpy()),
    }


def rank_correlation(left: np.ndarray, right: np.ndarray) -> float:
    """Spearman's, over all pairs, of two symmetric measures of pairs, (n, n); 0 if one is even."""
    upper = np.triu_indices(len(left), 1)
    # Rounded, so that distances that are alike but for rounding have one rank.
    return correlation(*(rankdata(one[upper].round(5)).tolist() for one in (left, right)))


def nearness(points: Float[Tensor, "n_docs dims"]) -> np.ndarray:
    """Minus the distance of every two points, (n_docs, n_docs)."""
    return -torch.cdist(points, points).numpy()


def draw_apart(places: np.ndarray, least: float) -> np.ndarray:
    """Where the badges of places, (n_docs, 2), are drawn: moved until they are `least` apart."""
    for _ in range(100):
        gaps = places[:, None] - places
        distance = np.linalg.norm(gaps, axis=-1, keepdims=True).clip(1e-6)
        places = places + (gaps * (least / distance - 1).clip(0, 1)).sum(1) / 4
    return places


def draw_places(axes: Axes, places: np.ndarray, alike: np.ndarray) -> None:
    """Numbered documents at their places, (n_docs, 2), the most alike pairs joined."""
    first, second = np.triu_indices(len(places), 1)
    for pair in np.argsort(alike[first, second])[-DRAWN:]:
        ends = places[[first[pair], second[pair]]]
        axes.plot(*ends.T, color=INK, lw=1, alpha=0.6)
    for index, (x, y) in enumerate(draw_apart(places, 0.2)):
        badge(axes, x, y, index)
