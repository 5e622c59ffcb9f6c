"""Pretended devices: CPU tensors with the name of a device, and what CUDA refuses refused.

    with pretended_devices():
        x = torch.ones(3).to("cuda:0")
        x + torch.ones(3)               # RuntimeError: two devices

`Tensor.device`, `.to`, `.cpu` and factories with `device=` see the pretended device. Every
operation, also of the backward pass, refuses tensors of two devices, except what torch allows:
numbers and indices from the CPU, and copies. A tensor of unknown place meets any other.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CPU = torch.device("cpu")
COPIES = (torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default)
INDEXED = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default)


def place(tensor: Tensor) -> torch.device | None:
    """The pretended device of a tensor, which views share; None: unknown."""
    return getattr(tensor.untyped_storage(), "place", None)


def _mark(tensor: Tensor, device: torch.device) -> Tensor:
    tensor.untyped_storage().place = device
    return tensor


def put(found: Any, device: torch.device | None) -> Any:
    """Mark the tensors in `found` whose place is unknown."""
    for tensor in tree_leaves(found):
        if isinstance(tensor, Tensor) and device is not None and place(tensor) is None:
            _mark(tensor, device)
    return found


class _Move(torch.autograd.Function):
    """A copy on another device, and its gradient copied back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, device: torch.device) -> Tensor:
        ctx.back = place(tensor) or CPU
        return _copied(tensor, device)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _copied(grad, ctx.back), None


def _copied(tensor: Tensor, device: torch.device) -> Tensor:
    return _mark(tensor.detach().clone(), device)


class _Refuse(TorchDispatchMode):
    """Below autograd: no operation takes tensors of two devices."""

    def __init__(self, without_float64: str | None) -> None:
        super().__init__()
        self.without_float64 = without_float64

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        if func in INDEXED and place(args[0]) != CPU:
            given = [x for x in given if x is args[0] or place(x) != CPU]
        known = {place(x) for x in given if x.dim() or place(x) != CPU} - {None}
        if len(known) > 1 and func not in COPIES:
            raise RuntimeError(f"{func} meets tensors on {sorted(map(str, known))}")
        where = place(args[0]) if func in COPIES else next(iter(known), CPU if given else None)
        found = put(func(*args, **(kwargs or {})), where)
        for tensor in tree_leaves(found):
            double = isinstance(tensor, Tensor) and tensor.dtype == torch.float64
            if double and str(place(tensor)) == self.without_float64:
                raise TypeError(f"{self.without_float64} has no float64")
        return found


class _Pretend(TorchFunctionMode):
    """Above autograd: devices are asked for and given by name."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == Tensor.device.__get__:
            return place(args[0]) or CPU
        if func == Tensor.cpu:
            return self._moved(args[0], CPU)
        if func == Tensor.to:
            return self._to(*args, **kwargs)
        device = kwargs.pop("device", None)
        found = func(*args, **kwargs)
        if device is not None:
            for tensor in tree_leaves(found):
                _mark(tensor, _named(device))
            return found
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        known = {place(x) for x in given} - {None}
        return put(found, next(iter(known)) if len(known) == 1 else None if given else CPU)

    def _to(self, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        wanted = [*args, kwargs.get("device"), kwargs.get("dtype")]
        for other in (x for x in args if isinstance(x, Tensor)):
            wanted += [other.dtype, place(other)]
        dtype = next((x for x in wanted if isinstance(x, torch.dtype)), tensor.dtype)
        found = put(tensor.to(dtype), place(tensor))
        named = [x for x in wanted if isinstance(x, torch.device | str) or type(x) is int]
        return self._moved(found, _named(named[0])) if named else found

    def _moved(self, tensor: Tensor, device: torch.device) -> Tensor:
        if (place(tensor) or CPU) == device:
            return put(tensor, device)
        return _Move.apply(tensor, device)


def _named(device: Any) -> torch.device:
    named = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    return torch.device("cuda", 0) if named.type == "cuda" and named.index is None else named


@contextmanager
def pretended_devices(without_float64: str | None = None) -> Iterator[None]:
    """Within: tensors have pretended devices, and meet only on one; one may lack a format."""
    size = SimpleNamespace(total_memory=16_000_000_000)
    sized = mock.patch.object(torch.cuda, "get_device_properties", lambda _: size)
    with sized, _Pretend(), _Refuse(without_float64):
        yield
