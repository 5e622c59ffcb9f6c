"""Baselines: what a user would pick instead of a document memory.

The paper leaves it open. One LoRA for all documents, one LoRA a document, and a memory without
document keys are trained with as many parameters, for the same seconds, taking turns with the
document memory on the same machine.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from docmem.evaluation.recall import prompts
from docmem.experiments.baselines import (
    Baseline,
    DocumentMemoryBaseline,
    LoRA,
    PerDocumentLoRA,
    UngatedMemory,
    train_for_equal_time,
)
from docmem.experiments.drawing import dots
from docmem.experiments.pool import Claim, RunPool, spread, verdict
from docmem.experiments.stats import clearly_above
from docmem.plots.style import GUIDANCE, INK, NEGATIVE, OWN, headline, styled

QUESTION = "What does a document memory give that a LoRA of its size does not?"
MOST_SEEDS = 3
PROMPT = NEW = 16
"""Tokens given, and tokens to go on with."""
LORA_LR = {"one LoRA": 5e-3, "a LoRA each": 2e-2}
"""The best with seed 1 of 2.5e-3, 5e-3 and 1e-2, and of these, 2e-2 and 4e-2."""
NAMES = ("document memory", "without keys", "one LoRA", "a LoRA each")
COLORS = dict(zip(NAMES, (OWN, GUIDANCE, NEGATIVE, "#AA4499"), strict=True))


def measure(pool: RunPool) -> dict[str, Any]:
    """Of each baseline and seed: losses by seconds, cross entropies, recall, sizes."""
    results: dict[str, Any] = {name: [] for name in NAMES}
    documents = pool.documents()
    for seed in pool.seed_numbers(MOST_SEEDS):
        config = pool.config(seed=seed)
        baselines: dict[str, Baseline] = {
            "document memory": DocumentMemoryBaseline(pool.lm, documents, config),
            "without keys": UngatedMemory(pool.lm, documents, config),
            "one LoRA": LoRA(pool.lm, documents, config, LORA_LR["one LoRA"]),
            "a LoRA each": PerDocumentLoRA(pool.lm, documents, config, LORA_LR["a LoRA each"]),
        }
        train_for_equal_time(list(baselines.values()), config.num_epochs)
        for name, baseline in baselines.items():
            ce = baseline.cross_entropies()
            own, other = own_and_other(ce)
            right, wrong = own_and_other(continued(baseline, ce.shape[1]))
            results[name].append(
                {
                    "own": own,
                    "other": other,
                    "continued_own": right,
                    "continued_other": wrong,
                    "parameters": baseline.parameters,
                    "bytes": baseline.bytes,
                    "seconds": baseline.seconds,
                    "losses": baseline.losses,
                }
            )
    return results


def own_and_other(values: Float[Tensor, "n_docs addresses"]) -> tuple[float, float]:
    """Mean under the own address, and under the others'; one address serves as both."""
    n_docs, addresses = values.shape
    if addresses == 1:
        return values.mean().item(), values.mean().item()
    own = values.diagonal()
    rest = (values.sum() - own.sum()) / (n_docs * (addresses - 1))
    return own.mean().item(), rest.item()


def continued(baseline: Baseline, addresses: int) -> Float[Tensor, "n_docs addresses"]:
    """Share of tokens that each document is continued with correctly under each address."""
    ids, wanted, doc_ids = prompts(baseline.cache, PROMPT, NEW)
    shares = torch.empty(baseline.n_docs, addresses)
    for address in range(addresses):
        right = (baseline.generate(ids, address, NEW) == wanted).float().mean(1).cpu()
        for document in range(baseline.n_docs):
            shares[document, address] = right[doc_ids == document].mean()
    return shares


