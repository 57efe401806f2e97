"""The logarithmic opinion pool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, logit

from mmensemble.fusion.averaging import best_shares, weighted_average
from mmensemble.fusion.filling import PeerRegression
from mmensemble.fusion.late import LateFusion
from mmensemble.fusion.rows import Rows
from mmensemble.operations import NUMPY, Operations, Value
from mmensemble.tasks import Multilabel, Multioutput, Regression, Task

__all__ = ["LEAST_LOG_RATIO", "LogOpinionPool", "log_ratios"]

# A member makes a class a thousand times less probable than it is beforehand, at most. Of OpenMoji's members, forests
# among them, a lower bound gave a higher log loss.
LEAST_RATIO = 1e-3
LEAST_LOG_RATIO = float(np.log(LEAST_RATIO))


class LogOpinionPool(LateFusion):
    r"""Multiply powers of the members' probabilities, which are learned from out-of-fold outputs, and normalise.

    .. math:: p_k \propto \pi_k \prod_m (p_{mk} / \pi_k)^{w_m}

    where :math:`\pi` is the prior, the classes' share in the fitting rows, so that what all members know from it counts
    once: :math:`p_k \propto \pi_k^{1 - \sum_m w_m} \prod_m p_{mk}^{w_m}`. The weights are at least 0 and minimise the
    log loss, which is convex in them. Their sum is free, and so a temperature: members that are too sure of themselves,
    or say the same, get less, too modest ones more. Members need not be calibrated, nor equally good.

    Where a modality is missing, the place of :math:`\log(p_{mk} / \pi_k)` is taken by what the member would be expected
    to say, by a ridge regression on the mean of its peers, as in `Stacking`. A peer that says the same as the missing
    one then counts for both, and one that tells nothing of it does not.

    Independent labels and columns of labels have weights of their own. A regressor counts as a Gaussian; the product of
    powers of Gaussians has as its mean a weighted average of theirs, :math:`\mu = \sum_m w_m a_m \mu_m \big/ \sum_m w_m
    a_m`, where :math:`a_m` is 1 if the row has modality :math:`m` and 0 if not. Each target's weights minimise the
    squared error.

    Parameters
    ----------
    cv : int, str, splitter or list of splits, default=5
        How the out-of-fold outputs are made; see `Stacking`.

    Attributes
    ----------
    weights_ : ndarray of float, shape (n_members,) or (n_members, n_columns)
        The powers. A column for each label, column of labels or target where there are several. A member whose weights
        are all 0 is not exported.
    peer_regression_ : PeerRegression
        What is expected of a member whose modality is missing, among those that have a weight; not of a regression.
    members_ : list of Member
    task_ : Task
    prior_ : ndarray of float, shape (width,)
        What a row that misses all modalities gets.

    References
    ----------
    Genest, Zidek (1986). Combining probability distributions: a critique and an annotated bibliography. Statistical
    Science 1(1).

    Bordley (1982). A multiplicative formula for aggregating probability assessments. Management Science 28(10), for the
    prior.

    Breiman (1996). Stacked regressions. Machine Learning 24, for the regression's weights.
    """

    __module__ = "mmensemble"

    def __init__(self, cv: Any = 5) -> None:
        self.cv = cv

    def _learned(self) -> str:
        weights = getattr(self, "weights_", np.empty((0, 0)))
        if weights.ndim != 1:
            return ""
        what = "weights" if isinstance(self.task_, Regression) else "powers"
        pairs = (f"{m.name} {weight:.3g}" for m, weight in zip(self.members_, weights, strict=True))
        return f"{what}: {', '.join(pairs)}"

    def learns(self, task: Task) -> bool:
        return True

    def learn(
        self, outputs: np.ndarray, present: np.ndarray, y: np.ndarray, X: Any, sample_weight: np.ndarray | None
    ) -> None:
        weight = np.ones(len(y)) if sample_weight is None else sample_weight
        used = present[:, :, 0].any(axis=0) & (weight > 0)
        outputs, present, y, weight = outputs[:, used], present[:, used], y[used], weight[used]
        if isinstance(self.task_, Regression):
            columns = y.reshape(len(y), -1).T
            numbers = np.moveaxis(outputs, -1, 0)[..., None]
            shares = [best_shares(self.task_, n, present, c, weight) for n, c in zip(numbers, columns, strict=True)]
            self.weights_ = shares[0] if len(shares) == 1 else np.column_stack(shares)
            return
        ratios = np.stack(log_ratios(NUMPY, list(outputs), list(present), self.prior_, self.task_))
        part = np.ones(len(ratios), dtype=bool)
        while True:
            self.peer_regression_ = PeerRegression().fit(ratios[part], present[part], weight)
            filled = np.stack(self.peer_regression_.fill(NUMPY, list(ratios[part]), list(present[part])))
            weights = self._powers(filled, y, weight)
            self.weights_ = np.zeros((len(part), *weights.shape[1:]))
            self.weights_[part] = weights
            if self.takes_part()[part].all():
                return
            # Those that are left must not be expected to say what a useless one says.
            part = self.takes_part()

    def _powers(self, ratios: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return the best powers, (n_members,) or (n_members, n_columns), of ratios (n_members, n, width)."""
        if isinstance(self.task_, Multilabel):
            parts = [np.stack([np.zeros_like(label), label], axis=-1) for label in np.moveaxis(ratios, -1, 0)]
            offsets = [np.array([0, logit(share)]) for share in _inside(self.prior_, self.task_)]
        else:
            places = np.cumsum([len(labels) for labels in self.task_.label_sets])[:-1]
            parts = np.split(ratios, places, axis=-1)
            offsets = np.split(np.log(_inside(self.prior_, self.task_)), places)
        columns = zip(parts, offsets, y.reshape(len(y), -1).T, strict=True)
        powers = [_best_powers(part, offset, truth, weight) for part, offset, truth in columns]
        return np.column_stack(powers) if isinstance(self.task_, (Multilabel, Multioutput)) else powers[0]

    def takes_part(self) -> np.ndarray:
        useful = (self.weights_ > 0).reshape(len(self.weights_), -1).sum(axis=1) > 0
        return useful if useful.any() else np.arange(len(useful)) == 0

    def combine(self, xp: Operations, outputs: Sequence[Value], present: Sequence[Value], rows: Rows) -> Value:
        weights = self.weights_[self.takes_part()]
        if isinstance(self.task_, Regression):
            return weighted_average(xp, outputs, present, weights)
        prior = _inside(self.prior_, self.task_)[None]
        ratios = log_ratios(xp, outputs, present, self.prior_, self.task_)
        ratios = self.peer_regression_.fill(xp, ratios, present)
        sizes = [len(labels) for labels in self.task_.label_sets]
        if weights.ndim == 2 and sizes:
            weights = np.repeat(weights, sizes, axis=1)
        logits = xp.add(*(ratio * power for ratio, power in zip(ratios, weights, strict=True)))
        if isinstance(self.task_, Multilabel):
            return xp.sigmoid(logits + logit(prior))
        return xp.concat(*(xp.softmax(part) for part in xp.split(logits + np.log(prior), sizes)))


