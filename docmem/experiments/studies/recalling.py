"""Recall: a document's text continued from a prompt, under whose memory?

The paper scores continuations under a document's own memory and under shared memories with
ROUGE. Here the first tokens of every segment are given and the next ones written greedily, under
the own DocRep, under all memories (no DocRep), under another document's, and by the base LM.

Distinctive ROUGE is ours: ROUGE-1 between the two texts once only those words are left that this
document uses and no other document of the run does. Where the true continuation has no such word
it is not scored.
"""

import functools
import importlib.util
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from docmem.core.hook import attach
from docmem.documents import Document
from docmem.errors import DocmemError
from docmem.evaluation.recall import prompts
from docmem.experiments.claims import Claim, Claims
from docmem.experiments.drawing import dot_series
from docmem.experiments.pool import RunPool
from docmem.experiments.stats import highest, more, spreads, values_of
from docmem.experiments.study import Study, columns
from docmem.lm.generation import greedy
from docmem.lm.hidden_states import HiddenStateCache
from docmem.plots.style import FAINT, GUIDANCE, NEGATIVE, OWN
from docmem.training.run import Run

PROMPT, NEW = 16, 32
"""Tokens given, and tokens written."""
CONDITIONS = ("own", "all", "another's", "base LM")
MEASURES = {
    "exact": "tokens right before\nthe first error",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "distinctive": "distinctive ROUGE",
}


@dataclass(frozen=True)
class Scores:
    """Of one condition: MEASURES, means over the segments of all documents, one per seed."""

    exact: list[float]
    rouge1: list[float]
    rouge2: list[float]
    rougeL: list[float]  # noqa: N815 - as rouge-score names it
    distinctive: list[float]


@dataclass(frozen=True)
class Results:
    """By condition."""

    tokens: int
    """Written after each prompt."""
    conditions: dict[str, Scores]
    own_ce: list[float]
    """Own cross entropy in the last epoch of training, nats per token, one per seed."""


class Recalling(Study[Results]):
    """How much of a text comes back, under whose memory?"""

    results = Results
    size = (11, 4.4)
    alt = (
        "Tokens right before the first error, ROUGE-1, ROUGE-2, ROUGE-L and distinctive ROUGE of "
        "continuations, in percent, side by side for those under the own memory, all memories, "
        "another document's and by the base LM, one dot per seed."
    )
    shown = "How much of a text comes back, under whose memory"
    finding = "A text comes back under its own DocRep, far less under the next document's"
    needs = ("holds", "holds", "holds")
    caption = (
        f"Greedy continuations of {{results.tokens}} tokens after the first {PROMPT} of every "
        "segment, which the memory was trained on. Distinctive: only words that no other document "
        "uses."
    )

    def measure(self, pool: RunPool) -> Results:
        """Train every seed; continue every segment under every condition, and score it."""
        runs = pool.runs()
        seeds = [scores_of(pool.cache_hidden_states(run), run) for run in runs]
        scores = {name: Scores(**columns(seed[name] for seed in seeds)) for name in CONDITIONS}
        return Results(NEW, scores, [run.load_history()[-1].positive_ce for run in runs])

    def _draw(self, figure: Figure, results: Results) -> None:
        shown = {
            "its own DocRep": OWN, "all entries, no DocRep": GUIDANCE,
            "the next document's DocRep": NEGATIVE, "the base LM, no memory": FAINT,
        }  # fmt: skip
        axes, series = figure.subplots(), {}
        for (label, color), scores in zip(shown.items(), results.conditions.values(), strict=True):
            groups = {}
            for key, measured in MEASURES.items():
                whole = results.tokens if key == "exact" else 1
                groups[measured] = [100 * one / whole for one in getattr(scores, key)]
            series[label] = color, groups
        dot_series(axes, series, ylabel="came back (%)", ylim=(0, 105))
        figure.legend(
            loc="outside right center", frameon=False, title="written under", alignment="left"
        )

    def _claims(self, results: Results) -> Claims:
        for key, claim, measured, margin, published in (
            ("rougeL", "Under its own memory a document is continued better than under shared "
             "memories, another's, or none", "ROUGE-L", 0.05, "own above shared, by ROUGE"),
            ("distinctive", "So are the words that only this document uses", "distinctive ROUGE",
             0.05, "not measured like this"),
            ("exact", f"So is the stretch that is right word for word (of {results.tokens} tokens)",
             "tokens before the first error", 1, "not measured like this"),
        ):  # fmt: skip
            scores = values_of(results.conditions, key)
            own, *others = scores.values()
            best = highest(others)
            yield Claim(
                claim,
                [more(f"{measured}, own − best of the others", own, best, margin)],
                published=published,
                papers=key == "rougeL",
                note=spreads(scores, " "),
                own=results.own_ce,
            )


