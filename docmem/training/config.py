"""Everything a training depends on, and the presets.

The configuration is frozen, says the unit of each field under it, and refuses a value that
cannot work with a sentence. Names are those of the paper's program where it has one.
"""

import dataclasses
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch.quasirandom import SobolEngine

from docmem.core.config import KeyModule, MemoryConfig
from docmem.core.loss import LossForm, Negative
from docmem.core.memory import activation
from docmem.documents import as_named
from docmem.errors import (
    Count,
    DocmemError,
    Natural,
    NotNegative,
    Positive,
    Rate,
    Several,
    check_fields,
    check_text,
    checked,
)

DType = Literal["auto", "float32", "bfloat16", "float16"]
OptimizerName = Literal["adamw", "muon"]
PresetName = Literal["tiny", "smollm2-135m", "pythia-1b"]
DocRepInit = Literal["orthogonal", "spread"]

# Activations that there are, without a look at transformers' list.
USUAL = {"tanh", "relu", "sigmoid", "gelu", None}

PAPER_PROCEDURE: dict[str, Any] = {
    "optimizer": "adamw",
    "doc_rep_init": "orthogonal",
    "negative_rows": None,
    "loss_form": "squared",
    "snapshot_freq": None,
}
"""What the authors' program has no flag for, as it does it. Version 0.1 did the same."""


