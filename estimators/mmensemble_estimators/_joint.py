"""What the joint strategies share: the network of encoders and fuser, its training, prediction and pickling."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self, cast

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone
from sklearn.utils import check_random_state
from torch import Tensor, nn

from mmensemble.caching import Store
from mmensemble.compose import as_list, select_columns
from mmensemble.exceptions import DataError
from mmensemble.fusion import Fusion, Member
from mmensemble.preprocessing import PRESENT
from mmensemble.preprocessing.frames import n_rows
from mmensemble.targets import LearnedTask
from mmensemble_estimators._base import TorchEstimator
from mmensemble_estimators._fine_tuning import frozen
from mmensemble_estimators._members import fit_rows, rows_of
from mmensemble_estimators._parameters import check_fractions, check_integers, check_rates
from mmensemble_estimators._targets import Target, target_of
from mmensemble_estimators._training import (
    TrainingData,
    TrainingSettings,
    resolve_device,
    run_in_batches,
    seeded,
    train,
)
from mmensemble_estimators.backbones.encoder import Encoder
from mmensemble_estimators.fusers import Fuser

__all__ = ["JointFusion", "JointNetwork", "fit_joint"]


class JointNetwork(nn.Module):
    """Encoders side by side, a fuser over their representations, a linear head.

    Parameters
    ----------
    encoders : sequence of Encoder
    fuser : Fuser
    n_outputs : int
    modality_dropout : float
        In training, each modality of a row is withheld with this probability, never all of them.
    """

    def __init__(self, encoders: Sequence[Encoder], fuser: Fuser, n_outputs: int, *, modality_dropout: float) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.missing = nn.ParameterList(torch.zeros(encoder.embedding_size) for encoder in encoders)
        self.fuser = fuser
        self.head = nn.Linear(fuser.fused_size, n_outputs)
        self.modality_dropout = modality_dropout

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return the raw outputs, shape (batch, n_outputs). Inputs are named ``<number of member>.<tensor>``."""
        raw: Tensor = self.head(self.fuse(**inputs))
        return raw

    def fuse(self, **inputs: Tensor) -> Tensor:
        """Return the fused representation, shape (batch, fused_size)."""
        fused: Tensor = self.fuser(self._representations(**inputs))
        return fused

    def weights(self, **inputs: Tensor) -> Tensor:
        """Return what each modality weighs, shape (batch, n_modalities), of a fuser that weighs."""
        weights: Tensor = self.fuser.weights(self._representations(**inputs))  # type: ignore[operator]
        return weights

    def _representations(self, **inputs: Tensor) -> list[Any]:
        parts: list[dict[str, Tensor]] = [{} for _ in self.encoders]
        for name, tensor in inputs.items():
            number, _, tensor_name = name.partition(".")
            parts[int(number)][tensor_name] = tensor
        present = torch.stack([part.pop(PRESENT) for part in parts], dim=1)
        used = self._withhold(present) if self.training and self.modality_dropout else present
        encoded = [self._encode(m, part, present[:, m]) for m, part in enumerate(parts)]
        return self.with_missing(encoded, used)

    def _withhold(self, present: Tensor) -> Tensor:
        kept = present & (torch.rand(present.shape, device=present.device) >= self.modality_dropout)
        return torch.where(kept.any(dim=1, keepdim=True), kept, present)

    def _encode(self, number: int, part: dict[str, Tensor], present: Tensor) -> Any:
        """Return embeddings, or tokens and their mask, with zeros for rows that are not there."""
        # Only rows that are there pass the encoder: placeholders would spoil the statistics of batch normalisation.
        encoder = cast(Encoder, self.encoders[number])
        rows = present.nonzero().squeeze(1)
        if not self.fuser.token_level:
            embedding = present.new_zeros((len(present), encoder.embedding_size), dtype=self.head.weight.dtype)
            if len(rows):
                encoded = encoder(**{name: tensor[rows] for name, tensor in part.items()})
                embedding = embedding.index_put((rows,), encoded.to(embedding.dtype))
            return embedding
        if not len(rows):
            states = present.new_zeros((len(present), 1, encoder.embedding_size), dtype=self.head.weight.dtype)
            return states, present.new_zeros(states.shape[:2])
        made, real = encoder.tokens(**{name: tensor[rows] for name, tensor in part.items()})
        states = made.new_zeros((len(present), *made.shape[1:])).index_put((rows,), made)
        return states, real.new_zeros((len(present), real.shape[1])).index_put((rows,), real)

    def with_missing(self, encoded: Sequence[Any], used: Tensor) -> list[Any]:
        """Put the learned token of a modality in the place of what a row has not, or is not to use.

        Parameters
        ----------
        encoded : sequence of Tensor (batch, size), or of pairs (batch, length, size) and mask (batch, length)
        used : Tensor of bool, shape (batch, n_modalities)
        """
        parts: list[Any] = []
        for m, (part, token) in enumerate(zip(encoded, self.missing, strict=True)):
            there = used[:, m : m + 1]
            if isinstance(part, Tensor):
                parts.append(torch.where(there, part, token))
                continue
            states, mask = part
            first = torch.arange(states.shape[1], device=states.device) == 0
            mask = (there & mask) | (~there & first[None])  # ONNX Runtime has no Where of booleans
            parts.append((torch.where(there.unsqueeze(2), states, token), mask))
        return parts

    def train(self, mode: bool = True) -> JointNetwork:
        """Switch dropout and batch statistics on or off; frozen encoders stay in evaluation mode."""
        super().train(mode)
        for encoder in self.encoders:
            parameters = list(encoder.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                encoder.eval()
        return self


class JointFusion(Fusion):
    """What the joint strategies share; a subclass builds the fuser.

    A torch member contributes its encoder, trained end to end, or frozen with ``fine_tune="head"``. Any other member
    contributes the features that its final estimator would see, standardised. A row that lacks a modality gets a
    learned token in its place.
    """

    max_epochs: int | None
    batch_size: int | None
    learning_rate: float
    weight_decay: float
    warmup_fraction: float
    label_smoothing: float
    modality_dropout: float
    frozen_epochs: int
    device: str
    random_state: Any
    verbose: int

    network_: JointNetwork
    target_: Target
    history_: pd.DataFrame

    _fuser_class: ClassVar[type[Fuser]]

    @abstractmethod
    def _build_fuser(self, sizes: Sequence[int]) -> Fuser:
        """Return an untrained fuser of representations of these sizes."""

    def fit(
        self,
        members: Sequence[Member],
        X: Any,
        target: LearnedTask,
        *,
        sample_weight: np.ndarray | None = None,
        store: Store | None = None,
        n_jobs: int | None = None,
    ) -> Self:
        """Train all networks together; see `mmensemble.fusion.Fusion.fit`. `n_jobs` has no effect."""
        self._check_parameters()
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

    def _train(self, members: Sequence[Member], X: Any, target: LearnedTask, sample_weight: np.ndarray | None) -> None:
        self.task_, self.prior_ = target.task, target.prior
        weight = np.ones(n_rows(X)) if sample_weight is None else sample_weight
        self.target_ = target_of(target, weight)
        rng = check_random_state(self.random_state)
        device = resolve_device(self.device)
        with seeded(int(rng.randint(2**31)), device):
            token_level = self._fuser_class.token_level
            parts = [fit_rows(member, X, target.y, token_level=token_level) for member in members]
            encoders = [part.encoder for part in parts]
            self.network_ = JointNetwork(
                encoders,
                self._build_fuser([encoder.embedding_size for encoder in encoders]),
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
            settings = self._settings([part.estimator for part in parts], device)
            loss = self.target_.loss(self.label_smoothing)
            histories = []
            if self.frozen_epochs:
                with frozen(*encoders):
                    first = replace(settings, max_epochs=self.frozen_epochs)
                    histories.append(train(self.network_, data, first, loss=loss, learning_rates=rates))
            histories.append(train(self.network_, data, settings, loss=loss, learning_rates=rates))
        history = pd.concat(histories, ignore_index=True)
        history["epoch"] = np.arange(1, len(history) + 1)
        self.history_ = history
        self.members_ = [member.fitted(part.estimator, X) for member, part in zip(members, parts, strict=True)]

    def _check_parameters(self) -> None:
        check_fractions(self, "modality_dropout", "warmup_fraction", "label_smoothing")
        check_integers(
            self, frozen_epochs=0, **{n: 1 for n in ("max_epochs", "batch_size") if getattr(self, n) is not None}
        )
        check_rates(self)

    def _settings(self, estimators: Sequence[Any], device: torch.device) -> TrainingSettings:
        networks = [e for e in estimators if isinstance(e, TorchEstimator)]
        return TrainingSettings(
            max_epochs=max((e.max_epochs for e in networks), default=20)
            if self.max_epochs is None
            else self.max_epochs,
            batch_size=self._rows_per_step(estimators),
            warmup_fraction=self.warmup_fraction,
            device=device,
            verbose=self.verbose,
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

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the weights from the CPU, so that a machine without the training device can read them."""
        state = dict(super().__getstate__())
        if "network_" in state:
            # The members' encoders are the network's own: moving it moves them, and pickle keeps them shared.
            state["network_"] = state["network_"].to("cpu")
        return state

    def __onnx_graph__(self, source: Any) -> Any:
        """Take part in `mmensemble.to_graph`."""
        from mmensemble_estimators._export import joint_graph

        return joint_graph(self, source)


def _numbered(batches: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {f"{m}.{name}": array for m, batch in enumerate(batches) for name, array in batch.items()}


def fit_joint(
    fusion: JointFusion, X: Any, members: Sequence[Member], target: LearnedTask, sample_weight: np.ndarray | None
) -> JointFusion:
    """Train a joint fusion, which is what a store keeps of it."""
    fusion._train(members, X, target, sample_weight)
    return fusion
