"""Storage of cached hidden states: on the GPU, in CPU memory or on disk, within a budget."""

import shutil
import tempfile
import weakref
from pathlib import Path

from torch import Tensor

from docmem.core.files import load_tensors, save_tensors


class HiddenStateStore:
    """Tensors in the order in which they were added.

    They stay on their device while its budget lasts, then go to CPU memory, then to a temporary
    folder on disk, which is deleted with the store.

    Args:
        gpu_gb: budget on the GPU, in 10⁹ bytes.
        cpu_gb: budget in CPU memory, in 10⁹ bytes.
    """

    def __init__(self, gpu_gb: float = 8.0, cpu_gb: float = 8.0) -> None:
        self._left = {"cuda": gpu_gb * 1e9, "cpu": cpu_gb * 1e9}
        self._kept: list[Tensor | Path] = []
        self._folder: Path | None = None

    def add(self, states: Tensor) -> None:
        """Keep one tensor in the fastest place that still has room."""
        for place in dict.fromkeys((states.device.type, "cpu")):
            if self._left.get(place, 0) >= states.nbytes:
                self._left[place] -= states.nbytes
                self._kept.append(states if place == states.device.type else states.cpu())
                return
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="docmem-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        path = self._folder / f"{len(self._kept)}.safetensors"
        save_tensors(path, {"states": states}, {})
        self._kept.append(path)

    def __getitem__(self, index: int) -> Tensor:
        """The tensor added as number `index`, wherever it now is."""
        kept = self._kept[index]
        return load_tensors(kept)[0]["states"] if isinstance(kept, Path) else kept

    def __len__(self) -> int:
        return len(self._kept)

    def places(self) -> list[str]:
        """Where each tensor is: cuda, cpu or disk."""
        return ["disk" if isinstance(k, Path) else k.device.type for k in self._kept]
