"""Is a run's folder whole? Every file of it is read; what can be made again is, if wanted.

    findings = check(Path("outputs/tiny/tanh-128-2855df31"), repair=True)

From the checkpoint come run.json, the history and the memory; from the source of the documents
their texts. A damaged evaluation is deleted: it is measured again when it is asked for. A lost
checkpoint or snapshot cannot be made again, only named.
"""

import functools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, NamedTuple

from docmem.checkpoint import load_checkpoint
from docmem.core.files import load_tensors, reading, tensor_digest
from docmem.core.memory import DocumentMemory
from docmem.errors import DocmemError
from docmem.training.history import Epoch
from docmem.training.run import LOCK, Run, is_partial
from docmem.training.setup import configured_documents
from docmem.training.texts import TEXTS, describe_texts, read_parts, read_texts, write_texts
from docmem.training.trainer import new_optimizer


class Finding(NamedTuple):
    """What is found of one file."""

    file: str
    """Its path in the run's folder."""
    state: Literal["whole", "damaged", "missing", "foreign", "repaired"]
    note: str = ""
    """What is wrong, and what to do."""


class _Piece(NamedTuple):
    file: str
    read: Callable[[], object]
    """Fails if the file is not what it should be."""
    make: Callable[[], object] | None = None
    """Makes it again."""


def check(path: Path, repair: bool = False) -> list[Finding]:
    """Read every file of a run's folder, and say of each whether it is whole and belongs there.

    Args:
        path: the run's folder; no process should train in it meanwhile.
        repair: make again what can be made again.

    Raises:
        DocmemError: if files are to be made again where they cannot be, or another process trains.
    """
    described = _Piece("run.json", lambda: Run.open(path), lambda: _write_description(path))
    found = [_look(path, described, repair)]
    if found[0].state not in ("whole", "repaired"):
        return found
    run = Run.open(path)
    with run.lock() if repair else nullcontext():
        found += [_look(path, piece, repair) for piece in _pieces(run)]
        known = {finding.file for finding in found} | {LOCK}
        for file in sorted(path.rglob("*")):
            name = file.relative_to(path).as_posix()
            if name not in known and (file.is_symlink() or not file.is_dir()):
                gone = repair and is_partial(file)
                if gone:
                    file.unlink()
                note = "A killed process left it." if is_partial(file) else "Move it away."
                found.append(Finding(name, "repaired" if gone else "foreign", note))
    return found


def _look(path: Path, piece: _Piece, repair: bool) -> Finding:
    """Read a piece, and make it again if it is not whole."""
    file = path / piece.file
    try:
        with reading(file):
            piece.read()
        return Finding(piece.file, "whole")
    except DocmemError as error:
        found = Finding(piece.file, "damaged" if os.path.lexists(file) else "missing", str(error))
    if not repair or piece.make is None:
        return found
    try:
        with reading(file):
            piece.make()
        return found._replace(state="repaired")
    except DocmemError as error:
        return found._replace(note=f"{found.note} It could not be made again: {error}")


def _pieces(run: Run) -> Iterator[_Piece]:
    """All files that a run has or should have, but run.json. Each is read before the next."""
    path, config = run.path, run.config
    there = {file.relative_to(path).as_posix() for file in path.rglob("*")}
    restored: list[Any] = []
    if there & {run.checkpoint.name, "history.jsonl", "memory"}:
        yield _Piece(run.checkpoint.name, lambda: restored.extend(_restored(run)))
    memory: Any = restored[0] if restored else None
    history: list[Epoch] = restored[1] if restored else []

    def same(found: object, expected: Callable[[], object]) -> None:
        if restored and found != expected():
            raise ValueError("it does not belong to the checkpoint")

    if TEXTS in there or "documents" not in vars(run):  # version 0.1 kept them in run.json
        texts = functools.partial(read_texts, path / TEXTS, run.description["texts"])
        yield _Piece(TEXTS, texts, lambda: _write_texts(run))
    if history or "history.jsonl" in there:
        again = (lambda: run.save_history(history)) if restored else None
        yield _Piece("history.jsonl", lambda: same(run.load_history(), lambda: history), again)
    if history or "memory" in there:
        again = (lambda: run.save_memory(memory)) if restored else None

        def weights() -> None:
            saved = load_tensors(path / "memory/model.safetensors")[0]
            same(tensor_digest(saved, {}), lambda: tensor_digest(memory.state_dict(), {}))

        yield _Piece("memory/model.safetensors", weights, again)
        yield _Piece("memory/config.json", run.load_memory, again)  # and do they fit together?
        if "memory/README.md" in there or (memory and memory.origin):  # 0.1 wrote none
            yield _Piece("memory/README.md", (path / "memory/README.md").read_text, again)
    due = {0, len(history) if len(history) == config.num_epochs else 0}
    due |= set(range(config.save_freq, len(history) + 1, config.save_freq))
    named = {f"snapshots/{epoch:06d}.safetensors" for epoch in due} if history else set()
    for name in sorted(
        named | {n for n in there if re.fullmatch(r"snapshots/\d+\.safetensors", n)}
    ):

        def snapshot(name: str = name) -> None:
            places = run.read_snapshots(path / name).doc_reps.tolist()
            same(places, lambda: [memory.doc_reps.tolist()] * len(places))

        yield _Piece(name, snapshot)
    for name in sorted(n for n in there if re.fullmatch(r"measured/\w+\.safetensors", n)):
        yield _Piece(name, functools.partial(load_tensors, path / name), (path / name).unlink)


def _restored(run: Run) -> tuple[DocumentMemory, list[Epoch]]:
    """The memory and history in a run's checkpoint."""
    tensors, progress = load_tensors(run.checkpoint)
    d_model = tensors["module/token_key.weight"].shape[1]
    memory = DocumentMemory(run.config.memory_config(d_model, len(run.titles)), run.titles)
    load_checkpoint(run.checkpoint, memory, new_optimizer(run.config, memory), {})
    memory.origin = progress.get("origin", {})
    saved = progress.get("history")  # version 0.1 kept it in history.jsonl alone
    history = run.load_history() if saved is None else [Epoch(*epoch) for epoch in saved]
    return memory, history[: progress["epoch"]]


def _write_description(path: Path) -> None:
    """Write run.json from what the checkpoint says."""
    Run(path, load_tensors(path / "checkpoint.safetensors")[1]["run"]).save_description()


def _write_texts(run: Run) -> None:
    """Write the texts from where the configuration says that they are."""
    documents = configured_documents(run.config)
    if describe_texts(documents, run.config)["texts"] != run.description["texts"]:
        raise DocmemError(f"{run.config.source} holds other texts now.")
    write_texts(run.path / TEXTS, read_parts(documents, run.config))
