"""The strategy: penalties by cross-validation, a model for each way in which modalities are missing, prediction."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from numbers import Integral
from operator import and_, or_
from typing import Any, Self

import numpy as np
from sklearn.base import clone

from mmensemble.cache import Store
from mmensemble.exceptions import ExportError
from mmensemble.frames import n_rows
from mmensemble.fusion.linear.fitting import Fitting
from mmensemble.fusion.linear.patterns import Pattern
from mmensemble.fusion.strategy import Fusion, Member
from mmensemble.graph import (
    Frame,
    GraphOperations,
    Outputs,
    Tensor,
    any_present,
    linear,
    refuse_where_present,
    rows_not_finite,
    to_graph,
)
from mmensemble.learning.columns import as_list, select_columns
from mmensemble.learning.folds import Fold, split_rows
from mmensemble.learning.outputs import output_names
from mmensemble.learning.related_rows import warn_of_related_rows
from mmensemble.learning.representations import features_of
from mmensemble.learning.targets import LearnedTask, for_members
from mmensemble.operations import NUMPY, Operations, Value
from mmensemble.tasks import Multilabel, Regression

__all__ = ["LinearFusion"]


class LinearFusion(Fusion):
    """One linear model over what all members make of their rows, each with a penalty of its own (banded ridge).

    A frozen network gives its embeddings, divided by their norm; a pipeline what its steps before the last one make,
    whose final classifier or regressor is not fitted; a transformer what it transforms; any other estimator its columns
    as they are. Sparse features stay sparse. Of classes it is a logistic regression, of a 0/1 matrix one for each
    label, of numbers a ridge regression.

    The penalties are those with the least loss on rows that are held out: first one for all members, each of whose
    rows counts as equally large, then member by member in turns; one that does no good is turned off. Of more than
    2,000 rows, some 1,000 to 2,000 choose them. Nothing is drawn at random.

    Rows that lack a modality are predicted by a model of the same penalties that does without it. There is one for
    each modality alone, and for all but each; of other rows the largest of these that fits decides. A row that lacks a
    modality takes part in fitting with the mean in its place, and with a constant that is learned for it where it is
    predicted.

    Parameters
    ----------
    cv : int, str, splitter or list of splits, default=5
        The folds that are held out; see `Stacking`.

    Attributes
    ----------
    penalties_ : dict of str to float
        By member, what half the squared coefficients of its features cost; infinity is off. Sample weights count by
        their share, and the targets of a regression as standardised.
    held_out_loss_ : float
        The mean loss of the rows that were held out, by the penalties that were chosen: log loss, or half the squared
        error as a share of the variance; the mean over labels and targets. NaN where no row could be held out.
    members_ : list of Member
        With the steps that make features.
    task_ : Task
    prior_ : ndarray of float, shape (width,)
        What a row that misses all modalities gets.

    Notes
    -----
    A member that is a neural estimator must be frozen (``fine_tune="head"``, or a `FrozenEstimator`): a network that is
    trained tells the rows that it has seen better than others, and so would what is learned from its embeddings.

    All steps that can be fitted without `y` are, on all rows. One that cannot, as one that selects features by `y`, is
    fitted without the rows that are held out when penalties are chosen.

    References
    ----------
    Nunez-Elizalde, Huth, Gallant (2019). Voxelwise encoding models with non-spherical multivariate normal priors.
    NeuroImage. Dupré la Tour, Eickenberg, Nunez-Elizalde, Gallant (2022). Feature-space selection with banded ridge
    regression. NeuroImage.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.feature_extraction.text import TfidfVectorizer
    >>> from sklearn.preprocessing import StandardScaler
    >>> from mmensemble import LinearFusion, MultimodalClassifier
    >>> X = pd.DataFrame({"name": ["red apple", "fast car"] * 8, "weight": [0.1, 900.0] * 8})
    >>> model = MultimodalClassifier(
    ...     [("text", TfidfVectorizer(), "name"), ("facts", StandardScaler(), ["weight"])], fusion=LinearFusion()
    ... )
    >>> model.fit(X, ["fruit", "vehicle"] * 8).predict(pd.DataFrame({"name": ["apple", None], "weight": [0.2, 700]}))
    array(['fruit', 'vehicle'], dtype='<U7')
    >>> sorted(model.fusion_.penalties_)
    ['facts', 'text']
    """

    __module__ = "mmensemble"

    penalties_: dict[str, float]
    held_out_loss_: float
    patterns_: list[Pattern]

    def __init__(self, cv: Any = 5) -> None:
        self.cv = cv

    def _learned(self) -> str:
        penalties = [f"{name} {penalty:.3g}" for name, penalty in getattr(self, "penalties_", {}).items()]
        return f"penalties (inf: turned off): {', '.join(penalties)}" if penalties else ""

    def fit(
        self,
        members: Sequence[Member],
        X: Any,
        target: LearnedTask,
        *,
        sample_weight: np.ndarray | None = None,
        groups: np.ndarray | None = None,
        store: Store | None = None,
        n_jobs: int | None = None,
    ) -> Self:
        """Make the members' features and solve the model; see `Fusion.fit`. `n_jobs` has no effect."""
        folds = split_rows(self.cv, X, target, groups)
        if groups is None and (self.cv is None or isinstance(self.cv, Integral)):
            warn_of_related_rows(X, _columns(members), for_members(target), target.task, folds)
        self._fit_once(members, X, target, folds, sample_weight, store, holds_out=False)
        return self

    def out_of_fold(
        self,
        members: Sequence[Member],
        X: Any,
        target: LearnedTask,
        folds: Sequence[Fold],
        *,
        sample_weight: np.ndarray | None = None,
        groups: np.ndarray | None = None,
        store: Store | None = None,
        n_jobs: int | None = None,
    ) -> np.ndarray:
        """Fit the model by these folds, and predict the rows that each holds out by one without them.

        What needs no `y` is as in the fit on all rows, and the penalties are: few numbers, which the same folds chose.
        The coefficients are those of the fold.
        """
        made = self._fit_once(members, X, target, folds, sample_weight, store, holds_out=True)
        return np.asarray(made)

    def _fit_once(
        self,
        members: Sequence[Member],
        X: Any,
        target: LearnedTask,
        folds: Sequence[Fold],
        sample_weight: np.ndarray | None,
        store: Store | None,
        *,
        holds_out: bool,
    ) -> np.ndarray | None:
        """Fit, unless the store has it; return the outputs of the rows that folds hold out, where they are wanted."""
        fitted, made = (Store.of(None) if store is None else store).call(
            fit_linear,
            clone(self),
            select_columns(X, _columns(members)),
            list(members),
            target,
            sample_weight,
            folds,
            holds_out,
            depends_on=[member.estimator for member in members],
        )
        for name, value in vars(fitted).items():
            if name.endswith("_"):
                setattr(self, name, value)
        return made

    def _fit(
        self,
        members: Sequence[Member],
        X: Any,
        target: LearnedTask,
        sample_weight: np.ndarray | None,
        folds: Sequence[Fold],
        *,
        holds_out: bool,
    ) -> np.ndarray | None:
        self.task_, self.prior_ = target.task, target.prior
        weight = np.ones(n_rows(X)) if sample_weight is None else sample_weight
        fitting = Fitting(target.task, members, X, for_members(target), weight, folds)
        parts = list(zip(members, fitting.features, fitting.variances, strict=True))
        self.members_ = [member.fitted(part.steps, X) for member, part, _ in parts]
        self.held_out_loss_ = fitting.loss
        self.penalties_ = {
            member.name: float(part.block.size / variance) if variance else np.inf for member, part, variance in parts
        }
        made = None
        if holds_out:
            made = np.zeros((n_rows(X), self.task_.width))
            for number, (_, held_out) in enumerate(folds):
                made[held_out] = self.prior_
                self.patterns_ = fitting.models_of_fold(number)
                if self.patterns_:
                    blocks = [part.of_fold(number) for part in fitting.features]
                    made[held_out] = self._joined([block.of_rows(held_out) for block in blocks])[0]
        self.patterns_ = fitting.models()
        return made

    def _products(self, number: int) -> tuple[np.ndarray, list[int]]:
        """Return a member's coefficients (n_features, n * width), and of which n patterns they are."""
        of = [place for place, pattern in enumerate(self.patterns_) if number in pattern.coef]
        parts = [self.patterns_[place].coef[number] for place in of]
        return np.hstack(parts) if parts else np.zeros((0, 0)), of

    def _join(
        self, xp: Operations, products: Sequence[Value | None], present: Sequence[Value]
    ) -> tuple[Value, list[Value]]:
        """Return the outputs, and what each member adds to the raw ones.

        Parameters
        ----------
        xp : Operations
        products : sequence of values, shape (n, n_patterns_of_the_member * width)
            Of the rows with the coefficients of `_products`; None of a member that is off.
        present : sequence of values of bool, shape (n, 1)
        """
        width = self.task_.width
        split: dict[tuple[int, int], Value] = {}
        for m, product in enumerate(products):
            of = self._products(m)[1]
            if product is not None:
                for place, part in zip(of, xp.split(product, [width] * len(of)), strict=True):
                    split[m, place] = part
        raw: Value = None
        added: list[Value] = [None] * len(products)
        for place, pattern in enumerate(self.patterns_):
            applies = reduce(and_, [present[m] for m in pattern.members])
            constant = xp.constant(pattern.intercept[None], "intercept")
            offsets = [
                xp.where(present[m], 0, xp.constant(offset[None], "missing")) for m, offset in pattern.missing.items()
            ]
            own = xp.add(constant, *(split[m, place] for m in pattern.coef), *offsets)
            raw = own if raw is None else xp.where(applies, own, raw)
            for m in range(len(products)):
                part = split.get((m, place), 0)
                if added[m] is not None or (m, place) in split:
                    added[m] = xp.where(applies, part, 0 if added[m] is None else added[m])
        if isinstance(self.task_, Regression):
            outputs = raw
        elif isinstance(self.task_, Multilabel):
            outputs = xp.sigmoid(raw)
        else:
            sizes = [len(labels) for labels in self.task_.label_sets]
            outputs = xp.concat(*(xp.softmax(part) for part in xp.split(raw, sizes)))
        return xp.where(reduce(or_, present), outputs, xp.constant(self.prior_[None], "prior")), added

    def _joined(self, features: Sequence[tuple[np.ndarray, Any]]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return the outputs, and what each member adds, by members' presence (n,) and the features of these rows."""
        products = []
        for m, (present, made) in enumerate(features):
            coef, of = self._products(m)
            product = np.zeros((len(present), coef.shape[1]))
            if of and present.any():
                product[present] = np.asarray(made @ coef)
            products.append(product if of else None)
        outputs, added = self._join(NUMPY, products, [present[:, None] for present, _ in features])
        shape = (len(features[0][0]), self.task_.width)
        return np.asarray(outputs), [np.zeros(shape) if part is None else np.asarray(part) for part in added]

    def _features(self, X: Any) -> list[tuple[np.ndarray, Any]]:
        """Return for each member which rows are present, (n,) bool, and the features of these."""
        found: list[tuple[np.ndarray, Any]] = []
        for m, member in enumerate(self.members_):
            present, rows = member.rows(X)
            made = None
            if self._products(m)[1] and present.any():
                made = features_of(member.name, member.call(present, rows, member.estimator.transform, rows), present)
            found.append((present, made))
        return found

    def outputs(self, X: Any) -> np.ndarray:
        """Return probabilities or predictions, ndarray of float64, shape (n_samples, width)."""
        return np.zeros((0, self.task_.width)) if n_rows(X) == 0 else self._joined(self._features(X))[0]

    def transform(self, X: Any) -> np.ndarray:
        """Return what each member adds to the log-odds or numbers, (n_samples, n_members * width); 0 where missing."""
        if n_rows(X) == 0:
            return np.zeros((0, len(self.members_) * self.task_.width))
        return np.hstack(self._joined(self._features(X))[1])

    def get_feature_names_out(self) -> list[str]:
        """Return ``<member>_<class>`` for every column of `transform`."""
        return [f"{member.name}_{output}" for member in self.members_ for output in output_names(self.task_)]

    def __onnx_graph__(self, source: Frame) -> Outputs:
        """Take part in `mmensemble.to_graph`."""
        if not isinstance(source, Frame):
            raise ExportError("a composition takes columns of X, and stands behind a step that makes a matrix")
        graph = source.graph
        xp = GraphOperations(graph)
        products, present = [], []
        for m, member in enumerate(self.members_):
            before = len(graph.refusals)
            coef, of = self._products(m)
            with graph.scope(member.name):
                made = to_graph(member.estimator, source.member(member.name, member.columns, member.kinds))
                if made.transformed is None or made.present is None:
                    raise ExportError(f"member {member.name!r} gives no representation")
                product = None
                if of:
                    features = Tensor(graph, made.transformed, made.present, made.blocks, made.sparse)
                    product = linear(features, coef, np.zeros(coef.shape[1]))
                    # As `features_of` refuses it, even where another pattern decides.
                    graph.refusals.append(rows_not_finite(graph, graph.single(product)))
                    refuse_where_present(graph, before, made.present)
                else:
                    del graph.refusals[before:]  # nothing is read of it
            products.append(None if product is None else xp.of(graph.single(product)))
            present.append(xp.of(made.present))
        with graph.scope(type(self).__name__):
            outputs, added = self._join(xp, products, present)
            zeros = [xp.where(one, np.zeros((1, self.task_.width)), 0) for one in present]
            side_by_side = xp.concat(*(zero if part is None else part for part, zero in zip(added, zeros, strict=True)))
            any_member = any_present(graph, [one.value for one in present])
        return Outputs(
            graph,
            **{self.task_.output: outputs.value},
            transformed=side_by_side.value,
            present=any_member,
            task=self.task_,
        )


def fit_linear(
    fusion: LinearFusion,
    X: Any,
    members: Sequence[Member],
    target: LearnedTask,
    sample_weight: np.ndarray | None,
    folds: Sequence[Fold],
    holds_out: bool,
) -> tuple[LinearFusion, np.ndarray | None]:
    """Fit a linear fusion and predict what folds hold out, which is what a store keeps of it."""
    return fusion, fusion._fit(members, X, target, sample_weight, folds, holds_out=holds_out)


def _columns(members: Sequence[Member]) -> list[str]:
    return list(dict.fromkeys(name for member in members for name in as_list(member.columns)))
