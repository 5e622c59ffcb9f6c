"""Where documents live: DocReps that say what a document is about, against orthogonal ones.

The paper leaves it open. The LM's mean hidden states of the documents become their DocReps
(`docmem.editing.place`). As a control the same places are dealt out to the documents at random: the
geometry stays, the meaning goes. All three start from the same weights, seed by seed.

Two documents are alike as far as the TF-IDF vectors of their whole texts point the same way
(cosine), a measure that knows no LM and no DocRep. Unseen passages are those of `attribution`:
later in the same articles, and apart from what was trained. The claims, with their thresholds,
were written before any result was seen; `by_states`, which says why and decides none, after.
"""

import textwrap
from collections.abc import Sequence
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
from docmem.evaluation.cached import measure as recall_of
from docmem.evaluation.plane import plane_of
from docmem.experiments.drawing import dots
from docmem.experiments.pool import Claim, RunPool, spread, verdict
from docmem.experiments.stats import clearly_above
from docmem.experiments.studies.attribution import explained, passages, read
from docmem.experiments.studies.length import correlation
from docmem.lm.cross_entropy import base_cross_entropies
from docmem.lm.hidden_states import HiddenStateCache, cache_hidden_states
from docmem.lm.loading import LanguageModel
from docmem.plots.style import FAINT, INK, badge, headline, styled
from docmem.training.run import Run

QUESTION = "Do like documents become neighbours where the LM places them, and what does it help?"
PLACES = {"orthogonal": "orthogonal", "lm": "\nthe LM's", "shuffled": "shuffled"}
"""Of each placing, its label, the middle one lower so that they do not touch."""
MORE = 20
"""Documents whose likeness is compared with their places without training."""
SHUFFLES = 2_000
"""Deals of the documents that a correlation is compared with."""
ALIKE, CHANCE, WORSE = 0.3, 0.05, 0.1
"""A rank correlation that counts; the share of deals that may reach it; nats per token."""
DRAWN = 8
"""Pairs of documents that are joined by a line, the most alike ones."""


def measure(pool: RunPool) -> dict[str, Any]:
    """What the places have of the texts' likeness, and of each placing and seed what it does.

    `neighbours` needs no training: of the documents that are memorised and of MORE, the rank
    correlation of likeness with nearness, in the DocReps' space and among the unprojected means.
    `by_states` is the share of unseen passages whose mean hidden state is nearest their document's.
    `places` holds the first seed's DocReps in their plane, (documents, 2), and of each seed cross
    entropies in nats per token, shares of tokens and passages, and rank correlations.
    """
    documents, config = pool.documents(), pool.config()
    more = pool.documents(MORE)
    trained = cache_hidden_states(pool.lm, documents, config)
    from_lm = doc_reps_from_lm(trained, len(documents), config.key_dim)
    alike = likeness(documents)
    unseen = Unseen(pool.lm, pool.run(1))
    places: dict[str, Any] = {name: {"seeds": []} for name in PLACES}
    for seed in pool.seed_numbers():
        generator = torch.Generator().manual_seed(seed)
        dealt = from_lm[torch.randperm(len(documents), generator=generator)]
        for name, doc_reps in {"orthogonal": None, "lm": from_lm, "shuffled": dealt}.items():
            run = pool.run(seed, documents, doc_reps)
            memory = run.load_memory()
            known, continued = recall_of(run, lambda: pool.lm)
            places[name]["seeds"].append({
                "own": known.own,
                "other": known.other,
                "recognised": known.recognised,
                "continued": continued.own,
                **unseen.measure(memory),
                **neighbours(alike, memory),
            })  # fmt: skip
            if seed == 1:
                places[name]["map"] = in_plane(run).tolist()
    return {
        "documents": len(documents),
        "titles": [document.title for document in documents],
        "likeness": alike.tolist(),
        "passages": len(unseen.doc_ids),
        "by_states": unseen.by_states(mean_states(trained, len(documents))),
        "neighbours": {
            "memorised": untrained(documents, trained, config.key_dim),
            "more": untrained(more, cache_hidden_states(pool.lm, more, config), config.key_dim),
        },
        "places": places,
    }


