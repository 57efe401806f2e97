"""Joint fusion strategies: the members' networks are trained together, with what fuses their embeddings."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from joblib import Memory
from scipy.special import softmax
from sklearn.utils import check_random_state
from torch import Tensor, nn

from mmensemble.exceptions import DataError
from mmensemble.fusion import Fusion, Member
from mmensemble.preprocessing import PRESENT
from mmensemble.preprocessing.frames import n_rows
from mmensemble_estimators._base import TorchEstimator
from mmensemble_estimators._members import fit_rows, rows_of
from mmensemble_estimators._parameters import check_fractions, check_integers, check_rates
from mmensemble_estimators._training import (
    TrainingData,
    TrainingSettings,
    resolve_device,
    run_in_batches,
    seeded,
    train,
)

__all__ = ["ConcatFusion", "JointFusion", "JointNetwork"]


class JointNetwork(nn.Module):
    """Encoders side by side, a fuser over their embeddings, a linear head.

    Parameters
    ----------
    encoders : sequence of nn.Module
        Named tensors → (batch, embedding_size); with the attribute ``embedding_size``.
    fuser : nn.Module
        List of (batch, embedding_size_m) → (batch, fused_size); with the attribute ``fused_size``.
    n_outputs : int
    modality_dropout : float
        In training, each modality of a row is withheld with this probability, never all of them.
    """

    def __init__(
        self, encoders: Sequence[nn.Module], fuser: nn.Module, n_outputs: int, *, modality_dropout: float
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        sizes: list[int] = [encoder.embedding_size for encoder in encoders]  # type: ignore[misc]
        self.missing = nn.ParameterList(torch.zeros(size) for size in sizes)
        self.fuser = fuser
        self.head = nn.Linear(fuser.fused_size, n_outputs)  # type: ignore[arg-type]
        self.modality_dropout = modality_dropout

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return the logits, shape (batch, n_outputs). Inputs are named ``<number of member>.<tensor>``."""
        logits: Tensor = self.head(self.fuse(**inputs))
        return logits

    def fuse(self, **inputs: Tensor) -> Tensor:
        """Return the fused representation, shape (batch, fused_size)."""
        parts: list[dict[str, Tensor]] = [{} for _ in self.encoders]
        for name, tensor in inputs.items():
            number, _, tensor_name = name.partition(".")
            parts[int(number)][tensor_name] = tensor
        present = torch.stack([part.pop(PRESENT) for part in parts], dim=1)
        used = self._withhold(present) if self.training and self.modality_dropout else present
        embeddings = [
            self._embed(encoder, token, part, present[:, m], used[:, m])
            for m, (encoder, token, part) in enumerate(zip(self.encoders, self.missing, parts, strict=True))
        ]
        fused: Tensor = self.fuser(embeddings)
        return fused

    def _withhold(self, present: Tensor) -> Tensor:
        kept = present & (torch.rand(present.shape, device=present.device) >= self.modality_dropout)
        return torch.where(kept.any(dim=1, keepdim=True), kept, present)

    def _embed(
        self, encoder: nn.Module, token: Tensor, part: dict[str, Tensor], present: Tensor, used: Tensor
    ) -> Tensor:
        # Only rows that are there pass the encoder: placeholders would spoil the statistics of batch normalisation.
        embedding = token.expand(len(present), -1)
        rows = present.nonzero().squeeze(1)
        if len(rows):
            encoded = encoder(**{name: tensor[rows] for name, tensor in part.items()})
            embedding = embedding.index_put((rows,), encoded.to(embedding.dtype))
        return torch.where(used.unsqueeze(1), embedding, token)

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
    device: str
    random_state: Any
    verbose: int

    network_: JointNetwork
    history_: pd.DataFrame

    @abstractmethod
    def _build_fuser(self, sizes: Sequence[int]) -> nn.Module:
        """Return an untrained fuser of embeddings of these sizes, with the attribute ``fused_size``."""

    def fit(
        self,
        members: Sequence[Member],
        X: Any,
        y: np.ndarray,
        *,
        sample_weight: np.ndarray | None = None,
        memory: Memory | None = None,
        n_jobs: int | None = None,
    ) -> JointFusion:
        """Train all networks together; see `mmensemble.fusion.Fusion.fit`. `memory` and `n_jobs` have no effect."""
        self._check_parameters()
        self._set_classes(y, sample_weight)
        rng = check_random_state(self.random_state)
        device = resolve_device(self.device)
        with seeded(int(rng.randint(2**31)), device):
            parts = [fit_rows(member, X, y) for member in members]
            encoders = [part.encoder for part in parts]
            self.network_ = JointNetwork(
                encoders,
                self._build_fuser([encoder.embedding_size for encoder in encoders]),  # type: ignore[misc]
                len(self.classes_),
                modality_dropout=self.modality_dropout,
            )
            present = np.column_stack([part.present for part in parts])
            weight = np.ones(len(y)) if sample_weight is None else sample_weight
            rows = np.flatnonzero(present.any(axis=1) & (weight > 0))
            if len(rows) < 2:
                raise DataError("fewer than 2 rows have any of the modalities; there is nothing to fit")
            self.history_ = train(
                self.network_,
                TrainingData(
                    rows,
                    lambda r: _numbered([part.training_batch(r, rng) for part in parts]),
                    np.searchsorted(self.classes_, y),
                    weight,
                ),
                self._settings([part.estimator for part in parts], device),
                loss=nn.CrossEntropyLoss(reduction="none", label_smoothing=self.label_smoothing),
                learning_rates=[
                    *((f"encoders.{m}.*", *part.learning_rate) for m, part in enumerate(parts) if part.learning_rate),
                    ("*", self.learning_rate, self.weight_decay),
                ],
            )
        self.members_ = [member.fitted(part.estimator, X) for member, part in zip(members, parts, strict=True)]
        return self

    def _check_parameters(self) -> None:
        check_fractions(self, "modality_dropout", "warmup_fraction", "label_smoothing")
        check_integers(self, **{n: 1 for n in ("max_epochs", "batch_size") if getattr(self, n) is not None})
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
        rows = [rows_of(member, X) for member in self.members_]
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

    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict class probabilities, ndarray of float64, shape (n_samples, n_classes)."""
        if n_rows(X) == 0:
            return np.zeros((0, len(self.classes_)))
        logits, present = self._run(self.network_, X)
        probabilities: np.ndarray = softmax(logits.astype(np.float64), axis=1)
        probabilities[~present] = self.class_prior_
        return probabilities

    def transform(self, X: Any) -> np.ndarray:
        """Return the fused representation, ndarray of float32, shape (n_samples, fused_size)."""
        if n_rows(X) == 0:
            return np.zeros((0, len(self.get_feature_names_out())), dtype=np.float32)
        return self._run(self.network_.fuse, X)[0]

    def get_feature_names_out(self) -> list[str]:
        """Return a number per fused feature."""
        return [str(i) for i in range(self.network_.fuser.fused_size)]  # type: ignore[arg-type]

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


class ConcatFusion(JointFusion):
    """Concatenate the members' embeddings: LayerNorm, a ReLU layer, softmax; trained end to end.

    Parameters
    ----------
    hidden_size : int, default=128
        Width of the hidden layer.
    dropout : float, default=0.1
        After the hidden layer, in training.
    modality_dropout : float, default=0.0
        In training, each modality of a row is withheld with this probability (never all of them), which teaches the
        network to do without.
    max_epochs : int, default=None
        Passes over the fitting rows; None takes the largest of the torch members'.
    batch_size : int, default=None
        Rows per step; None takes the smallest of the torch members'.
    learning_rate : float, default=1e-3
        Highest learning rate of the fusion layers; the encoders have their members' own.
    weight_decay : float, default=0.01
        Of the fusion layers.
    warmup_fraction : float, default=0.1
        Share of the steps over which the learning rates rise from 0.
    label_smoothing : float, default=0.1
        Share of each label that the loss spreads over all classes.
    device : str, default="auto"
        A torch device; ``"auto"`` takes a GPU where torch sees one, else the CPU.
    random_state : int, RandomState or None, default=None
        Seeds the whole joint training; the members' own are not used.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    network_ : JointNetwork
    members_ : list of Member
        The fitted members. A torch member has its encoder, so ``transform``, but no head of its own.
    history_ : pandas.DataFrame
        A row per epoch: ``epoch``, ``train_loss``, ``dur`` in seconds.
    classes_ : ndarray of shape (n_classes,)
    class_prior_ : ndarray of float, shape (n_classes,)
    """

    def __init__(
        self,
        *,
        hidden_size: int = 128,
        dropout: float = 0.1,
        modality_dropout: float = 0.0,
        max_epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        warmup_fraction: float = 0.1,
        label_smoothing: float = 0.1,
        device: str = "auto",
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.hidden_size = hidden_size
        self.dropout = dropout
        self.modality_dropout = modality_dropout
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup_fraction = warmup_fraction
        self.label_smoothing = label_smoothing
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_integers(self, hidden_size=1)
        check_fractions(self, "dropout")

    def _build_fuser(self, sizes: Sequence[int]) -> nn.Module:
        return _ConcatFuser(sum(sizes), self.hidden_size, self.dropout)


class _ConcatFuser(nn.Module):
    def __init__(self, size: int, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.fused_size = hidden_size
        self.layers = nn.Sequential(nn.LayerNorm(size), nn.Linear(size, hidden_size), nn.ReLU(), nn.Dropout(dropout))

    def forward(self, embeddings: list[Tensor]) -> Tensor:
        fused: Tensor = self.layers(torch.cat(embeddings, dim=1))
        return fused


def _numbered(batches: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {f"{m}.{name}": array for m, batch in enumerate(batches) for name, array in batch.items()}
