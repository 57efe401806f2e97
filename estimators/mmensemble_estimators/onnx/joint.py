"""Joint fusions as parts of an ONNX graph."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn

from mmensemble.exceptions import ExportError
from mmensemble.graph import (
    ENCODER_SCOPE,
    Frame,
    GraphOperations,
    Outputs,
    Source,
    any_present,
    refuse_where_present,
    to_graph,
)
from mmensemble_estimators.backbones.encoder import Encoder
from mmensemble_estimators.base.estimator import TorchEstimator
from mmensemble_estimators.joint.fusion import JointFusion
from mmensemble_estimators.joint.members import Standardize
from mmensemble_estimators.joint.network import JointNetwork, with_missing
from mmensemble_estimators.onnx.leaves import leaf_feed
from mmensemble_estimators.onnx.networks import add_linear, add_module, typed

__all__ = ["joint_graph"]


class _Fuse(nn.Module):
    """What fuses the representations of a joint network, and its tokens for missing ones.

    Keywords: ``present`` (batch, n_modalities), and for each modality ``<m>`` (batch, size), or ``<m>`` (batch, length,
    size) and ``<m>.mask`` (batch, length).
    """

    def __init__(self, network: JointNetwork) -> None:
        super().__init__()
        self.fuser, self.missing = network.fuser, network.missing

    def forward(self, present: Tensor, **parts: Tensor) -> Tensor:
        encoded: list[Any] = []
        for m in range(len(self.missing)):
            part = parts[str(m)]
            if not self.fuser.token_level:
                encoded.append(part)
            elif f"{m}.mask" in parts:
                encoded.append((part, parts[f"{m}.mask"]))
            else:
                encoded.append((part.unsqueeze(1), torch.ones_like(part[:, :1], dtype=torch.bool)))
        fused: Tensor = self.fuser(with_missing(encoded, present, self.missing))
        return fused


class _Tokens(nn.Module):
    """An encoder's `tokens`."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        return self.encoder.tokens(**inputs)


@to_graph.register
def joint_graph(fusion: JointFusion, source: Source | None = None) -> Outputs:
    """Add a joint fusion: its members' representations, the fuser with its tokens for missing ones, the head."""
    source = Frame() if source is None else source
    if not isinstance(source, Frame):
        raise ExportError("a composition takes columns of X, and stands behind a step that makes a matrix")
    graph, network = source.graph, fusion.network_
    parts: dict[str, ir.Value] = {}
    present: list[ir.Value] = []
    for number, member in enumerate(fusion.members_):
        size = network.missing[number].shape[0]
        inner = source.member(member.name, member.columns, member.kinds)
        with graph.scope(member.name):
            if network.fuser.token_level and isinstance(member.estimator, TorchEstimator):
                inputs, row_present = leaf_feed(member.estimator, inner)
                with graph.scope(ENCODER_SCOPE):
                    states, mask = add_module(graph, _Tokens(member.estimator.module_.encoder), inputs)
                length = f"{number}.length"
                parts[str(number)] = typed(states, ["batch", length, size], ir.DataType.FLOAT)
                parts[f"{number}.mask"] = typed(mask, ["batch", length], ir.DataType.BOOL)
            else:
                before = len(graph.refusals)
                outputs = to_graph(member.estimator, inner)
                if outputs.transformed is None or outputs.present is None:
                    raise ExportError(
                        f"member {member.name!r} ({type(member.estimator).__name__}) gives no representation"
                    )
                refuse_where_present(graph, before, outputs.present)
                embedding, row_present = graph.single(outputs.transformed), outputs.present
                encoder = network.encoders[number]
                if isinstance(encoder, Standardize):
                    mean, scale = (graph.constant(b.cpu().numpy()[None], n) for n, b in encoder.named_buffers())
                    embedding = graph.op("Div", graph.op("Sub", embedding, mean), scale)
                parts[str(number)] = typed(embedding, ["batch", size], ir.DataType.FLOAT)
            present.append(row_present)
    with graph.scope(type(fusion).__name__):
        everywhere = graph.op("Concat", *present, axis=1) if len(present) > 1 else present[0]
        parts["present"] = typed(everywhere, ["batch", len(present)], ir.DataType.BOOL)
        (fused,) = add_module(graph, _Fuse(network), parts)
        weight, bias = (parameter.detach().cpu().numpy() for parameter in (network.head.weight, network.head.bias))
        raw = add_linear(graph, fused, weight, bias)
        any_there = any_present(graph, present)
        xp = GraphOperations(graph)
        scores = fusion.target_.activate(xp, xp.of(raw))
        result = xp.where(xp.of(any_there), scores, xp.constant(fusion.prior_[None], "prior")).value
    return Outputs(graph, **{fusion.task_.output: result}, transformed=fused, present=any_there, task=fusion.task_)
