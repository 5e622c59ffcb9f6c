"""One forward of the frozen LM: its inputs, as far as a given module."""

import inspect
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from torch.nn import functional

from docmem.core.hook import Hooked
from docmem.errors import DocmemError


class TokenBatch(NamedTuple):
    """Tokens of several segments, padded on the left."""

    input_ids: Int[Tensor, "batch seq"]
    attention_mask: Bool[Tensor, "batch seq"]

    @property
    def predicted(self) -> Bool[Tensor, "batch predicted"]:
        """Which of tokens 1… are predicted from a real token: pads never count in a loss."""
        return self.attention_mask[:, 1:] & self.attention_mask[:, :-1]


def check_bare(blocks: Iterable[nn.Module]) -> None:
    """Raise DocmemError if a memory is attached to the LM's blocks: all is read through it."""
    hooks = [hook for block in blocks for hook in block._forward_hooks.values()]
    if any(isinstance(getattr(hook, "__self__", None), Hooked) for hook in hooks):
        raise DocmemError(
            "A memory is attached to this LM, and this would be read through it. Leave the "
            "`with attach(…)` first: what needs a memory attaches it by itself."
        )


_IN_USE: WeakKeyDictionary[nn.Module, tuple[int, int]] = WeakKeyDictionary()
"""Of the LMs that a thread has for itself now: which thread, and how often."""
_LOCK = threading.RLock()


def check_thread(owner: int) -> None:
    """Raise unless the current thread is the one that has changed an LM for itself."""
    if not torch.compiler.is_compiling() and owner != threading.get_ident():
        raise DocmemError(
            "This LM is in use in another thread, which reads it otherwise than it is. Wait for "
            "that one to end, or give each thread an LM of its own."
        )


@contextmanager
def owned(model: nn.Module) -> Iterator[None]:
    """Within: the current thread has the LM for itself; DocmemError if another one has."""
    with _LOCK:
        thread, depth = _IN_USE.get(model, (threading.get_ident(), 0))
        check_thread(thread)
        _IN_USE[model] = thread, depth + 1
    try:
        yield
    finally:
        with _LOCK:
            if depth:
                _IN_USE[model] = thread, depth
            else:
                del _IN_USE[model]


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Within: no parameter of `model` requires a gradient and dropout is off. After: as before.

    Raises:
        DocmemError: as `owned`; or if the LM was made in inference mode.
    """
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise DocmemError(
            "This LM was made within torch.inference_mode(), so nothing can be learned through it. "
            "Make it outside."
        )
    with owned(model):
        required = {parameter: parameter.requires_grad for parameter in model.parameters()}
        modes = {module: module.training for module in model.modules()}
        try:
            model.requires_grad_(False)
            model.eval()
            yield
        finally:
            for parameter, flag in required.items():
                parameter.requires_grad_(flag)
            for module, mode in modes.items():
                module.training = mode


@contextmanager
def plain_arithmetic() -> Iterator[None]:
    """Within: float32 on the CPU by default, no autocast, no inference mode, whatever was set.

    Also a decorator.
    """
    with torch.inference_mode(False), ExitStack() as stack:
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        if torch.get_default_device().type != "cpu":  # each call would ask for it
            stack.enter_context(torch.device("cpu"))
        for device in ("cpu", "cuda", "mps"):
            stack.enter_context(torch.autocast(device, enabled=False))
        yield


def without_dropout(model: nn.Module) -> AbstractContextManager[None]:
    """`frozen`, where the LM is in training mode."""
    return frozen(model) if model.training else nullcontext()


def unwrapped(model: Any) -> Any:
    """The LM in a wrapper of torch.compile or peft, whose own forward does not name its inputs."""
    while True:
        if isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod
        elif hasattr(model, "get_base_model"):
            model = model.get_base_model()
        else:
            return model


def forward_inputs(model: nn.Module, batch: TokenBatch) -> dict[str, Any]:
    """The keyword arguments of one forward: positions count from each row's first real token."""
    known = inspect.signature(unwrapped(model).forward).parameters
    inputs: dict[str, Any] = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask.long(),
        "use_cache": False,
    }
    if "output_router_logits" in known:  # of a mixture of experts; they are no part of the loss
        inputs["output_router_logits"] = False
    if "position_ids" in known:
        positions = batch.attention_mask.long().cumsum(1) - 1
        inputs["position_ids"] = positions.clamp_min(0)
    return inputs


