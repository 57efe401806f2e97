"""Products of matrices in a graph."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mmensemble.graph.parts import Tensor

__all__ = ["linear"]


def linear(source: Tensor, weight: np.ndarray, bias: np.ndarray) -> ir.Value:
    """Multiply by coefficients (n_features, n_outputs) and add intercepts (n_outputs,).

    Where most of a row is 0, only the coefficients of the rest are looked up.
    """
    graph = source.graph
    if not any(block.terms for block in source.blocks):
        dtype = np.float64 if source.exact.dtype == ir.DataType.DOUBLE else np.float32
        coefficients = graph.constant(np.ascontiguousarray(weight, dtype=dtype), "coef")
        return graph.single(
            graph.op("Gemm", source.exact, coefficients, graph.constant(np.asarray(bias, dtype=dtype), "intercept"))
        )
    intercepts = graph.constant(np.asarray(bias, dtype=np.float32), "intercept")
    total, start = None, 0
    for block in source.blocks:
        dtype = np.float64 if block.terms is None and block.value.dtype == ir.DataType.DOUBLE else np.float32
        part = np.ascontiguousarray(weight[start : start + block.width], dtype=dtype)
        coefficients = graph.constant(part, "coef")
        start += block.width
        if block.terms is None:
            product = graph.single(graph.op("MatMul", block.value, coefficients))
        else:
            rows = graph.op("Gather", coefficients, block.terms.columns, axis=0)
            across = graph.op("Unsqueeze", graph.single(block.terms.values), graph.constant(np.asarray([1])))
            product = graph.op("Squeeze", graph.op("MatMul", across, rows), graph.constant(np.asarray([1])))
        total = product if total is None else graph.op("Add", total, product)
    return graph.op("Add", total, intercepts)