class Unseen:
    """Unseen passages of the memorised documents, read once for all memories.

    Args:
        lm: what reads them.
        run: with whose settings they are cut and read.
    """

    def __init__(self, lm: LanguageModel, run: Run) -> None:
        cut = passages(run, [])["unseen"]
        self.doc_ids = torch.tensor([doc_id for doc_id, _ in cut])
        self.cache = read(lm, run, [text for _, text in cut])
        self.bare = base_cross_entropies(self.cache)

    def measure(self, memory: DocumentMemory) -> dict[str, float]:
        """Cross entropy minus the base LM's under own and other DocReps; share attributed."""
        ce = explained(self.cache, memory, memory.doc_reps)  # (passages, n_docs)
        over_bare = ce - self.bare[:, None]
        own = functional.one_hot(self.doc_ids, ce.shape[1]).bool()
        return {
            "unseen_own": over_bare[own].mean().item(),
            "unseen_other": over_bare[~own].mean().item(),
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
    cosines = (selections @ selections.T).numpy()
    return {
        "near": rank_correlation(alike, nearness(memory.doc_reps)),
        "selected": rank_correlation(alike, cosines),
    }


def untrained(
    documents: Sequence[Document], cache: HiddenStateCache, key_dim: int
) -> dict[str, float]:
    """How near the LM places like documents; what a random deal would reach; before projection."""
    alike = likeness(documents)
    near = nearness(doc_reps_from_lm(cache, len(documents), key_dim))
    return {
        "documents": len(documents),
        "rho": rank_correlation(alike, near),
        "chance": chance(alike, near),
        "unprojected": rank_correlation(alike, nearness(mean_states(cache, len(documents)))),
    }


def nearness(points: Float[Tensor, "n_docs dims"]) -> np.ndarray:
    """Minus the distance of every two points, (n_docs, n_docs)."""
    return -torch.cdist(points, points).numpy()


def rank_correlation(left: np.ndarray, right: np.ndarray) -> float:
    """Spearman's, over all pairs of documents, of two symmetric (n_docs, n_docs) measures."""
    upper = np.triu_indices(len(left), 1)
    return correlation(ranks(left[upper]), ranks(right[upper]))


def ranks(values: np.ndarray) -> list[float]:
    """From 1 for the least; equals share the mean of their ranks."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[which].tolist()


def chance(left: np.ndarray, right: np.ndarray) -> float:
    """The share of deals of the documents whose rank correlation is as high: Mantel's test.

    The pairs of one document hang together, so documents are dealt anew, not pairs.
    """
    generator = np.random.default_rng(0)
    found = rank_correlation(left, right)
    deals = (generator.permutation(len(left)) for _ in range(SHUFFLES))
    reached = sum(rank_correlation(left[deal][:, deal], right) >= found for deal in deals)
    return (1 + reached) / (1 + SHUFFLES)


def in_plane(run: Run) -> Float[Tensor, "n_docs 2"]:
    """A run's DocReps in their plane."""
    doc_reps = run.load_memory().doc_reps
    origin, axes = plane_of(doc_reps)
    return (doc_reps - origin) @ axes.T


@styled
def draw(figure: Figure, results: dict[str, Any], note: str) -> Figure:
    """Two placings with the most alike pairs joined; what is known, of trained and unseen text."""
    places, titles = results["places"], results["titles"]
    panels = figure.subplots(1, 5, width_ratios=(1.7, 1.7, 1, 1, 1))
    memorised = results["neighbours"]["memorised"]["rho"]
    orthogonal = spread(seed["near"] for seed in places["orthogonal"]["seeds"])
    reach = 1.12 * max(np.abs(places[name]["map"]).max() for name in ("orthogonal", "lm"))
    for axes, name, title in (
        (panels[0], "orthogonal", f"Orthogonal DocReps, seed 1;\nall seeds: ρ = {orthogonal}"),
        (panels[1], "lm", f"DocReps from the LM:\nρ = {memorised:.2f}"),
    ):
        draw_plane(axes, np.array(places[name]["map"]), np.array(results["likeness"]))
        axes.set_xlim(-reach, reach)
        axes.set_ylim(-reach, reach)
        axes.set_title(title)
    numbered = [f"{index} {title}" for index, title in enumerate(titles, 1)]
    unbroken = "    ".join(one.replace(" ", "\u00a0") for one in numbered)
    figure.supxlabel(textwrap.fill(unbroken, 150), x=0.01, ha="left", fontsize=9.5)
    for axes, key, scale, title, label in (
        (panels[2], "own", 1, "Trained text,\nown DocRep", "cross entropy (nats per token)"),
        (panels[3], "unseen_own", 1, "Unseen passages,\nown DocRep",
         "cross entropy - base LM's (nats per token)"),
        (panels[4], "attributed", 100, "Unseen passages\nattributed",
         "passages given to their document (%)"),
    ):  # fmt: skip
        groups = {
            short: [scale * seed[key] for seed in places[name]["seeds"]]
            for name, short in PLACES.items()
        }
        dots(axes, groups)
        axes.set_title(title)
        axes.set_ylabel(label)
        axes.tick_params(axis="x", labelsize=9)
        values = [value for group in groups.values() for value in group]
        axes.set_ylim(min(0, 1.1 * min(values)), max(0, 1.1 * max(values)))
    chance_level = 100 / results["documents"]
    panels[4].axhline(chance_level, color=FAINT, lw=1, ls=(0, (4, 3)))
    panels[4].annotate("chance", (2.5, chance_level), (0, 3), textcoords="offset points",
                       ha="right", color="#555555")  # fmt: skip
    title = {
        "holds": "Like documents become neighbours where the LM places them",
        "partly": "Where documents live: orthogonal DocReps, and the LM's",
        "not": "Where this LM places them, like documents do not become neighbours",
    }[claims(results)[0].verdict]
    headline(
        figure, title,
        f"{note} Lines join the {DRAWN} pairs most alike in their words; ρ: rank correlation of "
        "likeness with nearness, over all pairs.",
    )  # fmt: skip
    return figure


def draw_plane(axes: Axes, places: np.ndarray, alike: np.ndarray) -> None:
    """Numbered documents at their places, (n_docs, 2), the most alike pairs joined."""
    first, second = np.triu_indices(len(places), 1)
    for pair in np.argsort(alike[first, second])[-DRAWN:]:
        ends = places[[first[pair], second[pair]]]
        axes.plot(*ends.T, color=INK, lw=1, alpha=0.6)
    for index, (x, y) in enumerate(places):
        badge(axes, x, y, index)
    axes.set_aspect("equal")
    axes.set_xticks((-1, 0, 1))
    axes.set_yticks((-1, 0, 1))


SIZE = (14, 5.2)
ALT = (
    "Left, the plane with the numbered documents where orthogonal DocReps and where the LM's put "
    "them, thin lines between the documents most alike in their words; right, one dot per seed for "
    "orthogonal, the LM's and shuffled DocReps: own cross entropy of trained text, that of unseen "
    "passages minus the base LM's, and the share of unseen passages given to their document."
)


def claims(results: dict[str, Any]) -> list[Claim]:
    """Like documents are neighbours, open like entries, are known as well; unseen text gains."""
    places, documents = results["places"], results["documents"]
    memorised, more = (results["neighbours"][name] for name in ("memorised", "more"))

    def of(name: str, key: str) -> list[float]:
        return [seed[key] for seed in places[name]["seeds"]]

    def compared(key: str) -> str:
        lm, orthogonal, dealt = (spread(of(name, key)) for name in ("lm", "orthogonal", "shuffled"))
        return f"{lm}; orthogonal {orthogonal}, shuffled {dealt}"

    near = [one["rho"] >= ALIKE and one["chance"] < CHANCE for one in (memorised, more)]
    recognised = of("lm", "recognised")
    continued = spread(of("lm", "continued"))
    lost = spread(of("lm", "own")).mean - spread(of("orthogonal", "own")).mean
    own = {name: of(name, "unseen_own") for name in PLACES}
    attributed = {name: of(name, "attributed") for name in PLACES}
    return [
        Claim(
            "Where the LM places them, documents alike in their words become neighbours",
            "left open",
            "rank correlation over all pairs, and the share of random deals that reach it: "
            + ", ".join(
                f"{one['rho']:.2f} and {one['chance']:.3f} ({one['documents']} documents; "
                f"{one['unprojected']:.2f} before the projection)"
                for one in (memorised, more)
            ),
            verdict(*near),
            ""
            if all(near)
            else "Its states say little of what a document is about: of the unseen passages "
            f"{results['by_states']:.2f} have theirs nearest their own document's, chance "
            f"{1 / documents:.2f}",
        ),
        Claim(
            "Documents alike in their words then open like entries, more than under orthogonal "
            "DocReps",
            "left open",
            f"rank correlation {compared('selected')}",
            verdict(
                spread(of("lm", "selected")).mean >= ALIKE,
                clearly_above(of("lm", "selected"), of("orthogonal", "selected")),
            ),
        ),
        Claim(
            f"They are memorised as well, to {WORSE:g} nats, and each is recognised",
            "left open",
            f"own cross entropy {compared('own')}; {spread(recognised)} of {documents} recognised; "
            f"share of tokens continued {continued}",
            verdict(lost <= WORSE, min(recognised) == documents),
        ),
        Claim(
            "Unseen passages of the same documents cost less under their own DocRep than with "
            "orthogonal or shuffled DocReps",
            "left open",
            f"nats above the base LM's {compared('unseen_own')}",
            verdict(*(clearly_above(own[name], own["lm"]) for name in ("orthogonal", "shuffled"))),
        ),
        Claim(
            "More of them are attributed than with orthogonal or shuffled DocReps",
            "left open",
            f"share of {results['passages']} passages {compared('attributed')}, chance "
            f"{1 / documents:.2f}",
            verdict(
                *(
                    clearly_above(attributed["lm"], attributed[name])
                    for name in ("orthogonal", "shuffled")
                )
            ),
        ),
    ]
