"""Writing under a document: with and without a cache, alone and in batches."""

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from toys import CONTEXT, FAMILIES, toy_batch, toy_lm
from transformers import PreTrainedTokenizerFast

from docmem.core.hook import Hooked, attach
from docmem.core.memory import DocumentMemory
from docmem.errors import DocmemError
from docmem.lm.folding import folded
from docmem.lm.forward import TokenBatch
from docmem.lm.generation import ALL_ENTRIES, generate, generate_text, greedy, read_prompts
from docmem.lm.loading import LanguageModel
from docmem.training.run import Run

NEW = 8
ROWS = torch.tensor([[1.0, 0.2], [-0.6, 0.9], [0.3, -1.1]])


def write(hooked: Hooked, document, batch: TokenBatch, **options: Any) -> Tensor:
    """The new tokens of each sequence; end-of-text is forbidden, so all are of one length."""
    with hooked.document(document):
        written = hooked.model.generate(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask.long(),
            max_new_tokens=NEW,
            min_new_tokens=NEW,
            **{"do_sample": False, **options},
        )
    return written[:, batch.input_ids.shape[1] :]


def row_of(batch: TokenBatch, row: int) -> TokenBatch:
    real = batch.attention_mask[row]
    return TokenBatch(batch.input_ids[row][real][None], real[real][None])


@pytest.mark.parametrize("layer", [0, -1])
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_generation_is_the_same_with_and_without_a_kv_cache(
    family: str, layer: int, memory: DocumentMemory, batch: TokenBatch
):
    lm = toy_lm(family)
    with attach(lm.model, memory, layer) as hooked:
        cached = write(hooked, ROWS, batch)
        assert cached.shape == (3, NEW)
        assert torch.equal(cached, write(hooked, ROWS, batch, use_cache=False))
        assert not torch.equal(cached, write(hooked, ROWS.flip(0), batch))


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_read_once_for_all_doc_reps_are_continued_as_if_each_read_them(
    family: str, memory: DocumentMemory
):
    lm, ids = toy_lm(family), toy_batch((12, 12)).input_ids
    doc_reps = ROWS.repeat(2, 1)  # each prompt under each of three
    with attach(lm.model, memory, -1) as hooked, hooked.document(doc_reps):
        expected = greedy(hooked.model, ids.repeat_interleave(3, 0), NEW)
    past = read_prompts(lm.model, ids, 3)
    with attach(lm.model, memory, -1) as hooked, hooked.document(doc_reps):
        assert torch.equal(greedy(hooked.model, ids.repeat_interleave(3, 0), NEW, past), expected)
    assert read_prompts(lm.model, ids[:, :1], 3) is None


@pytest.mark.parametrize("options", [{}, {"num_beams": 3, "num_return_sequences": 2}])
def test_batch_with_one_doc_rep_per_row_generates_as_each_row_alone(
    lm: LanguageModel, memory: DocumentMemory, batch: TokenBatch, options: dict
):
    with attach(lm.model, memory, 1) as hooked:
        together = write(hooked, ROWS, batch, **options)
        for row, doc_rep in enumerate(ROWS):
            alone = write(hooked, doc_rep, row_of(batch, row), **options)
            assert torch.equal(together[row * len(alone) : (row + 1) * len(alone)], alone)


@pytest.mark.parametrize("doc_reps", [ROWS[:2], ROWS[:1]])
def test_fewer_doc_reps_than_prompts_are_refused(
    lm: LanguageModel, memory: DocumentMemory, doc_reps: Tensor
):
    ids = toy_batch((6, 6, 6, 6)).input_ids
    with (
        attach(lm.model, memory) as hooked,
        hooked.document(doc_reps),
        pytest.raises(
            DocmemError, match=r"There are 4 prompts and \d DocReps; give one per prompt"
        ),
    ):
        hooked.model.generate(ids, max_new_tokens=2, do_sample=False)


def test_doc_reps_for_sequences_of_one_prompt_are_dealt_and_beams_are_never_mixed(
    lm: LanguageModel, memory: DocumentMemory
):
    def written(prompts: int, doc_reps: Tensor, **options: Any) -> Tensor:
        batch = row_of(toy_batch((6,)), 0)
        several = TokenBatch(*(part.expand(prompts, -1) for part in batch))
        with attach(lm.model, memory) as hooked:
            return write(hooked, doc_reps, several, **options)

    alone = torch.cat([written(1, row[None]) for row in ROWS])
    drawn = {"do_sample": True, "top_k": 1}
    sequences = written(1, ROWS, num_return_sequences=6, **drawn)
    assert torch.equal(sequences, alone.repeat_interleave(2, 0))
    for prompts, doc_reps in ((2, ROWS.repeat(2, 1)[:4]), (1, ROWS[:2])):
        with pytest.raises(DocmemError, match=f"There are {prompts} prompts and"):
            written(prompts, doc_reps, num_beams=2)


