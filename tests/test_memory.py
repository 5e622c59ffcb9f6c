"""The memory's formula, its initial weights, and how its documents are called."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from docmem.core.config import MemoryConfig
from docmem.core.memory import DocumentMemory
from docmem.errors import DocmemError

D_MODEL, ENTRIES, DOCS, WIDTH = 16, 8, 5, 6


def make(titles: list[str] | None = None, **changes) -> DocumentMemory:
    torch.manual_seed(0)
    settings = {"d_model": D_MODEL, "n_docs": DOCS, "memory_dim": ENTRIES, **changes}
    memory = DocumentMemory(MemoryConfig(**settings), titles)
    with torch.no_grad():
        for name, parameter in memory.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    return memory


def linear(memory: DocumentMemory, name: str, x: Tensor) -> Tensor:
    state = memory.state_dict()
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def by_hand(memory: DocumentMemory, h: Tensor, k_doc: Tensor | float) -> Tensor:
    k_tok = gelu(linear(memory, "token_key", h))
    values = linear(memory, "values", k_tok * k_doc)
    return h + gelu(linear(memory, "output", values))


def gate(x: Tensor) -> Tensor:
    return x[..., :ENTRIES] * x[..., ENTRIES:] / (1 + torch.exp(-x[..., ENTRIES:]))


ACTIVATIONS = {
    "relu": lambda x: x * (x > 0),
    "tanh": lambda x: 1 - 2 / (torch.exp(2 * x) + 1),
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
    "swiglu": gate,
}
HIDDEN = torch.randn(3, 7, D_MODEL, generator=torch.Generator().manual_seed(1))
PRECISE = HIDDEN.double()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_linear_memory_follows_the_formula(name: str):
    memory = make(key_activation=name).double()
    doc_rep = memory.doc_reps[2]
    k_doc = ACTIVATIONS[name](linear(memory, "document_key", doc_rep))
    assert k_doc.shape == (ENTRIES,)
    torch.testing.assert_close(memory.select(doc_rep), k_doc)
    torch.testing.assert_close(memory(PRECISE, doc_rep), by_hand(memory, PRECISE, k_doc))


@pytest.mark.parametrize(
    ("layers", "parts"),
    [(1, []), (2, ["0", "2", "4"]), (None, ["0", "2", "4"]), (3, ["0", "2", "4", "6"])],
)
@pytest.mark.parametrize("name", ["tanh", "swiglu"])
def test_nonlinear_memory_follows_the_formula(layers: int | None, parts: list[str], name: str):
    memory = make(
        key_activation=name,
        document_key_module_type="nonlinear",
        key_internal_layers=layers,
        key_internal_dim=WIDTH,
        key_dim=3,
    ).double()
    x = memory.doc_reps[1]
    if not parts:
        x = linear(memory, "document_key", x)
    for part in parts:
        x = linear(memory, f"document_key.{part}", x)
        x = x if part == parts[-1] else x * (x > 0)
    k_doc = ACTIVATIONS[name](x)
    out = memory(PRECISE, memory.doc_reps[1])
    torch.testing.assert_close(out, by_hand(memory, PRECISE, k_doc))


def test_activation_inside_a_nonlinear_key_generator_can_be_chosen():
    memory = make(document_key_module_type="nonlinear", key_internal_activation="tanh")
    x = memory.doc_reps
    for part in "024":
        x = torch.tanh(linear(memory, f"document_key.{part}", x))
    torch.testing.assert_close(memory.select(memory.doc_reps), x)


def test_without_a_document_all_entries_are_open():
    memory = make()
    torch.testing.assert_close(memory(HIDDEN), by_hand(memory, HIDDEN, 1.0), atol=1e-5, rtol=1e-5)


def test_each_row_is_read_under_its_own_doc_rep():
    memory = make()
    together = memory(HIDDEN, memory.doc_reps[[4, 0, 2]])
    for row, document in enumerate((4, 0, 2)):
        alone = memory(HIDDEN[row : row + 1], memory.doc_reps[document])
        torch.testing.assert_close(together[row : row + 1], alone)


@pytest.mark.parametrize("shape", [(3,), (2, 2), (3, 3), (1, 3, 2)])
def test_doc_rep_of_another_shape_is_rejected(shape: tuple[int, ...]):
    with pytest.raises(DocmemError, match=r"\(3, 7, 16\); give \(2,\), or one per row: \(3, 2\)"):
        make()(HIDDEN, torch.zeros(shape))


def test_state_dict_is_the_linear_memory_and_nothing_else():
    shapes = {name: tuple(tensor.shape) for name, tensor in make().state_dict().items()}
    assert shapes == {
        "doc_reps": (DOCS, 2),
        "token_key.weight": (ENTRIES, D_MODEL),
        "token_key.bias": (ENTRIES,),
        "document_key.weight": (ENTRIES, 2),
        "document_key.bias": (ENTRIES,),
        "values.weight": (D_MODEL, ENTRIES),
        "values.bias": (D_MODEL,),
        "output.weight": (D_MODEL, D_MODEL),
        "output.bias": (D_MODEL,),
    }


@pytest.mark.parametrize(
    ("layers", "widths"),
    [(1, [2, 16]), (2, [2, WIDTH, WIDTH, 16]), (3, [2, WIDTH, WIDTH, WIDTH, 16])],
)
def test_nonlinear_key_generator_has_its_layers(layers: int, widths: list[int]):
    memory = make(
        key_activation="swiglu",
        document_key_module_type="nonlinear",
        key_internal_layers=layers,
        key_internal_dim=WIDTH,
    )
    linears = [m for m in memory.document_key.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linears] == list(itertools.pairwise(widths))


def test_every_weight_starts_orthogonal_with_gain_root_two_and_every_bias_at_zero():
    config = MemoryConfig(D_MODEL, DOCS, ENTRIES, document_key_module_type="nonlinear")
    state = DocumentMemory(config).state_dict()
    assert len(state) == 13
    for name, tensor in state.items():
        if name.endswith("bias"):
            assert not tensor.any(), name
        else:
            short = tensor if tensor.shape[0] <= tensor.shape[1] else tensor.T
            torch.testing.assert_close(short @ short.T, 2 * torch.eye(len(short)), msg=name)


def test_doc_reps_are_fixed():
    memory = make()
    assert "doc_reps" not in dict(memory.named_parameters())
    memory(HIDDEN, memory.doc_reps[0]).sum().backward()
    assert memory.doc_reps.grad is None
    assert all(parameter.grad is not None for parameter in memory.parameters())


def test_float32_memory_returns_bfloat16_for_a_bfloat16_lm():
    memory, h = make(), HIDDEN.bfloat16()
    out = memory(h, memory.doc_reps[0])
    k_doc = torch.tanh(linear(memory, "document_key", memory.doc_reps[0]))
    added = by_hand(memory, h.float(), k_doc)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, h + (added - h.float()).bfloat16())
    out.sum().backward()
    assert {p.grad.dtype for p in memory.parameters()} == {torch.float32}


def test_index_of_takes_title_or_index():
    memory = make(["Odalys", "Thornwick", "Quillon", "Perpetua", "Halden"])
    assert [memory.index_of(name) for name in ("Quillon", 0, 4, -1, -5)] == [2, 0, 4, 4, 0]
    with pytest.raises(DocmemError, match=r"called '0'\. The first is called"):
        memory.index_of("0")
    with pytest.raises(DocmemError, match=r"'Thornwyck'\. Did you mean 'Thornwick'"):
        memory.index_of("Thornwyck")
    for index in (5, -6):
        with pytest.raises(DocmemError, match=f"no document {index}: this memory holds 5, 0 to 4"):
            memory.index_of(index)
    with pytest.raises(DocmemError, match="no document called 'Odalys'"):
        make().index_of("Odalys")


def test_titles_must_match_the_documents():
    with pytest.raises(DocmemError, match="2 titles were given for 5 documents"):
        make(["A", "B"])


@pytest.mark.parametrize("field", ["key_activation", "lm_act"])
def test_unknown_activation_is_rejected_with_the_known_ones(field: str):
    with pytest.raises(DocmemError, match=r"no activation 'gelo' .*one of .*gelu(.|\n)*swiglu"):
        make(**{field: "gelo"})


@pytest.mark.parametrize(
    ("field", "name"), [("lm_act", "swiglu"), ("lm_act", "prelu"), ("key_activation", "prelu")]
)
def test_activation_that_halves_its_input_or_has_weights_is_rejected(field: str, name: str):
    with pytest.raises(DocmemError, match=f"no activation '{name}' to use here"):
        make(**{field: name})
