"""An LM with a document memory, packed for a page: what static/lm.js reads and runs.

bundle = lm_bundle(lm, memory, -1, texts)    # json.dumps(bundle) goes into the page
source = worker_source()                     # and so does the program of its worker
"""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

import torch
from torch import Tensor

from docmem.core.blocks import check_width, resolve_layer
from docmem.core.memory import DocumentMemory
from docmem.errors import DocmemError
from docmem.explore._static import joined
from docmem.lm.loading import TINY, LanguageModel

MODULES = ("activations", "tensors", "tokenizer", "memory", "gpt_neox", "lm", "lm_worker")
MAX_BYTES = 25_000_000
"""Of a page with the LM in it."""


def lm_bundle(
    lm: LanguageModel, memory: DocumentMemory, layer: int, texts: Sequence[Sequence[int]] = ()
) -> dict[str, Any]:
    """An LM with a memory after block `layer`, as JSON; all weights are rounded to float16.

    The DocReps are left out: the page says under which one the LM writes. `texts` are the tokens of
    what it measures there.

    Raises:
        DocmemError: if the LM is no GPT-NeoX of the embedded LM's kind, or too large; if memory
            and LM differ in width, or there is no such block; if a weight is beyond float16.
    """
    kind = lm.model.config.model_type
    if kind != "gpt_neox":
        raise DocmemError(
            f"{lm.name} is of the kind {kind}, but only a GPT-NeoX, as the embedded LM is one, "
            "can run in a page. Make the page without the LM."
        )
    check_width(lm.model, memory.config.d_model)
    tokenizer = _tokenizer(lm)
    numbers = [p.numel() for module in (lm.model, memory) for p in module.parameters()]
    size = sum(numbers) * 2  # what zlib saves, base64 adds again
    if size > MAX_BYTES:
        raise DocmemError(
            f"{lm.name} with its memory would take {size / 1e6:,.1f} MB of the page, at most "
            f"{MAX_BYTES / 1e6:.0f} fit. Make the page without the LM, or with a smaller one."
        )
    return {
        "config": _shape(lm),
        "tensors": _pack(dict(lm.model.named_parameters())),  # a tied head is not named again
        "tokenizer": tokenizer,
        "memory": {
            "config": asdict(memory.config),
            "tensors": _pack(dict(memory.named_parameters())),
        },
        "layer": resolve_layer(layer, len(lm.blocks)),
        "texts": list(map(list, texts)),
    }


def worker_source() -> str:
    """The modules of static/ that run the LM, as one script without imports."""
    return joined(*(f"{name}.js" for name in MODULES))


def _shape(lm: LanguageModel) -> dict[str, Any]:
    """What gpt_neox.js needs to know besides the weights."""
    config: Any = lm.model.config
    rotary = cast(Any, lm.model).gpt_neox.rotary_emb
    if rotary.rope_type != "default":
        raise DocmemError(
            f"{lm.name} has rotary embeddings of the type {rotary.rope_type!r}; in a page only "
            "'default' ones can be computed. Make the page without the LM."
        )
    eos = getattr(lm.model.generation_config, "eos_token_id", None)
    return {
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "dModel": config.hidden_size,
        "context": config.max_position_embeddings,
        "vocabulary": config.vocab_size,
        "act": config.hidden_act,
        "parallel": config.use_parallel_residual,
        "epsilon": config.layer_norm_eps,
        "frequencies": rotary.inv_freq.tolist(),
        "eos": [] if eos is None else eos if isinstance(eos, list) else [eos],
    }


def _tokenizer(lm: LanguageModel) -> dict[str, Any]:
    """What tokenizer.js needs to know: tokens, merges in order, special tokens.

    Raises:
        DocmemError: if anything else differs from the embedded LM's tokenizer.
    """
    known = json.loads((TINY / "tokenizer.json").read_text(encoding="utf-8"))
    settings = json.loads(cast(Any, lm.tokenizer).backend_tokenizer.to_str())
    if _rules(settings) != _rules(known):
        raise DocmemError(
            f"The tokenizer of {lm.name} works by other rules than the embedded LM's, the only "
            "ones known in a page. Make the page without the LM."
        )
    return {
        "vocab": settings["model"]["vocab"],
        "merges": settings["model"]["merges"],
        "special": {token["content"]: token["id"] for token in settings["added_tokens"]},
    }


def _rules(settings: dict[str, Any]) -> list[Any]:
    """What a tokenizer does, apart from its tokens and merges."""
    model = {k: v for k, v in settings["model"].items() if k not in ("vocab", "merges")}
    flags = {
        tuple((k, v) for k, v in token.items() if k not in ("id", "content"))
        for token in settings["added_tokens"]
    }
    parts = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
    return [model, flags, *(settings[part] for part in parts)]


def _pack(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Named tensors one after the other, in float16, packed by zlib, in base64.

    Raises:
        DocmemError: if a number is beyond float16.
    """
    index, parts, offset = {}, [], 0
    for name, tensor in tensors.items():
        half = tensor.detach().to("cpu", torch.float16)
        if not half.isfinite().all():
            raise DocmemError(
                f"{name} holds numbers that are not finite, or above 65504, the largest of the "
                "float16 in which a page has its weights."
            )
        index[name] = {"shape": list(half.shape), "offset": offset}
        parts.append(half.numpy().astype("<f2").tobytes())
        offset += half.numel()
    data = zlib.compress(b"".join(parts), level=9)
    return {"data": base64.b64encode(data).decode(), "index": index}
