"""LMs of known shapes with random weights, made without a network, and what they learn.

Speed depends on shapes, not on the values of the weights. The random LMs have Pythia's shapes and
read the embedded encyclopedia with the embedded tokenizer, whose ids lie within their vocabulary.
"""

import functools
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from docmem.documents import load_documents
from docmem.experiments.pool import VERSION_0_1
from docmem.lm.loading import DTYPES, TINY, LanguageModel, load_lm
from docmem.training.config import DType, TrainConfig, preset
from docmem.training.plan import PYTHIA, pythia_config

SHAPES = {
    "toy": (64, 2, 2, 4096),
    "Pythia-160m": PYTHIA["pythia-160m"],
    "Pythia-1B": PYTHIA["pythia-1b"],
    "Pythia-6.9B": PYTHIA["pythia-6.9b"],
}
"""Width, blocks, heads and vocabulary of GPT-NeoX, embeddings untied and blocks parallel."""


@functools.lru_cache(maxsize=1)
def build_lm(name: str, dtype: DType = "float32", device: str = "cpu") -> LanguageModel:
    """The embedded LM, `tiny`, or one of `SHAPES` with weights from a fixed seed."""
    if name == "tiny":
        return load_lm(name, dtype=dtype, device=device)
    config = pythia_config(*SHAPES[name])
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(0)
        model: Any = AutoModelForCausalLM.from_config(config, dtype=DTYPES[dtype])
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    return LanguageModel(model.requires_grad_(False).eval(), tokenizer, name)


def settings(name: str, **changes: Any) -> TrainConfig:
    """The settings of a training by the paper's procedure, as version 0.1's for the embedded LM.

    A random LM's cross entropy is near the logarithm of its vocabulary, 10.8 nats per token. τ is
    10 there, so that the guidance term is not clamped and the negative pass has a gradient.
    """
    if name == "tiny":
        return preset(name, **{**VERSION_0_1, **changes})
    defaults = {"hook_memory_layer": -1, "num_gpus": 0, "target_negative_ce": 10.0}
    return preset("pythia-1b", documents="encyclopedia", **{**defaults, **changes})


encyclopedia = functools.partial(load_documents, "encyclopedia")
"""The first documents of the embedded encyclopedia, as many as asked for."""
