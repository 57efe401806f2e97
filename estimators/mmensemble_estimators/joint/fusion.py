"""What the joint strategies share: the network of encoders and fuser, its training, prediction and pickling."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone
from sklearn.utils import check_random_state

from mmensemble.cache import Store
from mmensemble.exceptions import DataError
from mmensemble.frames import n_rows
from mmensemble.fusion import Fusion, Member
from mmensemble.learning.columns import as_list, select_columns
from mmensemble.learning.targets import LearnedTask, for_members
from mmensemble.progress import Step, Work
from mmensemble.time_limits import TimeLimit, check_time_limit, portion, time_limit, warn_of_cut
from mmensemble_estimators.base.estimator import TorchEstimator
from mmensemble_estimators.base.parameters import check_fractions, check_integers, check_rates
from mmensemble_estimators.fusers import Fuser
from mmensemble_estimators.joint.members import fit_rows, rows_of
from mmensemble_estimators.joint.network import JointNetwork
from mmensemble_estimators.training.fine_tuning import frozen
from mmensemble_estimators.training.loop import (
    TrainingData,
    TrainingSettings,
    resolve_device,
    run_in_batches,
    seeded,
    train,
    was_cut,
)
from mmensemble_estimators.training.targets import Target, target_of

__all__ = ["JointFusion", "WeighingFusion", "fit_joint"]


class JointFusion(Fusion):
    """What the joint strategies share; a subclass says by `fuser_class` and `build_fuser` what fuses.

    A torch member contributes its encoder, trained end to end, or frozen with ``fine_tune="head"``. Any other member
    contributes the features that its final estimator would see, standardised. A row that lacks a modality gets a
    learned token in its place.
    """

    # A subclass lists in its own __init__ which of them are its parameters; the others have these values.
    modality_dropout: float = 0.2
    max_epochs: int | None = None
    frozen_epochs: int = 0
    batch_size: int | None = None
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_fraction: float = 0.1
    time_limit: float | None = None
    label_smoothing: float = 0.1
    device: str = "auto"
    random_state: Any = None
    verbose: int = False

    network_: JointNetwork
    target_: Target
    history_: pd.DataFrame

    can_be_cut: ClassVar[bool] = True

    fuser_class: ClassVar[type[Fuser]]
    """The network that fuses; its ``token_level`` says whether it takes the members' tokens or their embeddings."""

    @property
    def timed_out_(self) -> bool:
        """Whether a time limit had a say in the training."""
        return was_cut(self.history_)

    @abstractmethod
    def build_fuser(self, sizes: Sequence[int]) -> Fuser:
        """Return an untrained fuser.

        Parameters
        ----------
        sizes : sequence of int
            Of the members' representations, in their order.

        Returns
        -------
        Fuser
            Of `fuser_class`.
        """

    def check_parameters(self, members: Sequence[Member], X: Any) -> None:
        """Raise `ConfigurationError` for a parameter that does not fit, before anything is trained."""
        check_time_limit(self.time_limit)
        check_fractions(self, "modality_dropout", "warmup_fraction", "label_smoothing")
        check_integers(
            self, frozen_epochs=0, **{n: 1 for n in ("max_epochs", "batch_size") if getattr(self, n) is not None}
        )
        check_rates(self)

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
        """Train all networks together; see `mmensemble.fusion.Fusion.fit`. `groups` and `n_jobs` have no effect."""
        self.check_parameters(members, X)
        columns = list(dict.fromkeys(name for member in members for name in as_list(member.columns)))
        fitted = (Store.of(None) if store is None else store).call(
            fit_joint,
            clone(self),
            select_columns(X, columns),
            list(members),
            target,
            sample_weight,
            depends_on=[member.estimator for member in members],
        )
        for name, value in vars(fitted).items():
            if name.endswith("_"):
                setattr(self, name, value)
        return self

    def _train(
        self,
        members: Sequence[Member],
        X: Any,
        target: LearnedTask,
        sample_weight: np.ndarray | None,
        limit: TimeLimit,
    ) -> None:
        self.task_, self.prior_ = target.task, target.prior
        weight = np.ones(n_rows(X)) if sample_weight is None else sample_weight
        self.target_ = target_of(target, weight)
        rng = check_random_state(self.random_state)
        device = resolve_device(self.device)
        with seeded(int(rng.randint(2**31)), device):
            token_level = self.fuser_class.token_level
            y = for_members(target)
            parts = []
            for number, member in enumerate(members, 1):
                with Step("member", number, len(members), member.name):
                    parts.append(fit_rows(member, X, y, self.task_.label_sets, token_level=token_level))
            encoders = [part.encoder for part in parts]
            self.network_ = JointNetwork(
                encoders,
                self.build_fuser([encoder.embedding_size for encoder in encoders]),
                self.target_.n_outputs,
                modality_dropout=self.modality_dropout,
            )
            present = np.column_stack([part.present for part in parts])
            rows = np.flatnonzero(present.any(axis=1) & (weight > 0))
            if len(rows) < 2:
                raise DataError("fewer than 2 rows have any of the modalities; there is nothing to fit")
            data = TrainingData(
                rows,
                lambda r: _numbered([part.training_batch(r, rng) for part in parts]),
                self.target_.encode(target.y),
                weight,
            )
            rates = [
                *((f"encoders.{m}.*", *part.learning_rate) for m, part in enumerate(parts) if part.learning_rate),
                ("*", self.learning_rate, self.weight_decay),
            ]
            settings = self._settings([part.estimator for part in parts], device, limit)
            loss = self.target_.loss(self.label_smoothing)
            histories = []
            if self.frozen_epochs:
                with frozen(*encoders), Step("frozen epochs"):
                    first = replace(settings, max_epochs=self.frozen_epochs)
                    share = self.frozen_epochs / (self.frozen_epochs + settings.max_epochs)
                    with portion(share) as first_limit:
                        first = replace(first, limit=first_limit)
                        histories.append(train(self.network_, data, first, loss=loss, learning_rates=rates))
            histories.append(train(self.network_, data, settings, loss=loss, learning_rates=rates))
        history = pd.concat(histories, ignore_index=True)
        history["epoch"] = np.arange(1, len(history) + 1)
        self.history_ = history
        self.members_ = [member.fitted(part.estimator, X) for member, part in zip(members, parts, strict=True)]

    def _settings(self, estimators: Sequence[Any], device: torch.device, limit: TimeLimit) -> TrainingSettings:
        networks = [e for e in estimators if isinstance(e, TorchEstimator)]
        return TrainingSettings(
            max_epochs=max((e.max_epochs for e in networks), default=20)
            if self.max_epochs is None
            else self.max_epochs,
            batch_size=self._rows_per_step(estimators),
            warmup_fraction=self.warmup_fraction,
            device=device,
            limit=limit,
            name=type(self).__name__,
        )

    def _rows_per_step(self, estimators: Sequence[Any]) -> int:
        if self.batch_size is not None:
            return self.batch_size
        return min((e.batch_size for e in estimators if isinstance(e, TorchEstimator)), default=32)

    def _run(self, part: Any, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Apply the network, or a part of it, to rows; return its output and which rows have any modality."""
        device = resolve_device(self.device)
        self.network_.to(device).eval()
        rows = [rows_of(member, X, token_level=self.network_.fuser.token_level) for member in self.members_]
        present = np.column_stack([r.present for r in rows])
        lengths = np.max([r.lengths for r in rows], axis=0)
        output = run_in_batches(
            part,
            lambda positions: _numbered([r.batch(positions) for r in rows]),
            np.argsort(lengths, kind="stable"),
            batch_size=self._rows_per_step([member.estimator for member in self.members_]),
            device=device,
        )
        return output, np.asarray(present.any(axis=1))

    def outputs(self, X: Any) -> np.ndarray:
        """Return probabilities or predictions, ndarray of float64, shape (n_samples, width)."""
        if n_rows(X) == 0:
            return np.zeros((0, self.task_.width))
        raw, present = self._run(self.network_, X)
        outputs = self.target_.outputs(raw)
        outputs[~present] = self.prior_
        return outputs

    def transform(self, X: Any) -> np.ndarray:
        """Return the fused representation, ndarray of float32, shape (n_samples, fused_size)."""
        if n_rows(X) == 0:
            return np.zeros((0, len(self.get_feature_names_out())), dtype=np.float32)
        return self._run(self.network_.fuse, X)[0]

    def get_feature_names_out(self) -> list[str]:
        """Return a number per fused feature."""
        return [str(i) for i in range(self.network_.fuser.fused_size)]


class WeighingFusion(JointFusion):
    """A joint fusion that tells how much each modality counts in a row; its fuser has a method ``weights``."""

    def modality_weights(self, X: Any) -> np.ndarray:
        """Return what each modality weighs in each row.

        Parameters
        ----------
        X : DataFrame (pandas or polars), n_samples rows

        Returns
        -------
        ndarray of float32, shape (n_samples, n_members)
            In the order of `members_`. A missing modality is its learned token, and that may weigh something.
        """
        if n_rows(X) == 0:
            return np.zeros((0, len(self.members_)), dtype=np.float32)
        return self._run(self.network_.weights, X)[0]


def _numbered(batches: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {f"{m}.{name}": array for m, batch in enumerate(batches) for name, array in batch.items()}


def fit_joint(
    fusion: JointFusion, X: Any, members: Sequence[Member], target: LearnedTask, sample_weight: np.ndarray | None
) -> JointFusion:
    """Train a joint fusion, which is what a store keeps of it."""
    with Work("fit", type(fusion).__name__, fusion.verbose), time_limit(fusion.time_limit) as limit:
        fusion._train(members, X, target, sample_weight, limit)
    if limit.cut:
        remedy = "it is as good as it was then (history_)"
        warn_of_cut(fusion.time_limit, type(fusion).__name__, remedy, stacklevel=2)
    return fusion