@styled
def draw(figure: Figure, results: dict[str, Any], note: str) -> Figure:
    """Losses over seconds; cross entropies, recall and size of each baseline."""
    grid = figure.add_gridspec(1, 4, width_ratios=(1.5, 1.25, 1.25, 0.9))
    race_, ce, recall, size = (figure.add_subplot(grid[0, column]) for column in range(4))
    for name in NAMES:
        for number, seed in enumerate(results[name]):
            race_.plot(
                seed["seconds"], seed["losses"], color=COLORS[name], lw=1.5, alpha=0.75,
                label=name if number == 0 else None,
            )  # fmt: skip
    race_.set_ylim(0)
    race_.set_xlim(0)
    race_.set_xlabel("seconds of training")
    race_.set_ylabel("own cross entropy in training\n(nats per token)")
    race_.legend(frameon=False)
    race_.set_title("Learning")
    short = {name: name.replace(" ", "\n", 1) for name in NAMES}
    for axes, kind, scale, label, title in (
        (ce, "", 1, "cross entropy (nats per token)", "Who knows what"),
        (recall, "continued_", 100, "tokens continued correctly (%)", "Recall"),
    ):
        for key, color, what in (("own", OWN, "own"), ("other", NEGATIVE, "another's")):
            values = {short[n]: [scale * seed[kind + key] for seed in results[n]] for n in NAMES}
            dots(axes, values, color)
            axes.plot([], [], color=color, lw=2, label=f"{what} address")
        axes.set_ylim(0)
        axes.set_ylabel(label)
        axes.set_title(title)
        axes.tick_params(axis="x", labelsize=9, rotation=45)
    ce.legend(frameon=False, fontsize=9)
    places = np.arange(len(NAMES))
    megabytes = [results[name][0]["bytes"] / 1e6 for name in NAMES]
    size.barh(places[::-1], megabytes, color=[COLORS[name] for name in NAMES], height=0.6)
    for place, name, value in zip(places[::-1], NAMES, megabytes, strict=True):
        thousands = results[name][0]["parameters"] / 1000
        size.text(0.03 * max(megabytes), place, f"{thousands:.0f} k, {value:.2f} MB",
                  color="white", va="center", fontsize=9)  # fmt: skip
    size.set_yticks(places[::-1], list(short.values()), fontsize=9)
    size.set_xlabel("size on disk (MB)")
    size.set_title("Parameters")
    for tick in size.get_yticklabels():
        tick.set_color(INK)
    title = "As many parameters, the same seconds: what each knows, and of whom"
    if claims(results)[0].verdict == "not":
        title = "Without keys a memory learns faster; with them it knows whose text it is"
    headline(
        figure,
        title,
        f"{len(results[NAMES[0]])} seeds. One address serves as own and another's where there "
        f"is only one. {note}",
    )
    return figure


SIZE = (13, 4.8)
ALT = (
    "Document memory, memory without keys, one LoRA, a LoRA a document: own cross entropy over "
    "seconds of training; cross entropy and share of tokens continued correctly under the own and "
    "another's address, one dot per seed; parameters and size on disk."
)


def claims(results: dict[str, Any]) -> list[Claim]:
    """Against each baseline: is the memory as good on its own documents, and does it separate?"""

    def of(name: str, key: str) -> Any:
        return spread(seed[key] for seed in results[name])

    def every(name: str) -> list[float]:
        return [seed["own"] for seed in results[name]]

    def better(name: str) -> bool:
        return clearly_above(every(name), every("document memory"))

    def worse(name: str) -> bool:
        return clearly_above(every("document memory"), every(name))

    memory = of("document memory", "own")
    gaps = {name: [seed["other"] - seed["own"] for seed in results[name]] for name in NAMES}
    gap = {name: spread(gaps[name]) for name in NAMES}
    epochs = {name: spread(len(seed["losses"]) for seed in results[name]) for name in NAMES}
    found = []
    for name in NAMES[1:]:
        own = of(name, "own")
        found.append(
            Claim(
                f"A document memory knows its documents better than {TITLES[name]} (partly: no "
                "worse), at the same parameters and seconds",
                "left open",
                f"own cross entropy {memory} nats in {epochs['document memory'].mean:.0f} epochs, "
                f"against {own} in {epochs[name].mean:.0f}; tokens continued correctly "
                f"{of('document memory', 'continued_own')} against {of(name, 'continued_own')}",
                verdict(better(name), not worse(name)),
            )
        )
    return [
        *found,
        Claim(
            "Only with addresses are documents told apart; a document memory separates them "
            "more than a LoRA a document does",
            "left open",
            f"another's minus own cross entropy {gap['document memory']} nats, a LoRA a document "
            f"{gap['a LoRA each']}; 0 by construction for the others",
            verdict(clearly_above(gaps["document memory"], gaps["a LoRA each"])),
        ),
    ]


TITLES = {
    "without keys": "a memory without document keys",
    "one LoRA": "one LoRA for all",
    "a LoRA each": "one LoRA a document",
}
