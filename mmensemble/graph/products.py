"""Products of matrices in a graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from mmensemble.graph.parts import Tensor

__all__ = ["linear"]


def linear(source: Tensor, weight: np.ndarray, bias: np.ndarray, *, large: bool = False) -> ir.Value:
    """Multiply by coefficients (n_features, n_outputs) and add intercepts (n_outputs,).

    Where most of a row is 0, only the coefficients of the rest are looked up. The result is float32; or float64 where
    it is `large`, and differences of its columns count.
    """
    graph = source.graph
    if large:
        blocks = tuple(replace(block, value=graph.double(block.value)) for block in source.blocks)
        source = replace(source, value=graph.double(source.exact), blocks=blocks)
    finish = graph.double if large else graph.single
    if not any(block.terms for block in source.blocks):
        dtype = np.float64 if source.exact.dtype == ir.DataType.DOUBLE else np.float32
        coefficients = graph.constant(np.ascontiguousarray(weight, dtype=dtype), "coef")
        return finish(
            graph.op("Gemm", source.exact, coefficients, graph.constant(np.asarray(bias, dtype=dtype), "intercept"))
        )
    intercepts = graph.constant(np.asarray(bias, dtype=np.float64 if large else np.float32), "intercept")
    total, start = None, 0
    for block in source.blocks:
        exact = block.terms is None and block.value.dtype == ir.DataType.DOUBLE
        dtype = np.float64 if large or exact else np.float32
        part = np.ascontiguousarray(weight[start : start + block.width], dtype=dtype)
        coefficients = graph.constant(part, "coef")
        start += block.width
        if block.terms is None:
            product = finish(graph.op("MatMul", block.value, coefficients))
        else:
            rows = graph.op("Gather", coefficients, block.terms.columns, axis=0)
            across = graph.op("Unsqueeze", finish(block.terms.values), graph.constant(np.asarray([1])))
            product = graph.op("Squeeze", graph.op("MatMul", across, rows), graph.constant(np.asarray([1])))
        total = product if total is None else graph.op("Add", total, product)
    return graph.op("Add", total, intercepts)
