"""Recall: a document's text continued from a hidden-state cache, under whose memory?

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
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from docmem.core.hook import attach
from docmem.documents import Document
from docmem.errors import DocmemError
from docmem.evaluation.recall import prompts
from docmem.experiments.drawing import dots
from docmem.experiments.pool import Claim, RunPool, all_hold, spread, verdict
from docmem.experiments.stats import clearly_above
from docmem.lm.generation import greedy
from docmem.lm.hidden_states import HiddenStateCache
from docmem.plots.style import headline, styled
from docmem.training.run import Run

QUESTION = "How much of a text comes back, under whose memory?"
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


def measure(pool: RunPool) -> dict[str, Any]:
    """Of each condition and seed: mean scores over the segments of all documents."""
    results: dict[str, Any] = {"tokens": NEW, **{name: [] for name in CONDITIONS}}
    for run in pool.runs():
        for name, scores in scores_of(pool.cache_hidden_states(run), run).items():
            results[name].append(scores)
    return results


def scores_of(cache: HiddenStateCache, run: Run) -> dict[str, dict[str, float]]:
    """Mean scores of a run under every condition."""
    ids, wanted, doc_ids = prompts(cache, PROMPT, NEW)
    own_words = distinctive_words(run.documents)
    decode = cache.lm.tokenizer.batch_decode
    truths = decode(wanted, skip_special_tokens=True)
    found = {}
    for name, written in continuations(cache, run, ids, doc_ids).items():
        texts = decode(written, skip_special_tokens=True)
        scores = [
            rouge(truth, text, own_words[doc_id])
            for truth, text, doc_id in zip(truths, texts, doc_ids.tolist(), strict=True)
        ]
        means = {
            key: statistics.fmean(one[key] for one in scores if key in one)
            for key in MEASURES
            if any(key in one for one in scores)
        }
        # The first error of each row is where the running product of agreement falls to 0.
        agreed = (written == wanted).long().cumprod(1).sum(1)
        found[name] = {"exact": agreed.float().mean().item(), **means}
    return found


def continuations(
    cache: HiddenStateCache, run: Run, ids: Tensor, doc_ids: Tensor
) -> dict[str, Tensor]:
    """Greedy continuations (rows, NEW) under every condition; another's is the next document's."""
    memory = run.load_memory()
    found = {}
    with attach(cache.lm.model, memory, cache.layer) as hooked:
        for name, doc_reps in (
            ("own", memory.doc_reps[doc_ids]),
            ("all", None),
            ("another's", memory.doc_reps[(doc_ids + 1) % memory.config.n_docs]),
        ):
            with hooked.document(doc_reps):
                found[name] = greedy(hooked.model, ids, NEW)
    found["base LM"] = greedy(cache.lm.model, ids, NEW)
    return found


def distinctive_words(documents: list[Document]) -> list[set[str]]:
    """Of each document, the words that no other of them uses, as ROUGE tells words apart."""
    words = [set(words_of(document.text)) for document in documents]
    return [
        own - set().union(*(other for n, other in enumerate(words) if n != index))
        for index, own in enumerate(words)
    ]


@functools.cache
def scorer() -> Any:
    """ROUGE-1, -2 and -L.

    Raises:
        DocmemError: if rouge-score is not installed.
    """
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
    left = [word for word in words_of(truth) if word in own_words]
    right = [word for word in words_of(text) if word in own_words]
    if left:
        pair = (" ".join(left), " ".join(right))
        scores["distinctive"] = scorer().score(*pair)["rouge1"].fmeasure
    return scores


@styled
def draw(figure: Figure, results: dict[str, Any], note: str) -> Figure:
    """A panel a score, a column a condition, one dot per seed."""
    panels = figure.subplots(2, 3).flatten()
    for axes, (key, label) in zip(panels, MEASURES.items(), strict=False):
        dots(axes, {n: [seed[key] for seed in results[n] if key in seed] for n in CONDITIONS})
        axes.set_ylim(0, 1.05 * (results["tokens"] if key == "exact" else 1))
        axes.set_ylabel(label)
    panels[-1].axis("off")
    panels[-1].text(
        0, 0.5,
        "own: its own DocRep\nall: the memory, no DocRep\nanother's: the next document's\n"
        "base LM: no memory\n\ndistinctive: only words that\nno other document uses",
        va="center", linespacing=1.5, transform=panels[-1].transAxes,
    )  # fmt: skip
    title = "How much of a text comes back, under whose memory"
    if all_hold(*claims(results)):
        title = "A text comes back under its own memory, far less under any other"
    headline(
        figure,
        title,
        f"Greedy continuations of {NEW} tokens after the first {PROMPT} of every segment, which "
        f"the memory was trained on. {note}",
    )
    return figure


SIZE = (11, 6.4)
ALT = (
    "Five panels: tokens right before the first error, ROUGE-1, ROUGE-2, ROUGE-L and distinctive "
    "ROUGE of continuations under the own memory, all memories, another document's and the bare "
    "LM, one dot per seed."
)


def claims(results: dict[str, Any]) -> list[Claim]:
    """The own memory gives most back, by every score."""

    def of(name: str, key: str) -> list[float]:
        return [seed[key] for seed in results[name]]

    def text(key: str) -> str:
        return ", ".join(f"{name} {spread(of(name, key))}" for name in CONDITIONS)

    def own_above(key: str) -> list[bool]:
        return [clearly_above(of("own", key), of(name, key)) for name in CONDITIONS[1:]]

    return [
        Claim(
            "Under its own memory a document is continued better than under shared memories, "
            "another's, or none",
            "own above shared, by ROUGE",
            f"ROUGE-L {text('rougeL')}",
            verdict(*own_above("rougeL")),
        ),
        Claim(
            "So are the words that only this document uses",
            "not measured like this",
            f"distinctive ROUGE {text('distinctive')}",
            verdict(*own_above("distinctive")),
        ),
        Claim(
            f"So is the stretch that is right word for word (of {results['tokens']} tokens)",
            "not measured like this",
            f"tokens before the first error {text('exact')}",
            verdict(*own_above("exact")),
        ),
    ]