def scores_of(cache: HiddenStateCache, run: Run) -> dict[str, dict[str, float]]:
    """Mean scores of a run on its documents under every condition.

    Raises:
        DocmemError: if no continuation has a word that only its document uses.
    """
    ids, wanted, doc_ids = prompts(cache, PROMPT, NEW)
    own_words = distinctive_words(run.documents)
    decode = functools.partial(cache.lm.tokenizer.batch_decode, skip_special_tokens=True)
    found = {}
    for name, written in continuations(cache, run, ids, doc_ids).items():
        scores = [
            rouge(truth, text, own_words[doc_id])
            for truth, text, doc_id in zip(
                decode(wanted), decode(written), doc_ids.tolist(), strict=True
            )
        ]
        if not any("distinctive" in one for one in scores):
            raise DocmemError(
                "No continuation has a word that only its document uses; distinctive ROUGE needs "
                "longer segments, or more of them."
            )
        # The first error of each row is where the running product of agreement falls to 0.
        agreed = (written == wanted).long().cumprod(1).sum(1)
        found[name] = {"exact": agreed.float().mean().item()}
        for key in ("rouge1", "rouge2", "rougeL", "distinctive"):
            found[name][key] = statistics.fmean(one[key] for one in scores if key in one)
    return found


def continuations(
    cache: HiddenStateCache, run: Run, ids: Tensor, doc_ids: Tensor
) -> dict[str, Tensor]:
    """Greedy continuations (rows, NEW) under every condition; another's is the next document's."""
    memory = run.load_memory()
    another = (doc_ids + 1) % memory.config.n_docs
    doc_reps = (memory.doc_reps[doc_ids], None, memory.doc_reps[another])
    found = {}
    with attach(cache.lm.model, memory, cache.layer) as hooked:
        for name, one in zip(CONDITIONS, doc_reps, strict=False):
            with hooked.document(one):
                found[name] = greedy(hooked.model, ids, NEW)
    found["base LM"] = greedy(cache.lm.model, ids, NEW)
    return found


def distinctive_words(documents: Sequence[Document]) -> list[set[str]]:
    """Of each document, the words that no other of them uses, as ROUGE tells words apart."""
    words = [set(words_of(document.text)) for document in documents]
    return [
        own.difference(*(other for n, other in enumerate(words) if n != index))
        for index, own in enumerate(words)
    ]


@functools.cache
def scorer() -> Any:
    """ROUGE-1, -2 and -L; DocmemError if rouge-score is not installed."""
    if importlib.util.find_spec("rouge_score") is None:
        raise DocmemError(
            "Continuations are scored with rouge-score, which is not installed: "
            "`pip install rouge-score`."
        )
    from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]

    return RougeScorer(["rouge1", "rouge2", "rougeL"])


def words_of(text: str) -> list[str]:
    """The words of a text as ROUGE tells them apart."""
    scorer()
    from rouge_score.tokenize import tokenize  # type: ignore[import-untyped]

    return tokenize(text, None)


def rouge(truth: str, text: str, own_words: set[str]) -> dict[str, float]:
    """F-measures of ROUGE-1, -2, -L, and distinctive ROUGE where the truth has such words."""
    scores = {name: score.fmeasure for name, score in scorer().score(truth, text).items()}
    left, right = (
        " ".join(word for word in words_of(one) if word in own_words) for one in (truth, text)
    )
    if left:
        scores["distinctive"] = scorer().score(left, right)["rouge1"].fmeasure
    return scores
