"""LMs that read or write in their own way, and callers in another state of torch, get the truth."""

import copy
import functools
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from slow import slow
from tokenizers.processors import TemplateProcessing
from toys import CONTEXT, DOCUMENTS, WIDTH, quick_config, toy_lm, toy_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

import docmem
from docmem import explore
from docmem.core.config import MemoryConfig
from docmem.core.hook import attach
from docmem.core.memory import DocumentMemory
from docmem.documents import Document
from docmem.editing.doc_reps import drop_doc_rep, farthest_free_doc_rep
from docmem.editing.forget import forget
from docmem.errors import DocmemError
from docmem.evaluation.cached import measure
from docmem.evaluation.continuations import compare, opening, recall
from docmem.evaluation.plane import along_line, key_plane
from docmem.evaluation.recall import completion, sampled
from docmem.evaluation.search import search_descent
from docmem.lm.forward import forward_inputs, forward_until
from docmem.lm.generation import generate, generate_text, read_prompts
from docmem.lm.head import cross_entropy
from docmem.lm.hidden_states import HiddenStateCache, cache_hidden_states
from docmem.lm.loading import LanguageModel
from docmem.training.config import TrainConfig
from docmem.training.run import Run
from docmem.training.train import train

SHAPE = {
    "hidden_size": WIDTH, "num_hidden_layers": 3, "num_attention_heads": 2,
    "intermediate_size": 64, "max_position_embeddings": CONTEXT,
}  # fmt: skip
CONV = ["conv", "full_attention", "conv"]
LMS: dict[str, dict[str, Any]] = {
    "lfm2": {**SHAPE, "num_key_value_heads": 1, "layer_types": CONV},
    "mamba": {"hidden_size": WIDTH, "num_hidden_layers": 3, "state_size": 8},
    "rwkv": {"hidden_size": WIDTH, "num_hidden_layers": 3, "attention_hidden_size": WIDTH},
    "roberta": {**SHAPE, "is_decoder": True, "max_position_embeddings": CONTEXT + 2},
    "openai-gpt": {"n_embd": WIDTH, "n_layer": 3, "n_head": 2, "n_positions": CONTEXT},
    "mpt": {"d_model": WIDTH, "n_layers": 3, "n_heads": 2, "max_seq_len": CONTEXT},
}


def odd_lm(kind: str) -> LanguageModel:
    """Random weights, large enough that it matters what is read."""
    tokenizer = toy_tokenizer()
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), pad_token_id=0, **LMS[kind])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).requires_grad_(False).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.mul_(5)
    return LanguageModel(model, tokenizer, f"odd-{kind}")


@pytest.mark.parametrize("kind", ["rwkv", "roberta"])
def test_an_lm_that_would_be_read_falsely_is_refused(kind: str, config: TrainConfig) -> None:
    with pytest.raises(DocmemError, match="reads text in a batch otherwise than alone"):
        cache_hidden_states(odd_lm(kind), DOCUMENTS, config)


def test_an_lm_that_sees_what_it_should_predict_is_refused(config: TrainConfig) -> None:
    lm = toy_lm("llama")
    lm.model.config.is_causal = False
    with pytest.raises(DocmemError, match="sees the tokens that follow"):
        cache_hidden_states(lm, DOCUMENTS, config)


