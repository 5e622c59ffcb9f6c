"""The memory: a bank of entries that each document opens with its own soft mask.

One block's output h becomes (section 3 of the paper)

    k_tok = act_lm(W_u h + b_u)          token_key: what the token asks for, entry by entry
    k_doc = act_key(g(𝒦))                document_key: which entries the document opens
    m     = W_d (k_tok ⊙ k_doc) + b_d    values
    out   = h + act_lm(W_o m + b_o)      output, added to the block's own

with 𝒦 the document's DocRep, a short vector that is fixed and never trained, and g the key
generator. Without a DocRep, k_doc is left out: all entries are open, which is not the LM alone.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin, snapshot_download
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from docmem.core.config import MemoryConfig
from docmem.core.files import load_tensors, reading, save_tensors, write_json, write_text
from docmem.errors import DocmemError, check_index, check_title, check_titles, check_type, checked

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
CARD = Path(__file__).with_name("model_card.md")


def swiglu(x: Float[Tensor, "*batch twice"]) -> Float[Tensor, "*batch once"]:
    """The first half of the last dimension times the silu of the second."""
    first, second = x.chunk(2, dim=-1)
    return first * functional.silu(second)


def activation(name: str) -> nn.Module:
    """The activation of transformers called `name`; DocmemError if none, or one with weights."""
    from transformers.activations import ACT2FN

    if name not in ACT2FN or list(ACT2FN[name].parameters()):
        known = ", ".join(sorted(set(ACT2FN) - {"prelu", "xielu"}))
        raise DocmemError(
            f"There is no activation {name!r} to use here; choose one of {known}. "
            "A key_activation may also be swiglu."
        )
    return ACT2FN[name]


def key_generator(config: MemoryConfig) -> nn.Module:
    """g: from a DocRep (…, key_dim) to the input of act_key (…, memory_dim).

    Linear: one Linear. Nonlinear with n ≥ 2 hidden layers of width H: Linear(key_dim, H), act,
    then n - 1 times Linear(H, H), act, then Linear(H, memory_dim); n = 1 is the linear case.
    For swiglu the last width is 2 · memory_dim.
    """
    out = config.memory_dim * (2 if config.key_activation == "swiglu" else 1)
    layers = config.key_internal_layers or 2
    if config.document_key_module_type == "linear" or layers == 1:
        return nn.Linear(config.key_dim, out)
    width = config.key_internal_dim or config.memory_dim
    act = activation(config.key_internal_activation or "relu")
    stack: list[nn.Module] = [nn.Linear(config.key_dim, width), act]
    for _ in range(layers - 1):
        stack += [nn.Linear(width, width), act]
    return nn.Sequential(*stack, nn.Linear(width, out))


class DocumentMemory(nn.Module, ModelHubMixin):
    """A document memory for hidden states of width d_model.

    Its state dict holds `doc_reps` (n_docs, key_dim), `token_key`, `document_key`, `values` and
    `output`, and nothing else. `save_pretrained`, `from_pretrained` and `push_to_hub` come with
    huggingface_hub; weights are safetensors, always read strictly.

    Args:
        config: the shape.
        titles: the documents' titles, in the order of the DocReps, so that they can be called
            by name; None: by index only.

    Raises:
        DocmemError: if an activation is unknown, or titles and DocReps differ in number.
    """

    doc_reps: Tensor

    @checked
    def __init__(self, config: MemoryConfig, titles: Sequence[str] | None = None) -> None:
        super().__init__()
        if titles is not None and len(titles) != config.n_docs:
            raise DocmemError(f"{len(titles)} titles were given for {config.n_docs} documents.")
        check_titles(titles or [])
        self.config = config
        self.titles = list(titles) if titles is not None else None
        self.origin: dict[str, Any] = {}
        """What it was trained on, as `docmem.training.origin` says; empty: it attaches anywhere."""
        self.act_lm = activation(config.lm_act)
        gated = config.key_activation == "swiglu"
        self.act_key = swiglu if gated else activation(config.key_activation)
        doc_reps = torch.empty(config.n_docs, config.key_dim)
        self.register_buffer("doc_reps", nn.init.orthogonal_(doc_reps, gain=math.sqrt(2)))
        self.token_key = nn.Linear(config.d_model, config.memory_dim)
        self.document_key = key_generator(config)
        self.values = nn.Linear(config.memory_dim, config.d_model)
        self.output = nn.Linear(config.d_model, config.d_model)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.orthogonal_(module.weight, gain=math.sqrt(2))
                nn.init.zeros_(module.bias)

    def select(self, doc_rep: Float[Tensor, "*batch key_dim"]) -> Float[Tensor, "*batch entries"]:
        """The memory selection of a DocRep: k_doc = act_key(g(𝒦))."""
        return self.act_key(self.document_key(doc_rep))

    def token_keys(self, h: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch entries"]:
        """The token keys of hidden states: k_tok = act_lm(W_u h + b_u)."""
        return self.act_lm(self.token_key(h.to(self.token_key.weight.dtype)))

    def residual_update(
        self, h: Float[Tensor, "*batch seq d_model"], key: Float[Tensor, "*points seq entries"]
    ) -> Float[Tensor, "*points seq d_model"]:
        """Hidden states with the memory's output added: h + act_lm(W_o (W_d key + b_d) + b_o).

        `key` is the token key, times the document key if there is one; it may have more leading
        dimensions than h, as one for each of several DocReps.
        """
        if key.numel() > self.config.memory_dim**2:
            # More tokens than entries: less work to multiply W_o W_d out first.
            weight = self.output.weight @ self.values.weight
            output = functional.linear(key, weight, self.output(self.values.bias))
        else:
            output = self.output(self.values(key))
        return h + self.act_lm(output).to(h.dtype)

    def forward(
        self, h: Float[Tensor, "batch seq d_model"], doc_rep: Tensor | None = None
    ) -> Float[Tensor, "batch seq d_model"]:
        """Hidden states with the memory's output added.

        Args:
            h: a block's output.
            doc_rep: one DocRep (key_dim,), one per row (batch, key_dim), or None for all entries.

        Raises:
            DocmemError: if a shape does not fit.
        """
        check_type("h", h, Tensor)
        check_type("doc_rep", doc_rep, Tensor | None)
        if h.dim() != 3 or h.shape[2] != self.config.d_model:
            raise DocmemError(f"h is {tuple(h.shape)}, not (batch, seq, {self.config.d_model}).")
        key = self.token_keys(h)  # (batch, seq, memory_dim)
        if doc_rep is not None:
            batch, key_dim = h.shape[0], self.config.key_dim
            if doc_rep.shape not in ((key_dim,), (batch, key_dim)):
                raise DocmemError(
                    f"A DocRep of shape {tuple(doc_rep.shape)} does not fit hidden states of shape "
                    f"{tuple(h.shape)}; give ({key_dim},), or one per row: ({batch}, {key_dim})."
                )
            selection = self.select(doc_rep)  # (memory_dim,) or (batch, memory_dim)
            key = key * (selection if doc_rep.dim() == 1 else selection[:, None])
        return self.residual_update(h, key)

    def index_of(self, document: str | int) -> int:
        """The index of a document by title or index; DocmemError, with the nearest titles."""
        check_type("document", document, str | int)
        if not isinstance(document, str):
            otherwise = f"There is no document {document}: this memory holds {self.config.n_docs},"
            return check_index("document", document, self.config.n_docs, otherwise)
        titles = self.titles or []
        check_title(document, titles)
        return titles.index(document)

    @classmethod
    @checked
    def from_pretrained(  # type: ignore[override] # misspelt options are refused
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        map_location: str | torch.device = "cpu",
    ) -> "DocumentMemory":
        """Load a memory from a folder or a Hugging Face id; options are huggingface_hub's.

        Raises:
            DocmemError: if there is none, or its files are damaged or do not fit together.
        """
        folder = Path(pretrained_model_name_or_path)
        with reading(folder, "Give a folder that save_pretrained wrote, or a hub id in reach."):
            if not folder.is_dir():
                hub: dict[str, Any] = {"revision": revision, "cache_dir": cache_dir}
                hub |= {"token": token, "force_download": force_download}
                hub |= {"local_files_only": local_files_only, "allow_patterns": [WEIGHTS, CONFIG]}
                folder = Path(str(snapshot_download(str(folder), **hub)))
            shape = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            return cls._read(folder / WEIGHTS, shape).to(map_location)

    @classmethod
    def _read(cls, path: Path, shape: dict[str, Any]) -> "DocumentMemory":
        """The memory of this shape whose weights are in `path`."""
        tensors, metadata = load_tensors(path)
        if metadata.get("config", shape) != shape:  # version 0.1 kept the shape in one place only
            raise DocmemError(
                f"{path.parent / CONFIG} does not describe the memory in {path.name}: "
                "one of them was changed. Restore them from a copy."
            )
        with reading(path):
            with torch.device("meta"):  # no weights yet: they are the file's
                memory = cls(MemoryConfig(**shape), metadata["titles"])
            weights = {name: tensor.float().clone() for name, tensor in tensors.items()}
            memory.load_state_dict(weights, strict=True, assign=True)
            if not all(tensor.isfinite().all() for tensor in weights.values()):
                raise ValueError("its weights are not all finite numbers")
            memory.origin = dict(metadata.get("origin", {}))
        return memory

    @checked
    def save_pretrained(
        self, save_directory: str | Path, *, push_to_hub: bool = False, **options: Any
    ) -> str | None:
        """Write weights, config and model card, each whole or not at all, over those there are.

        With `push_to_hub` also to the hub: options are that method's; repo_id is else the folder's
        name. DocmemError if a file cannot be written, or an option has no effect.
        """
        folder, shape = Path(save_directory), asdict(self.config)
        if given := [name for name, one in options.items() if one is not None and not push_to_hub]:
            raise DocmemError(f"{given[0]} has no effect without push_to_hub=True; leave it out.")
        metadata = {"titles": self.titles, "config": shape, "origin": self.origin}
        if not all(tensor.isfinite().all() for tensor in self.state_dict().values()):
            raise DocmemError("Some weights are no finite numbers. The memory was not saved.")
        save_tensors(folder / WEIGHTS, self.state_dict(), metadata)
        write_json(folder / CONFIG, shape)
        write_text(folder / "README.md", str(self.generate_model_card()))
        return self.push_to_hub(**{"repo_id": folder.name, **options}) if push_to_hub else None

    @checked
    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload what `save_pretrained` writes; options are huggingface_hub's. DocmemError else."""
        try:
            return super().push_to_hub(repo_id, **options)
        except Exception as error:  # of the network, the hub, or a misspelt option
            raise DocmemError(f"Could not push to {repo_id!r}: {error}") from error

    def generate_model_card(self, *_: Any, **__: Any) -> ModelCard:
        """The README.md beside the weights: what the memory is, how to load it, how well it did."""
        data = ModelCardData(library_name="docmem", tags=["document-memory"])
        return ModelCard.from_template(data, str(CARD), memory=self)
