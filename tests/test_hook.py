"""The memory inside the LM: right while attached, gone without a trace afterwards."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from toys import BLOCKS, FAMILIES, WIDTH, toy_batch, toy_lm

from docmem.core.config import MemoryConfig
from docmem.core.hook import attach
from docmem.core.memory import DocumentMemory
from docmem.documents import Document
from docmem.errors import DocmemError
from docmem.evaluation.attribution import BASE_LM, attribute
from docmem.evaluation.continuations import continuations
from docmem.lm.forward import TokenBatch, forward_inputs
from docmem.lm.generation import generate
from docmem.lm.hidden_states import HiddenStateCache
from docmem.lm.loading import LanguageModel
from docmem.training.run import Run

ROWS = torch.tensor([[1.0, 0.2], [-0.6, 0.9], [0.3, -1.1]])


def logits(model: nn.Module, batch: TokenBatch) -> Tensor:
    return model(**forward_inputs(model, batch)).logits


def naive_logits(lm: LanguageModel, memory: DocumentMemory, layer: int, batch, k_doc) -> Tensor:
    """The paper's formula in torch operations, in a hook of the test's own."""
    state = memory.state_dict()

    def linear(name: str, x: Tensor) -> Tensor:
        return functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def hook(_, __, output):
        h = output[0] if isinstance(output, tuple) else output
        k_tok = functional.gelu(linear("token_key", h))
        out = h + functional.gelu(linear("output", linear("values", k_tok * k_doc)))
        return (out, *output[1:]) if isinstance(output, tuple) else out

    handle = lm.blocks[layer].register_forward_hook(hook)
    try:
        return logits(lm.model, batch)
    finally:
        handle.remove()


@pytest.mark.parametrize("layer", range(BLOCKS))
@pytest.mark.parametrize("family", FAMILIES)
def test_attached_lm_computes_the_formula_row_by_row(
    family: str, layer: int, memory: DocumentMemory, batch: TokenBatch
):
    lm = toy_lm(family)
    state = memory.state_dict()
    keys = torch.tanh(ROWS @ state["document_key.weight"].T + state["document_key.bias"])
    plain = logits(lm.model, batch)
    for document, k_doc in ((ROWS, keys[:, None]), (ROWS[1], keys[1]), (None, torch.ones(24))):
        expected = naive_logits(lm, memory, layer, batch, k_doc)
        with attach(lm.model, memory, layer) as hooked, hooked.document(document):
            actual = logits(hooked.model, batch)
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
        assert (actual - plain).abs().max() > 0.01


def test_all_entries_equal_a_selection_of_ones(lm: LanguageModel, batch: TokenBatch):
    memory = DocumentMemory(MemoryConfig(WIDTH, 3, 24, key_activation="sigmoid"))
    nn.init.constant_(memory.document_key.bias, 100.0)
    with attach(lm.model, memory, 1) as hooked:
        without = logits(lm.model, batch)
        with hooked.document(0):
            assert torch.equal(memory.select(memory.doc_reps[0]), torch.ones(24))
            assert torch.equal(logits(lm.model, batch), without)


def test_document_is_the_same_by_title_index_and_doc_rep(
    lm: LanguageModel, memory: DocumentMemory, batch: TokenBatch
):
    calls = ["Thornwick Light", 1, -2, memory.doc_reps[1], memory.doc_reps[[1, 1, 1]]]
    with attach(lm.model, memory) as hooked:
        answers = []
        for call in calls:
            with hooked.document(call):
                answers.append(logits(lm.model, batch))
    for answer in answers[1:]:
        torch.testing.assert_close(answer, answers[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_padded_row_under_its_doc_rep_equals_the_row_alone(family: str, memory: DocumentMemory):
    lm, batch = toy_lm(family), toy_batch()
    with attach(lm.model, memory, 0) as hooked:
        with hooked.document(ROWS):
            together = logits(lm.model, batch)
        for row, doc_rep in enumerate(ROWS):
            real = batch.attention_mask[row]
            ids = batch.input_ids[row][real][None]
            with hooked.document(doc_rep):
                alone = lm.model(input_ids=ids, use_cache=False).logits[0]
            torch.testing.assert_close(together[row][real], alone, atol=1e-5, rtol=1e-5)


def test_a_document_can_be_entered_again_and_within_itself(
    lm: LanguageModel, memory: DocumentMemory, batch: TokenBatch
):
    with attach(lm.model, memory) as hooked:
        before, under = logits(lm.model, batch), hooked.document(1)
        with under:
            expected = logits(lm.model, batch)
        for _ in range(2):
            with under, hooked.document(0), under:
                assert torch.equal(logits(lm.model, batch), expected)
            assert torch.equal(logits(lm.model, batch), before)


def test_documents_nest_and_restore_even_after_an_error(
    lm: LanguageModel, memory: DocumentMemory, batch: TokenBatch
):
    with attach(lm.model, memory) as hooked:
        open_, answers = logits(lm.model, batch), {}
        for name in (0, 1):
            with hooked.document(name):
                answers[name] = logits(lm.model, batch)
        with hooked.document(0):
            with pytest.raises(KeyError), hooked.document(1):
                assert torch.equal(logits(lm.model, batch), answers[1])
                raise KeyError
            assert torch.equal(logits(lm.model, batch), answers[0])
            with hooked.document(None):
                assert torch.equal(logits(lm.model, batch), open_)
            assert torch.equal(logits(lm.model, batch), answers[0])
        assert torch.equal(logits(lm.model, batch), open_)


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_attach_restores_the_lm_exactly(lm: LanguageModel, memory: DocumentMemory, error):
    lm.model.lm_head.requires_grad_(True)
    lm.blocks[0].train()

    def snapshot() -> tuple:
        return (
            {name: tensor.clone() for name, tensor in lm.model.state_dict().items()},
            {name: p.requires_grad for name, p in lm.model.named_parameters()},
            {name: (module, module.training) for name, module in lm.model.named_modules()},
            [dict(vars(module)["_forward_hooks"]) for module in lm.model.modules()],
            [dict(vars(module)["_forward_pre_hooks"]) for module in lm.model.modules()],
            lm.model.config.to_dict(),
        )

    before, batch = snapshot(), toy_batch()
    plain = logits(lm.model, batch)
    try:
        with attach(lm.model, memory, 1) as hooked, hooked.document(0):
            logits(hooked.model, batch).sum().backward()
            if error:
                raise error
    except (RuntimeError, KeyboardInterrupt):
        pass
    weights, *rest = snapshot()
    assert rest == list(before[1:])
    assert weights.keys() == before[0].keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in before[0].items())
    assert torch.equal(logits(lm.model, batch), plain)


def test_inner_of_two_attached_memories_can_be_detached(
    lm: LanguageModel, memory: DocumentMemory, batch: TokenBatch
):
    with attach(lm.model, memory, 0) as outer, outer.document(0):
        alone = logits(lm.model, batch)
        with attach(lm.model, memory, 2) as inner, inner.document(1):
            assert not torch.allclose(logits(lm.model, batch), alone, atol=1e-2)
        assert torch.equal(logits(lm.model, batch), alone)


@pytest.mark.parametrize("layer", [BLOCKS, -BLOCKS - 1])
def test_layer_out_of_range_is_rejected_with_the_range(lm, memory: DocumentMemory, layer: int):
    with pytest.raises(DocmemError, match="0 to 2, or -3 to -1"), attach(lm.model, memory, layer):
        pass


def test_memory_of_another_width_is_rejected_with_both(lm: LanguageModel):
    other = DocumentMemory(MemoryConfig(WIDTH + 1, 3))
    with pytest.raises(DocmemError, match="width 33, not 32"), attach(lm.model, other):
        pass
    assert not any(block._forward_hooks for block in lm.blocks)


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ("Cyclone Odalis", "'Cyclone Odalis'. Did you mean 'Cyclone Odalys'"),
        (3, "no document 3: this memory holds 3, 0 to 2"),
        (torch.zeros(3), r"shape \(2,\), or \(rows, 2\), not \(3,\)"),
        (torch.zeros(1, 3, 2), r"not \(1, 3, 2\)"),
    ],
)
def test_resolve_rejects_unknown_document(lm, memory: DocumentMemory, document, complaint: str):
    with attach(lm.model, memory) as hooked:
        with pytest.raises(DocmemError, match=complaint), hooked.document(document):
            pass
        assert hooked.resolve(None) is None


@pytest.mark.parametrize("rows", [1, 2])
def test_doc_reps_that_do_not_fit_the_rows_are_rejected(lm, memory: DocumentMemory, batch, rows):
    """Also one for three rows: only generate() repeats rows, and then their DocReps."""
    says = rf"\({rows}, 2\) does not fit .* one per row: \(3, 2\)"
    with (
        attach(lm.model, memory) as hooked,
        hooked.document(ROWS[:rows]),
        pytest.raises(DocmemError, match=says),
    ):
        logits(lm.model, batch)


def test_gradient_checkpointing_is_rejected_while_training(lm, memory: DocumentMemory, batch):
    names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")  # 5.23, before
    getattr(lm.model, next(name for name in names if hasattr(lm.model, name)))()
    with attach(lm.model, memory) as hooked:
        logits(hooked.model, batch)
        lm.model.train()
        with pytest.raises(DocmemError, match=r"call model\.eval\(\)"):
            logits(hooked.model, batch)


@pytest.mark.parametrize("entered", [True, False])
def test_hooked_lm_cannot_be_used_outside_its_with(lm, memory: DocumentMemory, entered: bool):
    hooked = attach(lm.model, memory)
    if entered:
        with hooked:
            assert hooked.model is lm.model
    for use in (
        lambda: hooked.model,
        lambda: generate(hooked, lm.tokenizer, "The tower"),
        lambda: generate(hooked, lm.tokenizer, "The tower", 0),
        lambda: hooked.document(0).__enter__(),
        lambda: hooked.__exit__(None, None, None),
    ):
        with pytest.raises(DocmemError, match="not attached: use it inside its `with attach"):
            use()


def test_memory_is_attached_once_at_a_time_and_again_later(lm, memory: DocumentMemory, batch):
    hooked = attach(lm.model, memory)
    with hooked:
        once = logits(lm.model, batch)
        for again in (hooked, attach(lm.model, memory)):
            with pytest.raises(DocmemError, match="attached already"), again:
                pass
        assert torch.equal(logits(lm.model, batch), once)
    with hooked:
        assert torch.equal(logits(lm.model, batch), once)
    assert not any(block._forward_hooks for block in lm.blocks)


def test_memory_stays_whole_where_the_block_has_no_weights(lm, memory: DocumentMemory):
    lm.blocks[-1].to("meta")
    with pytest.raises(DocmemError, match="no weights here"), attach(lm.model, memory):
        pass
    assert not any(parameter.is_meta for parameter in memory.parameters())


def test_unknown_title_is_refused_where_it_is_named(lm, memory: DocumentMemory):
    with attach(lm.model, memory) as hooked, pytest.raises(DocmemError, match="no document 3"):
        hooked.document(3)  # no `with`


@pytest.mark.parametrize(
    "measure",
    [
        lambda lm, memory: attribute(lm, memory, -1, "The tower stands"),
        lambda lm, memory: HiddenStateCache(lm, [lm.tokenize(["The tower"])], [0], -1),
        lambda lm, memory: continuations(
            lm, memory, 2, Document("A", "The tower stands"), "The", {"base": BASE_LM}
        ),
    ],
)
def test_nothing_is_measured_through_a_memory_that_is_attached(lm, memory, measure):
    with (
        attach(lm.model, memory),
        pytest.raises(DocmemError, match=r"Leave the `with attach\(…\)` first"),
    ):
        measure(lm, memory)


@pytest.mark.parametrize("copied", [copy.deepcopy, pickle.dumps])
def test_an_lm_with_a_memory_in_it_is_not_copied(lm, memory: DocumentMemory, copied):
    told = "cannot be copied: leave its `with`"
    with attach(lm.model, memory) as hooked, pytest.raises(DocmemError, match=told):
        copied(hooked.model)
    copied(lm.model)
    with pytest.raises(DocmemError, match=told):
        copied(hooked)


def test_a_memory_may_change_its_number_format_under_a_document(lm, memory: DocumentMemory, batch):
    with attach(lm.model, memory) as hooked, hooked.document(0):
        expected = logits(hooked.model, batch)
        memory.double()
        found = logits(hooked.model, batch)
    assert torch.allclose(found, expected, atol=1e-4)


def test_a_document_that_was_never_left_is_not_in_force_when_attached_again(
    lm, memory: DocumentMemory
):
    hooked = attach(lm.model, memory)
    with hooked:
        hooked.document(0).__enter__()
        late = hooked.document(1)
    with pytest.raises(DocmemError, match="not attached"):
        late.__enter__()
    with hooked:
        assert hooked.doc_rep is None


def test_rows_are_repeated_for_generate_of_transformers_alone(lm, memory: DocumentMemory, batch):
    with attach(lm.model, memory) as hooked, hooked.document(memory.doc_reps[:2]):

        def generate() -> torch.Tensor:
            return hooked.model(input_ids=torch.ones(4, 3).long()).logits

        with pytest.raises(DocmemError, match="one per row"):
            generate()
        ids = hooked.model.generate(torch.ones(2, 3).long(), num_beams=2, max_new_tokens=2)
        assert len(ids) == 2


def test_a_trained_memory_is_refused_by_an_lm_without_weights(
    trained: tuple[LanguageModel, Run],
) -> None:
    lm = toy_lm()
    lm.blocks[0].to("meta")
    with pytest.raises(DocmemError, match="no weights here: load the LM without offload"):
        attach(lm.model, trained[1].load_memory())
    with pytest.raises(DocmemError, match="no weights here"):
        trained[1].check_lm(lm)


def test_another_memory_in_its_place_is_read(lm, memory: DocumentMemory, batch: TokenBatch):
    other = copy.deepcopy(memory)
    with torch.no_grad():
        other.values.weight.neg_()
    with attach(lm.model, other) as hooked, hooked.document(0):
        wanted = logits(lm.model, batch)
    with attach(lm.model, memory) as hooked:
        hooked.memory = other
        with hooked.document(0):
            assert torch.equal(logits(lm.model, batch), wanted)