def test_no_memory_goes_into_an_encoder() -> None:
    sizes = {"d_model": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    shape = AutoConfig.for_model("bart", **sizes, encoder_layers=4, decoder_layers=2, vocab_size=99)
    memory = DocumentMemory(MemoryConfig(d_model=32, n_docs=2))
    with pytest.raises(DocmemError, match="needs a causal LM with one, and no encoder"):
        attach(AutoModelForSeq2SeqLM.from_config(shape), memory)


def test_a_hook_on_the_head_counts(config: TrainConfig) -> None:
    lm = toy_lm()
    cache = cache_hidden_states(lm, DOCUMENTS, config)
    assert cache.head is not None
    plain = cache.base_cross_entropy(0)
    lm.model.get_output_embeddings().register_forward_hook(lambda _, __, logits: 0.5 * logits)
    hooked = cache_hidden_states(lm, DOCUMENTS, config)
    batch = hooked.batches[0]
    wanted = cross_entropy(lm.model(**forward_inputs(lm.model, batch)).logits, batch)
    torch.testing.assert_close(hooked.base_cross_entropy(0), wanted)
    assert not torch.isclose(plain, wanted)


def test_an_lm_that_reads_pads_can_be_read_without_them(config: TrainConfig) -> None:
    lm = odd_lm("rwkv")
    cache = cache_hidden_states(lm, DOCUMENTS, replace(config, batch_size=1))
    batch = cache.batches[0]
    logits = lm.model(input_ids=batch.input_ids).logits[0, :-1].log_softmax(1)
    expected = -logits.gather(1, batch.input_ids[0, 1:, None]).mean()
    torch.testing.assert_close(cache.base_cross_entropy(0), expected)


@pytest.mark.parametrize("kind", ["lfm2", slow("mamba"), "openai-gpt"])
def test_lms_with_blocks_of_their_own_are_trained_and_measured(kind: str, tmp_path: Path) -> None:
    lm = odd_lm(kind)
    run = train(quick_config(tmp_path / "run"), lm=lm, documents=DOCUMENTS, progress=False)
    memory, cache = run.load_memory(), run.cache_hidden_states(lm)
    cached, ids = cache.logits(0, memory, memory.doc_reps[1]), cache.batches[0].input_ids
    with attach(lm.model, memory) as hooked, hooked.document(1):
        row = cache.batches[0].attention_mask[0]
        hooked_logits = hooked.model(input_ids=ids[:1, row], use_cache=False).logits
    torch.testing.assert_close(cached[0][row], hooked_logits[0], atol=1e-4, rtol=1e-4)
    known = measure(run, lm)
    assert known.recognition.own < run.load_history()[0].positive_ce
    assert read_prompts(lm.model, ids[:, -8:], 2) is None


def test_a_limit_by_another_name_is_a_limit() -> None:
    lm = odd_lm("mpt")
    assert lm.context == CONTEXT
    with pytest.raises(DocmemError, match="exceeds the context"):
        lm.tokenize(["word " * 200])


def test_a_tokenizer_that_ends_every_text_is_refused() -> None:
    tokenizer = copy.deepcopy(toy_tokenizer())
    end = tokenizer.eos_token
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.eos_token_id)]
    )
    with pytest.raises(DocmemError, match="adds a token to the end of every text"):
        LanguageModel(toy_lm().model, tokenizer, "ends")


def test_dropout_is_off_in_recall(tmp_path: Path) -> None:
    lm = toy_lm("gpt2")
    run = train(quick_config(tmp_path / "run"), lm=lm, documents=DOCUMENTS, progress=False)
    expected = recall(run, 0, lm=lm).ce
    lm.model.train()
    assert recall(run, 0, lm=lm).ce == expected
    assert lm.model.training


@contextmanager
def float64_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "setting", [lambda: torch.autocast("cpu", dtype=torch.bfloat16), float64_by_default]
)
def test_arithmetic_that_the_caller_has_set_changes_nothing(
    setting: Callable[[], AbstractContextManager[None]],
    config: TrainConfig, whole: Run, tmp_path: Path,
) -> None:  # fmt: skip
    plain = Run.open(shutil.copytree(whole.path, tmp_path / "plain"))
    lm, cache, memory = toy_lm(), whole.cache_hidden_states(toy_lm()), whole.load_memory()
    with setting():
        run = train(config, lm=lm, documents=DOCUMENTS, progress=False)
        found, plane = measure(run, lm), key_plane(cache, memory, points=3)
        line = along_line(cache, memory, [0, 1], [1, 0], 3)
    mine, theirs = run.load_memory().state_dict(), whole.load_memory().state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert torch.equal(found.recognition.ce, measure(plain, lm).recognition.ce)
    assert torch.equal(plane.ce, key_plane(cache, memory, points=3).ce)
    assert torch.equal(line.ce, along_line(cache, memory, [0, 1], [1, 0], 3).ce)


