"""Where a memory goes: the blocks of a causal LM, found by structure, not by a table of names."""

import hashlib
from typing import Any, cast

from torch import nn

from docmem.errors import DocmemError


def text_config(model: nn.Module) -> Any:
    """The configuration of the LM itself, also where it is part of a larger model."""
    return cast(Any, model).config.get_text_config()


def find_blocks(model: nn.Module) -> nn.ModuleList:
    """The LM's blocks: its one outermost ModuleList as long as `num_hidden_layers`.

    Raises:
        DocmemError: if there is no such list, or more than one.
    """
    count = text_config(model).num_hidden_layers
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    }
    outermost = [
        module
        for name, module in found.items()
        if not any(name.startswith(f"{other}.") for other in found)
    ]
    if len(outermost) != 1:
        raise DocmemError(
            f"{type(model).__name__} has {len(outermost)} lists of {count} blocks "
            f"({', '.join(found) or 'none'}); docmem needs a causal LM with exactly one."
        )
    return outermost[0]


def resolve_layer(layer: int, n_blocks: int) -> int:
    """The index from 0 of a layer given from either end.

    Raises:
        DocmemError: if the LM has no such block.
    """
    if not -n_blocks <= layer < n_blocks:
        raise DocmemError(
            f"Layer {layer} is out of range: this LM has {n_blocks} blocks, "
            f"so give 0 to {n_blocks - 1}, or -{n_blocks} to -1 counted from the end."
        )
    return layer % n_blocks


def lm_fingerprint(model: nn.Module) -> str:
    """A short digest of an LM's architecture, number format and a sample of its weights."""
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, parameter in model.named_parameters():
        sample = parameter.detach().flatten()[:16].float().cpu().numpy().tobytes()
        digest.update(f"{name}{tuple(parameter.shape)}{parameter.dtype}".encode() + sample)
    return digest.hexdigest()[:16]
