"""LoRAs of a document memory's size: one for all documents, or one for each."""

import copy
import importlib.util
import warnings
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from docmem.core.blocks import find_blocks
from docmem.errors import DocmemError
from docmem.experiments.rivals import Rival
from docmem.lm.forward import forward_inputs
from docmem.lm.generation import greedy
from docmem.lm.head import cross_entropy
from docmem.lm.hidden_states import HiddenStateCache


class LoRA(Rival):
    """Low-rank updates of every Linear in the blocks, by peft. Its addresses are its adapters.

    The rank is the one that brings all adapters nearest to the document memory's size; where the
    least is too large, or not near, only the last blocks have some. They are not merged.

    Raises:
        DocmemError: if peft is not installed.
    """

    def _build(self) -> dict[str, Tensor]:
        require_peft()
        from peft import LoraConfig

        self.model: Any = copy.deepcopy(self.lm.model)
        blocks = find_blocks(self.model)
        linear = [one for one in blocks.modules() if isinstance(one, nn.Linear)]
        per_rank = sum(one.in_features + one.out_features for one in linear)
        share = self.memory_size() / (per_rank * self.addresses)
        rank = max(1, round(share))
        last = min(len(blocks), max(1, round(len(blocks) * share / rank)))
        inside = set(nn.ModuleList(list(blocks)[-last:]).modules())
        names = [
            name
            for name, one in self.model.named_modules()
            if isinstance(one, nn.Linear) and one in inside
        ]
        settings = LoraConfig(
            r=rank, lora_alpha=2 * rank, target_modules=names, task_type="CAUSAL_LM"
        )
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # Several adapters are meant.
            warnings.filterwarnings("ignore", "Already found a `peft_config`", UserWarning)
            torch.manual_seed(self.config.seed)
            for address in range(self.addresses):
                self.model.add_adapter(settings, adapter_name=str(address))
        return {name: p for name, p in self.model.named_parameters() if "lora_" in name}

    def read(self, cache: HiddenStateCache, index: int, address: int) -> Float[Tensor, ""]:
        """With the LoRA of that index."""
        batch = cache.batches[index]
        self.model.set_adapter(str(address))
        return cross_entropy(self.model(**forward_inputs(self.lm.model, batch)).logits, batch)

    def generate(self, ids: Int[Tensor, "rows seq"], address: int, new: int) -> Tensor:
        """Greedy continuations (rows, new) under an adapter."""
        self.model.set_adapter(str(address))
        return greedy(self.model, ids, new)


class PerDocumentLoRA(LoRA):
    """One LoRA per document, each so small that all together are as large."""

    def _build(self) -> dict[str, Tensor]:
        self.addresses = len(self.documents)
        return super()._build()


def require_peft() -> None:
    """DocmemError if peft is not installed."""
    if importlib.util.find_spec("peft") is None:
        raise DocmemError("The rivals need peft, which is not installed: `pip install peft`.")
