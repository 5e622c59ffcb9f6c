"""A run on disk: a folder that another machine can open.

    run.json                 settings, documents, LM, library versions; DocReps, if given
    history.jsonl            one line an epoch: losses in nats a token, seconds
    snapshots/000010.safetensors   selections and DocReps after epoch 10; 000000 is the start
    memory/                  the memory, as `DocumentMemory.from_pretrained` reads it
    checkpoint.safetensors   what training needs to go on

Every file is replaced whole, the checkpoint last: it vouches for the others.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from docmem.core.files import is_partial, load_tensors, save_tensors, write_json, write_text
from docmem.core.memory import DocumentMemory
from docmem.documents import Document
from docmem.errors import DocmemError
from docmem.lm.hidden_states import Prefix, read_documents
from docmem.lm.loading import LanguageModel, load_lm
from docmem.training.config import TrainConfig
from docmem.training.selection import Selection, Snapshots

LIBRARIES = ("docmem", "torch", "transformers", "tokenizers", "safetensors", "huggingface-hub")


def version_of(library: str) -> str:
    """The installed version of a library, or `not installed` where it runs from a folder."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


# Settings that say where a run works, not what it computes: they may change on resuming.
ELSEWHERE = (
    "save_dir", "lm_cache_dir", "data_cache_dir", "num_gpus", "gpu_cache_gb", "cpu_cache_gb",
)  # fmt: skip


class Epoch(NamedTuple):
    """One line of a run's history: means over the epoch's steps."""

    epoch: int
    """Counted from 1."""
    positive_ce: float
    """Cross entropy with the own DocRep, nats a token."""
    negative_ce: float
    """Cross entropy with the negative DocRep, nats a token."""
    guidance: float
    """The guidance term, α included."""
    seconds: float
    """Time the epoch took."""


def lm_fingerprint(lm: LanguageModel) -> str:
    """A short digest of an LM's architecture, number format and a sample of its weights."""
    digest = hashlib.sha256(type(lm.model).__name__.encode())
    for name, parameter in lm.model.named_parameters():
        sample = parameter.detach().flatten()[:16].float().cpu().numpy().tobytes()
        digest.update(f"{name}{tuple(parameter.shape)}{parameter.dtype}".encode() + sample)
    return digest.hexdigest()[:16]


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """The configuration as JSON knows it."""
    values = {**asdict(config), "titles": list(config.titles)}
    return {
        name: str(value) if isinstance(value, Path) else value for name, value in values.items()
    }


def config_of(settings: Mapping[str, Any]) -> TrainConfig:
    """The configuration of what `settings_of` made."""
    values = dict(settings)
    for name in ("save_dir", "lm_cache_dir", "data_cache_dir"):
        values[name] = Path(values[name]) if values[name] is not None else None
    return TrainConfig(**{**values, "titles": tuple(values["titles"])})