_CHECKED: WeakKeyDictionary[nn.Module, set[int]] = WeakKeyDictionary()
"""LMs that were seen to read with so many pads as without."""


@torch.no_grad()
def check_reading(model: Any, batches: Sequence[TokenBatch]) -> None:
    """Raise unless the LM reads a row in a batch as it reads it alone, and only what came before.

    Recurrent LMs and decoders of encoder-decoders may read pads, and some LMs count positions
    otherwise; then every number would be a little false. An LM that sees the tokens it should
    predict, as BERT does, has nothing to learn.
    """
    first = batches[0]
    ids = first.input_ids[first.attention_mask][None, :3]
    pads = 0 if all(batch.attention_mask.all() for batch in batches) else 2
    if pads in _CHECKED.setdefault(model, set()):
        return
    row = TokenBatch(
        functional.pad(ids, (pads, 0), value=int(ids[0, 0])),
        functional.pad(torch.ones_like(ids).bool(), (pads, 0), value=False),
    )
    alone = model(input_ids=ids, use_cache=False).logits.float()
    read = model(**forward_inputs(model, row)).logits[:, pads:].float()
    fewer = model(input_ids=ids[:, :-1], use_cache=False).logits.float()
    if alone.shape[1] != ids.shape[1]:
        raise DocmemError(
            f"{type(model).__name__} reads {alone.shape[1]} tokens where it is given "
            f"{ids.shape[1]}, as with prompt tuning; give an LM that adds none."
        )
    if (alone[:, :-1] - fewer).norm() > rounding(model) * fewer.norm():
        raise DocmemError(
            f"{type(model).__name__} sees the tokens that follow: it is no causal LM as it is set. "
            "Give another LM."
        )
    if not (read - alone).norm() <= rounding(model) * alone.norm():  # nor where they are no numbers
        advice = "Give batch_size 1, so that nothing is padded, or" if pads else "Give"
        raise DocmemError(
            f"{type(model).__name__} reads text in a batch otherwise than alone: it does not keep "
            f"pads or positions apart as docmem needs it. {advice} another LM."
        )
    _CHECKED[model].add(pads)


def rounding(model: Any) -> float:
    """How far logits of one and the same reading may lie apart, as a share of their norm."""
    return 1e-3 if model.dtype == torch.float32 else 0.25


class _StopForward(Exception):  # noqa: N818 - a signal, not an error
    """Ends a forward early."""


def forward_until(
    model: nn.Module, batch: TokenBatch, register: Callable[[Callable[..., None]], Any]
) -> Any:
    """Run a forward until a module is called, and no further.

    Args:
        model: a causal LM.
        batch: what it reads.
        register: `register_forward_hook` or `register_forward_pre_hook` of a module of it.

    Returns:
        The hook's last argument: the module's output, or its positional arguments.

    Raises:
        DocmemError: if the module is not called, as a block that reads images alone.
    """
    caught: list[Any] = []
    reader = threading.get_ident()

    def catch(*arguments: Any) -> None:
        # Another thread's forward goes on. (What is compiled cannot ask for its thread.)
        if torch.compiler.is_compiling() or threading.get_ident() == reader:
            caught.append(arguments[-1])
            raise _StopForward

    handle = register(catch)
    try:
        model(**forward_inputs(model, batch))
    except _StopForward:
        pass
    finally:
        handle.remove()
    if not caught:
        raise DocmemError(
            f"{type(model).__name__} does not run that block for text alone; give another layer."
        )
    return caught[0]