def test_nothing_is_dropped_while_an_lm_in_training_mode_writes(memory: DocumentMemory):
    lm = toy_lm("gpt2")
    with attach(lm.model, memory) as hooked:
        expected = generate(hooked, lm.tokenizer, "The tower", 0)
        lm.model.train()
        assert [generate(hooked, lm.tokenizer, "The tower", 0) for _ in range(3)] == [expected] * 3
    assert lm.model.training


def test_sampling_is_reproducible_by_seed(lm, memory: DocumentMemory, batch: TokenBatch):
    def sample(seed: int, **options: Any) -> Tensor:
        torch.manual_seed(seed)
        return write(hooked, ROWS, batch, do_sample=True, **options)

    with attach(lm.model, memory) as hooked:
        assert torch.equal(sample(1), sample(1))
        assert not torch.equal(sample(1), sample(2))
        assert sample(1, num_return_sequences=2).shape == (6, NEW)


def test_sampled_sequences_of_one_row_share_its_doc_rep(
    lm: LanguageModel, memory: DocumentMemory, monkeypatch: pytest.MonkeyPatch
):
    used = []
    forward = memory.forward

    def recording(h, doc_rep=None):
        used.append(doc_rep)
        return forward(h, doc_rep)

    monkeypatch.setattr(memory, "forward", recording)
    with attach(lm.model, memory) as hooked:
        write(hooked, ROWS, toy_batch(), do_sample=True, num_return_sequences=2)
    assert len(used) == NEW
    assert all(torch.equal(doc_reps, ROWS[[0, 0, 1, 1, 2, 2]]) for doc_reps in used)


def test_generate_continues_a_prompt_greedily(lm: LanguageModel, memory: DocumentMemory):
    prompt = "The harbour master"
    ids = lm.tokenizer(prompt, return_tensors="pt")["input_ids"]
    length = ids.shape[1]
    with attach(lm.model, memory) as hooked:
        texts = [generate(hooked, lm.tokenizer, prompt, n, max_new_tokens=6) for n in range(3)]
        with hooked.document("Thornwick Light"):
            for _ in range(6):
                best = lm.model(input_ids=ids, use_cache=False).logits[:, -1].argmax(-1)
                if best == lm.tokenizer.eos_token_id:
                    break
                ids = torch.cat([ids, best[:, None]], dim=1)
        assert generate(hooked, lm.tokenizer, prompt, 1, max_new_tokens=6) == texts[1]
    assert texts[1] == lm.tokenizer.decode(ids[0, length:], skip_special_tokens=True)
    assert len(set(texts)) > 1


def test_generate_restores_the_document_in_force(lm: LanguageModel, memory: DocumentMemory):
    with attach(lm.model, memory) as hooked, hooked.document(2):
        ids = toy_batch().input_ids[:1]
        before = lm.model(input_ids=ids).logits
        generate(hooked, lm.tokenizer, "The tower", 0, max_new_tokens=2)
        assert torch.equal(lm.model(input_ids=ids).logits, before)


def test_generate_passes_options_to_the_lm(lm: LanguageModel, memory: DocumentMemory):
    with attach(lm.model, memory) as hooked:
        torch.manual_seed(0)
        options: dict[str, Any] = {"do_sample": True, "top_k": 0, "temperature": 5.0}
        texts = {generate(hooked, lm.tokenizer, "The", 0, max_new_tokens=8, **options)
                 for _ in range(3)}  # fmt: skip
    assert len(texts) == 3


def test_greedy_is_greedy_whatever_the_lm_asks_for(lm: LanguageModel) -> None:
    prompt = "The harbour master"
    plain = generate_text(lm.model, lm.tokenizer, prompt)
    lm.model.generation_config.num_beams = 4
    assert generate_text(lm.model, lm.tokenizer, prompt) == plain


