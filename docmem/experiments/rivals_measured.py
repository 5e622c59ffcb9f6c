"""What is measured of a rival: what it knows of which document, its harm to others, its speed."""

import functools
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from docmem.evaluation.recall import OTHERS, Recognition, prompts, readers_of
from docmem.experiments.rivals import Rival, seconds_of
from docmem.lm.cross_entropy import base_cross_entropies, document_means
from docmem.lm.generation import greedy
from docmem.lm.hidden_states import HiddenStateCache

PROMPT = NEW = 16
"""Tokens given, and tokens to complete."""
USED, ROUNDS = 32, 3
"""Tokens written to see how fast that is, and how often."""


def measured(rival: Rival, passages: HiddenStateCache, prose: HiddenStateCache) -> dict[str, Any]:
    """The numbers of one rival but its speed; passages stand alone in their batches."""
    count = len(rival.documents)
    ce, harm = read_under_all(rival, passages), read_under_all(rival, prose).mean(1, keepdim=True)
    known = Recognition.of_all(document_means(passages, count, ce.__getitem__))
    completed_own, completed_other = completed(rival, passages)
    given, base = ce.argmin(1) == torch.tensor(passages.doc_ids), base_cross_entropies(prose)
    return {
        "own": known.own,
        "other": known.other,
        "lowest_pair": known.lowest_pair.ce,
        "completed_own": completed_own,
        "completed_other": completed_other,
        "attributed": 100 * given.float().mean().item(),
        "harm": (document_means(prose, len(base), harm.__getitem__)[:, 0] - base).mean().item(),
        "parameters": rival.parameters,
        "kilobytes": rival.bytes / count / 1000,
        "seconds": rival.seconds,
        "losses": rival.losses,
    }


@torch.no_grad()
def read_under_all(rival: Rival, cache: HiddenStateCache) -> Float[Tensor, "batches n_docs"]:
    """Cross entropy of each batch under each document's address, nats per token, on the CPU."""
    under = [
        [rival.read(cache, index, address).item() for index in range(len(cache.batches))]
        for address in range(rival.addresses)
    ]
    # A single address is everyone's: where all columns are the same, the first is the lowest.
    return torch.tensor(under).T.expand(-1, len(rival.documents))


def completed(rival: Rival, passages: HiddenStateCache) -> tuple[float, float]:
    """Tokens completed correctly under the own address and, each passage, some others'; %."""
    ids, wanted, whose = prompts(passages, PROMPT, NEW)
    readers, right = readers_of(whose, len(rival.documents), OTHERS), []
    for address in range(rival.addresses):
        # A single address is everyone's.
        row, place = (readers % rival.addresses == address).nonzero(as_tuple=True)
        written = rival.generate(ids[row], address, NEW)
        share = (written == wanted[row]).float().mean(1).cpu()
        right.append(torch.stack([place == 0, share]))
    own, shares = torch.cat(right, dim=1)
    return 100 * shares[own == 1].mean().item(), 100 * shares[own == 0].mean().item()


def tokens_per_second(rivals: Sequence[Rival], passages: HiddenStateCache) -> list[float]:
    """Tokens that the base LM and each rival write per second, in one row: medians, in turns."""
    ids = prompts(passages, PROMPT, NEW)[0][:1]
    write = [functools.partial(greedy, rivals[0].lm.model, ids, USED)]
    write += [functools.partial(one.generate, ids, 0, USED) for one in rivals]
    _, *rounds = [[seconds_of(one) for one in write] for _ in range(1 + ROUNDS)]  # the first warms
    return [USED / statistics.median(some) for some in zip(*rounds, strict=True)]