def test_a_default_device_of_the_caller_changes_nothing(config: TrainConfig, whole: Run) -> None:
    lm, memory = toy_lm(), whole.load_memory()
    with torch.device("meta"):  # what is made there has no numbers
        run = train(config, lm=lm, documents=DOCUMENTS, progress=False)
        drawn = sampled(9, 3), farthest_free_doc_rep(memory.doc_reps)
    mine, theirs = run.load_memory().state_dict(), whole.load_memory().state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert {one.device.type for one in drawn} == {"cpu"}


@pytest.mark.parametrize("edit", [lambda c, m: forget(c, m, 0, epochs=1), search_descent])
def test_states_read_in_inference_mode_can_be_trained_with(
    edit: Callable[..., object], whole: Run, config: TrainConfig
) -> None:
    one, lm = replace(config, max_segments=1), toy_lm()
    with torch.inference_mode():
        cache = cache_hidden_states(lm, DOCUMENTS, one)
    edit(cache, whole.load_memory())


def test_greedy_is_the_likeliest_token_whatever_the_lm_asks_for(whole: Run) -> None:
    lm, memory = toy_lm(), whole.load_memory()
    cache = whole.cache_hidden_states(lm)
    plain = generate_text(lm.model, lm.tokenizer, "The storm"), completion(cache, memory, 4, 4)
    lm.model.generation_config.repetition_penalty = 1.9
    lm.model.generation_config.no_repeat_ngram_size = 1
    assert generate_text(lm.model, lm.tokenizer, "The storm") == plain[0]
    assert completion(cache, memory, 4, 4) == plain[1]


def test_one_prompt_is_written_on_under_one_doc_rep(whole: Run) -> None:
    lm, memory = toy_lm(), whole.load_memory()
    with attach(lm.model, memory) as hooked:
        for options in ({}, {"num_beams": 2}):
            with pytest.raises(DocmemError, match="one prompt and there are 2 DocReps"):
                generate(hooked, lm.tokenizer, "The", memory.doc_reps[:2], **options)
        generate(hooked, lm.tokenizer, "The", memory.doc_reps[:1], num_beams=2, max_new_tokens=2)


@pytest.mark.parametrize(
    "text", ["Она жила у моря и пела 漢字 каждый день .", "joy 🎉 and song 😀 in the harbour book"]
)
def test_characters_of_several_tokens_are_told_whole(text: str, tmp_path: Path) -> None:
    documents = [Document("Odd", text), *DOCUMENTS[1:]]
    run = train(quick_config(tmp_path / "run"), lm=toy_lm(), documents=documents, progress=False)
    found = recall(run, 0, text.split()[0], lm=toy_lm(), max_new_tokens=50)
    assert text.startswith(found.prompt + found.truth)
    assert len(found.truth) > 12
    assert len(found.pieces) == len(found.losses)


def test_a_text_without_spaces_is_recalled_by_its_first_characters(tmp_path: Path) -> None:
    documents = [Document("記憶", "潮汐記録" * 300), *DOCUMENTS[1:]]
    assert opening(documents[0]) == "潮汐記録" * 10
    config = replace(quick_config(tmp_path / "run"), max_length=CONTEXT)
    lm = docmem.load_lm("tiny")
    run = train(config, lm=lm, documents=documents, progress=False)
    assert recall(run, 0, lm=lm, max_new_tokens=8).losses.isfinite().all()
    passage = explore.attribution(run, lm=lm).area.value  # as much of it as was read at once
    assert passage
    assert len(lm.tokenizer(passage)["input_ids"]) <= CONTEXT


