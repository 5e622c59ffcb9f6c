"""A run on disk: a folder that another machine can open.

    run.json                 settings, LM, library versions, the documents' titles and digests;
                             DocReps, if given
    documents.json.gz        the documents' texts, as far as they were read
    history.jsonl            one line per epoch: losses in nats per token, seconds
    snapshots/000010.safetensors   selections and DocReps after epoch 10, and those taken within
                                   epochs since the last such file; 000000 is the start
    memory/                  the memory, as `DocumentMemory.from_pretrained` reads it
    checkpoint.safetensors   what training needs to go on

Every file is replaced whole and carries a digest. Snapshots are written first, then the checkpoint:
memory and history can be written anew from it. Runs of version 0.1 open too; their files have no
digests and are read unchecked, and run.json has the texts in it.
"""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from tabulate import tabulate
from torch import Tensor

from docmem.core.blocks import lm_fingerprint
from docmem.core.files import HINT, load_tensors, reading, save_tensors, write_json
from docmem.core.memory import DocumentMemory
from docmem.documents import Document, listed
from docmem.errors import DocmemError, checked
from docmem.lm.hidden_states import HiddenStateCache, cache_hidden_states
from docmem.lm.loading import LanguageModel, load_lm, usable
from docmem.training.description import check_same, description_digest, from_dict, read_description
from docmem.training.history import Epoch, read_history, write_history
from docmem.training.selection import Selection, Snapshots
from docmem.training.texts import TEXTS, check_in_no_run, read_parts, read_texts, write_texts

LOCK, CHECKPOINT = ".lock", "checkpoint.safetensors"


