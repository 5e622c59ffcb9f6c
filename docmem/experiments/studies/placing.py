"""Placing: DocReps that say what a document is about, against orthogonal ones.

The paper leaves it open. The LM's mean hidden states of the documents become their DocReps
(`docmem.editing.place`). As a control the same DocReps are dealt out to the documents at random:
the geometry stays, the meaning goes. All three start from the same weights, seed by seed.

Two documents are alike as far as the TF-IDF vectors of their whole texts point the same way
(cosine), a measure that knows no LM and no DocRep. Unseen passages are those of `attribution`:
later in the same articles, and apart from what was trained. The claims, with their thresholds,
were written before any result was seen; `by_states`, which explains and decides none, after.
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
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor
from torch.nn import functional

from docmem.core.memory import DocumentMemory
from docmem.documents import Document
from docmem.editing.place import doc_reps_from_lm, mean_states
from docmem.evaluation.cached import measure
from docmem.evaluation.plane import plane_of
from docmem.experiments.drawing import dots, level
from docmem.experiments.pool import RunPool
from docmem.experiments.stats import (
    clearly_above,
    mantel_test,
    rank_correlation,
    spread,
    values_of,
    verdict,
)
from docmem.experiments.studies.attribution import cache_passages, passages
from docmem.experiments.study import Claim, Claims, Study, columns
from docmem.lm.cross_entropy import base_cross_entropies, cross_entropies_at
from docmem.lm.hidden_states import HiddenStateCache, cache_hidden_states
from docmem.lm.loading import LanguageModel
from docmem.plots.style import FAINT, INK, badge
from docmem.training.run import Run

PLACINGS = {"orthogonal": "orthogonal", "lm": "\nthe LM's", "shuffled": "shuffled"}
"""Label of each placing, the middle one lower so that they do not touch."""
MORE = 20
"""Documents whose likeness is compared with their places without training."""
DEALS = 2_000
"""Random deals of the documents that a correlation is compared with."""
ALIKE, CHANCE, WORSE = 0.3, 0.05, 0.1
"""A rank correlation that counts; the share of deals that may reach it; nats per token."""
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
    completed: list[float]
    """Share of tokens completed correctly."""
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
class Untrained:
    """What the LM's DocReps have of the texts' likeness, before any training."""

    documents: int
    rho: float
    """Rank correlation of likeness with nearness of the DocReps."""
    chance: float
    """Share of random deals of the documents that reach it."""
    unprojected: float
    """Rank correlation of likeness with nearness of the mean hidden states."""

    @property
    def counts(self) -> bool:
        """Whether the correlation is large, and larger than chance."""
        return self.rho >= ALIKE and self.chance < CHANCE

    def __str__(self) -> str:
        return (
            f"{self.rho:.2f} and {self.chance:.3f} ({self.documents} documents; "
            f"{self.unprojected:.2f} before the projection)"
        )


@dataclass(frozen=True)
class Results:
    """By placing."""

    titles: list[str]
    """Of the documents."""
    likeness: list[list[float]]
    """Of every two documents, (n_docs, n_docs)."""
    passages: int
    """Unseen passages."""
    by_states: float
    """Share of unseen passages whose mean hidden state is nearest their document's."""
    memorised: Untrained
    """The documents that are trained."""
    more: Untrained
    """Those and more of their source."""
    placings: dict[str, Placed]


