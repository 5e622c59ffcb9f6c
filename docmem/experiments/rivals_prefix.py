"""What stands before the text, as a KV cache for each document: trained, or the document itself."""

import copy
import warnings
from abc import abstractmethod
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from docmem.documents import as_read
from docmem.experiments.rivals import Rival
from docmem.experiments.rivals_lora import require_peft
from docmem.lm.forward import forward_inputs
from docmem.lm.generation import greedy
from docmem.lm.head import cross_entropy
from docmem.lm.hidden_states import HiddenStateCache


class Prefix(Rival):
    """A KV cache per document, which stands before whatever is read. Each is an address."""

    @abstractmethod
    def past(self, address: int, rows: int) -> Any:
        """A new KV cache of transformers, the same in every row."""

    def read(self, cache: HiddenStateCache, index: int, address: int) -> Float[Tensor, ""]:
        """After the KV cache of that index."""
        batch = cache.batches[index]
        rows = len(batch.input_ids)
        past = self.past(address, rows)
        inputs, length = forward_inputs(self.lm.model, batch), past.get_seq_length()
        mask = inputs["attention_mask"]
        inputs["attention_mask"] = torch.cat([mask.new_ones(rows, length), mask], dim=1)
        if "position_ids" in inputs:
            inputs["position_ids"] = inputs["position_ids"] + length
        logits = self.lm.model(**inputs, past_key_values=past).logits
        return cross_entropy(logits, batch)

    @torch.no_grad()
    def generate(self, ids: Int[Tensor, "rows seq"], address: int, new: int) -> Tensor:
        """Greedy continuations (rows, new) after a KV cache."""
        past = self.past(address, len(ids))
        known = ids.new_zeros(len(ids), past.get_seq_length())  # in the cache: not read again
        return greedy(self.lm.model, torch.cat([known, ids], dim=1), new, past)


class PrefixTuning(Prefix):
    """Prefix tuning, by peft: keys and values are trained, as many as the memory has parameters."""

    def _build(self) -> dict[str, Tensor]:
        require_peft()
        from peft import get_peft_model

        self.addresses = len(self.documents)
        one = read_into_cache(self.lm.model, self.cache.batches[0].input_ids[:1, :1])
        per_token = sum(layer.keys.numel() + layer.values.numel() for layer in one.layers)
        self.tokens = max(1, round(self.memory_size() / (self.addresses * per_token)))
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # peft asks transformers for something under an old name.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            torch.manual_seed(self.config.seed)
            self.model: Any = get_peft_model(self.lm.model, self._settings(), adapter_name="0")
            for address in range(1, self.addresses):
                self.model.add_adapter(str(address), self._settings())
        self._start()
        found = self.model.prompt_encoder.named_parameters()
        return {name: one if one.requires_grad else one.detach() for name, one in found}

    def _settings(self) -> Any:
        from peft import PrefixTuningConfig

        return PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=self.tokens)

    def _start(self) -> None:
        """Set what is trained to where it begins."""

    def past(self, address: int, rows: int) -> Any:
        """The trained keys and values of a document."""
        self.model.set_adapter(str(address))
        return self.model.get_prompt(rows)


class Cartridge(PrefixTuning):
    """CARTRIDGE, by peft: the same, begun as the cache of the document's first tokens.

    A further first token stays as it is. Trained on the text, like all others here; its authors
    train on conversations about the text.
    """

    def _settings(self) -> Any:
        from peft import CartridgeConfig

        return CartridgeConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=self.tokens + 1, num_frozen_tokens=1
        )

    def _start(self) -> None:
        from peft import initialize_kv_prefix_from_text

        for address, document in enumerate(self.documents):
            initialize_kv_prefix_from_text(
                self.model, self.lm.tokenizer, text=document.text, adapter_name=str(address),
                use_chat_template=False, max_length=self.tokens + 1,
            )  # fmt: skip


class InContext(Prefix):
    """The document itself: the text of its segments, as far as the LM's context has room."""

    def _build(self) -> dict[str, Tensor]:
        self.addresses, config = len(self.documents), self.config
        room = None if self.lm.context is None else self.lm.context - config.max_length
        texts = [as_read(one.text, config.segment_length, config.max_segments)
                 for one in self.documents]  # fmt: skip
        read = [self.lm.tokenize([text], room).input_ids for text in texts]
        self.pasts = [read_into_cache(self.lm.model, ids) for ids in read]
        return {
            f"{address}.{index}.{name}": getattr(layer, name)
            for address, past in enumerate(self.pasts)
            for index, layer in enumerate(past.layers)
            for name in ("keys", "values")
        }

    def past(self, address: int, rows: int) -> Any:
        """The document's KV cache."""
        past = copy.deepcopy(self.pasts[address])
        past.batch_repeat_interleave(rows)
        return past


@torch.no_grad()
def read_into_cache(model: Any, ids: Int[Tensor, "1 seq"]) -> Any:
    """The KV cache of a text."""
    return model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values
