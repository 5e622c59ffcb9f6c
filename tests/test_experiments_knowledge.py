"""The study knowledge: its questions, its texts, its numbers, its drawing, its claims."""

import dataclasses
import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from drawn import ToyPool, drawn, marks, through_json
from toys import toy_lm

from docmem.core.hook import attach
from docmem.documents import as_read, load_documents, segments
from docmem.errors import DocmemError
from docmem.experiments.questions import QUESTIONS, Question, load_questions, read_answers
from docmem.experiments.rivals_lora import LoRA
from docmem.experiments.studies import knowledge
from docmem.lm.loading import LanguageModel
from docmem.training.config import TrainConfig
from docmem.training.run import Run

ARTICLES = {one.title: one for one in load_documents()}


# The questions


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def triples(text: str) -> set[tuple[str, ...]]:
    words = words_of(text)
    return set(zip(words, words[1:], words[2:], strict=False))


@pytest.fixture(scope="module")
def asked() -> list[Question]:
    """Every question, in the order of the file, whose lines have these fields and no others."""
    fields = {field.name for field in dataclasses.fields(Question)}
    lines = [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]
    assert all(line.keys() == fields for line in lines)
    return [Question(**line) for line in lines]


def test_every_article_has_five_questions_with_four_answers(asked: list[Question]) -> None:
    assert Counter(one.title for one in asked) == dict.fromkeys(ARTICLES, 5)
    assert len({one.prompt for one in asked}) == 100
    for one in asked:
        assert one.form in ("cloze", "question")
        assert (one.form == "question") == ("?" in one.prompt), one
        answers = [one.answer, *one.wrong]
        assert not any(answer.endswith(".") for answer in answers)
        assert len(answers) == len(set(answers)) == 4, one
        assert all(text == " ".join(text.split()) != "" for text in (one.prompt, *answers)), one
    assert load_questions("Quillon Engine") == [x for x in asked if x.title == "Quillon Engine"]


def test_no_three_words_of_a_question_stand_in_its_article(asked: list[Question]) -> None:
    found = [
        (one.title, common)
        for one in asked
        if (common := triples(f"{one.prompt} {one.answer}") & triples(ARTICLES[one.title].text))
    ]
    assert not found


def test_answers_stand_in_the_first_words_of_their_articles(asked: list[Question]) -> None:
    for one in asked:
        text = ARTICLES[one.title].text.split()[: knowledge.CONTEXT_WORDS]
        opening = " ".join(words_of(" ".join(text)))
        assert re.search(rf"\b{' '.join(words_of(one.answer))}\b", opening), one


@torch.no_grad()
def read_alone(lm: LanguageModel, model: Any, prompt: str, answers: list[str]) -> list[float]:
    """Cross entropy of each answer, nats per token, read without padding."""
    given, found = lm.tokenizer(prompt)["input_ids"], []
    for answer in answers:
        whole = lm.tokenizer(f"{prompt} {answer}")["input_ids"]
        assert whole[: len(given)] == given
        log_p = model(torch.tensor([whole])).logits[0].log_softmax(1)
        nats = [-log_p[place - 1, whole[place]].item() for place in range(len(given), len(whole))]
        found.append(sum(nats) / len(nats))
    return found


@pytest.mark.parametrize("family", ["gpt_neox", "llama"])
@pytest.mark.parametrize("text", ["", "Cyclone Odalys drowned the island .\n"])
def test_cross_entropies_of_answers_are_of_their_tokens_alone(text: str, family: str) -> None:
    lm = toy_lm(family)
    asked = [
        Question("A", "The storm", "came by night", ["went", "sat there", "ran"], "cloze"),
        Question("A", "Who stands on the Shrike?", "He", ["Two lights", "No", "Two"], "question"),
    ]
    found = read_answers(lm, lm.model, asked, text)
    for row, one in zip(found, asked, strict=True):
        alone = read_alone(lm, lm.model, text + one.prompt, [one.answer, *one.wrong])
        assert row.tolist() == pytest.approx(alone, rel=1e-4)


def test_an_article_without_questions_is_refused() -> None:
    with pytest.raises(DocmemError, match="no questions about 'Atlantis'"):
        load_questions("Atlantis")


# The texts


def way(name: str, words: list[str], taught: list[Question], seed: int = 1) -> list[str]:
    return list(knowledge.WAYS[name](words, taught, random.Random(seed)))


