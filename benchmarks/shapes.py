"""LMs of known shapes with random weights, made without a network, and what they are to learn.

Speed depends on shapes, not on what the weights say. The random LMs have Pythia's shapes and read
the embedded encyclopedia with the embedded tokenizer, whose ids all lie within their vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPTNeoXConfig

from docmem.documents import Document, load_documents
from docmem.lm.loading import DTYPES, TINY, LanguageModel, load_lm
from docmem.training.config import DType, TrainConfig, preset


class Shape(NamedTuple):
    """The shape of a GPT-NeoX with untied embeddings and parallel blocks."""

    name: str
    d_model: int
    n_blocks: int
    n_heads: int
    vocabulary: int = 50304


TOY = Shape("toy", 64, 2, 2, 4096)
PYTHIA_70M = Shape("Pythia-70m", 512, 6, 8)
PYTHIA_160M = Shape("Pythia-160m", 768, 12, 12)
PYTHIA_410M = Shape("Pythia-410m", 1024, 24, 16)
PYTHIA_1B = Shape("Pythia-1B", 2048, 16, 8)
PYTHIA_6_9B = Shape("Pythia-6.9B", 4096, 32, 32, 50432)
SHAPES = {
    shape.name: shape
    for shape in (TOY, PYTHIA_70M, PYTHIA_160M, PYTHIA_410M, PYTHIA_1B, PYTHIA_6_9B)
}
EMBEDDED = "embedded"


def random_lm(shape: Shape, dtype: DType = "float32", device: str = "cpu") -> LanguageModel:
    """An LM of that shape, its weights drawn from a fixed seed."""
    config = GPTNeoXConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.d_model,
        num_hidden_layers=shape.n_blocks,
        num_attention_heads=shape.n_heads,
        intermediate_size=4 * shape.d_model,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        use_parallel_residual=True,
    )  # rotary positions turn a quarter of each head, as in Pythia: transformers' default
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(0)
        model: Any = AutoModelForCausalLM.from_config(config, dtype=DTYPES[dtype])
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    return LanguageModel(model.requires_grad_(False).eval(), tokenizer, shape.name)


def build_lm(name: str) -> LanguageModel:
    """The embedded LM with its real weights, or one of `SHAPES` in float32 on the CPU."""
    return load_lm("tiny") if name == EMBEDDED else random_lm(SHAPES[name])


def settings(name: str, **changes: Any) -> TrainConfig:
    """The settings of a training: the preset `tiny` for the embedded LM, else the paper's.

    Random weights have cross entropies near the logarithm of the vocabulary, 10.8 nats; τ is 10
    there, so that the guidance term is not clamped and the negative pass has a gradient, the
    costliest case.
    """
    if name == EMBEDDED:
        return preset("tiny", **changes)
    defaults = {"hook_memory_layer": -1, "num_gpus": 0, "target_negative_ce": 10.0}
    return preset("pythia-1b", documents="encyclopedia", **{**defaults, **changes})


def some_documents(count: int) -> Sequence[Document]:
    """The first documents of the embedded encyclopedia."""
    return load_documents("encyclopedia", count)
