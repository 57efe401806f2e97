"""The product of experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmensemble.fusion.averaging import weighted_average
from mmensemble.fusion.late import LateFusion
from mmensemble.fusion.rows import Rows
from mmensemble.learning.outputs import distributions, flat, outputs_known
from mmensemble.operations import Operations, Value
from mmensemble.tasks import Multilabel, Regression, Task

__all__ = ["ProductOfExperts"]


class ProductOfExperts(LateFusion):
    r"""Multiply the members' probabilities and normalise; of a regression, multiply Gaussians.

    .. math:: p_k \propto \prod_m p_{mk}^{a_m}

    where :math:`a_m` is 1 if the row has modality :math:`m` and 0 if not. One expert can rule a class out, so the
    members should be calibrated. None rules out what it never saw: a class that no row with its modality had gets its
    share of the prior from that member. Independent labels and columns of labels are multiplied one by one.

    A regressor counts as a Gaussian around its prediction, with the variance of its out-of-fold residuals, and the
    product's mean is the predictions' mean weighted by precision:
    :math:`\mu = \sum_m a_m \mu_m \sigma_m^{-2} \big/ \sum_m a_m \sigma_m^{-2}`.

    Parameters
    ----------
    cv : int, str, splitter or list of splits, default=5
        How the out-of-fold predictions are made from which a regressor's variance is taken; see `Stacking`.
        Classification has no use for it.

    Attributes
    ----------
    precision_ : ndarray of float, shape (n_members, n_targets)
        Of a regression: one over the variance of each member's residuals.
    members_ : list of Member
    task_ : Task
    prior_ : ndarray of float, shape (width,)
        What a row that misses all modalities gets.

    References
    ----------
    Hinton (2002). Training products of experts by minimizing contrastive divergence. Neural Computation 14(8).

    Cao, Fleet (2014). Generalized product of experts for automatic and principled fusion of Gaussian process
    predictions. arXiv:1410.7827, for the Gaussian case.
    """

    __module__ = "mmensemble"

    def __init__(self, cv: Any = 5) -> None:
        self.cv = cv

    def learns(self, task: Task) -> bool:
        return isinstance(task, Regression)

    def learn(
        self, outputs: np.ndarray, present: np.ndarray, y: np.ndarray, X: Any, sample_weight: np.ndarray | None
    ) -> None:
        weight = np.ones(len(y)) if sample_weight is None else sample_weight
        truth = y.reshape(len(y), -1)
        variance = [
            np.average((output - truth)[has_modality] ** 2, axis=0, weights=weight[has_modality])
            for output, has_modality in zip(outputs, present[:, :, 0], strict=True)
        ]
        # A member without any error must not make the others' weights 0 / 0.
        floor = np.maximum(1e-12 * truth.var(axis=0), np.finfo(np.float32).tiny)
        self.precision_ = 1 / np.maximum(variance, floor)

    def combine(self, xp: Operations, outputs: Sequence[Value], present: Sequence[Value], rows: Rows) -> Value:
        if isinstance(self.task_, Regression):
            # As shares, which float32 holds whatever the targets' unit is.
            return weighted_average(xp, outputs, present, self.precision_ / self.precision_.sum(axis=0))
        # float32 knows 1 - p to six places only.
        least = 1e-6 if isinstance(self.task_, Multilabel) else 1e-12
        logs = []
        for member, output, has_modality in zip(self.members_, outputs, present, strict=True):
            known = outputs_known(member.estimator, self.task_, member.labels)
            if not known.all():
                scale, offset = self._with_prior(known)
                output = output * xp.constant(scale[None], "known_share") + xp.constant(offset[None], "unknown_share")
            # The same factor for every class is none.
            factor = xp.where(has_modality, output, 0.5)
            logs.append([xp.log(xp.maximum(part, least)) for part in distributions(xp, factor, self.task_)])
        products = [xp.softmax(xp.add(*factors)) for factors in zip(*logs, strict=True)]
        return flat(xp, products, self.task_)

    def _with_prior(self, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what outputs (width,) are multiplied by, and what is added: the prior of those that are not known."""
        prior = np.where(known, 0, self.prior_)
        if isinstance(self.task_, Multilabel):
            return known.astype(float), prior
        sizes = [len(labels) for labels in self.task_.label_sets]
        unknown = np.add.reduceat(prior, np.cumsum([0, *sizes[:-1]]))
        return np.where(known, 1 - np.repeat(unknown, sizes), 0), prior