def test_every_way_adds_as_many_words_in_nine_segments(asked: list[Question]) -> None:
    for title, document in ARTICLES.items():
        words = as_read(document.text, 64, 4).split()
        assert len(words) == 160 > knowledge.CONTEXT_WORDS
        taught = [one for one in asked if one.title == title][:2]
        plain = segments(" ".join(words), 64)
        assert plain == segments(document.text, 64, 4)
        assert way("plain", words, taught) == []
        for name in ("offsets", "shuffled", "questions"):
            added = way(name, words, taught)
            read = segments(" ".join([*words, *added]), 64)
            assert len(added) == 160
            assert read[:4] == plain
            assert len(read) == knowledge.ALL_SEGMENTS
            assert not set(read[4:]) & set(plain)
            assert added != way(name, words, taught, seed=2) or name == "questions"
            if name != "questions":
                assert Counter(added) == Counter(words)


def test_ways_keep_the_order_that_they_say() -> None:
    text = "A low sea . Storms came. Low water; then high water. Nobody left here!"
    words = text.split()
    assert way("offsets", words, []) == words[1:] + words[:1]  # of 14 words, a stride is 2
    sentences = re.split(r"(?<=[.;!]) ", text)
    orders = {" ".join(way("shuffled", words, [], seed)) for seed in range(9)}
    assert len(orders) > 3
    assert all(all(sentence in order for sentence in sentences) for order in orders)
    taught = [
        Question("A", "Who left?", "Nobody", [], "question"),
        Question("A", "It", "came", [], "cloze"),
    ]
    said = "Who left? Nobody. It came. Who left? Nobody. It came. Who left? Nobody."
    assert " ".join(way("questions", words, taught)).startswith(said)


# The study


def toy_questions(title: str) -> list[Question]:
    """Five, short enough for the toy LM, whose answers differ from article to article."""
    last = title.split()[-1]
    prompts = ("A storm", "The light", "An engine", "Who came?", "Who went?")
    return [
        Question(title, prompt, f"{last[:n]}", ["by night", "at sea", f"on {n}"], "cloze")
        for n, prompt in enumerate(prompts, start=1)
    ]


