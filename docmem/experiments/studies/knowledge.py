"""Knowledge: does a memory hold what its documents say, or the words in which they say it?

The paper leaves it open. A question about a document, in other words than the document's, has four
answers to choose from; the one of the lowest cross entropy per token is taken. Who knows only the
document's words prefers the right answer after any prompt, so answers are also read after that of
another question about the same document: what the own prompt gives is knowledge. Other memories
read as many words more, in as many steps: a document's segments are one.
"""

import itertools
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from matplotlib.figure import Figure
from torch import Tensor

from docmem.core.hook import attach
from docmem.documents import Document, as_read
from docmem.experiments.claims import Claim, Claims
from docmem.experiments.drawing import dot_series, level
from docmem.experiments.pool import RunPool
from docmem.experiments.questions import Question, load_questions, read_answers
from docmem.experiments.rivals_lora import LoRA
from docmem.experiments.stats import above, differences, more, spread, spreads, values_of
from docmem.experiments.study import DOTS, DRAWN, EPOCHS, Study, columns
from docmem.lm.loading import LanguageModel
from docmem.plots.style import FAINT, INK, NEGATIVE, OWN
from docmem.training.run import Run

SEGMENTS, ALL_SEGMENTS = 4, 9
"""Read of a document, which hold what is asked; and of it with as many words more."""
TAUGHT = 2
"""Questions about each document that one memory is trained on; the others are asked."""
CONTEXT_WORDS = 150
"""Of the document, where they stand before the prompt."""
LORA, LORA_EPOCHS = {"optimizer": "adamw", "lr": 5e-3}, 10
"""What a LoRA is trained with, and for how many epochs at most."""
MARGIN = 0.5
"""Nats per token that the own prompt has to give: a quarter of what it gives for a question that
was trained on (on a tuning seed), and about what thirty questions a seed can tell."""
Way = Callable[[list[str], Sequence[Question], random.Random], list[str]]
"""From the words of a document and questions about it to words that are read after them."""
Read = Callable[[int, Sequence[Question]], Tensor]
"""From a document and questions about it to cross entropies of answers, (questions, answers)."""


def offsets(words: list[str], _: Sequence[Question], rng: random.Random) -> list[str]:
    """The text from another word on, then its beginning: segments start elsewhere."""
    start = rng.randrange(1, len(words) // (SEGMENTS + 1))  # less than a segment from the next
    return words[start:] + words[:start]


def shuffled(words: list[str], _: Sequence[Question], rng: random.Random) -> list[str]:
    """The text with its sentences in another order."""
    sentences = re.split(r"(?<=[.!?;]) ", " ".join(words))
    rng.shuffle(sentences)
    return " ".join(sentences).split()


def questions(words: list[str], taught: Sequence[Question], _: random.Random) -> list[str]:
    """The questions with their answers, over and over."""
    said = " ".join(f"{one.prompt} {one.answer}." for one in taught).split()
    return list(itertools.islice(itertools.cycle(said), len(words)))


WAYS: dict[str, Way] = {
    "plain": lambda *_: [], "offsets": offsets, "shuffled": shuffled, "questions": questions,
}  # fmt: skip
ASKED = {
    "base": "base LM", "context": "base LM, document\nin the context", "lora": "LoRA",
    "another": "memory,\nanother's DocRep", "plain": "memory,\nown DocRep",
    "offsets": "and text again,\nother segments", "shuffled": "and text again,\nshuffled",
    "questions": "and other\nquestions", "taught": "and these\nquestions",
}  # fmt: skip
"""Who is asked, and what it is called."""


@dataclass(frozen=True)
class Answers:
    """Means over questions, one per seed; those called other, after another prompt."""

    accuracy: list[float]
    """Share of questions answered right."""
    lead: list[float]
    """Mean cross entropy of the wrong answers minus the right one's, nats per token."""
    other_accuracy: list[float]
    other_lead: list[float]

    @property
    def known(self) -> tuple[float, ...]:
        """Lead that the own prompt gives, nats per token."""
        return differences(self.lead, self.other_lead)


@dataclass(frozen=True)
class Results:
    """By who is asked."""

    answers: dict[str, Answers]
    own: dict[str, list[float]]
    """Own cross entropy in the last epoch, by what was trained, one per seed, nats per token."""


class Knowledge(Study[Results]):
    """Wording or knowledge: does a memory answer questions about its documents?"""

    results = Results
    size = (13, 7)
    alt = (
        "Share of questions answered right, and below it the lead of the right answer, after the "
        "own prompt and another, one dot per seed: base LM, alone and with the document in its "
        "context, LoRA, memory under another's and the own DocRep, memories that read more."
    )
    shown = "Questions about a document, and who answers them"
    finding = "A memory knows which words its document uses, and hardly what it says with them"
    needs = ("holds", "does not hold")
    caption = (
        "Lead: cross entropy of wrong answers minus the right one's; thirty questions a seed. A "
        f"memory reads a document's first {SEGMENTS} segments; those called “and …” read as many "
        "words more. Last, the twenty questions that one was trained on."
    )
    trains = f"{{max_labels}} documents, {EPOCHS}, {DOTS}. {DRAWN}"

    def measure(self, pool: RunPool) -> Results:
        """Train on every kind of text, and ask the same questions of all."""
        seeds = [one_seed(pool, seed) for seed in pool.seed_numbers()]
        scores, own = map(columns, zip(*seeds, strict=True))
        return Results({name: Answers(**columns(each)) for name, each in scores.items()}, own)

    def _draw(self, figure: Figure, results: Results) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True)
        asked = {label: results.answers[name] for name, label in ASKED.items()}
        for axes, key, scale, label in (
            (upper, "accuracy", 100, "answered right (%)"),
            (lower, "lead", 1, "lead (nats per token)"),
        ):
            answered = {
                "own prompt": (OWN, values_of(asked, key, scale)),
                "another prompt": (NEGATIVE, values_of(asked, f"other_{key}", scale)),
            }
            dot_series(axes, answered, ylabel=label)
        upper.set_ylim(0, 105)
        level(upper, 25, "chance", "right", color=FAINT, ls=(0, (4, 3)))
        lower.axhline(0, color=INK, lw=1)
        upper.legend(frameon=False)

    def _claims(self, results: Results) -> Claims:
        found, own = results.answers, results.own
        known = {name: one.known for name, one in found.items()}
        right = found["plain"].accuracy, found["base"].accuracy
        yield Claim(
            "A memory takes the right answer about its documents more often than the base LM",
            [above("share right minus the base LM's", differences(*right), 0.05)],
            note=f"right {spread(found['plain'].accuracy)}, after another question "
            f"{spread(found['plain'].other_accuracy)}; LoRA {spread(found['lora'].accuracy)}, own "
            f"cross entropy {spread(own['lora'])}; base LM {spread(found['base'].accuracy)}, with "
            f"the document in its context {spread(found['context'].accuracy)}",
            own=own["plain"],
        )
        beside = {
            label: known[name]
            for name, label in (
                ("base", "the base LM's"), ("another", "under another's DocRep"),
                ("lora", "a LoRA's"), ("taught", "of a question that was trained on"),
            )
        }  # fmt: skip
        for name, claim, others in (
            ("plain", "A memory knows the answer to what is asked", beside),
            ("context", "A base LM that has just read the document knows it", {}),
        ):
            over = differences(known[name], known["base"])
            part = above("lead by own prompt minus the base LM's", over, MARGIN)
            note = spreads({"lead": known[name]} | others, " ")
            yield Claim(claim, [part], note=note, own=own.get(name, []), exploratory=True)
        for claim, *names in (
            ("Reading a text again in another form teaches what it says", "offsets", "shuffled"),
            ("Reading questions with answers helps to answer others", "questions"),
        ):
            parts = [
                more(f"lead by own prompt, {name} minus text", known[name], known["plain"], MARGIN)
                for name in names
            ]
            yield Claim(claim, parts, own=own[names[-1]])


