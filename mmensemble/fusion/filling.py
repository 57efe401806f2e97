"""What is expected of a member where its modality is missing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import Ridge

from mmensemble.operations import NUMPY, Operations, Value

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
        """Learn from outputs (n_members, n, width), presence (n_members, n, 1) and weights (n,)."""
        n_members, _, width = outputs.shape
        self.coef_, self.intercept_ = np.zeros((n_members, width, width)), np.zeros((n_members, width))
        for m, output in enumerate(outputs):
            rows = present[m, :, 0] & (weight > 0)
            both = rows & np.delete(present[:, :, 0], m, axis=0).any(axis=0)
            if both.sum() < 2:
                self.intercept_[m] = np.average(output[rows], axis=0, weights=weight[rows])
                continue
            peers = _peers_mean(NUMPY, list(outputs), list(present), m)
            ridge = Ridge(PENALTY).fit(peers[both], output[both], sample_weight=weight[both])
            self.coef_[m], self.intercept_[m] = ridge.coef_.reshape(width, width).T, ridge.intercept_
        return self

    def fill(self, xp: Operations, outputs: Sequence[Value], present: Sequence[Value]) -> list[Value]:
        """Return each member's outputs (n, width) with what is expected where a modality is missing.

        Parameters
        ----------
        xp : Operations
        outputs : sequence of values, shape (n, width)
            0 where missing.
        present : sequence of values of bool, shape (n, 1)
        """
        filled = []
        for m, (output, has_modality) in enumerate(zip(outputs, present, strict=True)):
            expected = xp.constant(self.intercept_[m][None], "expected")
            if self.coef_[m].any():  # not so of a member that no row has with another one
                peers = _peers_mean(xp, outputs, present, m)
                expected = xp.linear(peers, xp.constant(self.coef_[m], "from_peers"), expected)
            filled.append(xp.where(has_modality, output, expected))
        return filled


def _peers_mean(xp: Operations, outputs: Sequence[Value], present: Sequence[Value], m: int) -> Value:
    """Return the mean of the other members' outputs, (n, width), 0 where there is none."""
    peers = [p for p in range(len(outputs)) if p != m]
    n_peers = xp.add(*(xp.where(present[p], 1, 0) for p in peers))
    return xp.add(*(outputs[p] for p in peers)) / xp.maximum(n_peers, 1)