class Placing(Study[Results]):
    """Do like documents become neighbours where the LM places them? Does it help?"""

    results = Results
    size = (14, 5.2)
    alt = (
        "Left, the plane with the numbered documents where orthogonal DocReps and where the LM's "
        "put them, thin lines between the documents most alike in their words; right, one dot per "
        "seed for orthogonal, the LM's and shuffled DocReps: own cross entropy of trained text, "
        "that of unseen passages minus the base LM's, and the share of unseen passages given to "
        "their document."
    )
    caption = (
        f"Lines join the {DRAWN} pairs most alike in their words; ρ: rank correlation of likeness "
        "with nearness, over all pairs."
    )

    def measure(self, pool: RunPool) -> Results:
        """Compare places with likeness; train from every placing, measure known and unseen text."""
        documents, more = pool.documents(), pool.documents(MORE)
        config, n_docs = pool.config(), len(documents)
        trained = cache_hidden_states(pool.lm, documents, config)
        from_lm = doc_reps_from_lm(trained, n_docs, config.key_dim)
        alike = likeness(documents)
        unseen = Unseen(pool.lm, pool.run(1), documents)
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in PLACINGS}
        maps: dict[str, list[list[float]]] = {}
        for seed in pool.seed_numbers():
            generator = torch.Generator().manual_seed(seed)
            dealt = from_lm[torch.randperm(n_docs, generator=generator)]
            for name, doc_reps in zip(PLACINGS, (None, from_lm, dealt), strict=True):
                run = pool.run(seed, documents, doc_reps)
                memory = run.load_memory()
                known, completion, _ = measure(run, lambda: pool.lm)
                row = {"own": known.own, "recognised": known.recognised}
                row |= {"completed": completion.own, **unseen.measure(memory)}
                rows[name].append(row | neighbours(alike, memory))
                origin, axes = plane_of(memory.doc_reps)
                maps.setdefault(name, ((memory.doc_reps - origin) @ axes.T).tolist())
        return Results(
            [document.title for document in documents],
            alike.tolist(),
            len(unseen.doc_ids),
            unseen.by_states(mean_states(trained, n_docs)),
            untrained(documents, trained, config.key_dim),
            untrained(more, cache_hidden_states(pool.lm, more, config), config.key_dim),
            {name: Placed(**columns(rows[name]), map=maps[name]) for name in PLACINGS},
        )

    def _draw(self, figure: Figure, results: Results) -> None:
        placings = results.placings
        panels = figure.subplots(1, 5, width_ratios=(1.7, 1.7, 1, 1, 1))
        near = spread(placings["orthogonal"].near)
        titles = {
            "orthogonal": f"Orthogonal DocReps, seed 1;\nall seeds: ρ = {near}",
            "lm": f"DocReps from the LM:\nρ = {results.memorised.rho:.2f}",
        }
        reach = 1.12 * max(np.abs(placings[name].map).max() for name in titles)
        for axes, (name, title) in zip(panels, titles.items(), strict=False):
            draw_places(axes, np.array(placings[name].map), np.array(results.likeness))
            axes.set(xlim=(-reach, reach), ylim=(-reach, reach), title=title)
        numbered = [f"{index} {title}" for index, title in enumerate(results.titles, 1)]
        unbroken = "    ".join(one.replace(" ", "\u00a0") for one in numbered)
        figure.supxlabel(textwrap.fill(unbroken, 150), x=0.01, ha="left", fontsize=9.5)
        labelled = {PLACINGS[name]: one for name, one in placings.items()}
        for axes, (key, (title, label, unit)) in zip(panels[2:], PANELS.items(), strict=True):
            groups = values_of(labelled, key, unit)
            values = [value for group in groups.values() for value in group]
            ends = (min(0, 1.1 * min(values)), max(0, 1.1 * max(values)))
            dots(axes, groups, title=title, ylabel=label, ylim=ends)
            axes.tick_params(axis="x", labelsize=9)
        chance = 100 / len(results.titles)
        level(panels[4], chance, "chance", "right", color=FAINT, ls=(0, (4, 3)))

    def title(self, results: Results) -> str:
        """Says whether like documents become neighbours."""
        return {
            "holds": "Like documents become neighbours where the LM places them",
            "partly": "Where documents lie: orthogonal DocReps, and the LM's",
            "not": "Where this LM places them, like documents do not become neighbours",
        }[self.claims(results)[0].verdict]

    def _judge(self, results: Results) -> Claims:
        orthogonal, lm, shuffled = (results.placings[name] for name in PLACINGS)
        documents, before = len(results.titles), (results.memorised, results.more)
        chance = f"chance {1 / documents:.2f}"

        def compared(key: str) -> str:
            ours, theirs, dealt = (spread(getattr(p, key)) for p in (lm, orthogonal, shuffled))
            return f"{ours}; orthogonal {theirs}, shuffled {dealt}"

        yield Claim(
            "Where the LM places them, documents alike in their words become neighbours",
            "rank correlation over all pairs, and the share of random deals that reach it: "
            f"{', '.join(map(str, before))}",
            verdict(*(one.counts for one in before)),
            why="Its states say little of what a document is about: of the unseen passages "
            f"{results.by_states:.2f} have theirs nearest their own document's, {chance}",
        )
        yield Claim(
            "Documents alike in their words then open like entries, more than under orthogonal "
            "DocReps",
            f"rank correlation {compared('selected')}",
            verdict(
                spread(lm.selected).mean >= ALIKE, clearly_above(lm.selected, orthogonal.selected)
            ),
        )
        lost = spread(lm.own).mean - spread(orthogonal.own).mean
        yield Claim(
            f"They are memorised as well, to {WORSE:g} nats, and each is recognised",
            f"own cross entropy {compared('own')}; {spread(lm.recognised)} of {documents} "
            f"recognised; share of tokens completed {spread(lm.completed)}",
            verdict(lost <= WORSE, min(lm.recognised) == documents),
        )
        yield Claim(
            "Unseen passages of the same documents cost less under their own DocRep than with "
            "orthogonal or shuffled DocReps",
            f"nats above the base LM's {compared('unseen_own')}",
            verdict(*(clearly_above(p.unseen_own, lm.unseen_own) for p in (orthogonal, shuffled))),
        )
        yield Claim(
            "More of them are attributed than with orthogonal or shuffled DocReps",
            f"share of {results.passages} passages {compared('attributed')}, {chance}",
            verdict(*(clearly_above(lm.attributed, p.attributed) for p in (orthogonal, shuffled))),
        )


