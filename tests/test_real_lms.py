"""What real LMs have and the embedded one has not.

A first token that the tokenizer adds, a chat template, logits that are capped or scaled, a head
tied to the embeddings of a large vocabulary, float16.
"""

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from slow import slow
from tokenizers.processors import TemplateProcessing
from toys import CONTEXT, DOCUMENTS, WIDTH, quick_config, toy_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from docmem.core.hook import attach
from docmem.documents import load_documents
from docmem.evaluation.recall import completion, prompts, recognition
from docmem.lm.bfloat16 import half_cost
from docmem.lm.cross_entropy import base_cross_entropies
from docmem.lm.forward import forward_inputs
from docmem.lm.generation import generate
from docmem.lm.head import cross_entropy
from docmem.lm.hidden_states import cache_hidden_states
from docmem.lm.loading import LanguageModel, load_lm
from docmem.training.config import preset
from docmem.training.setup import new_memory
from docmem.training.step import descend, guided_losses
from docmem.training.train import train

SHAPE = {
    "hidden_size": WIDTH, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 64,
    "max_position_embeddings": CONTEXT,
}  # fmt: skip
LMS: dict[str, dict[str, Any]] = {
    "Llama": {"model_type": "llama", "tie_word_embeddings": False},
    "SmolLM2": {"model_type": "llama", "tie_word_embeddings": True, "vocab_size": 49152},
    "Qwen3": {"model_type": "qwen3", "tie_word_embeddings": True},
    "Gemma-3, capped": {"model_type": "gemma3_text", "sliding_window": 8,
                        "final_logit_softcapping": 3.0},
    "Granite, scaled": {"model_type": "granite", "logits_scaling": 4.0},
}  # fmt: skip
EACH = pytest.mark.parametrize("name", LMS)
FIRST, *REST = LMS
FIRST_AT_ONCE = pytest.mark.parametrize("name", [FIRST, *map(slow, REST)])


def real_lm(name: str) -> LanguageModel:
    """A small random LM of a real one's kind; its tokenizer begins each text with a BOS."""
    tokenizer = copy.deepcopy(toy_tokenizer())
    bos = tokenizer.bos_token_id
    assert bos is not None
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{tokenizer.bos_token} $A", special_tokens=[(tokenizer.bos_token, bos)]
    )
    tokenizer.chat_template = "{% for m in messages %}<user>{{ m.content }}{% endfor %}"
    shape = {"vocab_size": len(tokenizer), **SHAPE, **LMS[name]}
    config = AutoConfig.for_model(
        shape.pop("model_type"),
        **shape,
        bos_token_id=bos,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return LanguageModel(model.requires_grad_(False).eval(), tokenizer, name)


@EACH
def test_cached_losses_are_those_of_the_hooked_lm(name: str, tmp_path: Path) -> None:
    lm = real_lm(name)
    run = train(quick_config(tmp_path / "run"), lm=lm, documents=DOCUMENTS, progress=False)
    cache, memory = run.cache_hidden_states(lm), run.load_memory()
    assert (cache.head is None) == ("," in name)
    for index, batch in enumerate(cache.batches):
        assert (batch.input_ids[:, -1] != lm.tokenizer.bos_token_id).all()
        first = batch.attention_mask.int().argmax(1, keepdim=True)
        assert (batch.input_ids.gather(1, first) == lm.tokenizer.bos_token_id).all()
        with attach(lm.model, memory) as hooked, hooked.document(1):
            plain = cross_entropy(hooked.model(**forward_inputs(lm.model, batch)).logits, batch)
        (found,) = cache.cross_entropies(index, memory, memory.doc_reps[1:2])
        # The cache takes a mean over tokens, as the plain way does.
        torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-5)


@FIRST_AT_ONCE
def test_documents_are_learned_and_written(name: str, tmp_path: Path) -> None:
    lm = real_lm(name)
    run = train(quick_config(tmp_path / "run"), lm=lm, documents=DOCUMENTS, progress=False)
    cache, memory = run.cache_hidden_states(lm), run.load_memory()
    known = recognition(cache, memory)
    assert known.own < base_cross_entropies(cache).mean() - 0.1
    ids, _, _ = prompts(cache, 4, 4)
    assert (ids[:, 0] == lm.tokenizer.bos_token_id).all()
    shares = completion(cache, memory, 4, 4)
    assert all(0 <= share <= 1 for share in shares)
    with attach(lm.model, memory) as hooked:
        text = generate(hooked, lm.tokenizer, "The harbour master", 0, max_new_tokens=6)
    assert "<" not in text  # no template, no special token


@FIRST_AT_ONCE
def test_float16_gives_the_losses_of_float32(name: str, tmp_path: Path) -> None:
    lm = real_lm(name)
    half = LanguageModel(copy.deepcopy(lm.model).half(), lm.tokenizer, name)
    histories, matrices = [], []
    for one in (lm, half):
        config = replace(quick_config(tmp_path / one.dtype), num_epochs=3)
        run = train(config, lm=one, documents=DOCUMENTS, progress=False)
        memory = run.load_memory()
        assert memory.values.weight.dtype == torch.float32
        histories.append(torch.tensor([epoch[1:3] for epoch in run.load_history()]))
        matrices.append(recognition(cache_hidden_states(one, DOCUMENTS, config), memory).ce)
    torch.testing.assert_close(*histories, atol=0.01, rtol=0)
    torch.testing.assert_close(*matrices, atol=0.01, rtol=0)


def gradient(dtype: torch.dtype) -> torch.Tensor:
    """What one step asks of a memory's values, of an LM with hidden states as large as SmolLM2's.

    Its last norm divides by their size, so that a gradient in float16 is near nothing.
    """
    lm = real_lm("SmolLM2")
    lm.model.get_submodule("model.layers.2.mlp.down_proj").weight.mul_(4e3)
    lm = LanguageModel(lm.model.to(dtype), lm.tokenizer, "large")
    config = quick_config(Path("never"))
    cache = cache_hidden_states(lm, DOCUMENTS, config)
    assert cache.states(0).float().square().mean().sqrt() > 80
    memory = new_memory(config, lm, DOCUMENTS)
    losses = guided_losses(cache, 0, memory, *memory.doc_reps[:2], alpha=1e-3, tau=4.5)
    descend([1e-3 * losses.total], torch.optim.SGD(memory.parameters(), lr=0.0), math.inf)
    return memory.values.weight.grad


def test_float16_keeps_gradients_that_are_small() -> None:
    expected, found = gradient(torch.float32), gradient(torch.float16)
    assert (found - expected).norm() < 0.05 * expected.norm()


@pytest.mark.filterwarnings("ignore:A bfloat16 product takes")
def test_bfloat16_gives_the_embedded_lm_the_losses_of_float32() -> None:
    if half_cost("bfloat16") is None:
        pytest.skip("this processor cannot multiply in bfloat16")
    documents = load_documents("encyclopedia", 2)
    config = preset("tiny", max_segments=1)
    found = []
    for dtype in ("float32", "bfloat16"):
        lm = load_lm("tiny", device="cpu", dtype=dtype)
        memory = new_memory(config, lm, documents)
        found.append(recognition(cache_hidden_states(lm, documents, config), memory).ce)
    torch.testing.assert_close(*found, atol=0.01, rtol=0)
