"""Is a run's folder whole? Every file of it is read; what can be made again is, if wanted.

    findings = check(Path("outputs/tiny/tanh-128-2855df31"), repair=True)

From the checkpoint come run.json, the history and the memory; from the source of the documents
their texts. A damaged evaluation is deleted: it is measured again when it is asked for. A lost
checkpoint or snapshot cannot be made again, only named.
"""

import dataclasses
import functools
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, NamedTuple

from filelock import Timeout

from docmem.checkpoint import load_checkpoint
from docmem.core.files import HINT, load_tensors, reading, tensor_digest
from docmem.core.memory import DocumentMemory
from docmem.errors import DocmemError, checked
from docmem.training.callbacks import LOG
from docmem.training.description import check_own
from docmem.training.history import Epoch
from docmem.training.run import CHECKPOINT, LOCK, Run, is_partial, locked
from docmem.training.setup import configured_documents
from docmem.training.texts import TEXTS, describe_texts, read_parts, read_texts, write_texts
from docmem.training.trainer import new_optimizer

ADVICE = {
    CHECKPOINT: "Restore it from a copy; without one the run can be read, but not trained on.",
    "snapshots": "Restore it from a copy; if it is deleted, figures over epochs do without it.",
    "measured": "--repair deletes it, and what needs it measures again.",
}
"""What to do about files that are not made again, by their first folder."""


class Finding(NamedTuple):
    """What is found of one file."""

    file: str
    """Its path in the run's folder."""
    state: Literal["whole", "damaged", "missing", "foreign", "repaired"]
    note: str = ""
    """What is wrong, and what to do."""


@checked
def check(path: Path, repair: bool = False) -> list[Finding]:
    """Read every file of a run's folder, and say of each whether it is whole and belongs there.

    Args:
        path: the run's folder.
        repair: make again what can be made again.

    Raises:
        DocmemError: if it holds no file, a process trains in it, or files are to be made again in a
            folder that cannot be written.
    """
    path = Path(path)
    if not path.is_dir() or not any(path.iterdir()):
        raise DocmemError(f"{path} holds no file. Give a folder that `docmem train` wrote.")
    with ExitStack() as held:
        try:
            # The lock is missing in a copy, and cannot be written where nobody can train.
            if repair or os.access(path / LOCK, os.W_OK):
                held.enter_context(locked(path))
        except DocmemError as error:
            if repair or isinstance(error.__cause__, Timeout):
                raise  # a process trains, or nothing can be made again on a read-only disk
        return _findings(path, repair)


def _findings(path: Path, repair: bool) -> list[Finding]:
    look = functools.partial(_look, path, repair)

    def describe_again() -> None:
        Run(path, load_tensors(path / CHECKPOINT)[1]["run"]).save_description()

    again = describe_again if os.path.exists(path / CHECKPOINT) else None  # noqa: PTH110
    found = [look("run.json", lambda: Run.open(path), None, again)]
    if found[0].state not in ("whole", "repaired"):
        return found
    run, restored = Run.open(path), list[Any]()
    if any((path / name).exists() for name in (CHECKPOINT, "history.jsonl", "memory")):
        found.append(look(CHECKPOINT, lambda: restored.extend(_restored(run))))
    found += [look(*piece) for piece in _pieces(run, *restored)]
    for name in sorted(_names(path) - {finding.file for finding in found} - {LOCK}):
        gone = repair and is_partial(path / name)
        if gone:
            (path / name).unlink()
        note = "A killed process left it." if is_partial(path / name) else "Move it away."
        found.append(Finding(name, "repaired" if gone else "foreign", note))
    return found


def _names(path: Path) -> set[str]:
    """The files in a folder, at any depth, and what should be one; a log of TensorBoard is not."""
    files = [file for file in path.rglob("*") if file.is_symlink() or not file.is_dir()]
    files += [folder for folder in path.glob("*/*.safetensors") if folder.is_dir()]
    names = {file.relative_to(path).as_posix() for file in files}
    return {name for name in names if not name.startswith(f"{LOG}/")}


def _look(
    path: Path,
    repair: bool,
    name: str,
    read: Callable[[], object],
    expected: object = None,
    make: Callable[[], object] | None = None,
) -> Finding:
    """Read a file; if it fails, or is not what is expected, make it again."""
    try:
        with reading(path / name):
            found = read()
            if expected is not None and found != expected:
                raise ValueError("it does not belong to the checkpoint")
        return Finding(name, "whole")
    except DocmemError as error:
        there = os.path.lexists(path / name) or isinstance(error.__cause__, PermissionError)
        fault = str(error).removesuffix(HINT).strip()
        otherwise = "Restore it from a copy." if make is None else "--repair makes it again."
        advice = ADVICE.get(Path(name).parts[0], otherwise)
        found = Finding(name, "damaged" if there else "missing", f"{fault} {advice}")
    try:
        with reading(path / name):
            if repair and make is not None:
                make()
                found = Finding(name, "repaired", fault)
        return found
    except DocmemError as error:
        return found._replace(note=f"{fault} It could not be made again: {error}")


