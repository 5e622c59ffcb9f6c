"""Routing: whose prompt is this, and what is lost where the address has to be found?

The paper leaves it open. A prompt is read under every DocRep and given to the document under which
its tokens cost least; to none of them, and so to the base LM, unless it costs a nat per token less
there than by the base LM. Prompts are beginnings of the passages of `attribution`.
"""

import time
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor

from docmem.core.hook import attach
from docmem.evaluation.recall import recognition
from docmem.experiments.claims import Claim, Claims
from docmem.experiments.drawing import band, dots
from docmem.experiments.pool import RunPool
from docmem.experiments.stats import above, below, differences, spread, spreads
from docmem.experiments.studies.attribution import passages, share, strangers
from docmem.experiments.study import Study, columns
from docmem.lm.forward import forward_inputs
from docmem.lm.generation import greedy
from docmem.lm.head import token_losses
from docmem.lm.hidden_states import HiddenStateCache
from docmem.lm.loading import LanguageModel
from docmem.plots.style import GUIDANCE, INK, NEGATIVE, OWN
from docmem.training.run import Run

TOKENS = (2, 4, 8, 16, 32)
"""Lengths of prompts."""
ENOUGH = 8
"""Tokens that a prompt is claimed to need."""
THRESHOLD = -1.0
"""A prompt is a document's if its lowest cross entropy minus the base LM's is below this, nats per
token. Fixed beforehand."""
GIVEN, NEW = 16, 16
"""Tokens that are given and written; the first is one of TOKENS."""
LINES = {
    "seen": (OWN, "trained: given to their document"),
    "unseen": (GUIDANCE, "later in the same articles:\nlowest under their document"),
    "strange": (NEGATIVE, "strangers: given to some document"),
}
"""Colour and label of each share of prompts."""
ADDRESSES = {
    "true": "true\naddress", "found": "address\nfound", "none": "none\n(all entries)",
    "base": "base\nLM",
}  # fmt: skip
Group = list[tuple[int, str]]
"""Index of the document and text of each passage."""
Indices = Int[Tensor, " prompts"]


@dataclass(frozen=True)
class Results:
    """One entry per seed."""

    documents: int
    own: list[float]
    """Cross entropy of the documents under their own DocRep, nats per token."""
    shares: list[dict[str, list[float]]]
    """Shares of prompts, as LINES has them, one for each of TOKENS."""
    completed: dict[str, list[float]]
    """Share of tokens of trained prompts completed correctly, by address."""
    forwards: list[float]
    """Time that finding the documents of prompts takes, in forwards of the base LM on them."""

    def at(self, name: str, tokens: int) -> list[float]:
        """The shares of prompts of so many tokens."""
        return [shares[name][TOKENS.index(tokens)] for shares in self.shares]


class Routing(Study[Results]):
    """Whose prompt is this, and what is lost where the address has to be found?"""

    results = Results
    size = (12, 4.8)
    alt = (
        "Left, by length: share of trained prompts given to their document, of later ones that "
        "cost least under theirs, of strangers' given to some document; right: share of tokens "
        "completed with the true address, the one found, none, and by the base LM, by seed."
    )
    shown = "Whose prompt is this?"
    finding = f"{ENOUGH} tokens find a trained prompt's document, and strangers' seldom find one"
    needs = ("holds", "holds")
    caption = (
        f"A prompt is given to the document that reads it best, if that is {-THRESHOLD:g} nat per "
        "token better than the base LM; bands are one standard deviation over seeds."
    )

    def measure(self, pool: RunPool) -> Results:
        """Route the prompts of every group, and complete trained ones with every address."""
        found = columns(one_seed(pool, seed) for seed in pool.seed_numbers())
        completed = columns(found.pop("completed"))
        return Results(len(pool.documents(1)), completed=completed, **found)

    def _draw(self, figure: Figure, results: Results) -> None:
        left, right = figure.subplots(1, 2, width_ratios=(1.4, 1))
        for name, (color, label) in LINES.items():
            curves = [[100 * one for one in shares[name]] for shares in results.shares]
            band(left, TOKENS, curves, color, label)
        left.set_xscale("log", base=2)
        left.set_xticks(TOKENS, list(map(str, TOKENS)))
        left.set(xlabel="tokens of the prompt", ylabel="prompts (%)", ylim=(-2, 102))
        left.set_title("Finding the document")
        left.axhline(100 / results.documents, color=INK, lw=1, ls=(0, (4, 3)), label="chance")
        left.legend(frameon=False, fontsize=9)
        found = results.completed
        groups = {
            text.replace("none\n(all entries)", "all entries\nopen"): [100 * x for x in found[key]]
            for key, text in ADDRESSES.items()
        }
        dots(right, groups, title="Completing a trained prompt", ylim=(-2, 102))
        right.set_ylabel(f"next {NEW} tokens correct\nafter {GIVEN} (%)")

    def _claims(self, results: Results) -> Claims:
        found, chance = results.completed, 1 / results.documents
        yield Claim(
            f"The first {ENOUGH} tokens of a trained passage are enough to find its document",
            [above("share given to it", results.at("seen", ENOUGH), 0.9)],
            note=f"finding it takes as long as {spread(results.forwards)} forwards of the base LM",
            own=results.own,
        )
        yield Claim(
            f"Fewer than one in ten of strangers' prompts of {ENOUGH} tokens are given to a "
            "document",
            [below("share given to one", results.at("strange", ENOUGH), 0.1)],
            own=results.own,
        )
        yield Claim(
            "Generation with the address found completes as much as with the true one, to 0.05",
            [below("share, true minus found", differences(found["true"], found["found"]), 0.05)],
            note=f"share of tokens completed {spreads(found)}; none: all entries open",
            own=results.own,
            check=min(results.at("seen", GIVEN)) == 1,  # then both addresses are the same
        )
        over = [one - chance for one in results.at("unseen", TOKENS[-1])]
        yield Claim(
            f"The first {TOKENS[-1]} tokens of a passage of the same article that was not trained "
            "cost least under its document's DocRep more often than by chance",
            [above(f"share of passages minus chance ({chance:.2f})", over, margin=0.05)],
            own=results.own,
        )


