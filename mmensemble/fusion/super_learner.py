"""The super learner: whichever strategy, or mixture of them, is the best one on rows that nothing was fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from mmensemble.cache import Store
from mmensemble.exceptions import ConfigurationError, MmensembleError
from mmensemble.fusion.averaging import best_shares
from mmensemble.fusion.candidates import PreferredMember, cross_fitted, named_candidates
from mmensemble.fusion.held_out import HeldOut, row_losses, true_values
from mmensemble.fusion.late import LateFusion
from mmensemble.fusion.rows import Rows
from mmensemble.fusion.strategy import Fusion, Member
from mmensemble.learning.folds import column_groups
from mmensemble.learning.jobs import can_be_cut
from mmensemble.learning.targets import LearnedTask
from mmensemble.operations import Operations, Value
from mmensemble.progress import Step
from mmensemble.tasks import Task
from mmensemble.time_limits import portion

__all__ = ["SuperLearner"]

# From the simplest on: one member, one strategy, a mixture.
KINDS = ["member", "strategy", "mixture"]
MIXTURE = "mixture"
# Of a candidate in the mixture; what has less is not worth running.
LEAST_SHARE = 0.05


class SuperLearner(LateFusion):
    r"""Take the best of many strategies, or a mixture of them, by cross-validation (van der Laan et al. 2007).

    Every member alone and every candidate predicts rows that neither the members nor the rule were fitted on: members
    are fitted once per fold, and a rule that is learned from their out-of-fold outputs is learned again without the
    rows of each fold. The loss is the log loss of a classification, averaged over labels or columns of labels, and the
    squared error of a regression, in units of each target's variance. The mixture is the convex combination
    :math:`\sum_c \alpha_c p_c` of all of them that has the lowest loss, less those with a share
    below a twentieth. It is compared with them on rows that its shares were not learned from.

    Of the lowest loss and all that are behind it by at most one standard error of the difference, row by row, the
    simplest is taken: a member before a strategy, a strategy before the mixture, and the lowest loss among those of one
    kind. So it is not worse than the best member by more than chance. Where `groups` or a column for ``cv`` tell which
    rows are related, they count as one in the standard errors.

    Parameters
    ----------
    candidates : list of fusion strategies, default=None
        What is compared beside the members. None is ``[SoftVoting(), ProductOfExperts(), LogOpinionPool(),
        EnsembleSelection(), Stacking(), LinearFusion()]``, the last one of members that make features without learning
        from `y`: frozen networks, pipelines, columns of numbers. A late strategy joins the out-of-fold outputs that all
        share, and a linear one is fitted by the same folds, whatever its own ``cv`` is. Another one is fitted on each
        fold's rows, and has members of its own.
    cv : int, str, splitter or list of splits, default=5
        How the out-of-fold outputs are made; see `Stacking`.

    Attributes
    ----------
    scores_ : pandas.DataFrame
        A row for each member, candidate and the mixture: its ``kind``, ``loss`` and standard error ``loss_se``, how far
        it is ``behind`` the lowest loss with ``behind_se``, and its ``share`` in what was chosen.
    chosen_ : str
        The name of what was chosen, in `scores_`.
    candidates_ : list of (str, fusion strategy)
        What was chosen, fitted on all rows: one strategy, or those in the mixture.
    shares_ : ndarray of float, shape (n_candidates,)
        Their shares of 1.
    left_out_ : dict of str to str
        Candidates by default which these members do not allow, and why.
    members_ : list of Member
    task_ : Task
    prior_ : ndarray of float, shape (width,)
        What a row that misses all modalities gets.

    References
    ----------
    van der Laan, Polley, Hubbard (2007). Super learner. Statistical Applications in Genetics and Molecular Biology
    6(1).

    Breiman, Friedman, Olshen, Stone (1984). Classification and regression trees, for the rule of one standard error.

    Notes
    -----
    A member that is chosen alone is believed wherever a row has its modality; elsewhere the others' mean is. All of
    them are exported then.
    """

    __module__ = "mmensemble"

    def __init__(self, candidates: list[Fusion] | None = None, cv: Any = 5) -> None:
        self.candidates = candidates
        self.cv = cv

    def learns(self, task: Task) -> bool:
        return True

    def leave_out(self, dropped: Sequence[bool]) -> None:
        """Adjust the candidates."""
        if self.candidates is not None:
            self.candidates = [strategy for _, strategy in named_candidates(self.candidates)]
            for strategy in self.candidates:
                strategy.leave_out(dropped)

    def check_parameters(self, members: Sequence[Member], X: Any) -> None:
        for _, strategy in named_candidates(self.candidates, members):
            if isinstance(strategy, SuperLearner):
                raise ConfigurationError("a SuperLearner is no candidate of another one; give it the candidates")
            if isinstance(strategy, LateFusion):
                strategy.adopt(members, self.task_, self.prior_).check_parameters(members, X)

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
    ) -> SuperLearner:
        """Fit the members, and choose what joins them; see `Fusion.fit`."""
        with (Store.of(None) if store is None else store).sharing_rows() as shared:
            self._fit(members, X, target, sample_weight=sample_weight, groups=groups, store=shared, n_jobs=n_jobs)
        return self

    def _fit(self, members: Sequence[Member], X: Any, target: LearnedTask, **metadata: Any) -> None:
        alone = [(member.name, PreferredMember(number)) for number, member in enumerate(members)]
        compared = [*alone, *named_candidates(self.candidates, members)]
        # How often something is trained that a time limit can cut: by all members, and by each strategy of its own.
        costs = [can_be_cut(s) and not isinstance(s, LateFusion) for _, s in compared]
        of_members = sum(can_be_cut(member.estimator) for member in members)
        share = of_members / (of_members + sum(costs)) if of_members else 1.0
        with (
            portion(share),
            Step("members", shown=False, last=all(isinstance(each, LateFusion) for _, each in compared)),
        ):
            held_out = self._held_out(members, X, target, **metadata)
        n_folds = len(held_out.folds)
        strategies, made = [], []
        self.left_out_ = {}
        for place, (name, strategy) in enumerate(compared):
            share = n_folds / (n_folds + 1) / sum(costs[place:]) if costs[place] else 1.0
            try:
                with portion(share, name), Step("candidate", place + 1, len(compared), name):
                    outputs = self._out_of_fold(strategy, members, X, target, held_out, metadata)
            except MmensembleError as error:
                if self.candidates is not None or isinstance(strategy, LateFusion):
                    raise
                # Of members of any kind, not all need have features that a strategy can join.
                self.left_out_[name] = str(error)
                continue
            strategies.append((name, strategy))
            made.append(outputs)
        kinds = [KINDS[0]] * len(alone) + [KINDS[1]] * (len(strategies) - len(alone))
        names, related = [name for name, _ in strategies], self._related(X, metadata["groups"])
        shares = self._choose(names, kinds, np.stack(made), held_out, related)
        self.candidates_ = [named for named, share in zip(strategies, shares, strict=True) if share > 0]
        self.shares_ = shares[shares > 0]
        others = [named for named in self.candidates_ if not hasattr(named[1], "members_")]
        for place, (name, strategy) in enumerate(others):
            with portion(1 / (len(others) - place), name), Step("choice", place + 1, len(others), name):
                strategy.fit(members, X, target, **metadata)

    def _out_of_fold(
        self,
        strategy: Fusion,
        members: Sequence[Member],
        X: Any,
        target: LearnedTask,
        held_out: HeldOut,
        metadata: dict[str, Any],
    ) -> np.ndarray:
        """Return what a strategy makes of rows that neither it nor its members were fitted on."""
        if not isinstance(strategy, LateFusion):
            return strategy.out_of_fold(members, X, target, held_out.folds, **metadata)
        strategy.adopt(self.members_, self.task_, self.prior_)
        if strategy.learns(self.task_):
            strategy.learn_from(held_out)
        return cross_fitted(strategy, held_out)

    def _related(self, X: Any, groups: np.ndarray | None) -> np.ndarray | None:
        """Return the number of each row's group, (n,), where groups are known."""
        if isinstance(self.cv, str):
            groups = column_groups(X, self.cv)
        return None if groups is None else np.unique(groups, return_inverse=True)[1]

    def _choose(
        self,
        names: Sequence[str],
        kinds: Sequence[str],
        made: np.ndarray,
        held_out: HeldOut,
        related: np.ndarray | None,
    ) -> np.ndarray:
        """Compare what strategies made of the rows, (n_strategies, n, width), and return their shares."""
        import pandas as pd

        told = np.flatnonzero(held_out.used)
        made, held_out = made[:, told], held_out.rows(told)
        related = None if related is None else related[told]
        mixed, shares = self._mixture(made, held_out)
        y, weight = held_out.y, held_out.weight
        losses = np.stack([row_losses(self.task_, outputs, y, weight) for outputs in (*made, mixed)])
        mean = np.average(losses, axis=1, weights=weight)
        behind = losses - losses[mean.argmin()]
        mean_behind, behind_se = np.average(behind, axis=1, weights=weight), _standard_errors(behind, weight, related)
        kinds = [*kinds, KINDS[-1]]
        # The simplest of those that are not clearly behind, and of these the one of the lowest loss.
        order = [(mean_behind[c] > behind_se[c], KINDS.index(kinds[c]), mean[c]) for c in range(len(kinds))]
        chosen = min(range(len(kinds)), key=order.__getitem__)
        if chosen < len(names):
            shares = np.eye(len(names))[chosen]
        self.scores_ = pd.DataFrame(
            {
                "kind": kinds,
                "loss": mean,
                "loss_se": _standard_errors(losses, weight, related),
                "behind": mean_behind,
                "behind_se": behind_se,
                "share": [*shares, np.nan],
            },
            index=pd.Index([*names, MIXTURE], name="candidate"),
        )
        self.chosen_ = str(self.scores_.index[chosen])
        return np.asarray(shares, dtype=np.float64)

    def _mixture(self, made: np.ndarray, held_out: HeldOut) -> tuple[np.ndarray, np.ndarray]:
        """Return the outputs (n, width) of a mixture, by shares that other folds taught; and those of all rows."""
        y, weight = held_out.y, held_out.weight
        values = true_values(self.task_, made, y)

        def shares_of(rows: np.ndarray) -> np.ndarray:
            shares = np.zeros(len(made))
            among = np.arange(len(made))
            while True:
                there = np.ones((len(among), len(rows), 1), dtype=bool)
                found = best_shares(self.task_, values[np.ix_(among, rows)], there, y[rows], weight[rows])
                if found.min() >= LEAST_SHARE or len(among) == 1:
                    break
                among = among[found >= LEAST_SHARE]
            shares[among] = found
            return shares

        mixed = made.mean(axis=0)
        for fitting, rest in held_out.folds:
            mixed[rest] = np.tensordot(shares_of(fitting), made[:, rest], 1)
        return mixed, shares_of(np.arange(len(y)))

    @property
    def hides_nan(self) -> bool:
        return any(isinstance(strategy, LateFusion) and strategy.hides_nan for _, strategy in self.candidates_)

    def takes_part(self) -> np.ndarray:
        late = [isinstance(strategy, LateFusion) for _, strategy in self.candidates_]
        # Beside a late strategy, one that reads the columns itself may know a row that the former does not.
        if any(late) and not all(late):
            return np.ones(len(self.members_), dtype=bool)
        part = np.zeros(len(self.members_), dtype=bool)
        for _, strategy in self.candidates_:
            if isinstance(strategy, LateFusion):
                part |= strategy.takes_part()
        return part

    def outputs(self, X: Any) -> np.ndarray:
        """Return probabilities or predictions, ndarray of float, shape (n_samples, width)."""
        with Store.of(None).sharing_rows() if self._reads_twice else nullcontext():
            return super().outputs(X)

    @property
    def _reads_twice(self) -> bool:
        """Whether a strategy reads the columns that members read too."""
        return bool(self.takes_part().any()) and not all(isinstance(s, LateFusion) for _, s in self.candidates_)

    def join(self, xp: Operations, outputs: Sequence[Value], present: Sequence[Value], rows: Rows) -> Value:
        """Combine the members that take part; where none does, the strategies know what rows miss."""
        return super().join(xp, outputs, present, rows) if self.takes_part().any() else self.combine(xp, [], [], rows)

    def combine(self, xp: Operations, outputs: Sequence[Value], present: Sequence[Value], rows: Rows) -> Value:
        part = self.takes_part()
        if part.any():
            # A strategy reads those of its members only, which take part here.
            among = np.cumsum(part) - 1
            outputs, present = ([values[m] for m in among] for values in (outputs, present))
        made = [
            strategy.join(xp, outputs, present, rows)
            if isinstance(strategy, LateFusion)
            else rows.outputs_of_strategy(strategy)
            for _, strategy in self.candidates_
        ]
        if len(made) == 1:
            return made[0]
        return xp.add(*(each * share for each, share in zip(made, self.shares_, strict=True)))

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        text = super().__repr__(N_CHAR_MAX)
        if not hasattr(self, "scores_"):
            return text
        table = self.scores_.to_string(float_format="{:.4f}".format, na_rep="")
        without = "".join(f"\nwithout {name}: {reason}" for name, reason in self.left_out_.items())
        loss = "squared error" if self.task_.classes is None else "log loss"
        return (
            f"{text} chose {self.chosen_!r} by the {loss} on held-out rows (behind: how far above the lowest; share: "
            f"its part in what was chosen):\n{table}{without}"
        )


def _standard_errors(values: np.ndarray, weight: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Return the standard errors of weighted means, (k,), of values (k, n); a row of weight 2 counts as two.

    Rows of one group count as one.
    """
    away = values - np.average(values, axis=1, weights=weight)[:, None]
    if groups is None:
        squares = away**2 @ weight
    else:
        squares = (np.stack([np.bincount(groups, row) for row in weight * away]) ** 2).sum(axis=1)
    return np.asarray(np.sqrt(squares) / weight.sum())
