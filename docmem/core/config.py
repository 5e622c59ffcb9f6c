"""The shape of a document memory (section 3 of the paper)."""

from dataclasses import dataclass
from typing import Literal

from docmem.errors import Count, DocmemError, check_fields, checked

KeyModule = Literal["linear", "nonlinear"]


@checked
@dataclass(frozen=True)
class MemoryConfig:
    """The shape of a document memory. Names are those of the authors' program where it has one.

    Raises:
        DocmemError: if a value cannot work, or one of the `key_internal_…` is given without a
            nonlinear key generator.
    """

    d_model: Count
    """Width of the LM's hidden states."""
    n_docs: Count
    """Documents, each with one DocRep."""
    memory_dim: Count = 32
    """Memory entries."""
    key_dim: Count = 2
    """Length of a DocRep 𝒦."""
    key_activation: str = "tanh"
    """act_key on the key generator's output: relu, tanh, sigmoid, swiglu, or any activation of
    transformers."""
    lm_act: str = "gelu"
    """act_lm on token keys and output."""
    document_key_module_type: KeyModule = "linear"
    """The key generator g: one Linear, or a stack of them."""
    key_internal_dim: Count | None = None
    """Width H inside a nonlinear g; None: memory_dim."""
    key_internal_activation: str | None = None
    """Activation inside a nonlinear g; None: relu."""
    key_internal_layers: Count | None = None
    """Hidden layers n of a nonlinear g; 1 is the linear case, as in that program; None: 2."""

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("key_internal_dim", "key_internal_layers", "key_internal_activation"):
            value = getattr(self, name)
            if value is not None and self.document_key_module_type == "linear":
                raise DocmemError(
                    f"{name} is {value!r}, but a linear key generator has nothing inside. "
                    'Set document_key_module_type to "nonlinear", or leave it out.'
                )