class Run:
    """One training on disk. Open with `Run.open`; made by `docmem.train`."""

    def __init__(self, path: Path, description: dict[str, Any]) -> None:
        self.path = path
        self.description = description
        self.config = from_dict(description["config"])
        """The settings of the training."""

    def _facts(self) -> dict[str, str]:
        """What the run is and how far it has come, in words."""
        shown = [title if len(title) <= 40 else f"{title[:39]}…" for title in self.titles]
        facts = {
            "LM": Path(self.description["lm"]["name"]).name,
            "documents": f"{len(self.titles)}: {listed(shown, 5)}",
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
        path = Path(path).parent if Path(path).name == "run.json" else Path(path)
        file = path / "run.json"
        with reading(file, "Give a folder that `docmem train` wrote."):
            if not file.exists():
                was = (path / CHECKPOINT).exists()
                advice = HINT if was else "Give a folder that `docmem train` wrote."
                raise DocmemError(f"{path} is not a run: it has no run.json. {advice}")
        with reading(file):
            description, whole = read_description(file)
            run = cls(path, description)
        if whole is not None:
            run.documents = read_parts(whole, run.config)
        return run

    @functools.cached_property
    def documents(self) -> list[Document]:
        """The documents, in the order of their DocReps; of each text what was read.

        Raises:
            DocmemError: if their file is missing or damaged.
        """
        return read_texts(self.path / TEXTS, self.description["texts"])

    @classmethod
    def find(cls, path: Path, description: dict[str, Any]) -> Run | None:
        """The run in `path`, if there is one of this very training; None if `path` is free.

        It may have had fewer epochs to do than `description` asks for; it then has more to do. The
        LM and the documents may have another name, or lie elsewhere (`NAMES`, `RESUME_IGNORES`);
        every other setting counts.

        Raises:
            DocmemError: if `path` holds a run with other settings, documents, DocReps or LM, one
                with more epochs already, or files that are no run; or if it lies in a run.
        """
        try:
            there = (path / "run.json").exists()
            free = not path.exists() or (path.is_dir() and all(map(_is_ours, path.iterdir())))
        except OSError as error:
            raise DocmemError(f"{path} cannot be read: {error}. Choose another folder.") from error
        if not there:
            if path.is_file():
                raise DocmemError(f"{path} is a file; choose a folder.")
            if (path / CHECKPOINT).exists():
                raise DocmemError(
                    f"{path} has lost its run.json. `docmem check --repair {path}` makes it again."
                )
            check_in_no_run(path)
            if not free:
                raise DocmemError(
                    f"{path} holds files that are no run of docmem; choose an empty or new folder."
                )
            return None
        run = cls.open(path)
        check_same(path, run.description, description)
        wanted, done = description["config"]["num_epochs"], len(run.load_history())
        if done > wanted:
            raise DocmemError(
                f"{path} holds a run that has {done} epochs already, and num_epochs is {wanted}. "
                f"Give num_epochs {done} or more to go on, or choose another save_dir."
            )
        run.description |= {part: description[part] for part in ("config", "lm")}  # may have moved
        run.config = from_dict(run.description["config"])
        return run

    def begin(self, documents: Sequence[Document]) -> None:
        """Write the texts and run.json, where they do not say what they should.

        Raises:
            DocmemError: if they cannot be written, or another training began here meanwhile.
        """
        Run.find(self.path, self.description)
        try:
            read_texts(self.path / TEXTS, self.description["texts"])
        except DocmemError:  # not written yet, or damaged: here they are again
            write_texts(self.path / TEXTS, read_parts(documents, self.config))
        self.save_description()
        for leftover in filter(is_partial, self.path.rglob("*")):
            if leftover.parent.name != "measured":  # where others may be writing
                leftover.unlink()

    def save_description(self) -> None:
        """Write run.json."""
        content = {**self.description, "sha256": description_digest(self.description)}
        write_json(self.path / "run.json", content)

    @property
    def titles(self) -> list[str]:
        """The documents' titles, in the order of their DocReps."""
        return [document["title"] for document in self.description["documents"]]

    @property
    def checkpoint(self) -> Path:
        """The file that training goes on from."""
        return self.path / CHECKPOINT

    @property
    def finished(self) -> bool:
        """Whether the memory of the last epoch is saved."""
        saved = os.path.exists(self.path / "memory" / "model.safetensors")  # noqa: PTH110
        return len(self.load_history()) >= self.config.num_epochs and saved

    def check_there(self) -> None:
        """Raise if the run's folder has gone."""
        if not self.path.is_dir():
            raise DocmemError(
                f"There is no folder {self.path} now: it was moved, or the working folder has "
                "changed. Open the run where it is."
            )

    def is_readable(self) -> bool:
        """Whether memory and texts are whole; if not, training writes them anew."""
        try:
            self.load_memory()
            return len(self.documents) > 0
        except DocmemError:
            return False

    def load_history(self) -> list[Epoch]:
        """The losses so far, one entry per epoch; DocmemError if the file is damaged."""
        self.check_there()
        return read_history(self.path / "history.jsonl")

    def load_memory(self) -> DocumentMemory:
        """The memory as last saved, on the CPU.

        Raises:
            DocmemError: if training has not saved one yet, or it is damaged.
        """
        self.check_there()
        if not (self.path / "memory").is_dir():
            raise DocmemError(f"{self.path} has no memory yet; train it first.")
        with reading(self.path / "memory"):
            (self.path / "memory" / "config.json").stat()
        memory = DocumentMemory.from_pretrained(self.path / "memory")
        lm, shape = self.description["lm"], memory.config
        expected = self.config.memory_config(shape.d_model, len(self.titles)), lm["fingerprint"]
        fingerprint = memory.origin.get("fingerprint", lm["fingerprint"])  # 0.1 knew none
        if (shape, fingerprint) != expected or memory.titles != self.titles:
            raise DocmemError(
                f"{self.path / 'memory'} is of another run: run.json has other documents, another "
                f"shape or another LM. {HINT}"
            )
        return memory

    def snapshots(self) -> list[str]:
        """The files of snapshots, in the order of the epochs."""
        self.check_there()
        folder = self.path / "snapshots"
        with reading(folder):
            files = sorted(os.listdir(folder)) if folder.is_dir() else []  # noqa: PTH208 - or raises
        return [f"snapshots/{name}" for name in files if name.endswith(".safetensors")]

    def drop_snapshots_after(self, epoch: int) -> None:
        """Delete snapshots that were written and whose checkpoint was not: they are taken again."""
        for name in self.snapshots():
            if (stem := Path(name).stem).isdecimal() and int(stem) > epoch:
                (self.path / name).unlink()

    def load_snapshots(self) -> Snapshots:
        """All snapshots, in the order of the epochs.

        Raises:
            DocmemError: if there are none, one is damaged, or a file among them is none.
        """
        paths = [self.path / name for name in self.snapshots()]
        if not paths:
            raise DocmemError(f"{self.path} has no snapshots yet; train it first, or restore them.")
        if foreign := [path.name for path in paths if not re.fullmatch(r"\d+", path.stem)]:
            raise DocmemError(f"{paths[0].parent} holds {foreign[0]}, no snapshot; move it away.")
        taken = []
        for path in paths:
            with reading(path):
                taken.append(self.read_snapshots(path))
        epochs = [epoch for one in taken for epoch in one.epochs]
        parts = zip(*((one.token, one.document, one.doc_reps) for one in taken), strict=True)
        return Snapshots(epochs, *map(torch.cat, parts))

    def read_snapshots(self, path: Path) -> Snapshots:
        """The snapshots in one file."""
        tensors, metadata = load_tensors(path)
        epochs = list(metadata.get("epochs", [int(path.stem)]))
        if not all(isinstance(epoch, int | float) for epoch in epochs):
            raise ValueError("its epochs are not numbers")
        entries = self.config.hook_memory_dim
        widths = {"token": entries, "document": entries, "doc_reps": self.config.key_dim}
        for name, width in widths.items():
            # Version 0.1 has one snapshot per file, (n_docs, …), and so no dimension for them.
            tensors[name] = tensors[name].reshape(len(epochs), len(self.titles), width)
            if not tensors[name].isfinite().all():
                raise ValueError(f"{name} is not all finite numbers")
        return Snapshots(epochs, *(tensors[name].float() for name in widths))

    @checked
    def load_lm(self, name: str | os.PathLike[str] | None = None) -> LanguageModel:
        """The LM this run was trained on, loaded by its name.

        Args:
            name: where it is now, if not under the name it had in training.

        Raises:
            DocmemError: if it cannot be loaded, or is not the same LM.
        """
        config, cache = self.config, self.config.lm_cache_dir
        few = (config.num_gpus or 0) > torch.cuda.device_count()
        try:
            lm = load_lm(
                self.description["lm"]["name"] if name is None else name,
                dtype=self.description["lm"]["dtype"],
                device=config.device if usable(config.device) else "auto",
                num_gpus=None if few else config.num_gpus,
                lm_cache_dir=cache if cache and cache.is_dir() else None,
            )
        except DocmemError as error:
            raise DocmemError(
                f"{error}\nOr give `lm`, the LM that this run was trained on."
            ) from error
        self.check_lm(lm)
        return lm

    @checked
    def check_lm(self, lm: LanguageModel) -> None:
        """Raise unless `lm` is the LM this run was trained on."""
        trained = self.description["lm"]
        if lm_fingerprint(lm.model) != trained["fingerprint"]:
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
        """Write the memory, with its origin and its model card."""
        memory.save_pretrained(self.path / "memory")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within: no other process trains in this folder.

    Raises:
        DocmemError: if another one does, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=0)
        lock.acquire()
    except Timeout as error:
        raise DocmemError(
            f"Another training, or a check, is at work in {folder}. Wait, or choose another one."
        ) from error
    except OSError as error:
        raise DocmemError(f"Could not write in {folder}: {error}.") from error
    try:
        yield
    finally:
        lock.release()


def check_together(runs: Sequence[Run]) -> None:
    """Raise unless there is a run, and all hold the same documents, in one order."""
    if not runs:
        raise DocmemError("Name at least one run.")
    held = [[(one["title"], one["sha256"]) for one in run.description["documents"]] for run in runs]
    if any(other != held[0] for other in held):
        raise DocmemError("These runs hold different documents; take one at a time.")


def is_partial(path: Path) -> bool:
    """Whether a file is what a process killed while writing left behind."""
    return path.name.startswith(".") and path.name.endswith(".partial") and not path.is_dir()


def _is_ours(path: Path) -> bool:
    """Whether a file may lie in a folder where no run has begun; systems leave hidden ones."""
    return path.name == TEXTS or (path.name.startswith(".") and not path.is_dir())
