"""Adding: can an eleventh document be learnt without harming the ten?

The paper leaves it open. Four memories read the same eleven documents: the ten's as trained, with
an untrained DocRep for the new one; that one trained on the new text alone; after
`docmem.editing.add.add`; and the gold standard, trained on all eleven anew.

The claims' thresholds were fixed before any result. The loss, rounds and learning rate of `add`
were chosen among fourteen settings on seed 1, the other seeds unseen. Rehearsal trains the ten
further too: what they gain is part of what adding changes.
"""

import time
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from docmem.core.memory import DocumentMemory
from docmem.editing.add import add
from docmem.editing.doc_reps import append_doc_rep, plane_extent
from docmem.evaluation.plane import key_plane
from docmem.evaluation.recall import recognition
from docmem.experiments.drawing import dots, plane_map
from docmem.experiments.pool import SEEDS_ADDED, Claim, RunPool, all_hold, spread, verdict
from docmem.lm.cross_entropy import base_cross_entropies
from docmem.lm.hidden_states import HiddenStateCache, cache_hidden_states
from docmem.plots.style import FAINT, GUIDANCE, INK, OWN, badge, headline, styled

QUESTION = "Can an eleventh document be learnt without harming the ten?"
DOCUMENTS = 11
"""With the new one, which is the last."""
ROUNDS = 20
"""Passes over the kept documents, with and without reading them."""
POINTS = 15
"""Points a side of the map."""
ALLOWED = 0.1
"""What adding may cost another document, nats per token."""
NEAR = 0.25
"""Cross entropies no farther apart are called alike, nats per token."""
HARM = 0.5
"""What another document must lose on average to be called harmed, nats per token."""
WAYS = {
    "trained": "as trained",
    "naive": "new text alone",
    "added": "added",
    "anew": "all eleven anew",
}
MAPS = ("trained", "naive", "added")


def measure(pool: RunPool) -> dict[str, Any]:
    """Of each seed and way: how well each document is known, and what it took.

    A seed's `own` is each document's cross entropy under its own DocRep, the new one last;
    `other` the mean of all under the others'; `readings` the batches read with gradients since
    the ten were trained, or ever. `map` is the lowest of the documents' cross entropies minus the
    base LM's at each point of the plane, [up][across], and `places` the DocReps: both of the
    first seed.
    """
    *known, new = documents = pool.documents(DOCUMENTS)
    ways: dict[str, Any] = {name: {"seeds": []} for name in WAYS}
    extent = 1.0
    for seed in pool.seed_numbers():
        run, anew = pool.run(seed, known), pool.run(seed, documents)
        cache = cache_hidden_states(pool.lm, documents, run.config)
        kept = sum(doc_id < len(known) for doc_id in cache.doc_ids)
        placed = append_doc_rep(run.load_memory(), new.title)
        found: dict[str, tuple[DocumentMemory, int, float]] = {
            "trained": (placed, 0, 0.0),
            "anew": (
                anew.load_memory(),
                len(anew.load_history()) * len(cache.doc_ids),
                sum(epoch.seconds for epoch in anew.load_history()),
            ),
        }
        for name, rehearse in (("naive", False), ("added", True)):
            started = time.perf_counter()
            larger = add(
                cache,
                run.load_memory(),
                new.title,
                epochs=ROUNDS,
                rehearse=rehearse,
                guidance=run.config.guidance,
                target_negative_ce=run.config.target_negative_ce,
            )
            seconds = time.perf_counter() - started
            found[name] = (larger, ROUNDS * kept * (1 + rehearse), seconds)
        for name, (memory, readings, seconds) in found.items():
            result = recognition(cache, memory)
            ways[name]["seeds"].append(
                {
                    "own": result.ce.diagonal().tolist(),
                    "other": result.other,
                    "recognised": result.recognised,
                    "readings": readings,
                    "seconds": seconds,
                }
            )
        if seed == 1:
            extent = plane_extent(placed.doc_reps)
            for name in MAPS:
                memory = found[name][0]
                ways[name] |= {
                    "map": best_known(cache, memory, extent),
                    "places": memory.doc_reps.tolist(),
                }
    return {"extent": extent, "ways": ways}


def best_known(cache: HiddenStateCache, memory: DocumentMemory, extent: float) -> list[list[float]]:
    """The lowest of all documents' cross entropies minus the base LM's, over the plane."""
    over_plane = key_plane(cache, memory, points=POINTS, extent=extent).ce
    return (over_plane - base_cross_entropies(cache)[:, None, None]).amin(0).tolist()


def changes(results: dict[str, Any], way: str) -> list[float]:
    """How far each other document's own cross entropy is from what it was, over all seeds."""
    ways = results["ways"]
    pairs = zip(ways[way]["seeds"], ways["trained"]["seeds"], strict=True)
    return [
        after - before
        for one, other in pairs
        for after, before in zip(one["own"][:-1], other["own"][:-1], strict=True)
    ]


def of_new(results: dict[str, Any], way: str) -> list[float]:
    """The new document's own cross entropy, one a seed."""
    return [seed["own"][-1] for seed in results["ways"][way]["seeds"]]