def log_ratios(
    xp: Operations, outputs: Sequence[Value], present: Sequence[Value], prior: np.ndarray, task: Task
) -> list[Value]:
    """Return by how much members make classes more probable than they are beforehand.

    Parameters
    ----------
    xp : Operations
    outputs : sequence of values of float, shape (n, width)
        Probabilities.
    present : sequence of values of bool, shape (n, 1)
    prior : ndarray of float, shape (width,)
    task : Task
        Of a classification.

    Returns
    -------
    list of values of float, shape (n, width)
        The logarithms of the probabilities' ratios to the prior; of independent labels those of the odds' ratios. 0
        where missing.
    """
    prior = _inside(prior, task)[None]
    ratios = []
    for output, has_modality in zip(outputs, present, strict=True):
        ratio = xp.log(xp.maximum(output / prior, LEAST_RATIO))
        if isinstance(task, Multilabel):
            ratio = ratio - xp.log(xp.maximum((1 - output) / (1 - prior), LEAST_RATIO))
        ratios.append(xp.where(has_modality, ratio, 0))
    return ratios


def _inside(prior: np.ndarray, task: Task) -> np.ndarray:
    """Return the prior without 0, and of independent labels without 1: float32 knows 1 - p to six places only."""
    return np.clip(prior, 1e-6, 1 - 1e-6) if isinstance(task, Multilabel) else np.maximum(prior, 1e-12)


def _best_powers(ratios: np.ndarray, offset: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the powers, (n_members,), by which a softmax has the lowest log loss.

    They are drawn towards those of the geometric mean, as strongly as by one row: enough to make them unique where
    members say the same, and finite where they make no mistake.

    Parameters
    ----------
    ratios : ndarray of float, shape (n_members, n, n_classes)
    offset : ndarray of float, shape (n_classes,)
    truth : ndarray of int, shape (n,)
    weight : ndarray of float, shape (n,)
    """
    mean = np.full(len(ratios), 1 / len(ratios))
    rows, total = np.arange(len(truth)), weight.sum()

    def loss(powers: np.ndarray) -> tuple[float, np.ndarray]:
        logs = log_softmax(np.tensordot(powers, ratios, 1) + offset, axis=1)
        slope = np.exp(logs)
        slope[rows, truth] -= 1
        away = powers - mean
        value = -(weight * logs[rows, truth]).sum() + away @ away / 2
        gradient = np.tensordot(ratios, weight[:, None] * slope, 2) + away
        return value / total, gradient / total

    options = {"ftol": 1e-15, "gtol": 1e-9, "maxiter": 1000}
    found = minimize(loss, mean, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(mean), options=options)
    return np.asarray(found.x)
