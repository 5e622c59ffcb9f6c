"""Hidden states that several trainings share: computed once, kept on disk, mapped into memory.

    shared = SharedStates(Path("outputs/states"), lm.model, layer=5)
    states = shared.get(batch, read)      # from disk, or read now and kept

A file is named after what determines it: the LM's weights, the layer, the tokens. So another
seed, another choice of the documents, another process finds it; a reading that was stopped goes on.
Every file carries a digest; a damaged one is made again.
"""

import hashlib
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from docmem.core.files import tensor_digest
from docmem.errors import DocmemError
from docmem.lm.forward import TokenBatch

BUDGET_GB = 20.0
"""What the files of a folder may take, in 10⁹ bytes; those used longest ago go first."""
OURS = re.compile(r"\.?[0-9a-f]{32}\.safetensors")
"""How names of such files begin; others in the folder are nobody's to delete."""
NOT_READ_BY = re.compile(
    "_name_or_path|transformers_version|.*dtype|architectures|use_cache|.*token_id|id2label|"
    "label2id|output_.*|return_.*|problem_type"
)
"""What an LM's configuration says that does not change its states."""


class SharedStates:
    """The hidden states of one LM after one block, by the tokens that were read.

    Args:
        folder: where they are kept, for any LM and layer.
        model: the LM.
        layer: the block, from 0.
    """

    def __init__(self, folder: Path, model: nn.Module, layer: int) -> None:
        weights = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
        self.folder = folder
        config = read_by(getattr(model, "config").to_dict())  # noqa: B009
        self.kind = f"{type(model).__name__} {tensor_digest(weights, config)} {layer}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _clean(folder)
        except OSError as error:
            raise self._failed(error) from error

    def get(self, batch: TokenBatch, read: Callable[[TokenBatch], Tensor]) -> Tensor:
        """The hidden states of a batch on the CPU, in a file that is mapped into memory.

        Raises:
            DocmemError: if the file cannot be written.
        """
        tokens = {name: tensor.cpu() for name, tensor in batch._asdict().items()}
        name = hashlib.sha256(f"{self.kind} {tensor_digest(tokens, {})}".encode()).hexdigest()
        path = self.folder / f"{name[:32]}.safetensors"
        found = _mapped(path)
        if found is not None:
            return found
        states = read(batch).cpu().contiguous()
        metadata = {"sha256": tensor_digest({"states": states}, {})}
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.partial")
        try:
            # Nothing waits for the disk: what a crash damages is noticed and made again.
            temporary.write_bytes(safetensors.torch.save({"states": states}, metadata))
            temporary.replace(path)
        except OSError as error:
            raise self._failed(error) from error
        finally:
            temporary.unlink(missing_ok=True)
        kept = _mapped(path)
        return states if kept is None else kept

    def _failed(self, error: Exception) -> DocmemError:
        return DocmemError(
            f"Hidden states could not be kept in {self.folder}: {error}. Free some space, or "
            "choose another states_dir, or none."
        )


def read_by(config: dict[str, Any]) -> dict[str, Any]:
    """What of an LM's configuration changes its states, that of its parts included."""
    return {
        name: read_by(one) if isinstance(one, dict) else str(one)
        for name, one in config.items()
        if not NOT_READ_BY.fullmatch(str(name))
    }


@torch.no_grad()
def _mapped(path: Path) -> Tensor | None:
    """The states in a file; None if there is none, or it is not what was written."""
    try:
        with safetensors.safe_open(path, framework="pt") as opened:
            states: Tensor = opened.get_tensor("states")
            whole = (opened.metadata() or {}).get("sha256")
    except (OSError, safetensors.SafetensorError):
        return None
    with suppress(OSError):  # in a folder that is only read
        os.utime(path)
    return states if whole == tensor_digest({"states": states}, {}) else None


def _clean(folder: Path) -> None:
    """Delete the files used longest ago, until the folder is within its budget."""
    files = []
    for path in filter(lambda path: OURS.match(path.name), folder.iterdir()):
        with suppress(FileNotFoundError):  # another process deletes too
            files.append((path.stat(), path))
    size = sum(status.st_size for status, _ in files)
    for status, path in sorted(files, key=lambda one: one[0].st_mtime):
        if size <= BUDGET_GB * 1e9:
            break
        path.unlink(missing_ok=True)
        size -= status.st_size
