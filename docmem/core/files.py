"""Files that are whole or absent, and known to be what was written.

The bytes go to a temporary file beside the target, reach the disk, and are renamed into place, so
nobody ever meets half a file. Tensors carry a digest, which is checked when they are read.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from docmem.errors import DocmemError, fault_of

HINT = "Restore it from a copy; if it is a run's, `docmem check RUN` says what can be made again."


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path`, or delete it after an error.

    DocmemError if it cannot be written (disk full, no permission); `path` is then untouched.
    """
    temporary = path.parent / f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.partial"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        with suppress(OSError):  # not every system or disk can do this to a folder
            _sync(path.parent)
    except OSError as error:
        raise DocmemError(
            f"Could not write {path}: {error}. Nothing there was changed; "
            "free some space or choose another folder, then run the same command again."
        ) from error
    finally:
        with suppress(OSError):  # its name may be too long to have been written
            temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)  # as Windows wants it
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write `content` to `path` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def tensor_digest(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> str:
    """The SHA-256 of named tensors (names, types, shapes, values) and their metadata."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
    """Write named tensors and a JSON-able `metadata` to one safetensors file (no pickle)."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # One entry, since safetensors writes several in any order: the same content, the same bytes.
    header = f"{json.dumps(metadata)}\n{tensor_digest(contiguous, metadata)}"
    with replacing(path) as temporary:  # `save_file` would leave a file of its own when killed
        temporary.write_bytes(safetensors.torch.save(contiguous, {"docmem": header}))


@contextmanager
def reading(path: Path | str, advice: str = HINT) -> Iterator[None]:
    """Within: whatever fails on what `path` holds becomes a DocmemError that names the file."""
    try:
        yield
    except DocmemError:
        raise
    except FileNotFoundError as error:
        raise DocmemError(f"There is no file {error.filename or path}. {advice}") from error
    except Exception as error:  # a file may hold anything, and so make anything fail
        raise DocmemError(f"{path} cannot be read: {fault_of(error)}. {advice}") from error


def load_tensors(path: Path, advice: str = HINT) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote: tensors and metadata; DocmemError as of `reading`."""
    with reading(path, advice):
        with safetensors.safe_open(path, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            header = (opened.metadata() or {})["docmem"]
        content, _, digest = header.partition("\n")
        metadata = json.loads(content)
        if digest not in ("", tensor_digest(tensors, metadata)):  # version 0.1 wrote none
            raise ValueError("its content does not match its digest")
        return tensors, dict(metadata)
