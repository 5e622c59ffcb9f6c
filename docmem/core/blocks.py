"""Where a memory goes: the blocks of a causal LM, found by structure, not by a table of names."""

import hashlib
from typing import Any, cast

from torch import nn

from docmem.errors import DocmemError, check_index


def text_config(model: nn.Module) -> Any:
    """The configuration of the LM itself, also where it is part of a larger model."""
    config = getattr(model, "config", None)
    if not hasattr(config, "get_text_config"):
        raise DocmemError(f"{type(model).__name__} is no LM of transformers; give the LM in it.")
    return cast(Any, config).get_text_config()


def find_blocks(model: nn.Module) -> nn.ModuleList:
    """The LM's blocks: its one outermost ModuleList of `num_hidden_layers`; DocmemError if none."""
    config = text_config(model)
    lists = {name: one for name, one in model.named_modules() if isinstance(one, nn.ModuleList)}
    found = [name for name, blocks in lists.items() if len(blocks) == config.num_hidden_layers]
    outer = [one for one in found if not any(one.startswith(f"{other}.") for other in found)]
    if len(outer) > 1:  # as where the part that sees images is as deep
        outer = [one for one in outer if lists[one] in cast(Any, model).get_decoder().modules()]
    if len(outer) != 1 or config.is_encoder_decoder:
        there = ", ".join(found) or f"but of {', '.join(str(len(one)) for one in lists.values())}"
        raise DocmemError(
            f"{type(model).__name__} has {len(outer)} lists of {config.num_hidden_layers} "
            f"blocks ({there}); docmem needs a causal LM with one, and no encoder."
        )
    return lists[outer[0]]


def resolve_layer(layer: int, n_blocks: int) -> int:
    """The index from 0 of a layer given from either end; DocmemError if there is no such block."""
    otherwise = f"Layer {layer} is out of range: this LM has {n_blocks} blocks, so give"
    return check_index("layer", layer, n_blocks, otherwise)


def check_width(model: nn.Module, d_model: int) -> None:
    """Raise if a memory for hidden states of width `d_model` is made for another LM."""
    if (width := text_config(model).hidden_size) != d_model:
        raise DocmemError(f"The memory is for hidden states of width {d_model}, not {width}.")


def lm_fingerprint(model: nn.Module) -> str:
    """A short digest of an LM's class, number format and a sample of its weights."""
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise DocmemError(f"{name} has no weights here: load the LM without offload.")
        sample = parameter.detach().flatten()[:16].float().cpu().numpy().tobytes()
        digest.update(f"{name}{tuple(parameter.shape)}{parameter.dtype}".encode() + sample)
    return digest.hexdigest()[:16]
