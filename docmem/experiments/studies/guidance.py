"""What guidance does: its weight α, the negatives it reads under, and the form of its term.

The paper trains with α 0.1 and 0.5 and names four kinds of negatives; it writes the term as
|τ - L⁻| where its program computes a clamped square. What is lost without guidance it leaves open.
"""

from typing import Any

import torch
from matplotlib.figure import Figure

from docmem.evaluation.cached import measure as recall_of
from docmem.experiments.drawing import dots
from docmem.experiments.pool import SEEDS_ADDED, Claim, RunPool, spread, verdict
from docmem.experiments.stats import clearly_above
from docmem.lm.cross_entropy import cross_entropies_at
from docmem.plots.style import FAINT, GUIDANCE, NEGATIVE, OWN, headline, styled

QUESTION = "What does the guidance loss buy, and what does training without it lose?"
GROUPS: dict[str, dict[str, dict[str, Any]]] = {
    "weight α": {f"{alpha:g}": {"guidance": alpha} for alpha in (0.0, 0.1, 0.5, 1.0)},
    "negative DocRep": {
        kind: {"negative_key_type": kind} for kind in ("other", "random", "zero", "perturb")
    },
    "form of the term": {form: {"loss_form": form} for form in ("squared", "absolute")},
}
"""Each group changes one setting; the others are α 1, another document's DocRep, squared."""
START = {"guidance": 1.0, "negative_key_type": "other", "loss_form": "squared"}
MOST_SEEDS = 3
"""Of the negatives and forms; the weights, which most claims compare, have every seed."""
ALIKE = 0.25
"""Nats a token: closer than this counts as alike."""
NO_DOCUMENTS = 16
"""DocReps drawn at random (standard normal), under which every document is read too."""


def measure(pool: RunPool) -> dict[str, Any]:
    """Of each setting and seed: cross entropies in nats per token, and shares of tokens continued."""
    results: dict[str, Any] = {"tau": pool.config().target_negative_ce}
    for group, changes in GROUPS.items():
        results[group] = {}
        for name, change in changes.items():
            seeds = pool.seed_numbers(None if "guidance" in change else MOST_SEEDS)
            runs = [pool.run(seed, **{**START, **change}) for seed in seeds]
            results[group][name] = [one_run(pool, run) for run in runs]
    return results


def one_run(pool: RunPool, run: Any) -> dict[str, float]:
    """Own, another's, random DocReps and the origin: how well the run's documents are read."""
    known, continued = recall_of(run, lambda: pool.lm)
    memory = run.load_memory()
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(NO_DOCUMENTS, memory.config.key_dim, generator=generator)
    points = torch.cat([torch.zeros(1, memory.config.key_dim), drawn])
    ce = cross_entropies_at(
        pool.cache_hidden_states(run), memory, points
    )  # (n_docs, 1 + NO_DOCUMENTS)
    return {
        "own": known.own,
        "other": known.other,
        "origin": ce[:, 0].mean().item(),
        "random": ce[:, 1:].mean().item(),
        "recognised": known.recognised,
        "continued_own": continued.own,
        "continued_other": continued.other,
    }


KINDS = {
    "own": ("its own", OWN),
    "other": ("another document's", NEGATIVE),
    "random": ("a random one", GUIDANCE),
    "origin": ("the origin", FAINT),
}


@styled
def draw(figure: Figure, results: dict[str, Any], note: str) -> Figure:
    """A column a group: cross entropies above, tokens continued correctly below."""
    panels = figure.subplots(
        2, len(GROUPS), sharey="row", width_ratios=[len(names) for names in GROUPS.values()]
    )
    for column, group in enumerate(GROUPS):
        top, bottom = panels[:, column]

        def of(key: str, group: str = group) -> dict[str, list[float]]:
            return {name: [seed[key] for seed in results[group][name]] for name in GROUPS[group]}

        top.axhline(results["tau"], color=FAINT, lw=1, ls=(0, (4, 3)), label="target τ")
        for key, (label, color) in KINDS.items():
            dots(top, of(key), color)
            top.plot([], [], color=color, lw=2, label=label)
        for key in ("own", "other"):
            dots(bottom, {n: [100 * v for v in vs] for n, vs in of(f"continued_{key}").items()},
                 KINDS[key][1])  # fmt: skip
        top.set_title(group)
        top.set_ylim(0)
        bottom.set_ylim(0, 104)
    panels[0, 0].set_ylabel("cross entropy\n(nats per token)")
    panels[1, 0].set_ylabel("tokens continued\ncorrectly (%)")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside right center", frameon=False, title="read under the DocRep",
        alignment="left",
    )  # fmt: skip
    none, most = (
        [seed["continued_other"] for seed in results["weight α"][alpha]] for alpha in ("0", "1")
    )
    title = "What the weight, the negatives and the form of guidance do"
    if clearly_above(none, most):
        title = "Guidance takes away what another document's DocRep would tell of a text"
    headline(
        figure,
        title,
        f"Negatives and forms: at most {MOST_SEEDS} seeds. Where not varied: α 1, another "
        f"document's DocRep, squared. {note}",
    )
    return figure


