"""What the storm's tests share: its size, its runs, everything that reads a run, and faults."""

import contextlib
import errno
import io
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import DOCUMENTS, quick_config, toy_lm

from docmem.cli.main import main
from docmem.core.files import load_tensors
from docmem.errors import DocmemError
from docmem.lm.loading import LanguageModel
from docmem.training.config import TrainConfig
from docmem.training.run import Run
from docmem.training.train import train

SHARE = {"full": 1.0, "tenth": 0.1}[os.environ.get("STORM_SIZE", "full")]
LM = toy_lm()


def size(full: int) -> int:
    """How many of so many are tried, for the size that was asked for."""
    return max(1, round(full * SHARE))


def named_lm(folder: Path) -> LanguageModel:
    """The toy LM, saved in a folder that is its name."""
    if not folder.exists():
        LM.model.save_pretrained(folder)
        LM.tokenizer.save_pretrained(folder)
    return replace(LM, name=str(folder))


def config_of(folder: Path) -> TrainConfig:
    """A training of a few hundred milliseconds; saved after epochs 2, 4 and 5."""
    return replace(quick_config(folder), num_epochs=5, save_freq=2, snapshot_freq=3)


def go(folder: Path, lm: LanguageModel = LM, **options: Any) -> Run:
    """Train in a folder, or go on there."""
    return train(config_of(folder), lm=lm, documents=DOCUMENTS, progress=False, **options)


def result_of(run: Run) -> dict[str, Any]:
    """All that a finished training left but its times: equal for equal trainings, to the bit."""
    taken = run.load_snapshots()
    tensors, progress = load_tensors(run.checkpoint)
    return {
        "documents": run.documents,
        "epochs": [epoch[:4] for epoch in run.load_history()],
        "checkpoint": [epoch[:4] for epoch in progress["history"]],
        "snapshots": (taken.epochs, *(bits(getattr(taken, part)) for part in PARTS)),
        "memory": {name: bits(t) for name, t in run.load_memory().state_dict().items()},
        "state": {name: bits(tensor) for name, tensor in tensors.items()},
    }


PARTS = ("token", "document", "doc_reps")


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()


def command(*arguments: str) -> tuple[int, str]:
    """Exit status and output of a command, in this process; an error beside docmem's escapes."""
    out, complaint = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(complaint):
        status = main(arguments)
    assert status in (0, 1), (arguments, status)
    said = any(line.startswith("docmem: ") for line in complaint.getvalue().splitlines())
    assert status == 0 or said or arguments[0] == "check", complaint.getvalue()
    return status, out.getvalue()


def readings(path: Path) -> dict[str, Callable[[], Any]]:
    """Everything that reads a run, by name; none of them changes it."""

    def generated() -> str:
        status, text = command(
            "generate", str(path), "--prompt", "Cyclone Odalys", "--document", "Thornwick Light",
            "--max_new_tokens", "4",
        )  # fmt: skip
        if status:
            raise DocmemError("it was said on stderr")
        return text

    return {
        "open": lambda: Run.open(path).description,
        "documents": lambda: Run.open(path).documents,
        "history": lambda: Run.open(path).load_history(),
        "memory": lambda: {
            name: bits(tensor) for name, tensor in Run.open(path).load_memory().state_dict().items()
        },
        "snapshots": lambda: [bits(getattr(Run.open(path).load_snapshots(), p)) for p in PARTS],
        "runs": lambda: None if command("runs", str(path))[0] else True,
        "generate": generated,
    }


def outcome(read: Callable[[], Any]) -> Any:
    """What a reading gives; None if it said in a sentence what is wrong."""
    try:
        return read()
    except DocmemError as error:
        assert len(str(error)) > 20, error
        return None


def assert_said_or_harmless(path: Path, good: dict[str, Any], whole: dict[str, Any]) -> str:
    """After damage to a run: each reading is as before, or one sentence; so is training again.

    Returns:
        `said` if the check names something, `harmless` if nothing differs.
    """
    status, told = command("check", str(path))
    # Readings do not miss a snapshot that is not there, or lines at the end of a history, which
    # training writes anew; the check names both.
    less = {"snapshots"} if "missing   snapshots/" in told else set()
    less |= {"history"} if " history.jsonl: " in told else set()
    for name, read in readings(path).items():
        found = outcome(read)
        assert found is None or found == good[name] or name in less, name
        if status == 0:
            assert found is not None, f"check finds nothing, but {name} fails"
    again = outcome(lambda: go(path, named_lm(path.parent / "lm")))
    if again is not None:
        results = outcome(lambda: result_of(again))
        differs = {name for name in whole if results and results[name] != whole[name]}
        assert differs <= less
        if status == 0 or ("history" in less and results):
            assert results == whole
    return "said" if status else "harmless"


class Faults:
    """Calls of the operating system that write, counted, and failed from a chosen one on.

    Files opened to be written, folders made, names and rights changed are Python's audit events;
    what is written into a file and brought to the disk has none, so that is replaced.
    """

    def __init__(self) -> None:
        self.act: Callable[[], None] | None = None
        self.count, self.at = 0, -1
        sys.addaudithook(self._event)

    def _event(self, event: str, arguments: tuple[Any, ...]) -> None:
        writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT
        if event in ("os.mkdir", "os.rename", "os.chmod") or (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & writes
        ):
            self.hit()

    def hit(self) -> bool:
        """One call: act if it is the chosen one or comes after it."""
        if self.act is None:
            return False
        self.count += 1
        if self.count >= self.at >= 0:
            self.act()
        return False

    @contextlib.contextmanager
    def armed(self, at: int, act: Callable[[], None]) -> Iterator[None]:
        """Within: from call number `at` on, each call acts instead; -1 only counts."""
        text, data, sync = Path.write_text, Path.write_bytes, os.fsync

        def half(write: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
            try:
                self.hit()
            except BaseException:
                Path(arguments[0]).touch()
                raise
            return write(*arguments, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "write_text", lambda *a, **o: half(text, *a, **o))
            patch.setattr(Path, "write_bytes", lambda *a, **o: half(data, *a, **o))
            patch.setattr(os, "fsync", lambda handle: (self.hit(), sync(handle))[1])
            self.count, self.at, self.act = 0, at, act
            try:
                yield
            finally:
                self.act = None


FAULTS = Faults()


def fail(code: int) -> Callable[[], None]:
    def act() -> None:
        raise OSError(code, os.strerror(code))

    return act


NO_SPACE, READ_ONLY = fail(errno.ENOSPC), fail(errno.EROFS)


def child(folder: str, lm: str, at: int, seed: int | None = None) -> None:
    """A training in a process of its own; killed by itself at the call `at` that writes."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    out = Path(folder).parent / f"{os.getpid()}.log"
    with out.open("w") as log, contextlib.redirect_stderr(log):
        config = config_of(Path(folder))
        config = config if seed is None else replace(config, seed=seed)
        with FAULTS.armed(at, lambda: os.kill(os.getpid(), signal.SIGKILL)):
            try:
                train(config, lm=named_lm(Path(lm)), documents=DOCUMENTS, progress=False)
            except DocmemError as error:
                print(f"docmem: {error}", file=log)
                sys.exit(1)
            except KeyboardInterrupt:
                sys.exit(130)


def chance(*what: object) -> random.Random:
    """Random numbers, the same for the same words."""
    return random.Random(" ".join(map(str, what)))


def copied(source: Path, target: Path) -> Path:
    """A fresh copy of a folder."""
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(source, target, symlinks=True))