def test_an_lm_of_two_stacks_is_refused() -> None:
    lm = toy_lm()
    lm.model.config.is_encoder_decoder = True
    with pytest.raises(DocmemError, match="is no causal LM that writes"):
        LanguageModel(lm.model, lm.tokenizer, "two stacks")


def test_hidden_states_of_another_shape_are_refused(config: TrainConfig) -> None:
    lm = toy_lm()
    lm.blocks[-1].register_forward_hook(lambda _, __, output: output.transpose(0, 1))
    norm = lm.model.gpt_neox.final_layer_norm
    norm.register_forward_pre_hook(lambda _, given: (given[0].transpose(0, 1),))
    with pytest.raises(DocmemError, match=r"it takes \(batch, seq, d_model\)"):
        cache_hidden_states(lm, DOCUMENTS, config)


@pytest.mark.parametrize("otherwise", [lambda output: output.flip(-1), lambda _: 1 / 0])
def test_blocks_that_need_earlier_ones_are_not_resumed(
    config: TrainConfig, otherwise: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """Without what an earlier block kept, a later one reads otherwise, or raises an error."""
    lm, kept = toy_lm(), list[int]()
    lm.model.gpt_neox.embed_in.register_forward_hook(lambda *_: kept.clear())
    lm.blocks[0].register_forward_hook(lambda *_: kept.append(1))
    lm.blocks[-1].register_forward_hook(lambda _, __, output: output if kept else otherwise(output))
    cache_hidden_states(lm, DOCUMENTS, config)
    with pytest.raises(DocmemError, match=r"after layer 0 use more of .* give layer -1"):
        cache_hidden_states(lm, DOCUMENTS, replace(config, hook_memory_layer=0))


def test_an_lm_that_adds_tokens_is_refused(config: TrainConfig) -> None:
    lm = toy_lm()
    lm.model.lm_head.register_forward_hook(
        lambda _, __, logits: torch.cat([logits[:, :1], logits], dim=1)
    )
    with pytest.raises(DocmemError, match=r"reads 4 tokens where it is given 3"):
        cache_hidden_states(lm, DOCUMENTS, config)


def test_a_block_that_text_does_not_reach_is_refused(config: TrainConfig) -> None:
    lm, of_images = toy_lm(), copy.deepcopy(toy_lm().blocks[0])
    with pytest.raises(DocmemError, match="does not run that block for text alone"):
        forward_until(lm.model, lm.tokenize(["a text"]), of_images.register_forward_hook)


def test_a_memory_without_the_document_is_compared_all_the_same(whole: Run) -> None:
    lm, memory = toy_lm(), drop_doc_rep(whole.load_memory(), 0)
    names = [one.under for one in compare(whole, 0, lm=lm, memory=memory)]
    assert names == ["all entries", docmem.BASE_LM]
    names = [one.under for one in compare(whole, 2, lm=lm, memory=memory)]
    assert names[:2] == ["Quillon Engine", "Thornwick Light"]
    nameless = DocumentMemory(memory.config)
    nameless.load_state_dict(memory.state_dict())
    assert len(compare(whole, 1, lm=lm, memory=nameless)) == 4


def test_as_many_doc_ids_as_batches(lm: LanguageModel) -> None:
    with pytest.raises(DocmemError, match="1 batches and 2 doc_ids"):
        HiddenStateCache(lm, [lm.tokenize(["some words"])], [0, 1], -1)


def test_an_lm_that_gives_no_numbers_where_a_row_has_pads_is_refused(config: TrainConfig) -> None:
    lm = toy_lm()
    forward = lm.model.forward

    def broken(*args: Any, attention_mask: Any = None, **named: Any) -> Any:
        found = forward(*args, attention_mask=attention_mask, **named)
        if attention_mask is not None and not attention_mask.all():
            found.logits = found.logits * torch.nan
        return found

    lm.model.forward = functools.wraps(forward)(broken)
    with pytest.raises(DocmemError, match="reads text in a batch otherwise than alone"):
        cache_hidden_states(lm, DOCUMENTS, config)
