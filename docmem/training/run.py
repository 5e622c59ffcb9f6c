"""A run on disk: a folder that another machine can open.

    run.json                 settings, documents, LM, library versions; DocReps, if given
    history.jsonl            one line per epoch: losses in nats per token, seconds
    snapshots/000010.safetensors   selections and DocReps after epoch 10, and those taken within
                                   epochs since the last such file; 000000 is the start
    memory/                  the memory, as `DocumentMemory.from_pretrained` reads it
    checkpoint.safetensors   what training needs to go on

Every file is replaced whole and carries a digest. The checkpoint is written first: memory and
history can be written anew from it. Runs of version 0.1 open too; their files have no digests and
are read unchecked.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from jaxtyping import Float
from tabulate import tabulate
from torch import Tensor

from docmem.core.files import load_tensors, save_tensors, write_json
from docmem.core.memory import DocumentMemory
from docmem.documents import Document
from docmem.errors import DocmemError, checked
from docmem.lm.hidden_states import HiddenStateCache, cache_hidden_states
from docmem.lm.loading import LanguageModel, load_lm, usable
from docmem.training.config import PAPER_PROCEDURE, TrainConfig
from docmem.training.history import Epoch, read_history, write_history
from docmem.training.selection import Selection, Snapshots

LIBRARIES = ("docmem", "torch", "transformers", "tokenizers", "safetensors", "huggingface-hub")
PARTS = {"config", "lm", "versions", "documents"}

# Settings that say where a run works and how long, not what it computes: they may change.
RESUME_IGNORES = (
    "save_dir", "lm_cache_dir", "data_cache_dir", "device", "num_gpus", "gpu_cache_gb",
    "cpu_cache_gb", "num_epochs",
)  # fmt: skip
LOCK = ".lock"


def version_of(library: str) -> str:
    """The installed version of a library, or `not installed` where it runs from a folder."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def lm_fingerprint(lm: LanguageModel) -> str:
    """A short digest of an LM's architecture, number format and a sample of its weights."""
    digest = hashlib.sha256(type(lm.model).__name__.encode())
    for name, parameter in lm.model.named_parameters():
        sample = parameter.detach().flatten()[:16].float().cpu().numpy().tobytes()
        digest.update(f"{name}{tuple(parameter.shape)}{parameter.dtype}".encode() + sample)
    return digest.hexdigest()[:16]


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """The configuration as JSON knows it."""
    values = {**asdict(config), "titles": list(config.titles)}
    return {
        name: str(value) if isinstance(value, Path) else value for name, value in values.items()
    }


def from_dict(settings: Mapping[str, Any]) -> TrainConfig:
    """The configuration of what `to_dict` made, here or in an earlier version."""
    values = {**PAPER_PROCEDURE, **settings}
    for name in ("save_dir", "lm_cache_dir", "data_cache_dir"):
        values[name] = Path(values[name]) if values[name] is not None else None
    return TrainConfig(**{**values, "titles": tuple(values["titles"])})


def describe(
    config: TrainConfig,
    lm: LanguageModel,
    documents: Sequence[Document],
    doc_reps: Float[Tensor, "n_docs key_dim"] | None = None,
) -> dict[str, Any]:
    """What run.json says of a training; `doc_reps` only where they are given, not the seed's."""
    description: dict[str, Any] = {
        "config": to_dict(dataclasses.replace(config, save_dir=None)),
        "lm": {
            "name": lm.name,
            "origin": lm.origin,
            "dtype": lm.dtype,
            "fingerprint": lm_fingerprint(lm),
        },
        "versions": {name: version_of(name) for name in LIBRARIES},
        "documents": [asdict(document) for document in documents],
    }
    if doc_reps is not None:
        description["doc_reps"] = doc_reps.float().tolist()
    return description