def test_generate_stops_at_strings(lm: LanguageModel, memory: DocumentMemory):
    with attach(lm.model, memory) as hooked:
        whole = generate(hooked, lm.tokenizer, "The", 0, max_new_tokens=12)
        part = generate(hooked, lm.tokenizer, "The", 0, max_new_tokens=12, stop_strings=whole[2:4])
    assert len(part) < len(whole) and whole.startswith(part)


def test_prompt_beyond_the_context_is_rejected(lm: LanguageModel, memory: DocumentMemory):
    length = len(lm.tokenizer("The tower")["input_ids"])
    with attach(lm.model, memory) as hooked:
        generate(hooked, lm.tokenizer, "The tower", max_new_tokens=CONTEXT - length)
        with pytest.raises(
            DocmemError, match=rf"{length} tokens and .* context is {CONTEXT} tokens"
        ):
            generate(hooked, lm.tokenizer, "The tower", max_new_tokens=CONTEXT - length + 1)


def test_empty_prompt_is_rejected(lm: LanguageModel, memory: DocumentMemory):
    with attach(lm.model, memory) as hooked, pytest.raises(DocmemError, match="prompt is empty"):
        generate(hooked, lm.tokenizer, "")


def test_generate_inherits_the_document_in_force(trained: tuple[LanguageModel, Run]):
    lm, run = trained

    def text(document: Any = None) -> str:
        return generate(hooked, lm.tokenizer, "The harbour master", document, max_new_tokens=6)

    with attach(lm.model, run.load_memory()) as hooked:
        under = [text(n) for n in range(3)]
        open_ = text(ALL_ENTRIES)
        assert text() == open_  # nothing is in force
        assert len({*under, open_}) == 4
        with hooked.document(1):
            assert text() == under[1]
            assert text("Quillon Engine") == under[2]
            assert text(ALL_ENTRIES) == open_
            assert text() == under[1]


@pytest.mark.parametrize("document", [None, 1, ROWS], ids=["all entries", "one", "one per row"])
def test_a_folded_memory_reads_as_the_memory_does(
    document: Any, lm: LanguageModel, memory: DocumentMemory
):
    batch = toy_batch((12, 12, 12))
    ids = {"input_ids": batch.input_ids}
    with torch.no_grad(), attach(lm.model, memory, -1) as hooked, hooked.document(document):
        plain = hooked.model(**ids).logits
        with folded(hooked):
            torch.testing.assert_close(hooked.model(**ids).logits, plain, atol=1e-5, rtol=0)
            with hooked.document(2):  # another than it was folded for
                other = hooked.model(**ids).logits
        assert torch.equal(hooked.model(**ids).logits, plain)
        with hooked.document(2):
            assert torch.equal(hooked.model(**ids).logits, other)


def test_generate_folds_the_memory(
    lm: LanguageModel, memory: DocumentMemory, monkeypatch: pytest.MonkeyPatch
):
    with attach(lm.model, memory, -1) as hooked:
        written = generate(hooked, lm.tokenizer, "The storm", 1, max_new_tokens=NEW)
        monkeypatch.setattr(memory, "forward", lambda *_: pytest.fail("The memory was not folded."))
        assert generate(hooked, lm.tokenizer, "The storm", 1, max_new_tokens=NEW) == written


def test_the_space_before_a_word_stays_where_a_tokenizer_strips_the_first() -> None:
    words = ["▁the", "▁deep", "▁sea", "▁lay"]
    inner = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, "▁the"))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="▁the")
    lm = toy_lm()
    whole = torch.tensor([[0, 1, 2]])  # the prompt, and one word more
    lm.model.generate = lambda **_: whole  # type: ignore[method-assign]
    assert tokenizer.decode(whole[0, 2:]) == "sea"
    assert "the deep" + generate_text(lm.model, tokenizer, "the deep") == "the deep sea"


def test_the_generate_of_another_lm_says_nothing_of_these_rows(memory: DocumentMemory) -> None:
    lm, other, batch, read = toy_lm(), toy_lm(seed=1), toy_batch((8, 8, 8)), []
    with attach(lm.model, memory) as hooked, hooked.document(ROWS):
        expected = lm.model(batch.input_ids).logits

        def scores(_: Tensor, given: Tensor) -> Tensor:
            read.append(lm.model(batch.input_ids).logits)
            return given

        other.model.generate(
            input_ids=batch.input_ids[:1], num_beams=2, max_new_tokens=2, do_sample=False,
            logits_processor=[scores],
        )  # fmt: skip
    assert len(read) == 2
    assert torch.equal(read[0], expected)