def one_seed(pool: RunPool, seed: int) -> dict[str, Any]:
    """The numbers of one seed."""
    run = pool.run(seed)
    groups = passages(run.config, pool.documents(seed), strangers(pool, seed))
    groups["strange"] = groups.pop("strange start") + groups.pop("strange later")
    row: dict[str, Any] = {"own": recognition(pool.cache_hidden_states(run), run.load_memory()).own}
    shares: dict[str, list[float]] = {name: [] for name in LINES}
    for name, group in groups.items():
        whose = torch.tensor([doc_id for doc_id, _ in group])
        losses, forwards = token_losses_under(pool.lm, run, group)
        for tokens in TOKENS:
            nearest, found = route(losses[:, :, : tokens - 1].mean(2))
            right = {"seen": found == whose, "unseen": nearest == whose, "strange": found >= 0}
            shares[name].append(share(right[name]))
            if (name, tokens) == ("seen", GIVEN):
                row["completed"] = completed(pool.lm, run, group, found)
                row["forwards"] = forwards
    return {**row, "shares": shares}


@torch.no_grad()
def token_losses_under(
    lm: LanguageModel, run: Run, group: Group
) -> tuple[Float[Tensor, "readers prompts predicted"], float]:
    """Losses of the prompts' tokens after the first: under each DocRep, then by the base LM; nats.

    What comes after a token changes nothing, so that shorter prompts are their beginnings. Beside
    them the time that it takes, in forwards of the base LM.
    """
    memory = run.load_memory().to(lm.device)
    batch = lm.tokenize([text for _, text in group], TOKENS[-1])
    started = time.perf_counter()
    cache = HiddenStateCache(lm, [batch], [0], run.config.hook_memory_layer)
    under = [token_losses(cache.logits(0, memory, one), batch) for one in memory.doc_reps]
    before = time.perf_counter()
    base = token_losses(lm.model(**forward_inputs(lm.model, batch)).logits, batch)
    now = time.perf_counter()
    return torch.stack([*under, base]).cpu(), (now - started) / (now - before)


def route(ce: Float[Tensor, "readers prompts"]) -> tuple[Indices, Indices]:
    """The document that reads each prompt best, and whom it is given to: that one, or none, -1."""
    lowest, nearest = ce[:-1].min(0)
    return nearest, nearest.where(lowest - ce[-1] < THRESHOLD, -1)


@torch.no_grad()
def completed(lm: LanguageModel, run: Run, group: Group, found: Indices) -> dict[str, float]:
    """Share of tokens completed correctly by address; a prompt given to none is the base LM's."""
    ids = lm.tokenize([text for _, text in group], GIVEN + NEW).input_ids
    prompt, wanted = ids[:, :GIVEN], ids[:, GIVEN:]
    memory, whose = run.load_memory(), [doc_id for doc_id, _ in group]
    addresses = {"true": memory.doc_reps[whose], "found": memory.doc_reps[found], "none": None}
    base = greedy(lm.model, prompt, NEW)
    written = {"base": base}
    with attach(lm.model, memory, run.config.hook_memory_layer) as hooked:
        for name, doc_reps in addresses.items():
            with hooked.document(doc_reps):
                written[name] = greedy(hooked.model, prompt, NEW)
    written["found"] = written["found"].where((found >= 0)[:, None].to(ids.device), base)
    return {name: share(written[name] == wanted) for name in ADDRESSES}