def of_others(results: dict[str, Any], way: str) -> list[float]:
    """The others' mean own cross entropy, one a seed."""
    return [float(np.mean(seed["own"][:-1])) for seed in results["ways"][way]["seeds"]]


@styled
def draw(figure: Figure, results: dict[str, Any], note: str) -> Figure:
    """The plane before and after; how well the new document and the others are known."""
    ways, extent = results["ways"], results["extent"]
    grid = figure.add_gridspec(2, 6, height_ratios=(1.3, 1))
    lowest = min(float(np.min(ways[name]["map"])) for name in MAPS)
    maps = []
    for column, name in enumerate(MAPS):
        axes = figure.add_subplot(grid[0, 2 * column : 2 * column + 2])
        maps.append(axes)
        image = plane_map(axes, ways[name]["map"], extent, "Blues_r", (lowest, 0))
        *others, (across, up) = ways[name]["places"]
        for x, y in others:
            axes.plot(x, y, "o", ms=5, color=INK, mec="white", mew=0.8)
        badge(axes, across, up, len(others))
        axes.set_title(WAYS[name] + (": its place is free" if name == "trained" else ""))
    maps[0].set_ylabel("second coordinate")
    figure.colorbar(
        image, ax=maps, label="lowest cross entropy of any\ndocument - base LM's", aspect=14,
        pad=0.01,
    )  # fmt: skip
    left, right = figure.add_subplot(grid[1, :3]), figure.add_subplot(grid[1, 3:])
    for values_of, color, label in (
        (of_new, GUIDANCE, "the new document"),
        (of_others, OWN, "mean of the others"),
    ):
        dots(left, {WAYS[name]: values_of(results, name) for name in WAYS}, color)
        left.plot([], [], color=color, lw=2, label=label)
    left.set_yscale("log")
    left.set_yticks((0.01, 0.1, 1, 10), ("0.01", "0.1", "1", "10"))
    left.set_ylabel("own cross entropy\n(nats per token)")
    left.legend(frameon=False, loc="upper right")
    left.set_title("How well each is known")
    changed = {
        f"{WAYS[name]}\n({ways[name]['seeds'][0]['readings']:,} batches read)": name
        for name in WAYS
        if name != "trained"
    }
    dots(right, {label: changes(results, name) for label, name in changed.items()}, OWN)
    right.axhspan(-ALLOWED, ALLOWED, color=FAINT, alpha=0.2, lw=0)
    right.set_yscale("symlog", linthresh=2 * ALLOWED, linscale=1)
    right.set_yticks((-0.1, 0, 0.1, 1, 10), ("-0.1", "0", "0.1", "1", "10"))
    right.set_ylabel("change of the others' own\ncross entropy (nats per token)")
    right.set_title(f"What it cost: each other document a dot, ± {ALLOWED:g} shaded")
    title = "A new document among those a memory knows"
    if all_hold(*claims(results)[:3]):
        title = "Read in turn with the others' texts, a new document is learned and they stay"
    headline(figure, title, note)
    return figure


SIZE = (13, 8)
ALT = (
    "Three maps of the DocRep plane, dark where some document is well known: as trained, after "
    "training on a new document alone, and after adding it with rehearsal of the others, where a "
    "well has formed at its place. Below, the own cross entropy of the new document and of the "
    "others, and the change of each other document, by way of adding."
)


def claims(results: dict[str, Any]) -> list[Claim]:
    """The new one is known, none is harmed, rehearsal is why, and it is as good as anew."""
    ways = results["ways"]
    new, before = spread(of_new(results, "added")), spread(of_others(results, "trained"))
    cost, harm = changes(results, "added"), changes(results, "naive")
    eleven, anew = (
        spread(float(np.mean(seed["own"])) for seed in ways[name]["seeds"])
        for name in ("added", "anew")
    )
    count = len(ways["added"]["seeds"][0]["own"])
    told = ", ".join(str(seed["recognised"]) for seed in ways["added"]["seeds"])
    readings = {name: ways[name]["seeds"][0]["readings"] for name in ("added", "anew")}
    return [
        Claim(
            "A document added to a trained memory is as well known as those it held",
            "left open",
            f"its own cross entropy {new}, theirs before {before}; recognised {told} of {count}",
            verdict(new.mean - before.mean <= NEAR),
            exploratory=SEEDS_ADDED,
        ),
        Claim(
            f"Adding it costs no other document {ALLOWED:g} nats",
            "left open",
            f"change of the others' own cross entropy {np.mean(cost):+.2f}, at most "
            f"{max(cost):+.2f}",
            verdict(max(cost) < ALLOWED),
            exploratory=SEEDS_ADDED,
        ),
        Claim(
            "Training on the new text alone harms the others",
            "left open",
            f"change of the others' own cross entropy {np.mean(harm):+.2f}, at most "
            f"{max(harm):+.2f}",
            verdict(float(np.mean(harm)) > HARM),
            exploratory=SEEDS_ADDED,
        ),
        Claim(
            "Adding is no worse than training on all of them anew",
            "left open",
            f"mean own cross entropy of all {eleven}, anew {anew}; {readings['added']:,} batches "
            f"read, anew {readings['anew']:,}",
            verdict(eleven.mean - anew.mean <= NEAR),
            exploratory=SEEDS_ADDED,
        ),
    ]