class Run:
    """One training on disk. Open with `Run.open`; made by `docmem.train`."""

    def __init__(self, path: Path, description: dict[str, Any]) -> None:
        self.path = path
        self.description = description
        self.config = config_of(description["config"])
        """The settings of the training."""
        self.documents = [Document(**document) for document in description["documents"]]
        """The documents, in the order of their DocReps."""

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Open a run's folder.

        Raises:
            DocmemError: if the folder is not a run.
        """
        path = Path(path)
        try:
            return cls(path, json.loads((path / "run.json").read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise DocmemError(
                f"{path} is not a run: it has no run.json. Give a folder that `docmem train` wrote."
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DocmemError(f"{path / 'run.json'} cannot be read: {error}.") from error

    @classmethod
    def create(
        cls,
        path: Path,
        config: TrainConfig,
        lm: LanguageModel,
        documents: Sequence[Document],
        doc_reps: Float[Tensor, "n_docs key_dim"] | None = None,
    ) -> Run:
        """Begin a run in `path`, or open it if it is there with the same settings.

        `doc_reps` are the given DocReps; None where they are the seed's.

        Raises:
            DocmemError: if `path` holds a run with other settings, documents, DocReps or LM, or
                files that are no run.
        """
        description: dict[str, Any] = {
            "config": settings_of(dataclasses.replace(config, save_dir=None)),
            "lm": {"name": lm.name, "dtype": lm.dtype, "fingerprint": lm_fingerprint(lm)},
            "versions": {name: version_of(name) for name in LIBRARIES},
            "documents": [asdict(document) for document in documents],
        }
        if doc_reps is not None:
            description["doc_reps"] = doc_reps.float().tolist()
        if (path / "run.json").exists():
            run = cls.open(path)
            run._check_same(description)
            return run
        if path.exists() and not (path.is_dir() and all(map(is_partial, path.iterdir()))):
            raise DocmemError(
                f"{path} holds files that are no run of docmem; choose an empty or new folder."
            )
        write_json(path / "run.json", description)
        return cls(path, description)

    def _check_same(self, description: Mapping[str, Any]) -> None:
        """Raise unless `description` is of this very training, wherever it runs."""
        if self.description["documents"] != description["documents"]:
            raise DocmemError(
                f"{self.path} holds a run on other documents; choose another save_dir."
            )
        if self.description.get("doc_reps") != description.get("doc_reps"):
            raise DocmemError(
                f"{self.path} holds a run with other DocReps; give those it began with (none, if "
                "they were the seed's), or choose another save_dir."
            )
        for part, ignored in (("config", ELSEWHERE), ("lm", ())):
            for name, old in self.description[part].items():
                new = description[part].get(name)
                if old != new and name not in ignored:
                    raise DocmemError(
                        f"{self.path} holds a run with another {part}: {name} was {old!r}, "
                        f"now {new!r}. Choose another save_dir, or delete that folder to start "
                        "anew."
                    )

    @property
    def titles(self) -> list[str]:
        """The documents' titles, in the order of their DocReps."""
        return [document.title for document in self.documents]

    @property
    def history(self) -> list[Epoch]:
        """The losses so far, one entry an epoch."""
        path = self.path / "history.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [Epoch(**json.loads(line)) for line in lines]

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        saved = (self.path / "memory" / "model.safetensors").exists()
        return saved and len(self.history) == self.config.num_epochs

    @property
    def checkpoint(self) -> Path:
        """The file that training goes on from."""
        return self.path / "checkpoint.safetensors"

    @property
    def memory(self) -> DocumentMemory:
        """The memory as last saved, on the CPU.

        Raises:
            DocmemError: if training has not saved one yet.
        """
        if not (self.path / "memory").is_dir():
            raise DocmemError(f"{self.path} has no memory yet; train it first.")
        return DocumentMemory.from_pretrained(self.path / "memory")

    @property
    def snapshots(self) -> Snapshots:
        """All snapshots, in the order of the epochs.

        Raises:
            DocmemError: if there are none, or one is damaged.
        """
        paths = sorted((self.path / "snapshots").glob("*.safetensors"))
        if not paths:
            raise DocmemError(f"{self.path} has no snapshots yet; train it first.")
        loaded = [load_tensors(path)[0] for path in paths]
        names = ("token", "document", "doc_reps")
        stacked = [torch.stack([one[name] for one in loaded]) for name in names]
        return Snapshots([int(path.stem) for path in paths], *stacked)

    def load_lm(self, name: str | None = None) -> LanguageModel:
        """The LM this run was trained on, loaded by its name.

        Args:
            name: where it is now, if not under the name it had in training.

        Raises:
            DocmemError: if it cannot be loaded, or is not the same LM.
        """
        cache = self.config.lm_cache_dir
        lm = load_lm(
            name or self.description["lm"]["name"],
            dtype=self.description["lm"]["dtype"],
            num_gpus=min(self.config.num_gpus, torch.cuda.device_count()),
            lm_cache_dir=cache if cache and cache.is_dir() else None,
        )
        self.check_lm(lm)
        return lm

    def check_lm(self, lm: LanguageModel) -> None:
        """Raise unless `lm` is the LM this run was trained on."""
        if lm_fingerprint(lm) != self.description["lm"]["fingerprint"]:
            raise DocmemError(
                f"{self.path} was trained on the LM {self.description['lm']['name']!r} in "
                f"{self.description['lm']['dtype']}; {lm.name!r} in {lm.dtype} has other weights."
            )

    def read(self, lm: LanguageModel) -> Prefix:
        """The run's documents as the LM's prefix reads them.

        Raises:
            DocmemError: if `lm` is not the LM this run was trained on.
        """
        self.check_lm(lm)
        return read_documents(lm, self.documents, self.config)

    def save_snapshot(self, epoch: int, selection: Selection, doc_reps: Tensor) -> None:
        """Write the selections and DocReps after `epoch`."""
        tensors = {"token": selection.token, "document": selection.document, "doc_reps": doc_reps}
        save_tensors(self.path / "snapshots" / f"{epoch:06d}.safetensors", tensors, {})

    def save_history(self, history: Sequence[Epoch]) -> None:
        """Write the whole history."""
        lines = "".join(json.dumps(epoch._asdict()) + "\n" for epoch in history)
        write_text(self.path / "history.jsonl", lines)

    def save_memory(self, memory: DocumentMemory) -> None:
        """Write the memory."""
        memory.save_whole(self.path / "memory")
