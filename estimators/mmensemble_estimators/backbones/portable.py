"""Networks on the CPU for what writes them, while the network itself stays where it is: another thread may use it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any, Self, TypeVar

from torch import Tensor, nn

__all__ = ["Portable", "on_cpu"]

M = TypeVar("M", bound=nn.Module)


class Portable(nn.Module):
    """A network whose pickle holds its weights from the CPU, so that a machine without its device can read them."""

    def pickled_apart(self) -> Iterable[nn.Module]:
        """Return the parts that other networks may hold as well: a pickle has each of them once."""
        return ()

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = copy.deepcopy(vars(self), _known(self, self.pickled_apart()))
        return state

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy the network to the device that it lies on, which `__getstate__` would not."""
        copied = memo[id(self)] = type(self).__new__(type(self))
        vars(copied).update(copy.deepcopy(vars(self), memo))
        return copied


def on_cpu(module: M) -> M:
    """Return a copy of a network that lies on the CPU.

    Its weights are the network's own where these lie there already; what it is made of can be changed.
    """
    return copy.deepcopy(module, _known(module))


def _known(module: nn.Module, apart: Iterable[nn.Module] = ()) -> dict[int, Any]:
    """Return what `copy.deepcopy` is to put in the place of a network's tensors, by identity, and the parts to keep."""
    known: dict[int, Any] = {id(part): part for part in apart}
    for tensor in _tensors(module, set(known)):
        known[id(tensor)] = tensor
        if tensor.device.type != "cpu":
            moved = tensor.detach().cpu()
            known[id(tensor)] = nn.Parameter(moved, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else moved
    return known


def _tensors(module: nn.Module, apart: set[int]) -> Iterator[Tensor]:
    yield from module.parameters(recurse=False)
    yield from module.buffers(recurse=False)
    yield from (value for value in vars(module).values() if isinstance(value, Tensor))
    for child in module.children():
        if id(child) not in apart:
            yield from _tensors(child, apart)