@checked
@dataclass(frozen=True)
class TrainConfig:
    """Everything a run depends on. The defaults are the preset `tiny`.

    Numbers may be numpy's, paths strings, `titles` a list, `device` a torch.device.

    Raises:
        DocmemError: if a value has another type, or cannot work.
    """

    # The LM
    lm_name: str = "tiny"
    """The LM: tiny, pythia or llama2 (with lm_size), a Hugging Face id, or a folder."""
    lm_size: str | None = None
    """Its size, for pythia (as 1b) and llama2 (as 7b); other names say it all."""
    device: str = "auto"
    """A torch device, such as cpu, cuda:1 or mps; auto: a GPU if there is one."""
    num_gpus: Natural | None = None
    """In place of the device: 0 is the CPU; several spread the LM's layers over as many GPUs."""
    lm_cache_dir: Path | None = None
    """Where downloaded LMs are kept, those of `docmem fetch` too; none: their usual places."""
    dtype: DType = "auto"
    """Number format of the LM; auto: what the device multiplies fastest, which the run records (for
    the LM tiny on a CPU always float32). The memory is always float32."""

    # The documents
    documents: str | None = None
    """encyclopedia, wikitext-103, wikitext-2, or a folder of text files; none: encyclopedia for
    the LM tiny, wikitext-103 for any other."""
    data_cache_dir: Path | None = None
    """Where downloaded documents are kept; none: Hugging Face's own cache."""
    titles: tuple[str, ...] = ()
    """Titles to memorise, in this order; none: the first, or for WikiText a choice by seed."""
    max_labels: Count = 10
    """Documents, at most."""
    segment_length: Count = 64
    """Words per segment; the next starts half a segment later."""
    max_segments: Count = 4
    """Segments per document, at most."""
    max_length: Several = 256
    """Tokens per segment, at most."""

    # The memory
    key_dim: Count = 2
    """Length of a DocRep."""
    key_activation: str = "tanh"
    """What makes a selection of the key generator's output: relu, tanh, sigmoid, swiglu, or any
    activation of transformers."""
    doc_rep_init: DocRepInit = "spread"
    """Where DocReps lie: orthogonal, as in the paper; or spread evenly in a disk (a ball, beyond
    two dimensions)."""
    hook_memory_dim: Count = 128
    """Memory entries."""
    hook_memory_layer: int = -1
    """Index of the hooked block, from 0; negative counts from the end."""
    lm_act: str = "gelu"
    """Activation of token keys and output."""
    document_key_module_type: KeyModule = "linear"
    """From DocRep to memory selection: linear or nonlinear."""
    key_internal_dim: int | None = None
    """Width inside a nonlinear key generator; none: the memory entries."""
    key_internal_activation: str | None = None
    """Activation inside a nonlinear key generator; none: relu."""
    key_internal_layers: int | None = None
    """Hidden layers of a nonlinear key generator; none: 2."""

    # The loss
    negative_key_type: Negative = "other"
    """The negative DocRep: another document's, random, zero, or the own one perturbed."""
    negative_delta: NotNegative = 0.1
    """Size of the perturbation, for the negative perturb."""
    negative_rows: Count | None = 2
    """Rows of a batch that are read under a negative DocRep, each under one of its own; none: all
    of them, under one, as in the paper."""
    target_negative_ce: NotNegative = 5.0
    """τ: the cross entropy wanted under a negative DocRep, nats per token."""
    guidance: NotNegative = 0.2
    """α: the weight of the guidance term."""
    loss_form: LossForm = "absolute"
    """The guidance term: clamped square, as the authors' program; absolute, as the paper."""

    # The optimisation
    batch_size: Count = 16
    """Segments per batch, all of one document."""
    optimizer: OptimizerName = "muon"
    """adamw, as in the paper; or muon: orthogonalised momentum on matrices, AdamW on the rest."""
    muon_lr: Rate = 0.08
    """Muon's learning rate, constant."""
    lr: Rate = 4e-3
    """AdamW's learning rate, constant. A command that sets it and names no optimizer, preset or
    file of settings asks for the paper's procedure."""
    weight_decay: NotNegative = 0.01
    """Decay of all weights, times the learning rate; the authors' program has torch's own, 0.01."""
    num_accumulation_steps: Count = 1
    """Batches whose gradients make one step."""
    grad_clip_coeff: Positive = 5.0
    """The gradient norm is clipped at this."""
    num_epochs: Count = 20
    """Passes over the documents."""
    save_freq: Count = 5
    """Epochs between snapshots; the checkpoint is renewed with them."""
    snapshot_freq: Count | None = 2
    """Steps between further snapshots, for animations of short trainings, ten an epoch at most;
    none: no further ones."""
    seed: Natural = 1
    """Seeds the choice of WikiText pages, the initial memory and the negatives."""
    save_dir: Path | None = None
    """Folder of the run; none: one under outputs/, named after the settings."""
    states_dir: Path | None = None
    """Folder of hidden states that trainings on the same LM and text share, cleaned down to 20 GB
    when one begins; none: each computes its own."""
    gpu_cache_gb: NotNegative = 8.0
    """Hidden states kept on the GPU, before they move to CPU memory."""
    cpu_cache_gb: NotNegative = 8.0
    """Hidden states kept in CPU memory, before they move to disk."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _plain(field, getattr(self, field.name)))
        check_fields(self)
        for name in ("lm_name", "device", "documents"):
            if getattr(self, name) is not None:
                check_text(name, getattr(self, name))
        if self.seed >= 2**32:
            raise DocmemError(f"seed is {self.seed}; give one below 2 ** 32: torch takes no more.")
        if self.doc_rep_init == "spread" and self.key_dim > SobolEngine.MAXDIM:
            raise DocmemError(
                f"key_dim is {self.key_dim}; DocReps can be spread in {SobolEngine.MAXDIM} "
                "dimensions at most. Give fewer, or doc_rep_init orthogonal."
            )
        self.memory_config(d_model=1, n_docs=1)  # refuses what no memory can be
        key = "tanh" if self.key_activation == "swiglu" else self.key_activation
        for act in {self.lm_act, key, self.key_internal_activation} - USUAL:
            activation(str(act))  # refuses what there is not, and loads transformers

    @property
    def lm(self) -> str:
        """The LM's name as `load_lm` takes it: `pythia` and `1b` are `pythia-1b`."""
        sized = self.lm_name in ("pythia", "llama2") and self.lm_size
        return f"{self.lm_name}-{self.lm_size}" if sized else self.lm_name

    @property
    def source(self) -> str:
        """The documents' source as `load_documents` takes it."""
        return self.documents or ("encyclopedia" if self.lm == "tiny" else "wikitext-103")

    def memory_config(self, d_model: int, n_docs: int) -> MemoryConfig:
        """The memory these settings describe, for an LM of width `d_model`."""
        names = [field.name for field in dataclasses.fields(MemoryConfig)]
        same = {name: value for name, value in vars(self).items() if name in names}
        return MemoryConfig(d_model, n_docs, self.hook_memory_dim, **same)


