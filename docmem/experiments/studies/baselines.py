"""Baselines: what a user would pick instead of a document memory.

The paper leaves it open. One LoRA for all documents, one LoRA per document, and a memory without
document keys are trained with as many parameters, for the same seconds, taking turns with the
document memory on the same machine.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from docmem.evaluation.recall import Recognition, prompts
from docmem.experiments import baselines
from docmem.experiments.drawing import dots
from docmem.experiments.pool import RunPool
from docmem.experiments.stats import clearly_above, spread, values_of, verdict
from docmem.experiments.study import Claim, Claims, Study, columns
from docmem.plots.style import GUIDANCE, NEGATIVE, OWN

MOST_SEEDS = 3
PROMPT = NEW = 16
"""Tokens given, and tokens to complete."""
KINDS: dict[str, tuple[type[baselines.Baseline], float | None, str, str]] = {
    "document memory": (baselines.DocumentMemoryBaseline, None, OWN, ""),
    "without keys": (baselines.UngatedMemory, None, GUIDANCE, "a memory without document keys"),
    "one LoRA": (baselines.LoRA, 5e-3, NEGATIVE, "one LoRA for all"),
    "LoRA per document": (baselines.PerDocumentLoRA, 2e-2, "#AA4499", "one LoRA per document"),
}
"""Class, learning rate (None: the preset's), colour, and name in a claim.

The learning rates are the best with seed 1: of 2.5e-3, 5e-3 and 1e-2 for one LoRA, and of these,
2e-2 and 4e-2 for one per document."""


@dataclass(frozen=True)
class Trained:
    """One baseline; one entry per seed. Cross entropies in nats per token."""

    own: list[float]
    """Cross entropy under the own address; `other`: under the others'."""
    other: list[float]
    completed_own: list[float]
    """Share of tokens completed correctly; with one address, own and other are the same."""
    completed_other: list[float]
    parameters: list[int]
    bytes: list[int]
    """Size on disk."""
    seconds: list[list[float]]
    """Time spent until the end of each epoch, (seeds, epochs)."""
    losses: list[list[float]]
    """Own cross entropy in training, (seeds, epochs)."""

    @property
    def gaps(self) -> list[float]:
        """Another's minus own cross entropy."""
        return [other - own for own, other in zip(self.own, self.other, strict=True)]

    def __str__(self) -> str:
        epochs = np.mean([len(losses) for losses in self.losses])
        return f"{spread(self.own)} nats in {epochs:.0f} epochs"


@dataclass(frozen=True)
class Results:
    """By baseline."""

    baselines: dict[str, Trained]

    @property
    def seeds(self) -> int:
        """Seeds of each."""
        return len(self.baselines["document memory"].own)


class Baselines(Study[Results]):
    """What does a document memory give that a LoRA of its size does not?"""

    results = Results
    size = (13, 4.8)
    alt = (
        "Document memory, memory without keys, one LoRA, a LoRA per document: own cross entropy "
        "over seconds of training; cross entropy and share of tokens completed correctly under "
        "the own and another's address, one dot per seed; parameters and size on disk."
    )
    shown = "As many parameters, the same seconds: what each baseline knows of which document"
    finding = "Without keys a memory learns faster; with them it tells documents apart"
    needs = ("not",)
    caption = (
        "{results.seeds} seeds. One address serves as own and another's where there is only one."
    )

    def measure(self, pool: RunPool) -> Results:
        """Train every baseline for the same seconds; measure what it knows and its size."""
        rows = [one_seed(pool, seed) for seed in pool.seed_numbers(MOST_SEEDS)]
        return Results({name: Trained(**columns(row[name] for row in rows)) for name in KINDS})

    def _draw(self, figure: Figure, results: Results) -> None:
        learning, ce, completion, size = figure.subplots(1, 4, width_ratios=(1.5, 1.25, 1.25, 0.9))
        colors = [color for _, _, color, _ in KINDS.values()]
        for (name, one), color in zip(results.baselines.items(), colors, strict=True):
            for seconds, losses in zip(one.seconds, one.losses, strict=True):
                learning.plot(seconds, losses, color=color, lw=1.5, alpha=0.75)
            learning.lines[-1].set_label(name)
        learning.set(xlim=(0, None), ylim=(0, None), title="Learning", xlabel="seconds of training")
        learning.set_ylabel("own cross entropy in training\n(nats per token)")
        learning.legend(frameon=False)
        groups = {name.replace(" ", "\n", 1): one for name, one in results.baselines.items()}
        for key, color, label in (("own", OWN, "own"), ("other", NEGATIVE, "another's")):
            dots(ce, values_of(groups, key), color, f"{label} address")
            dots(completion, values_of(groups, f"completed_{key}", 100), color)
        ce.set(title="Cross entropy", ylabel="cross entropy (nats per token)")
        completion.set(title="Completion", ylabel="tokens completed correctly (%)")
        for axes in (ce, completion):
            axes.tick_params(axis="x", labelsize=9, rotation=45)
            axes.set_ylim(0)
        ce.legend(frameon=False, fontsize=9)
        megabytes = [one.bytes[0] / 1e6 for one in groups.values()]
        size.barh(list(groups), megabytes, color=colors, height=0.6)
        size.invert_yaxis()
        for place, one in enumerate(groups.values()):
            text = f"{one.parameters[0] / 1000:.0f} k, {megabytes[place]:.2f} MB"
            size.text(0.03 * max(megabytes), place, text, color="white", va="center", fontsize=9)
        size.tick_params(axis="y", labelsize=9)
        size.set(title="Parameters", xlabel="size on disk (MB)")

    def _judge(self, results: Results) -> Claims:
        memory, *rest = results.baselines.values()
        for (*_, called), other in zip(list(KINDS.values())[1:], rest, strict=True):
            yield Claim(
                f"A document memory knows its documents better than {called} (partly: no worse), "
                "at the same parameters and seconds",
                f"own cross entropy {memory}, against {other}; tokens completed correctly "
                f"{spread(memory.completed_own)} against {spread(other.completed_own)}",
                verdict(
                    clearly_above(other.own, memory.own), not clearly_above(memory.own, other.own)
                ),
            )
        each = rest[-1]
        yield Claim(
            "Only with addresses are documents told apart; a document memory separates them "
            "more than a LoRA per document does",
            f"another's minus own cross entropy {spread(memory.gaps)} nats, a LoRA per "
            f"document {spread(each.gaps)}; 0 by construction for the others",
            verdict(clearly_above(memory.gaps, each.gaps)),
        )


def one_seed(pool: RunPool, seed: int) -> dict[str, dict[str, object]]:
    """The numbers of each baseline."""
    documents, config = pool.documents(), pool.config(seed=seed)
    made = {name: kind(pool.lm, documents, config, lr) for name, (kind, lr, *_) in KINDS.items()}
    baselines.train_for_equal_time(list(made.values()), config.num_epochs)
    found: dict[str, dict[str, object]] = {}
    for name, baseline in made.items():
        own, other = own_and_other(baseline.cross_entropies())
        completed_own, completed_other = own_and_other(completed(baseline))
        found[name] = {
            "own": own,
            "other": other,
            "completed_own": completed_own,
            "completed_other": completed_other,
            "parameters": baseline.parameters,
            "bytes": baseline.bytes,
            "seconds": baseline.seconds,
            "losses": baseline.losses,
        }
    return found


def own_and_other(values: Float[Tensor, "n_docs addresses"]) -> tuple[float, float]:
    """Mean under the own address, and under the others'; one address serves as both."""
    if values.shape[1] == 1:
        return values.mean().item(), values.mean().item()
    square = Recognition.of_all(values)
    return square.own, square.other


def completed(baseline: baselines.Baseline) -> Float[Tensor, "n_docs addresses"]:
    """Share of each document's tokens that are completed correctly under each address."""
    ids, wanted, doc_ids = prompts(baseline.cache, PROMPT, NEW)
    shares = torch.empty(len(baseline.documents), baseline.addresses)
    for address in range(baseline.addresses):
        right = (baseline.generate(ids, address, NEW) == wanted).float().mean(1).cpu()
        for document in range(len(shares)):
            shares[document, address] = right[doc_ids == document].mean()
    return shares
