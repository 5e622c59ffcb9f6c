"""LMs loaded by short name, Hugging Face id or folder.

lm = load_lm("tiny")                        # embedded, no network
lm = load_lm("pythia-1b", num_gpus=1)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import nn

from docmem.core.blocks import find_blocks, text_config
from docmem.errors import DocmemError
from docmem.lm.bfloat16 import check_bfloat16, fast_dtype
from docmem.lm.forward import TokenBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TINY = Path(__file__).parents[1] / "assets" / "tiny"
PYTHIA_SIZES = ("70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b")
# Short name to hub id and revision.
SHORT_NAMES: dict[str, tuple[str, str]] = {
    **{f"pythia-{s}": (f"EleutherAI/pythia-{s}-deduped", "step143000") for s in PYTHIA_SIZES},
    **{f"llama2-{s}": (f"meta-llama/Llama-2-{s}-hf", "main") for s in ("7b", "13b")},
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class LanguageModel:
    """A causal LM with its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    """What `load_lm` was given."""

    @property
    def dtype(self) -> str:
        """Number format of the weights, as `load_lm` takes it."""
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks, first to last."""
        return find_blocks(self.model)

    @property
    def d_model(self) -> int:
        """Width of the hidden states."""
        return text_config(self.model).hidden_size

    @property
    def context(self) -> int | None:
        """Tokens the LM can read at once; None where there is no limit (ALiBi)."""
        return getattr(text_config(self.model), "max_position_embeddings", None)

    @property
    def device(self) -> torch.device:
        """Device of the input embeddings, to which tokens go."""
        return self.model.get_input_embeddings().weight.device  # type: ignore[return-value]

    def tokenize(self, texts: Sequence[str], max_length: int | None = None) -> TokenBatch:
        """Tokens of `texts`, padded on the left to the longest, cut at `max_length` tokens.

        Raises:
            DocmemError: if a text is empty, or longer than the LM's context.
        """
        ids = self.tokenizer(list(texts), truncation=max_length is not None, max_length=max_length)[
            "input_ids"
        ]
        lengths = [len(row) for row in ids]
        if min(lengths, default=0) == 0:
            raise DocmemError("A text without tokens cannot be read by the LM; give some words.")
        longest = max(lengths)
        if self.context is not None and longest > self.context:
            raise DocmemError(
                f"A text of {longest} tokens exceeds the context of {self.name}, "
                f"{self.context} tokens. Shorten it, or give a smaller max_length."
            )
        pad = next(
            token
            for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
            if token is not None
        )
        padded = torch.tensor([[pad] * (longest - len(row)) + row for row in ids])
        mask = torch.tensor([[False] * (longest - n) + [True] * n for n in lengths])
        return TokenBatch(padded.to(self.device), mask.to(self.device))


def placement(num_gpus: int) -> dict[str, Any]:
    """Where `from_pretrained` puts the layers: CPU, one GPU, or spread over several.

    Raises:
        DocmemError: if the machine has fewer GPUs than asked for.
    """
    if num_gpus == 0:
        return {"device_map": "cpu"}
    if torch.cuda.device_count() < num_gpus:
        raise DocmemError(
            f"num_gpus is {num_gpus}, but torch sees {torch.cuda.device_count()} on this machine. "
            "Give num_gpus 0 to run on the CPU."
        )
    if num_gpus == 1:
        return {"device_map": "cuda:0"}
    limits = {index: torch.cuda.mem_get_info(index)[0] for index in range(num_gpus)}
    return {"device_map": "balanced", "max_memory": limits}


def load_lm(
    name: str | os.PathLike[str] = "tiny",
    *,
    dtype: str = "float32",
    num_gpus: int = 0,
    device: str | None = None,
    lm_cache_dir: Path | None = None,
) -> LanguageModel:
    """Load a causal LM, frozen and in evaluation mode.

    Args:
        name: `tiny` (embedded), `pythia-70m` … `pythia-12b` (deduped, step143000), `llama2-7b`,
            `llama2-13b`, any Hugging Face id, or a local folder.
        dtype: number format of the weights: float32, bfloat16, float16, or auto: what the device
            multiplies fastest (on a CPU measured, in some seconds).
        num_gpus: 0 is the CPU; several spread the layers over that many GPUs.
        device: a torch device for the whole LM, such as `mps`, in place of `num_gpus`.
        lm_cache_dir: where downloads are kept; None: Hugging Face's own cache.

    Raises:
        DocmemError: if the dtype is unknown or beyond this processor, GPUs are missing, or the
            LM cannot be loaded.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if dtype not in ("auto", *DTYPES):
        raise DocmemError(f"dtype is {dtype!r}; choose one of auto, {', '.join(DTYPES)}.")
    repository, revision = SHORT_NAMES.get(str(name), (str(name), "main"))
    if str(name) == "tiny":
        repository = str(TINY)
    place = {"device_map": device} if device else placement(num_gpus)
    if dtype == "auto":
        dtype = fast_dtype("cuda" if num_gpus > 1 and not device else place["device_map"])
    elif dtype == "bfloat16" and place["device_map"] == "cpu":
        check_bfloat16()
    where = {"revision": revision, "cache_dir": lm_cache_dir}
    try:
        tokenizer = AutoTokenizer.from_pretrained(repository, **where)
        model = AutoModelForCausalLM.from_pretrained(
            repository, dtype=DTYPES[dtype], **place, **where
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        known = ", ".join(("tiny", *SHORT_NAMES))
        raise DocmemError(
            f"The LM {str(name)!r} could not be loaded from {repository}: {error}\n"
            f"Known short names are {known}; a Hugging Face id or a local folder also works. "
            "Without a network, use 'tiny'; or download the LM once with `hf download "
            f"{repository} --local-dir FOLDER` elsewhere and give that folder."
        ) from error
    if any(parameter.is_meta for parameter in model.parameters()):
        raise DocmemError(
            f"{name} in {dtype} does not fit in the memory of {num_gpus} GPUs. "
            "Give more of them, bfloat16, or a smaller LM."
        )
    model.requires_grad_(False).eval()
    return LanguageModel(model, tokenizer, str(name))