@dataclasses.dataclass(frozen=True)
class WordyPool(ToyPool):
    """A pool whose runs read as many segments as are asked for, though it is fast."""

    seeds: int = 2

    def config(self, **changes: object) -> TrainConfig:
        """With the segments that are asked for."""
        wanted = changes.get("max_segments", 2)
        return dataclasses.replace(super().config(**changes), max_segments=wanted)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WordyPool]:
    """A pool whose runs are shared, and a study with few epochs and words."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knowledge, "load_questions", toy_questions)
        patch.setattr(knowledge, "CONTEXT_WORDS", 3)
        patch.setattr(knowledge, "LORA_EPOCHS", 1)
        yield WordyPool(folder=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def results(small: WordyPool) -> knowledge.Results:
    """What the study measures, through JSON."""
    return through_json("knowledge", knowledge.Knowledge().measure(small))


def trained(pool: ToyPool, seed: int) -> dict[str, Run]:
    """The memories of a seed, told apart by what stands after the 100 words that are read."""
    found = {}
    for path in pool.folder.rglob("run.json"):
        run = Run.open(path.parent)
        words = [one.text.split() for one in run.documents]
        halves = [(some[:100], some[100:]) for some in words]
        kinds = {
            "plain": all(not added for _, added in halves),
            "offsets": all(
                added in [text[start:] + text[:start] for start in range(100)]
                for text, added in halves
            ),
            "shuffled": all(Counter(added) == Counter(text) for text, added in halves),
        }
        if run.config.seed == seed:
            found[next((name for name, so in kinds.items() if so), "questions")] = run
    return found


def test_numbers_are_those_of_the_readers(small: WordyPool, results: knowledge.Results) -> None:
    lm, documents, rng = small.lm, small.documents(2), random.Random(2)
    dealt = [rng.sample(toy_questions(one.title), 5) for one in documents]
    runs, asked = trained(small, 2), [some[2:] for some in dealt]
    for run, some in zip(runs["questions"].documents, dealt, strict=True):
        said = " ".join(f"{one.prompt} {one.answer}." for one in some[:2])
        assert " ".join(run.text.split()[100:]).startswith(f"{said} {said}")

    def lead_and_share(
        asked: list[list[Question]], way: str, further: int, turn: int, words: int
    ) -> tuple[float, float]:
        """Of questions about each document: under a memory if a way is named, with other prompts,
        after so many words of the document."""
        rows = []
        for index, some in enumerate(asked):
            text = " ".join(documents[index].text.split()[:words]) + "\n" if words else ""
            with ExitStack() as held:
                if way:
                    hooked = held.enter_context(attach(lm.model, runs[way].load_memory(), -1))
                    held.enter_context(hooked.document((index + further) % 3))
                for place, one in enumerate(some):
                    prompt = text + some[place - turn].prompt
                    rows.append(read_alone(lm, lm.model, prompt, [one.answer, *one.wrong]))
        ce = torch.tensor(rows)
        right = sum(row[0] < min(row[1:]) for row in rows) / len(rows)
        return (ce[:, 1:].mean() - ce[:, 0].mean()).item(), right

    expected = {way: (asked, way, 0, 0) for way in knowledge.WAYS} | {
        "base": (asked, "", 0, 0),
        "context": (asked, "", 0, 3),
        "another": (asked, "plain", 1, 0),
        "taught": ([some[:2] for some in dealt], "questions", 0, 0),
    }
    for name, (some, way, further, words) in expected.items():
        one = results.answers[name]
        found = [(one.lead[1], one.accuracy[1]), (one.other_lead[1], one.other_accuracy[1])]
        for turn in (0, 1):
            wanted = lead_and_share(some, way, further, turn, words)
            assert found[turn] == pytest.approx(wanted, abs=1e-4), name
        assert one.known[1] == pytest.approx(one.lead[1] - one.other_lead[1])
    leads = [one.lead[1] for one in results.answers.values()]
    assert len(set(leads)) == len(knowledge.ASKED) == len(leads)  # no two are the same reader
    for way, run in runs.items():
        assert results.own[way][1] == run.load_history()[-1].positive_ce


def test_lora_is_trained_on_what_is_read(small: WordyPool, results: knowledge.Results) -> None:
    documents = trained(small, 2)["plain"].documents
    config = small.config(seed=2, max_segments=9, optimizer="adamw", lr=5e-3)
    lora = LoRA(small.lm, documents, config)
    lora.epoch()
    assert results.own["lora"][1] == pytest.approx(lora.losses[0], rel=1e-4)


def test_figure_shows_the_measured_values(results: knowledge.Results) -> None:
    upper, lower = drawn("knowledge", results).axes
    for axes, scale, keys in (
        (upper, 100, ("accuracy", "other_accuracy")), (lower, 1, ("lead", "other_lead")),
    ):  # fmt: skip
        assert marks(axes) == [
            scale * value
            for key in keys
            for name in knowledge.ASKED
            for value in getattr(results.answers[name], key)
        ]


def made_up(own: float = 0.1, **numbers: tuple[float, float]) -> knowledge.Results:
    """Five seeds a little apart: of a share, and a lead by the own prompt; else 0.3 and 0.1."""
    rng = random.Random(1)

    def seeds(mean: float) -> list[float]:
        return [rng.gauss(mean, 0.003) for _ in range(5)]

    answers = {}
    for name in knowledge.ASKED:
        share, lead = numbers.get(name, (0.3, 0.1))
        answers[name] = knowledge.Answers(seeds(share), seeds(2 + lead), seeds(share), seeds(2))
    return knowledge.Results(answers, dict.fromkeys(("lora", *knowledge.WAYS), [own] * 5))


def verdicts(results: knowledge.Results) -> list[str]:
    return [judged.verdict for judged in knowledge.Knowledge().claims(results)]


def test_verdicts() -> None:
    nothing = made_up()
    assert verdicts(nothing) == ["does not hold"] * 5
    words_only = made_up(plain=(0.7, 0.1))
    assert verdicts(words_only) == ["holds", *["does not hold"] * 4]
    more = {"offsets": (0.7, 1.7), "shuffled": (0.7, 1.7), "questions": (0.7, 1.7)}
    knowing = made_up(plain=(0.7, 1.0), context=(0.9, 2.0), **more)
    assert verdicts(knowing) == ["holds"] * 5
    one_form = made_up(plain=(0.7, 1.0), offsets=(0.7, 1.7), questions=(0.7, 1.0))
    assert verdicts(one_form) == [*["holds"] * 2, "does not hold", "partly", "does not hold"]
    unlearned = made_up(own=2.0, plain=(0.7, 1.0), context=(0.9, 2.0), **more)
    assert verdicts(unlearned) == [*["inconclusive"] * 2, "holds", *["inconclusive"] * 2]
    study = knowledge.Knowledge()
    assert study.title(words_only) == study.finding
    assert study.title(nothing) == study.title(knowing) == study.shown
