"""The state of an optimisation on disk, so that a killed run resumes to the same numbers.

A checkpoint is one safetensors file: the trained parameters, what the optimizer
keeps (AdamW's moments and step counts, Muon's momentum), the states of the random generators, and
a small JSON of progress. No pickles.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from docmem.core.files import HINT, load_tensors, reading, save_tensors
from docmem.errors import DocmemError

KEPT = ({"step", "exp_avg", "exp_avg_sq"}, {"momentum"})
"""What AdamW keeps of a weight, and Muon of a matrix."""


def save_checkpoint(
    path: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    generators: Mapping[str, torch.Generator],
    progress: Mapping[str, Any],
) -> None:
    """Write everything needed to continue from here, whole or not at all."""
    names: dict[torch.Tensor, str] = {p: name for name, p in module.named_parameters()}
    tensors = {f"module/{name}": tensor for name, tensor in module.state_dict().items()}
    for parameter, moments in optimizer.state.items():
        for key, value in moments.items():
            tensors[f"optimizer/{names[parameter]}/{key}"] = value
    for name, generator in generators.items():
        tensors[f"generator/{name}"] = generator.get_state()
    # Tied weights share memory, which safetensors refuses: the first name of each storage is kept.
    kept = {tensor.data_ptr(): name for name, tensor in reversed(tensors.items())}
    save_tensors(path, {name: tensors[name] for name in kept.values()}, dict(progress))


def load_checkpoint(
    path: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    generators: Mapping[str, torch.Generator],
    advice: str = HINT,
) -> dict[str, Any]:
    """Restore `module`, `optimizer` and `generators` in place; return the saved progress.

    Args:
        path: the file.
        module: what was trained.
        optimizer: what trained it.
        generators: by name, as they were saved.
        advice: what to do if the file cannot be read.

    Raises:
        DocmemError: if the file is truncated or belongs to a module of other shapes.
    """
    tensors, progress = load_tensors(path, advice)
    saved = {
        name.removeprefix("module/"): tensor
        for name, tensor in tensors.items()
        if name.startswith("module/")
    }
    try:
        missing, unexpected = module.load_state_dict(saved, strict=False)
    except RuntimeError as error:
        raise DocmemError(
            f"{path} belongs to another configuration: its tensors have other shapes ({error})."
        ) from error
    parameters = dict(module.named_parameters())
    if unexpected or any(name in parameters for name in missing):
        raise DocmemError(
            f"{path} belongs to another configuration: missing {missing}, unknown {unexpected}."
        )
    optimizer.state.clear()
    with reading(path, advice):
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise ValueError(f"{name} is not all finite numbers")
            if name.startswith("optimizer/"):
                _, parameter_name, key = name.split("/")
                parameter = parameters[parameter_name]
                like = torch.zeros(()) if key == "step" else parameter
                if (tensor.shape, tensor.dtype) != (like.shape, like.dtype):
                    raise ValueError(f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}")
                # AdamW keeps its step count where it puts it; moments live beside the parameter.
                moved = tensor if key == "step" else tensor.to(parameter.device)
                optimizer.state[parameter][key] = moved
        for name, parameter in parameters.items():
            kept = optimizer.state.get(parameter)
            if kept and kept.keys() not in KEPT:
                raise ValueError(f"of {name} it has {', '.join(kept)} alone")
        for name, generator in generators.items():
            generator.set_state(tensors[f"generator/{name}"])
    return progress
