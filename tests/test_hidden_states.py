"""The frozen blocks: what is resumed equals what is read in full."""

import copy
import gc
import warnings
from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, get_peft_model
from slow import slow
from torch import Tensor, nn
from toys import BLOCKS, FAMILIES, toy_batch, toy_lm
from transformers import AutoConfig, AutoModelForCausalLM

from docmem.core.blocks import lm_fingerprint
from docmem.core.hook import attach
from docmem.core.memory import DocumentMemory
from docmem.documents import Document, segments
from docmem.errors import DocmemError
from docmem.evaluation.attribution import attribute
from docmem.lm.cross_entropy import base_cross_entropies, cross_entropies_at
from docmem.lm.forward import TokenBatch, forward_inputs
from docmem.lm.head import cross_entropy
from docmem.lm.hidden_states import HiddenStateCache, cache_hidden_states
from docmem.lm.loading import LanguageModel
from docmem.lm.skip import skip_blocks
from docmem.lm.store import HiddenStateStore
from docmem.training.config import TrainConfig

ROWS = torch.tensor([[1.0, 0.2], [-0.6, 0.9], [0.3, -1.1]])
BATCHES = [toy_batch(), toy_batch((30, 4), seed=1)]
everywhere = pytest.mark.parametrize("layer", range(BLOCKS))
in_every_family = pytest.mark.parametrize("family", FAMILIES)


def attached(lm: LanguageModel, memory: DocumentMemory, layer: int, batch, doc_rep) -> Tensor:
    with attach(lm.model, memory, layer) as hooked, hooked.document(doc_rep):
        return lm.model(**forward_inputs(lm.model, batch)).logits


@everywhere
@in_every_family
def test_resumed_logits_equal_those_of_the_hooked_lm(
    family: str, layer: int, memory: DocumentMemory
):
    lm = toy_lm(family)
    cache = HiddenStateCache(lm, BATCHES, [0, 1], layer)
    for index, batch in enumerate(BATCHES):
        for doc_rep in (ROWS[: len(batch.input_ids)], ROWS[0], None):
            expected = attached(lm, memory, layer, batch, doc_rep)
            actual = cache.logits(index, memory, doc_rep)
            torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@everywhere
@in_every_family
def test_base_cross_entropies_are_those_of_the_lm_alone(family: str, layer: int):
    lm = toy_lm(family)
    expected = [
        cross_entropy(lm.model(**forward_inputs(lm.model, batch)).logits, batch)
        for batch in BATCHES
    ]
    found = base_cross_entropies(HiddenStateCache(lm, BATCHES, [0, 1], layer))
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=1e-5)