class Unseen:
    """Unseen passages of a run's documents, cut as the run says and read once for all memories."""

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
            "attributed": (ce.argmin(1) == self.doc_ids).float().mean().item(),
        }

    def by_states(self, means: Float[Tensor, "n_docs d_model"]) -> float:
        """Share whose mean hidden state lies nearest its own document's, both centred."""
        states = mean_states(self.cache, len(self.doc_ids))
        nearest = torch.cdist(states - states.mean(0), means - means.mean(0)).argmin(1)
        return (nearest == self.doc_ids).float().mean().item()


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


def untrained(documents: Sequence[Document], cache: HiddenStateCache, key_dim: int) -> Untrained:
    """How near the LM places like documents."""
    alike, means = likeness(documents), mean_states(cache, len(documents))
    near = nearness(doc_reps_from_lm(cache, len(documents), key_dim))
    rho, chance = mantel_test(alike, near, DEALS)
    return Untrained(len(documents), rho, chance, rank_correlation(alike, nearness(means)))


def nearness(points: Float[Tensor, "n_docs dims"]) -> np.ndarray:
    """Minus the distance of every two points, (n_docs, n_docs)."""
    return -torch.cdist(points, points).numpy()


def draw_places(axes: Axes, places: np.ndarray, alike: np.ndarray) -> None:
    """Numbered documents at their places, (n_docs, 2), the most alike pairs joined."""
    first, second = np.triu_indices(len(places), 1)
    for pair in np.argsort(alike[first, second])[-DRAWN:]:
        ends = places[[first[pair], second[pair]]]
        axes.plot(*ends.T, color=INK, lw=1, alpha=0.6)
    for index, (x, y) in enumerate(places):
        badge(axes, x, y, index)
    axes.set_aspect("equal")
    axes.set(xticks=(-1, 0, 1), yticks=(-1, 0, 1))