def one_seed(pool: RunPool, seed: int) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """The numbers of Answers by who is asked, and own cross entropies by what was trained."""
    documents, lm, rng = pool.documents(seed), pool.lm, random.Random(seed)
    config = pool.config(seed=seed, max_segments=ALL_SEGMENTS, **LORA)
    dealt = [rng.sample(some := load_questions(one.title), len(some)) for one in documents]
    taught, asked = [some[:TAUGHT] for some in dealt], [some[TAUGHT:] for some in dealt]
    read = [as_read(one.text, config.segment_length, SEGMENTS).split() for one in documents]
    text = [" ".join(words[:CONTEXT_WORDS]) + "\n" for words in read]
    texts = {
        name: [
            Document(one.title, " ".join(words + way(words, some, rng)))
            for one, words, some in zip(documents, read, taught, strict=True)
        ]
        for name, way in WAYS.items()
    }
    changes = {"max_segments": ALL_SEGMENTS, "snapshot_freq": None}
    runs = {name: pool.run(seed, one, **changes) for name, one in texts.items()}
    lora = LoRA(lm, texts["plain"], config)
    for _ in range(min(LORA_EPOCHS, config.num_epochs)):
        lora.epoch()
    found = {name: score(remembered(lm, run), asked) for name, run in runs.items()} | {
        "base": score(lambda _, some: read_answers(lm, lm.model, some), asked),
        "context": score(lambda n, some: read_answers(lm, lm.model, some, text[n]), asked),
        "lora": score(lambda _, some: read_answers(lm, lora.model, some), asked),
        "another": score(remembered(lm, runs["plain"], further=1), asked),
        "taught": score(remembered(lm, runs["questions"]), taught),
    }
    own = {name: run.load_history()[-1].positive_ce for name, run in runs.items()}
    return found, own | {"lora": lora.losses[-1]}


def remembered(lm: LanguageModel, run: Run, further: int = 0) -> Read:
    """Reads under a document's own DocRep, or under that so many places further."""
    memory, layer = run.load_memory(), run.config.hook_memory_layer

    def read(index: int, some: Sequence[Question]) -> Tensor:
        document = (index + further) % memory.config.n_docs
        with attach(lm.model, memory, layer) as hooked, hooked.document(document):
            return read_answers(lm, hooked.model, some)

    return read


def score(read: Read, asked: Sequence[Sequence[Question]]) -> dict[str, float]:
    """The numbers of Answers, of questions about each document."""
    found = {}
    for prompt, turn in (("", 0), ("other_", 1)):
        ce = torch.cat([
            read(index, [replace(one, prompt=some[n - turn].prompt) for n, one in enumerate(some)])
            for index, some in enumerate(asked)
        ])  # fmt: skip
        found[f"{prompt}accuracy"] = (ce.argmin(1) == 0).float().mean().item()
        found[f"{prompt}lead"] = (ce[:, 1:].mean(1) - ce[:, 0]).mean().item()
    return found