def _plain(field: dataclasses.Field[Any], value: Any) -> Any:
    """A setting in the type that is declared, where what was given says the same."""
    # The paper's command line writes an absent value as the word none.
    if field.default is None and str(value).lower() == "none":
        return None
    if value != "" and isinstance(value, str | os.PathLike) and Path in get_args(field.type):
        return Path(value)
    if isinstance(value, os.PathLike):
        return as_named(value)
    if isinstance(value, torch.device):
        return str(value)
    return tuple(value) if isinstance(value, list) else value


PRESETS: dict[PresetName, TrainConfig] = {
    "tiny": TrainConfig(),
    "smollm2-135m": TrainConfig(
        lm_name="smollm2-135m",
        documents="encyclopedia",
        target_negative_ce=6.0,
        muon_lr=0.05,
        num_epochs=12,
        save_freq=4,
        snapshot_freq=1,
    ),
    "pythia-1b": TrainConfig(
        lm_name="pythia",
        lm_size="1b",
        segment_length=128,
        max_segments=10,
        hook_memory_dim=32,
        hook_memory_layer=15,
        target_negative_ce=4.5,
        guidance=0.1,
        lr=1e-3,
        num_epochs=500,
        save_freq=10,
        **PAPER_PROCEDURE,
    ),
}


def check_effect(config: TrainConfig, given: Collection[str]) -> None:
    """Raise if one of the `given` settings has no effect beside the others, or contradicts them."""
    # Of the flags that the authors' command has only lm_size: the others are changed one by one.
    kind, rows, named = config.negative_key_type, config.negative_rows or 0, len(config.titles)
    for name, idle, why in (
        ("max_labels", named not in (0, config.max_labels), "titles says which documents"),
        ("key_internal_dim", config.key_internal_layers == 1, "key_internal_layers is 1"),
        ("key_internal_activation", config.key_internal_layers == 1, "key_internal_layers is 1"),
        ("lm_size", config.lm == config.lm_name, f"lm_name {config.lm_name} has no sizes"),
        ("negative_delta", kind != "perturb", f"negative_key_type is {kind}, not perturb"),
        ("negative_rows", rows > config.batch_size, f"batch_size is {config.batch_size}"),
        ("muon_lr", config.optimizer != "muon", f"optimizer is {config.optimizer}, not muon"),
    ):
        if name in given and idle and getattr(config, name) is not None:
            raise DocmemError(
                f"{name} is {getattr(config, name)}, but {why}, so it has no effect. Leave it out, "
                "or change the other."
            )


@checked
def preset(name: str, **changes: Any) -> TrainConfig:
    """The preset `name` (`tiny`, `smollm2-135m` or `pythia-1b`) with some fields changed.

    Raises:
        DocmemError: if there is no such preset, or a change cannot work or has no effect.
    """
    if name not in PRESETS:
        raise DocmemError(f"There is no preset {name!r}; choose one of {', '.join(PRESETS)}.")
    changed = dataclasses.replace(PRESETS[name], **changes)
    check_effect(changed, changes)
    return changed


@checked
def preset_for(lm: str | os.PathLike[str], **changes: Any) -> TrainConfig:
    """Settings to begin with for any LM: the embedded one's, or those found for SmolLM2-135M.

    Args:
        lm: a name as `load_lm` takes it.
        changes: fields to change.

    Raises:
        DocmemError: as `preset`.
    """
    if lm == "tiny":
        return preset("tiny", **changes)
    return preset("smollm2-135m", **{"lm_name": lm, **changes})
