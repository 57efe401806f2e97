"""What a member would have said where its modality is missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from sklearn.linear_model import Ridge

if TYPE_CHECKING:
    import onnx_ir as ir

    from mmensemble.graph import Graph

__all__ = ["PeerRegression"]

# Not chosen by cross-validation, in which a row of weight 2 is something else than two rows.
PENALTY = 1.0


class PeerRegression:
    """Expect a member's outputs from the mean of those of its peers that a row has, by ridge regression.

    Attributes
    ----------
    coef_ : ndarray of float, shape (n_members, width, width)
        From the peers' mean to the member's outputs.
    intercept_ : ndarray of float, shape (n_members, width)
    """

    def fit(self, outputs: np.ndarray, present: np.ndarray, weight: np.ndarray) -> PeerRegression:
        """Learn from outputs (n_members, n, width), presence (n, n_members) and weights (n,)."""
        n_members, _, width = outputs.shape
        self.coef_, self.intercept_ = np.zeros((n_members, width, width)), np.zeros((n_members, width))
        for m, made in enumerate(outputs):
            peers, any_peer = _peers_mean(outputs, present, m)
            there = present[:, m] & (weight > 0)
            both = there & any_peer
            if both.sum() < 2:
                self.intercept_[m] = np.average(made[there], axis=0, weights=weight[there])
                continue
            ridge = Ridge(PENALTY).fit(peers[both], made[both], sample_weight=weight[both])
            self.coef_[m], self.intercept_[m] = ridge.coef_.reshape(width, width).T, ridge.intercept_
        return self

    def fill(self, outputs: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Return the outputs, (n_members, n, width), with what is expected where a modality is missing."""
        filled = outputs.copy()
        for m in range(len(outputs)):
            missing = ~present[:, m]
            if missing.any():
                peers, _ = _peers_mean(outputs[:, missing], present[missing], m)
                filled[m, missing] = peers @ self.coef_[m] + self.intercept_[m]
        return filled

    def fill_graph(self, graph: Graph, outputs: Sequence[ir.Value], present: Sequence[ir.Value]) -> list[ir.Value]:
        """Do what `fill` does, on values of a graph: outputs (batch, width) and presence (batch, 1) bool."""
        zero, one = graph.constant(np.float32(0)), graph.constant(np.float32(1))
        counts = [graph.op("Cast", there, to=graph.FLOAT) for there in present]
        zeroed = [graph.op("Where", there, output, zero) for output, there in zip(outputs, present, strict=True)]
        filled = []
        for m, (output, there) in enumerate(zip(outputs, present, strict=True)):
            expected = graph.constant(self.intercept_[m].astype(np.float32)[None], "expected")
            peers = [p for p in range(len(outputs)) if p != m]
            if peers and self.coef_[m].any():
                total = graph.op("Sum", *(zeroed[p] for p in peers))
                n_peers = graph.op("Max", graph.op("Sum", *(counts[p] for p in peers)), one)
                coefficients = graph.constant(self.coef_[m].astype(np.float32), "from_peers")
                expected = graph.op("Gemm", graph.op("Div", total, n_peers), coefficients, expected)
            filled.append(graph.op("Where", there, output, expected))
        return filled


def _peers_mean(outputs: np.ndarray, present: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of the other members' outputs (n, width), 0 where there is none, and where there is one."""
    there = present.copy()
    there[:, m] = False
    count = there.sum(axis=1)
    return np.einsum("mnk,nm->nk", outputs, there) / np.maximum(count, 1)[:, None], count > 0
