"""How a torch network should look in a graph: chains of operators as single ones, names that say what is what."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from contextlib import contextmanager

import onnx_ir as ir
from torch import Tensor, nn
from transformers.activations import FastGELUActivation, NewGELUActivation

from mmensemble_estimators.backbones.writers.static_cache import LATER

__all__ = ["attention_in_groups", "name_of", "raise_opset", "take_single_operators"]

# By this variable transformers leaves groups to the operator also where torch has no fast kernel for them.
_GROUPS = "TRANSFORMERS_SDPA_FORCE_GQA"

# Modules around a network that say nothing about it.
_WRAPPERS = ("module", "encoder", "network", "backbone")


class _GlobalMean(nn.Module):
    """What an adaptive average pooling to 1 × 1 gives; of that the exporter makes a gather by computed indices."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.mean(dim=(-2, -1), keepdim=True)


def take_single_operators(module: nn.Module) -> None:
    """Put others in the place of submodules that export as chains of operators.

    They compute the same by one operator: ``Gelu(approximate="tanh")`` for GPT-2's activation, ``ReduceMean`` for an
    average over all places of a map.

    Parameters
    ----------
    module : nn.Module
        Changed.
    """
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, (NewGELUActivation, FastGELUActivation)):
                setattr(parent, name, nn.GELU(approximate="tanh"))
            elif isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size in (1, (1, 1)):
                setattr(parent, name, _GlobalMean())


@contextmanager
def attention_in_groups() -> Iterator[None]:
    """Let attention in groups (Ainslie et al. 2023) get its few keys and values, in place of copies for every head.

    The environment is the process's: a network that predicts meanwhile does the same, and computes the same by it.
    """
    before = os.environ.get(_GROUPS)
    os.environ[_GROUPS] = "1"
    try:
        yield
    finally:
        del os.environ[_GROUPS]
        if before is not None:
            os.environ[_GROUPS] = before


def raise_opset(model: ir.Model, opset: int) -> None:
    """Bring an exported model to a later opset, with the operators of that opset which are in the domain `LATER`.

    The exporter makes single operators of RMS normalisation and of rotary embeddings at opset 23 alone, so a network is
    exported at that one.
    """
    from onnxscript.version_converter import convert_version

    if model.opset_imports[""] == opset:
        return
    convert_version(model, opset)
    for node in model.graph:
        if node.domain == LATER:
            node.domain, node.version = "", opset
    model.opset_imports.pop(LATER, None)


def name_of(item: ir.Node | ir.Value) -> str:
    """Name a node of an exported network by its module and operator, a weight as in torch.

    Parameters
    ----------
    item : Node or Value
        A node, or an initializer.

    Returns
    -------
    str
        Such as ``encoder.layer.0.output.dense/Gemm`` or ``encoder.layer.0.output.dense.weight``; ``"constant"`` of
        numbers that are nobody's weights.
    """
    if isinstance(item, ir.Node):
        module = _module_of(item)
        return f"{module}/{item.op_type}" if module else item.op_type
    if str(item.name).startswith("module."):
        return _without_wrappers(str(item.name))
    # The exporter has computed it, from weights as the transposed ones of a linear layer, or from numbers.
    user = next((use.node for use in item.uses()), None)
    is_weight = user is not None and user.op_type in ("Conv", "Gemm", "MatMul") and user.inputs[1] is item
    return f"{_module_of(user)}.weight".lstrip(".") if user is not None and is_weight else "constant"


def _module_of(node: ir.Node) -> str:
    """Return the path of the module that a node comes from; empty where the exporter does not say."""
    scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
    path = scopes[-2] if len(scopes) > 1 else ""
    return _without_wrappers(path) if path.startswith("module") else ""


def _without_wrappers(path: str) -> str:
    for wrapper in _WRAPPERS:
        path = "" if path == wrapper else path.removeprefix(f"{wrapper}.")
    return path
