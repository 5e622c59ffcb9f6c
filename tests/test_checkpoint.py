"""A checkpoint restores module, optimizer and generators to the bit."""

from pathlib import Path

import pytest
import torch
from torch import nn

from docmem.checkpoint import load_checkpoint, save_checkpoint
from docmem.errors import DocmemError


class Tied(nn.Module):
    """Embedding and head share one weight, as in many LMs."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, width)
        self.inner = nn.Linear(width, width)
        self.head = nn.Linear(width, 7, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("fixed", torch.randn(3))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.inner(self.embed(ids)))


def start(seed: int, width: int = 4) -> tuple[Tied, torch.optim.AdamW, dict[str, torch.Generator]]:
    torch.manual_seed(seed)
    module = Tied(width)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    return module, optimizer, {"data": torch.Generator().manual_seed(seed)}


def step(
    module: Tied, optimizer: torch.optim.AdamW, generators: dict[str, torch.Generator]
) -> None:
    ids = torch.randint(7, (5,), generator=generators["data"])
    nn.functional.cross_entropy(module(ids), ids.roll(1)).backward()
    optimizer.step()
    optimizer.zero_grad()


def test_training_from_a_checkpoint_equals_uninterrupted_training(tmp_path: Path):
    state = start(0)
    for _ in range(3):
        step(*state)
    save_checkpoint(tmp_path / "c", *state, {"epoch": 3})
    again = start(1)
    step(*again)
    assert load_checkpoint(tmp_path / "c", *again) == {"epoch": 3}
    for _ in range(2):
        step(*state)
        step(*again)
    assert again[0].head.weight is again[0].embed.weight
    for name, tensor in state[0].state_dict().items():
        assert torch.equal(again[0].state_dict()[name], tensor), name


@pytest.mark.parametrize("other", [Tied(5), nn.Linear(4, 4)], ids=["shape", "names"])
def test_another_modules_checkpoint_is_rejected(tmp_path: Path, other: nn.Module):
    save_checkpoint(tmp_path / "c", *start(0), {})
    optimizer = torch.optim.AdamW(other.parameters())
    with pytest.raises(DocmemError, match="belongs to another configuration"):
        load_checkpoint(tmp_path / "c", other, optimizer, {})