def _pieces(
    run: Run, memory: Any = None, history: Sequence[Epoch] = (), snapshots: Any = ()
) -> Iterator[Any]:
    """All other files that there are, or should be after what the checkpoint says."""
    path, names = run.path, _names(run.path)
    losses, weights, places = None, None, None
    save_memory, save_history = None, None
    if memory is not None:
        losses, weights = list(history), tensor_digest(memory.state_dict(), {})
        places = [memory.doc_reps.tolist()]
        save_memory = functools.partial(run.save_memory, memory)
        save_history = functools.partial(run.save_history, history)

    def digest(name: str) -> str:
        return tensor_digest(load_tensors(path / name)[0], {})

    def doc_reps(name: str) -> Any:
        return run.read_snapshots(path / name).doc_reps.unique(dim=0).tolist()

    if TEXTS in names or "documents" not in vars(run):  # version 0.1 kept them in run.json
        texts = functools.partial(read_texts, path / TEXTS, run.description["texts"])
        yield TEXTS, texts, None, functools.partial(_write_texts, run)
    if history or "history.jsonl" in names:
        yield "history.jsonl", run.load_history, losses, save_history
    if history or (path / "memory").exists():
        name = "memory/model.safetensors"
        yield name, functools.partial(digest, name), weights, save_memory
        whole = functools.partial(_config, run, path / name)
        yield "memory/config.json", whole, None, save_memory
        if "memory/README.md" in names or (memory and memory.origin):  # version 0.1 wrote none
            yield "memory/README.md", functools.partial(_card, path), None, save_memory
    taken = {name for name in names if re.fullmatch(r"snapshots/\d+\.safetensors", name)}
    for name in sorted(taken.union(snapshots)):
        yield name, functools.partial(doc_reps, name), places
    for name in sorted(name for name in names if re.fullmatch(r"measured/\w+\.safetensors", name)):
        yield name, functools.partial(digest, name), None, (path / name).unlink


def _restored(run: Run) -> tuple[DocumentMemory, list[Epoch], list[str]]:
    """The memory and history in a run's checkpoint, and the snapshots that had been taken."""
    tensors, progress = load_tensors(run.checkpoint)
    if "run" in progress:  # version 0.1 did not say
        check_own(run.checkpoint, progress["run"], run.description)
    d_model = tensors["module/token_key.weight"].shape[1]
    memory = DocumentMemory(run.config.memory_config(d_model, len(run.titles)), run.titles)
    load_checkpoint(run.checkpoint, memory, new_optimizer(run.config, memory), {})
    memory.origin = progress.get("origin", {})
    saved = progress.get("history")  # version 0.1 kept it in history.jsonl alone
    history = run.load_history() if saved is None else [Epoch(*epoch) for epoch in saved]
    epoch, every = progress["epoch"], run.config.save_freq
    due = [f"snapshots/{n:06d}.safetensors" for n in range(0, epoch + 1, every)]
    return memory, history[:epoch], list(map(str, progress.get("snapshots", due)))  # 0.1 named none


def _config(run: Run, weights: Path) -> Any:
    """A memory's configuration, which has to fit its weights, if these are whole."""
    try:
        return run.load_memory()
    except DocmemError as fault:
        try:
            load_tensors(weights)
        except DocmemError:  # said of that file
            return json.loads((weights.parent / "config.json").read_text("utf-8"))
        raise fault


def _card(path: Path) -> str:
    """The text of a memory's model card, which may be of another version of docmem."""
    text = (path / "memory/README.md").read_text("utf-8")
    if not text.strip():
        raise ValueError("it is empty")
    return text


def _write_texts(run: Run) -> None:
    """Write the texts from where the configuration says that they are, by their titles."""
    config = dataclasses.replace(run.config, titles=tuple(run.titles))
    lacks = f"{config.source} does not hold the texts that the run read"
    try:
        documents = configured_documents(config)
    except DocmemError as error:
        raise DocmemError(f"{lacks}. {error}") from error
    if describe_texts(documents, run.config)["texts"] != run.description["texts"]:
        raise DocmemError(f"{lacks}.")
    write_texts(run.path / TEXTS, read_parts(documents, run.config))