SIZE = (12, 6.4)
ALT = (
    "Three columns: weights of guidance, kinds of negatives, forms of the term. Above, cross "
    "entropies under the own, another, a random DocRep and the origin, one dot per seed; below, the "
    "share of tokens continued correctly under the own and under another DocRep."
)


def claims(results: dict[str, Any]) -> list[Claim]:
    """What guidance separates, what it costs, which negative does most, and whether forms agree."""
    alphas, kinds = results["weight α"], results["negative DocRep"]
    forms = results["form of the term"]

    def of(seeds: list[dict[str, float]], key: str) -> list[float]:
        return [seed[key] for seed in seeds]

    def gap(seeds: list[dict[str, float]]) -> list[float]:
        return [seed["other"] - seed["own"] for seed in seeds]

    def text(group: dict[str, Any], what: Any) -> str:
        return ", ".join(f"{name}: {spread(what(seeds))}" for name, seeds in group.items())

    def distance(key: str) -> float:
        means = [spread(of(seeds, key)).mean for seeds in forms.values()]
        return abs(means[0] - means[1])

    def guided_above(key: Any) -> list[bool]:
        return [clearly_above(key(alphas[name]), key(alphas["0"])) for name in ("0.1", "0.5", "1")]

    def origin(seeds: list[dict[str, float]]) -> list[float]:
        return of(seeds, "origin")

    given_away = [of(alphas[alpha], "continued_other") for alpha in alphas]
    wider = guided_above(gap)
    above = [kind for kind in kinds if clearly_above(gap(kinds[kind]), gap(kinds["other"]))]
    alike = (distance("own") < ALIKE, distance("other") < ALIKE)
    return [
        Claim(
            "Guidance widens the gap between another document's DocRep and the own one",
            "α 0.1 and 0.5 only",
            f"other - own in nats per token, by α {text(alphas, gap)}",
            verdict(*wider),
            ""
            if all(wider)
            else "The own DocRep tells documents apart by itself: without guidance "
            f"{spread(of(alphas['0'], 'recognised'))} documents are recognised",
            exploratory=SEEDS_ADDED,
        ),
        Claim(
            "Without guidance (α 0) a text is read better at the origin, which is no document's",
            "left open",
            f"cross entropy at the origin, by α {text(alphas, origin)}",
            verdict(*guided_above(origin)),
            exploratory=True,
        ),
        Claim(
            "Without guidance (α 0) more of a text is continued under another document's DocRep",
            "left open",
            "share of tokens continued under another's, by α "
            + text(alphas, lambda seeds: of(seeds, "continued_other")),
            verdict(*(clearly_above(given_away[0], given) for given in given_away[1:])),
            exploratory=True,
        ),
        Claim(
            "A larger α slows the learning of the own text",
            "epoch 100: 0.51 at α 0.1, 0.74 at 0.5",
            f"own cross entropy, by α {text(alphas, lambda seeds: of(seeds, 'own'))}",
            verdict(clearly_above(of(alphas["0.5"], "own"), of(alphas["0.1"], "own"))),
        ),
        Claim(
            "Of the four negatives, another document's DocRep separates documents most",
            "left open",
            f"other - own in nats per token {text(kinds, gap)}",
            verdict(
                *(
                    clearly_above(gap(kinds["other"]), gap(kinds[kind]))
                    for kind in kinds
                    if kind != "other"
                )
            ),
            f"Clearly above it: {', '.join(above)}" if above else "",
        ),
        Claim(
            f"The paper's form of the term and its program's do alike (within {ALIKE} nats)",
            "not compared",
            f"own {text(forms, lambda seeds: of(seeds, 'own'))}; "
            f"other {text(forms, lambda seeds: of(seeds, 'other'))}",
            verdict(*alike),
            ""
            if all(alike)
            else "Where the squared term is clamped, its gradient is that of the own cross "
            "entropy; the absolute one pushes the negative all along",
        ),
    ]
