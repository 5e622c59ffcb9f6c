"""The losses of a run, one line of JSON per epoch, each with a digest of itself and all before."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from docmem.core.files import reading, write_text
from docmem.training.texts import digest_of


class Epoch(NamedTuple):
    """One line of a run's history: means over the epoch's batches."""

    epoch: int
    """Counted from 1."""
    positive_ce: float
    """Cross entropy under the own DocRep, nats per token."""
    negative_ce: float
    """Cross entropy under the negative DocRep, nats per token."""
    guidance: float
    """The guidance term, α included."""
    seconds: float
    """Time the epoch took."""


def write_history(path: Path, history: Sequence[Epoch]) -> None:
    """Write one line per epoch, with a digest of the line and of all lines before it."""
    lines, digest = [], ""
    for epoch in history:
        digest = _digest(digest, epoch)
        lines.append(json.dumps({**epoch._asdict(), "digest": digest}) + "\n")
    write_text(path, "".join(lines))


def read_history(path: Path) -> list[Epoch]:
    """The epochs in a file; none if there is no file.

    Lines of version 0.1 have no digests and are read unchecked.

    Raises:
        DocmemError: if a line cannot be read, or is not what was written.
    """
    if not path.exists():
        return []
    history: list[Epoch] = []
    digest = ""
    with reading(path):
        lines = path.read_bytes().splitlines()
    for number, line in enumerate(lines, start=1):
        with reading(f"{path}, line {number},"):
            values = json.loads(line)
            found = values.pop("digest", None)
            history.append(Epoch(**values))
            digest = _digest(digest, history[-1])
            if history[-1].epoch != number:
                raise ValueError("a line is missing before it")
            if found not in (None, digest):
                raise ValueError("it does not match its digest")
            if not all(isinstance(value, int | float) for value in history[-1]):
                raise ValueError("it should hold numbers")
    return history


def _digest(before: str, epoch: Epoch) -> str:
    """A digest of an epoch and of the digest of the line before."""
    return digest_of(f"{before}{json.dumps(epoch)}")[:16]