def _digest(description: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


class Run:
    """One training on disk. Open with `Run.open`; made by `docmem.train`."""

    def __init__(self, path: Path, description: dict[str, Any]) -> None:
        self.path = path
        self.description = description
        self.config = from_dict(description["config"])
        """The settings of the training."""
        self.documents = [Document(**document) for document in description["documents"]]
        """The documents, in the order of their DocReps."""

    def _facts(self) -> dict[str, str]:
        """What the run is and how far it has come, in words."""
        shown = [title if len(title) <= 40 else f"{title[:39]}…" for title in self.titles[:5]]
        more = f" and {len(self.titles) - 5} more" if len(self.titles) > 5 else ""
        facts = {
            "LM": Path(self.description["lm"]["name"]).name,
            "documents": f"{len(self.titles)}: {', '.join(shown)}{more}",
        }
        try:
            history = self.load_history()
            facts["epochs"] = f"{len(history)} of {self.config.num_epochs}"
            if history:
                own, negative = history[-1].positive_ce, history[-1].negative_ce
                facts["losses"] = f"own {own:.2f}, negative {negative:.2f} nats per token"
            facts["state"] = "finished" if self.finished else "unfinished"
        except DocmemError as error:
            facts["state"] = str(error)
        return facts

    def __repr__(self) -> str:
        facts = "; ".join(f"{name} {fact}" for name, fact in self._facts().items())
        return f"Run({str(self.path)!r}: {facts})"

    def _repr_html_(self) -> str:
        table = tabulate({"run": str(self.path), **self._facts()}.items(), tablefmt="html")
        return str(table).replace("$", "<span>$</span>")  # no formula, for MathJax

    @classmethod
    @checked
    def open(cls, path: str | Path) -> Run:
        """Open a run's folder.

        Raises:
            DocmemError: if the folder is not a run, or its run.json is not what was written.
        """
        path = Path(path)
        try:
            description = json.loads((path / "run.json").read_text(encoding="utf-8"))
            digest = description.pop("sha256", None)
            if set(description) - {"doc_reps"} != PARTS:
                raise ValueError(f"it should hold {', '.join(sorted(PARTS))}")
            if digest not in (None, _digest(description)):
                raise ValueError("it is damaged: its content does not match its digest")
            return cls(path, description)
        except FileNotFoundError as error:
            raise DocmemError(
                f"{path} is not a run: it has no run.json. Give a folder that `docmem train` wrote."
            ) from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DocmemError(
                f"{path / 'run.json'} cannot be read: {error}. Restore it from a copy."
            ) from error

    @classmethod
    def find(cls, path: Path, description: dict[str, Any]) -> Run | None:
        """The run in `path`, if there is one of this very training; None if `path` is free.

        It may have had fewer epochs to do than `description` asks for; it then has more to do.

        Raises:
            DocmemError: if `path` holds a run with other settings, documents, DocReps or LM, one
                with more epochs already, or files that are no run.
        """
        if not (path / "run.json").exists():
            if path.exists() and not (path.is_dir() and all(map(_is_ours, path.iterdir()))):
                raise DocmemError(
                    f"{path} holds files that are no run of docmem; choose an empty or new folder."
                )
            return None
        run = cls.open(path)
        run._check_same(description)
        wanted, done = description["config"]["num_epochs"], len(run.load_history())
        if done > wanted:
            raise DocmemError(
                f"{path} holds a run that has {done} epochs already, and num_epochs is {wanted}. "
                f"Give num_epochs {done} or more to go on, or choose another save_dir."
            )
        return cls(path, {**run.description, "config": description["config"]})

    def begin(self) -> None:
        """Write run.json, if it does not say what it should."""
        path = self.path / "run.json"
        if not path.exists() or Run.open(self.path).description != self.description:
            write_json(path, {**self.description, "sha256": _digest(self.description)})
        for leftover in filter(_is_partial, self.path.rglob("*")):
            leftover.unlink()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Within: no other process trains in this folder.

        Raises:
            DocmemError: if another one does, or the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / LOCK, timeout=0)
            lock.acquire()
        except Timeout as error:
            raise DocmemError(
                f"Another process is training in {self.path}. Wait until it has ended, or choose "
                "another save_dir."
            ) from error
        except OSError as error:
            raise DocmemError(f"Could not write in {self.path}: {error}.") from error
        try:
            yield
        finally:
            lock.release()

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
        mine = {"config": to_dict(self.config), "lm": self.description["lm"]}
        # What the setting dtype came to stands in the LM's own; a fingerprint outweighs an origin.
        for part, ignored in (("config", (*RESUME_IGNORES, "dtype")), ("lm", ("origin",))):
            for name, old in mine[part].items():
                new = description[part].get(name)
                if old != new and name not in ignored:
                    choose = f"Give dtype {old} to go on, choose" if name == "dtype" else "Choose"
                    raise DocmemError(
                        f"{self.path} holds a run with another {part}: {name} was {old!r}, "
                        f"now {new!r}. {choose} another save_dir, or delete that folder to start "
                        "anew."
                    )

    @property
    def titles(self) -> list[str]:
        """The documents' titles, in the order of their DocReps."""
        return [document.title for document in self.documents]

    @property
    def checkpoint(self) -> Path:
        """The file that training goes on from."""
        return self.path / "checkpoint.safetensors"

    @property
    def finished(self) -> bool:
        """Whether the memory of the last epoch is saved."""
        saved = (self.path / "memory" / "model.safetensors").exists()
        return saved and len(self.load_history()) >= self.config.num_epochs

    def load_history(self) -> list[Epoch]:
        """The losses so far, one entry per epoch.

        Raises:
            DocmemError: if the file is damaged.
        """
        return read_history(self.path / "history.jsonl")

    def load_memory(self) -> DocumentMemory:
        """The memory as last saved, on the CPU.

        Raises:
            DocmemError: if training has not saved one yet, or it is damaged.
        """
        if not (self.path / "memory").is_dir():
            raise DocmemError(f"{self.path} has no memory yet; train it first.")
        return DocumentMemory.from_pretrained(self.path / "memory")

    def load_snapshots(self) -> Snapshots:
        """All snapshots, in the order of the epochs.

        Raises:
            DocmemError: if there are none, one is damaged, or a file among them is none.
        """
        paths = sorted((self.path / "snapshots").glob("*.safetensors"))
        if not paths:
            raise DocmemError(f"{self.path} has no snapshots yet; train it first.")
        if foreign := [path.name for path in paths if not re.fullmatch(r"\d+", path.stem)]:
            raise DocmemError(f"{paths[0].parent} holds {foreign[0]}, no snapshot; move it away.")
        epochs: list[float] = []
        parts: dict[str, list[Tensor]] = {"token": [], "document": [], "doc_reps": []}
        for path in paths:
            tensors, metadata = load_tensors(path)
            epochs += metadata.get("epochs", [int(path.stem)])
            for name, part in parts.items():
                # Version 0.1 has one snapshot per file: (n_docs, …).
                part.append(tensors[name].reshape(-1, *tensors[name].shape[-2:]))
        return Snapshots(epochs, *map(torch.cat, parts.values()))

    @checked
    def load_lm(self, name: str | None = None) -> LanguageModel:
        """The LM this run was trained on, loaded by its name.

        Args:
            name: where it is now, if not under the name it had in training.

        Raises:
            DocmemError: if it cannot be loaded, or is not the same LM.
        """
        config, cache = self.config, self.config.lm_cache_dir
        few = (config.num_gpus or 0) > torch.cuda.device_count()
        lm = load_lm(
            name or self.description["lm"]["name"],
            dtype=self.description["lm"]["dtype"],
            device=config.device if usable(config.device) else "auto",
            num_gpus=None if few else config.num_gpus,
            lm_cache_dir=cache if cache and cache.is_dir() else None,
        )
        self.check_lm(lm)
        return lm

    @checked
    def check_lm(self, lm: LanguageModel) -> None:
        """Raise unless `lm` is the LM this run was trained on."""
        trained = self.description["lm"]
        if lm_fingerprint(lm) != trained["fingerprint"]:
            origin = trained.get("origin", "")  # version 0.1 knew none
            raise DocmemError(
                f"{self.path} was trained on the LM {trained['name']!r} in {trained['dtype']} "
                f"({origin or 'origin unknown'}); {lm.name!r} in {lm.dtype} "
                f"({lm.origin or 'origin unknown'}) has other weights."
            )

    def cache_hidden_states(self, lm: LanguageModel) -> HiddenStateCache:
        """The run's documents, as the LM's frozen blocks read them.

        Raises:
            DocmemError: if `lm` is not the LM this run was trained on.
        """
        self.check_lm(lm)
        return cache_hidden_states(lm, self.documents, self.config)

    def save_snapshots(self, taken: Mapping[float, Selection], doc_reps: Tensor) -> None:
        """Write selections, by the epochs after which they were taken, into one file."""
        tensors = {
            "token": torch.stack([selection.token for selection in taken.values()]),
            "document": torch.stack([selection.document for selection in taken.values()]),
            "doc_reps": doc_reps.cpu().repeat(len(taken), 1, 1),
        }
        name = f"{math.ceil(max(taken)):06d}.safetensors"
        save_tensors(self.path / "snapshots" / name, tensors, {"epochs": list(taken)})

    def save_history(self, history: Sequence[Epoch]) -> None:
        """Write the whole history."""
        write_history(self.path / "history.jsonl", history)

    def save_memory(self, memory: DocumentMemory) -> None:
        """Write the memory."""
        memory.save_whole(self.path / "memory")


def _is_partial(path: Path) -> bool:
    """Whether a file is what a process killed while writing left behind."""
    return path.name.startswith(".") and path.name.endswith(".partial")


def _is_ours(path: Path) -> bool:
    """Whether a file may lie in a folder where no run has begun."""
    return path.name == LOCK or _is_partial(path)