@everywhere
@in_every_family
def test_losses_and_gradients_equal_one_hooked_forward_per_doc_rep(
    family: str, layer: int, memory: DocumentMemory
):
    lm = toy_lm(family)
    batch, weights = BATCHES[0], torch.tensor([1.0, -0.3, 0.5])
    expected = torch.stack(
        [cross_entropy(attached(lm, memory, layer, batch, doc_rep), batch) for doc_rep in ROWS]
    )
    gradients = torch.autograd.grad(expected @ weights, list(memory.parameters()))
    actual = HiddenStateCache(lm, BATCHES, [0, 1], layer - BLOCKS).cross_entropies(0, memory, ROWS)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    assert expected.max() - expected.min() > 1e-3
    (actual @ weights).backward()
    for (name, parameter), gradient in zip(memory.named_parameters(), gradients, strict=True):
        assert gradient.abs().max() > 1e-4, name
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-5, rtol=1e-4, msg=name)
    assert all(parameter.grad is None for parameter in lm.model.parameters())


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@in_every_family
def test_losses_equal_the_hooked_lm_with_padding_on_either_side(
    family: str, attention: str, memory: DocumentMemory
):
    lm = toy_lm(family)
    if attention == "sdpa" and not lm.model._supports_sdpa:
        pytest.skip(f"transformers has no sdpa for {family}")
    lm.model.set_attn_implementation(attention)
    left = BATCHES[0]
    lengths = left.attention_mask.sum(1).tolist()
    rolled = [
        [row.roll(n - len(row)) for row, n in zip(tensor, lengths, strict=True)] for tensor in left
    ]
    right = TokenBatch(*(torch.stack(rows) for rows in rolled))
    assert right.attention_mask[:, 0].all()
    assert not right.attention_mask[:, -1].all()
    cache = HiddenStateCache(lm, [left, right], [0, 0], 1)
    losses = []
    for index, batch in enumerate((left, right)):
        losses.append(cache.cross_entropies(index, memory, ROWS))
        expected = [
            cross_entropy(attached(lm, memory, 1, batch, doc_rep), batch) for doc_rep in ROWS
        ]
        torch.testing.assert_close(losses[-1], torch.stack(expected), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(losses[0], losses[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["gpt_neox", "gptj"])
def test_lm_is_restored_exactly_after_an_error(
    family: str, memory: DocumentMemory, monkeypatch: pytest.MonkeyPatch
):
    lm = toy_lm(family)
    weights = {name: tensor.clone() for name, tensor in lm.model.state_dict().items()}
    blocks, modules = list(lm.blocks), dict(lm.model.named_modules())

    def check() -> None:
        assert dict(lm.model.named_modules()) == modules
        assert all(now is then for now, then in zip(lm.blocks, blocks, strict=True))
        assert not any(module._forward_hooks for module in lm.model.modules())
        state = lm.model.state_dict()
        assert state.keys() == weights.keys()
        assert all(torch.equal(state[name], tensor) for name, tensor in weights.items())
        assert not any(parameter.requires_grad for parameter in lm.model.parameters())

    cache = HiddenStateCache(lm, BATCHES, [0, 1], 1)
    check()
    cache.cross_entropies(0, memory, ROWS)
    check()
    with pytest.raises(KeyboardInterrupt), skip_blocks(lm.blocks, 1, 0, cache.states(0)):
        assert lm.blocks[0] is not blocks[0]
        assert lm.blocks[2] is blocks[2]
        raise KeyboardInterrupt
    check()

    def broken(*_, **__):
        raise RuntimeError("broken")

    head = lm.model.get_output_embeddings()
    with monkeypatch.context() as patch:
        patch.setattr(head, "forward", broken)
        with pytest.raises(RuntimeError, match="broken"):
            cache.logits(0, memory, ROWS)
        check()
        patch.setattr(blocks[0], "forward", broken)
        with pytest.raises(RuntimeError, match="broken"):
            HiddenStateCache(lm, BATCHES, [0, 1], 1)
    check()


def test_skipped_blocks_keep_the_attributes_of_the_blocks(lm: LanguageModel):
    for index, block in enumerate(lm.blocks):
        block.attention_type = f"kind {index}"
    with skip_blocks(lm.blocks, 1, 0, torch.zeros(1, 1, 32)):
        assert [b.attention_type for b in lm.blocks] == ["kind 0", "kind 1", "kind 2"]
        with pytest.raises(AttributeError, match="no attribute 'colour'"):
            _ = lm.blocks[0].colour


@pytest.mark.parametrize(("returned", "expected"), [(0, "h"), (1, ("h",)), (3, ("h", None, None))])
def test_skipped_blocks_return_as_many_things_as_the_blocks(
    lm: LanguageModel, returned: int, expected: object
):
    with skip_blocks(lm.blocks, 1, returned, None):
        assert lm.blocks[0]("h") == expected


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of peft
@pytest.mark.parametrize("wrapped", [
    lambda model: get_peft_model(model, LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True)),
    slow(lambda model: torch.compile(model, backend="eager")),
], ids=["peft", "torch.compile"])  # fmt: skip
def test_lm_in_a_wrapper_reads_padded_rows_at_the_same_positions(wrapped: Callable):
    lm = toy_lm("gpt2")
    expected = base_cross_entropies(HiddenStateCache(lm, BATCHES, [0, 1], 1))
    inside = LanguageModel(wrapped(lm.model), lm.tokenizer, "wrapped")
    found = base_cross_entropies(HiddenStateCache(inside, BATCHES, [0, 1], 1))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_experts_losses_are_left_out():
    config = AutoConfig.for_model(
        "mixtral", hidden_size=32, num_hidden_layers=2, num_attention_heads=2, vocab_size=400,
        num_key_value_heads=1, intermediate_size=32, num_local_experts=2, output_router_logits=True,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    lm = LanguageModel(model, toy_lm().tokenizer, "experts")
    logits = model(**forward_inputs(model, BATCHES[0])).logits
    found = base_cross_entropies(HiddenStateCache(lm, BATCHES[:1], [0], 0))
    torch.testing.assert_close(found[0], cross_entropy(logits, BATCHES[0]), atol=1e-5, rtol=1e-5)


def test_nothing_is_dropped_from_an_lm_in_training_mode(memory: DocumentMemory):
    lm = toy_lm("gpt2")
    cache = HiddenStateCache(lm, BATCHES, [0, 1], 0)
    expected = cache.logits(0, memory, ROWS), base_cross_entropies(cache)
    lm.model.train()
    assert any(isinstance(one, nn.Dropout) and one.p > 0 for one in lm.model.modules())
    torch.testing.assert_close(cache.logits(0, memory, ROWS), expected[0])
    torch.testing.assert_close(base_cross_entropies(cache), expected[1])
    assert all(one.training for one in lm.model.modules())


def test_cache_is_not_read_through_an_attached_memory(lm: LanguageModel, memory: DocumentMemory):
    cache = HiddenStateCache(lm, BATCHES, [0, 1], 0)
    with attach(lm.model, memory, layer=1):
        for read in (lambda: cache.logits(0, memory, None), lambda: base_cross_entropies(cache)):
            with pytest.raises(DocmemError, match="A memory is attached to this LM"):
                read()


def test_memory_is_read_where_it_was_trained(lm: LanguageModel, memory: DocumentMemory):
    memory.origin = {
        "layer": 1, "lm": "toy", "dtype": lm.dtype, "fingerprint": lm_fingerprint(lm.model),
    }  # fmt: skip
    there = HiddenStateCache(lm, BATCHES, [0, 1], 1)
    cross_entropies_at(there, memory, ROWS[:, :2])
    with pytest.raises(DocmemError, match=r"trained at layer 1, and .* are those after layer 0"):
        cross_entropies_at(HiddenStateCache(lm, BATCHES, [0, 1], 0), memory, ROWS[:, :2])
    with pytest.raises(DocmemError, match="trained at layer 1"):
        attribute(lm, memory, 2, "A text of words.")
    other = HiddenStateCache(toy_lm(seed=1), BATCHES, [0, 1], 1)
    with pytest.raises(DocmemError, match="trained on the LM 'toy'"):
        cross_entropies_at(other, memory, ROWS[:, :2])
    memory.origin["dtype"] = "bfloat16"  # the same LM in another format has another fingerprint
    cross_entropies_at(other, memory, ROWS[:, :2])


def test_frozen_blocks_run_once_and_stop_at_the_hooked_block(
    lm: LanguageModel, memory: DocumentMemory
):
    calls = [0] * BLOCKS
    HiddenStateCache(lm, BATCHES, [0, 1], 1)  # the first one sees how this LM reads pads

    def count(index: int) -> Callable:
        def hook(*_):
            calls[index] += 1

        return hook

    for index, block in enumerate(list(lm.blocks)):
        block.register_forward_pre_hook(count(index))
    cache = HiddenStateCache(lm, BATCHES, [0, 1], 1)
    assert calls == [2, 2, 0]
    for _ in range(3):
        cache.cross_entropies(0, memory, ROWS)
    assert calls == [2, 2, 3]


def test_batches_hold_one_document_each_in_order(
    lm: LanguageModel, documents: list[Document], config: TrainConfig
):
    cache = cache_hidden_states(lm, documents, config)
    assert cache.doc_ids == [0, 0, 1, 1, 2]
    assert cache.layer == BLOCKS - 1
    texts = [segments(document.text, 12, 4) for document in documents]
    chunks = [texts[0][:2], texts[0][2:], texts[1][:2], texts[1][2:], texts[2]]
    for batch, chunk in zip(cache.batches, chunks, strict=True):
        expected = lm.tokenize(chunk)
        assert torch.equal(batch.input_ids, expected.input_ids)
        assert torch.equal(batch.attention_mask, expected.attention_mask)


def test_layer_out_of_range_is_rejected(lm: LanguageModel):
    with pytest.raises(DocmemError, match="0 to 2, or -3 to -1"):
        HiddenStateCache(lm, BATCHES, [0, 1], 3)


STATES = [torch.randn(2, 3, 4), torch.randn(1, 3, 4), torch.randn(2, 3, 4).bfloat16()]


@pytest.mark.parametrize(
    ("room", "places"),
    [
        (96 + 48 + 48, ["cpu", "cpu", "cpu"]),
        (96 + 47, ["cpu", "disk", "disk"]),
        (95, ["disk", "cpu", "disk"]),
        (1, ["disk", "disk", "disk"]),
    ],
)
def test_states_move_to_disk_when_the_budget_is_spent(room: int, places: list[str]):
    store = HiddenStateStore(gpu_gb=1.0, cpu_gb=room / 1e9)
    for states in STATES:
        store.add(states)
    assert store.places() == places
    assert len(store) == 3
    for index in (2, 0, 1, 1):
        assert store[index].dtype == STATES[index].dtype
        assert torch.equal(store[index], STATES[index])
    folder = store._folder
    assert (folder is not None) == ("disk" in places)
    del store
    gc.collect()
    assert folder is None or not folder.exists()


def test_store_on_disk_is_deleted_without_a_warning():
    store = HiddenStateStore(cpu_gb=1e-9)
    store.add(STATES[0])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del store
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_states_leave_a_full_gpu_for_cpu_memory_then_disk():
    store = HiddenStateStore(gpu_gb=96e-9, cpu_gb=96e-9)
    for _ in range(3):
        store.add(STATES[0].cuda())
    assert store.places() == ["cuda", "cpu", "disk"]
    assert all(torch.equal(store[index].cpu(), STATES[0]) for index in range(3))


def test_cache_on_disk_gives_the_same_logits(lm: LanguageModel, memory: DocumentMemory):
    fast = HiddenStateCache(lm, BATCHES, [0, 1], 1)
    slow = HiddenStateCache(lm, BATCHES, [0, 1], 1, cpu_gb=1e-9)
    assert slow.store.places() == ["disk", "disk"]
    for index in range(2):
        assert torch.equal(slow.logits(index, memory, None), fast.logits(index, memory, None))


def test_what_lies_in_a_file_goes_to_a_gpu_with_room_and_nowhere_else():
    store = HiddenStateStore(gpu_gb=1.0, cpu_gb=1.0)
    store._left["meta"] = STATES[0].nbytes  # stands for a GPU
    for _ in range(2):
        store.add(STATES[0], torch.device("meta"), mapped=True)
    assert store.places() == ["meta", "disk"]
    assert store[0].device.type == "meta"
    assert store[1] is STATES[0]
    assert store._folder is None


def test_a_batch_in_which_nothing_is_predicted_is_refused():
    lm = toy_lm()
    with pytest.raises(DocmemError, match="one token in each row"):
        HiddenStateCache(lm, [*BATCHES, lm.tokenize(["a"])], [0, 1, 2], -1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_memory_in_another_number_format_is_read_in_float32(
    dtype: torch.dtype, memory: DocumentMemory
):
    lm, text = toy_lm(), "Two white flashes every twenty seconds"
    wanted = {one.title: one.ce for one in attribute(lm, copy.deepcopy(memory), -1, text)}
    found = {one.title: one.ce for one in attribute(lm, memory.to(dtype), -1, text)}
    assert found == pytest.approx(wanted, abs=0.05)
