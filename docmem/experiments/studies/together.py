"""Together: can a memory be asked for two documents at once?

The paper leaves it open. The memory is called by the DocRep half-way between two documents'; by the
sum of their selections; and by both selections, the memory's outputs under each being added up. (To
change the DocRep from one sentence to the next is no question: after the last block the memory
reads each token alone.)
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor, nn

from docmem.core.hook import attach
from docmem.core.memory import DocumentMemory
from docmem.evaluation.recall import completion, prompts, recognition
from docmem.experiments.claims import Claim, Claims
from docmem.experiments.drawing import dot_series, dots, level
from docmem.experiments.pool import RunPool
from docmem.experiments.stats import above, below, more, values_of
from docmem.experiments.study import Study, columns
from docmem.lm.cross_entropy import cross_entropies_at
from docmem.lm.generation import greedy
from docmem.lm.hidden_states import HiddenStateCache
from docmem.plots.style import GUIDANCE, INK, NEGATIVE, OWN

GIVEN, NEW = 16, 16
"""Tokens that are given and written."""
WAYS = {
    "one": "one's\nDocRep",
    "halfway": "DocRep\nhalf-way",
    "selections": "selections\nadded",
    "outputs": "outputs\nadded",
}


@dataclass(frozen=True)
class Way:
    """One way to ask for two documents; means over pairs, one per seed."""

    better: list[float]
    """Cross entropy minus that under the own DocRep, of the one that is read better, nats."""
    worse: list[float]
    """Of the other."""
    completed: list[float]
    """Share of tokens of both completed correctly."""


@dataclass(frozen=True)
class Results:
    """By way, and under each document's own DocRep."""

    own: list[float]
    """Cross entropy, nats per token."""
    own_completed: list[float]
    """Share of tokens completed correctly."""
    ways: dict[str, Way]


class Summed(DocumentMemory):
    """A memory that is called by several selections in place of a DocRep; its outputs add up.

    Args:
        memory: whose weights it has.
        selections: what calls it, the entries of several selections one after the other.
    """

    def __init__(self, memory: DocumentMemory, selections: Float[Tensor, "calls entries"]) -> None:
        shape = replace(memory.config, n_docs=len(selections), key_dim=selections.shape[1])
        super().__init__(shape)
        self.token_key, self.values, self.output = memory.token_key, memory.values, memory.output
        self.document_key = self.act_key = nn.Identity()
        self.doc_reps = selections

    def token_keys(self, h: Tensor) -> Tensor:
        """The token keys, once for each selection."""
        keys = super().token_keys(h)
        return torch.cat([keys] * (self.config.key_dim // self.config.memory_dim), dim=-1)

    def residual_update(self, h: Tensor, key: Tensor) -> Tensor:
        """Hidden states with the output of each selection added."""
        out = h
        for part in key.split(self.config.memory_dim, dim=-1):
            out = out + (super().residual_update(h, part) - h)
        return out


class Together(Study[Results]):
    """Can a memory be asked for two documents at once?"""

    results = Results
    size = (12, 4.6)
    alt = (
        "Left: cross entropy of two documents minus that under their own DocRep, of the one read "
        "better and of the other, under one's DocRep, the DocRep half-way, added selections and "
        "added outputs; right: share of tokens of both completed; one dot per seed."
    )
    shown = "Two documents asked for at once"
    finding = "Two documents at once are read badly; added outputs do better than a DocRep half-way"
    needs = ("holds", "does not hold", "does not hold", "holds")
    caption = "Pairs of each document and the next."

    def measure(self, pool: RunPool) -> Results:
        """Read and complete the documents of every pair, asked for in every way."""
        rows = [one_run(pool.cache_hidden_states(run), run.load_memory()) for run in pool.runs()]
        found = columns(rows)
        ways = {name: Way(**columns(found.pop(name))) for name in WAYS}
        return Results(**found, ways=ways)

    def _draw(self, figure: Figure, results: Results) -> None:
        left, right = figure.subplots(1, 2)
        ways = {label: results.ways[name] for name, label in WAYS.items()}
        read = {
            "the one read better": (OWN, values_of(ways, "better")),
            "the other": (NEGATIVE, values_of(ways, "worse")),
        }
        dot_series(left, read)
        left.set_ylabel("cross entropy - own\n(nats per token)")
        left.set_title("Reading")
        left.legend(frameon=False)
        shares = {"each its\nown DocRep": results.own_completed}
        shares |= {label: way.completed for label, way in ways.items()}
        percent = {label: [100 * one for one in values] for label, values in shares.items()}
        dots(right, percent, GUIDANCE, title="Completing", ylim=(0, 105))
        right.set_ylabel(f"next {NEW} tokens correct\nafter {GIVEN}, both (%)")
        level(left, 0, "own DocRep", "right", color=INK)

    def _claims(self, results: Results) -> Claims:
        one, halfway, selections, outputs = (results.ways[name] for name in WAYS)
        yield Claim(
            "Under the DocRep half-way neither of two documents is read well: both cost a nat more "
            "than under their own",
            [above("cross entropy minus own, of the one read better", halfway.better, 1)],
            own=results.own,
        )
        for name, way in (("selections", selections), ("outputs", outputs)):
            yield Claim(
                f"Added {name} keep both documents within a nat of their own",
                [below("cross entropy minus own, of the one read worse", way.worse, 1)],
                own=results.own,
            )
        yield Claim(
            "Added outputs read two documents better than the DocRep half-way does",
            [more("cross entropy, half-way minus outputs", halfway.worse, outputs.worse, 0.25)],
            own=results.own,
        )
        yield Claim(
            "Added outputs complete more of two documents than the DocRep of one of them",
            [more("share, outputs minus one's", outputs.completed, one.completed, 0.05)],
            own=results.own,
        )


@torch.no_grad()
def one_run(cache: HiddenStateCache, memory: DocumentMemory) -> dict[str, Any]:
    """The numbers of one seed."""
    memory = memory.to(cache.device)
    own = recognition(cache, memory).own_ce
    first = torch.arange(len(own))
    second = (first + 1) % len(own)
    selections = memory.select(memory.doc_reps)
    left, right = selections[first], selections[second]
    halfway = memory.select((memory.doc_reps[first] + memory.doc_reps[second]) / 2)
    calls = {
        "one": left, "halfway": halfway, "selections": left + right,
        "outputs": torch.cat([left, right], 1),
    }  # fmt: skip
    row: dict[str, Any] = {
        "own": own.mean().item(),
        "own_completed": completion(cache, memory, GIVEN, NEW, others=0).own,
    }
    for name, called in calls.items():
        summed = Summed(memory, called)
        ce = cross_entropies_at(cache, summed, called)  # (documents, pairs)
        over = torch.stack([ce[one, first] - own[one] for one in (first, second)])
        row[name] = {
            "better": over.min(0).values.mean().item(),
            "worse": over.max(0).values.mean().item(),
            "completed": completed(cache, summed),
        }
    return row


def completed(cache: HiddenStateCache, summed: Summed) -> float:
    """Share of tokens completed correctly, of the two documents of every pair."""
    ids, wanted, whose = prompts(cache, GIVEN, NEW)
    shares = []
    with attach(cache.lm.model, summed, cache.layer) as hooked:
        for pair in (whose, (whose - 1) % len(summed.doc_reps)):  # as the first, as the second
            with hooked.document(summed.doc_reps[pair]):
                shares.append((greedy(hooked.model, ids, NEW) == wanted).float().mean().item())
    return sum(shares) / 2
