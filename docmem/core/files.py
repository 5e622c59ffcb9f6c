"""Files that are either whole or absent.

Everything docmem writes goes through `replacing`: the bytes land under a temporary
name beside the target and are renamed into place, so that a reader, or a process
killed half-way, never meets half a file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from docmem.errors import DocmemError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success rename it to `path`, else delete it.

    Raises:
        DocmemError: if the file cannot be written (disk full, no permission); `path` is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise DocmemError(
            f"Could not write {path}: {error}. Nothing there was changed; "
            "free some space or choose another folder, then run the same command again."
        ) from error
    finally:
        if temporary.exists():
            temporary.unlink()


def is_partial(path: Path) -> bool:
    """Whether a file is what a process killed while writing left behind."""
    return path.name.startswith(".") and path.name.endswith(".partial")


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write `content` to `path` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def update_json(path: Path, entries: Mapping[str, Any]) -> None:
    """Set some entries of the JSON object in `path`; the others stay. A missing file is made.

    Raises:
        DocmemError: if the file is no JSON object, or cannot be written.
    """
    try:
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        known.update(entries)
    except (OSError, ValueError, AttributeError) as error:
        raise DocmemError(
            f"{path} is not a JSON object ({error}). Delete it and run the same command again."
        ) from error
    write_json(path, known)


def save_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]
) -> None:
    """Write named tensors and a JSON-able `metadata` to one safetensors file (no pickle)."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        safetensors.torch.save_file(
            contiguous, temporary, metadata={"docmem": json.dumps(metadata)}
        )


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote: the named tensors and the metadata.

    Raises:
        DocmemError: if the file is missing, truncated, or not one of docmem's.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            metadata = json.loads((opened.metadata() or {})["docmem"])
    except FileNotFoundError as error:
        raise DocmemError(f"There is no file {path}.") from error
    except (OSError, safetensors.SafetensorError, KeyError, ValueError) as error:
        raise DocmemError(
            f"{path} cannot be read: it is truncated or not a docmem file ({error}). "
            "Delete it and run again, or restore it from a copy."
        ) from error
    return tensors, metadata
