"""LSTMs that can be exported, any number of times and of any batch and length. Imports torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["run_lstm"]


def run_lstm(layer: Any, vectors: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Run an LSTM (Hochreiter and Schmidhuber 1997) from a state on; in an export as ONNX's operator.

    Left to itself, torch's exporter makes a loop of fixed length of an ``nn.LSTM``, at the latest the second time.

    Parameters
    ----------
    layer : nn.LSTM
        Of one layer and one direction, with the batch first.
    vectors : Tensor of float, shape (batch, length, input_size)
    hidden, cell : Tensor of float, shape (1, batch, hidden_size)

    Returns
    -------
    states : Tensor of float, shape (batch, length, hidden_size)
    hidden, cell : Tensor of float, shape (1, batch, hidden_size)
        After the last of them.
    """
    if not torch.onnx.is_in_onnx_export():
        states, (hidden, cell) = layer(vectors, (hidden.contiguous(), cell.contiguous()))
        return states, hidden, cell
    size, steps = layer.hidden_size, vectors.transpose(0, 1)

    def gates(weight: Any) -> Tensor:
        # torch has input, forget, cell and output gates in this order, ONNX input, output, forget and cell gates.
        ordered: Tensor = weight.reshape(4, size, -1)[[0, 3, 1, 2]].reshape(1, *weight.shape)
        return ordered

    bias = torch.cat([gates(layer.bias_ih_l0), gates(layer.bias_hh_l0)], dim=1)
    state = (1, vectors.shape[0], size)
    states, hidden, cell = torch.onnx.ops.symbolic_multi_out(
        "LSTM",
        (steps, gates(layer.weight_ih_l0), gates(layer.weight_hh_l0), bias, None, hidden, cell),
        {"hidden_size": size},
        dtypes=[vectors.dtype] * 3,
        shapes=[(steps.shape[0], *state), state, state],
    )
    return states.squeeze(1).transpose(0, 1), hidden, cell
