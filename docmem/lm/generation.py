"""Text from an LM: continued under a document, as it is, or token by likeliest token."""

import functools
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from docmem.core.blocks import text_config
from docmem.core.hook import DocumentLike, Hooked
from docmem.errors import DocmemError, check_count


class _AllEntries:
    def __repr__(self) -> str:
        return "ALL_ENTRIES"


ALL_ENTRIES = _AllEntries()
"""Asks `generate` for the memory with every entry open, whatever document is in force."""


def generate(
    hooked: Hooked,
    tokenizer: Any,
    prompt: str,
    document: DocumentLike | _AllEntries = None,
    *,
    max_new_tokens: int = 40,
    **options: Any,
) -> str:
    """Continue a prompt under a document; greedy unless `options` (of transformers) say otherwise.

    Args:
        hooked: the LM with a memory attached.
        tokenizer: the LM's.
        prompt: what to go on from.
        document: a title, an index or a DocRep; None: the document in force, if
            `hooked.document(…)` has set one, else all entries; ALL_ENTRIES: all of them.
        max_new_tokens: tokens to write.
        options: of transformers' `generate`.

    Raises:
        DocmemError: as `generate_text`; or if there is no such document.
    """
    continue_prompt = functools.partial(
        generate_text, hooked.model, tokenizer, prompt, max_new_tokens=max_new_tokens, **options
    )
    if document is None:
        return continue_prompt()
    with hooked.document(None if isinstance(document, _AllEntries) else document):
        return continue_prompt()


@torch.no_grad()
def generate_text(
    model: Any, tokenizer: Any, prompt: str, *, max_new_tokens: int = 40, **options: Any
) -> str:
    """Continue a prompt by an LM as it is; greedy unless `options` (of transformers) say otherwise.

    Raises:
        DocmemError: if the prompt is empty, or with the continuation exceeds the LM's context.
    """
    check_count("max_new_tokens", max_new_tokens)
    inputs = tokenizer(prompt, return_tensors="pt").to(model.device)
    length = inputs["input_ids"].shape[1]
    needed = length + max_new_tokens
    context = getattr(text_config(model), "max_position_embeddings", needed)
    if length == 0:
        raise DocmemError("The prompt is empty; give the LM at least one word to go on from.")
    if needed > context:
        raise DocmemError(
            f"The prompt has {length} tokens and {max_new_tokens} more were asked for, "
            f"but the LM's context is {context} tokens. Shorten one of them."
        )
    written = model.generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        max_new_tokens=max_new_tokens,
        **{"do_sample": False, "pad_token_id": tokenizer.pad_token_id, **options},
    )
    return tokenizer.decode(written[0, length:], skip_special_tokens=True)


@torch.no_grad()
def greedy(model: Any, ids: Int[Tensor, "rows given"], new: int) -> Int[Tensor, "rows new"]:
    """What an LM goes on with, most likely token by most likely token, to the full length."""
    written = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=new,
        min_new_tokens=new,
        do_sample=False,
        pad_token_id=0,
    )
    return written[:, ids.shape[1] :]
