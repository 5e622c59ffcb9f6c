"""Storage of cached hidden states: on the GPU, in CPU memory or on disk, within a budget."""

import shutil
import tempfile
import weakref
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from docmem.errors import DocmemError


class HiddenStateStore:
    """Tensors in the order in which they were added.

    They stay on their device while its budget lasts, then go to CPU memory, then to a temporary
    folder on disk, which is deleted with the store. Files are mapped into memory: a step reads what
    the system no longer has at hand, and nothing is copied.

    Args:
        gpu_gb: budget on the GPU, in 10⁹ bytes.
        cpu_gb: budget in CPU memory, in 10⁹ bytes.
    """

    def __init__(self, gpu_gb: float = 8.0, cpu_gb: float = 8.0) -> None:
        self._left = {"cuda": gpu_gb * 1e9, "cpu": cpu_gb * 1e9}
        self._kept: list[Tensor] = []
        self._places: list[str] = []
        self._folder: Path | None = None

    def add(self, states: Tensor, device: torch.device | None = None, mapped: bool = False) -> None:
        """Keep one tensor in the fastest place that still has room.

        Args:
            states: the tensor.
            device: where it is used; None: where it is.
            mapped: it lies in a file that is mapped already, and stays there if not on a GPU.

        Raises:
            DocmemError: if the disk has no room either.
        """
        device = states.device if device is None else device
        for place in dict.fromkeys((device.type, "cpu")):
            if mapped and place == "cpu":
                break
            if self._left.get(place, 0) >= states.nbytes:
                self._left[place] -= states.nbytes
                self._kept.append(states.to(device if place == device.type else place))
                self._places.append(place)
                return
        self._kept.append(states if mapped else self._mapped(states))
        self._places.append("disk")

    def _mapped(self, states: Tensor) -> Tensor:
        """A copy of a tensor that lies in a file."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="docmem-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        path = self._folder / f"{len(self._kept)}.safetensors"
        try:
            # The folder goes with the process: nothing waits for the disk, as `save_tensors` does.
            path.write_bytes(safetensors.torch.save({"states": states.cpu().contiguous()}))
            with safetensors.safe_open(path, framework="pt") as opened:
                return opened.get_tensor("states")
        except (OSError, safetensors.SafetensorError) as error:
            raise DocmemError(
                f"Hidden states could not be kept in {self._folder}: {error}. Free some space, set "
                "TMPDIR to a folder with more, or raise cpu_cache_gb."
            ) from error

    def __getitem__(self, index: int) -> Tensor:
        """The tensor added as number `index`, wherever it now is."""
        return self._kept[index]

    def __len__(self) -> int:
        return len(self._kept)

    def places(self) -> list[str]:
        """Where each tensor is: cuda, cpu or disk."""
        return list(self._places)
