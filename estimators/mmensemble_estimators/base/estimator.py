"""What the torch estimators that predict share: training of an encoder and a head, prediction, storage."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted
from torch import nn

from mmensemble.frames import Cells
from mmensemble.preprocessing import Encoded, Preprocessor
from mmensemble_estimators.backbones.encoder import Encoder
from mmensemble_estimators.backbones.network import Network
from mmensemble_estimators.base.parameters import check_target
from mmensemble_estimators.base.trained import TrainedLeaf
from mmensemble_estimators.frozen.encoders import frozen_encoder, own_encoder
from mmensemble_estimators.frozen.rows import embed, real_tokens, tokens
from mmensemble_estimators.training.loop import TrainingData, seeded, train
from mmensemble_estimators.training.targets import ClassTarget, Target

__all__ = ["TorchEstimator", "check_has_head"]

# With AdamW a step moves an output by at most the rate times the sum of the features' sizes, which of normalised ones
# grows with their number; so the rate falls with it (Yang et al. 2021). The guide says how 0.6 was found.
HEAD_LEARNING_RATE_TIMES_SIZE = 0.6


class TorchEstimator(TrainedLeaf):
    """A scikit-learn estimator of one modality that predicts: an encoder and a head, trained on a target `y`.

    A subclass says how its preprocessor is fitted and how its encoder is built; the rest is here.
    """

    module_: Network
    _target: Target

    @abstractmethod
    def _build_encoder(self, preprocessor: Preprocessor) -> Encoder:
        """Return an untrained (or pretrained) encoder: the preprocessor's arrays → (batch, embedding_size)."""

    @abstractmethod
    def _rebuild_encoder(self, architecture: dict[str, Any] | None) -> Encoder:
        """Return an untrained encoder from its saved architecture; None is a callable `backbone`'s."""

    @abstractmethod
    def _training_batch(
        self, cells: Cells, encoded: Encoded, rows: np.ndarray, rng: np.random.RandomState
    ) -> dict[str, np.ndarray]:
        """Return the arrays of a training batch, varied at random where the estimator augments."""

    @abstractmethod
    def _learn_target(self, y: Any, weight: np.ndarray) -> tuple[Target, np.ndarray]:
        """Return what `y` is, and `y` checked."""

    def _rate(self) -> float:
        if self.learning_rate is None and self.fine_tune == "head":
            return HEAD_LEARNING_RATE_TIMES_SIZE / self._n_features_out
        return super()._rate()

    def _fit(self, X: Any, y: Any, sample_weight: Any, *, afresh: bool, epochs: int) -> Self:
        check_target(self, y)
        self._check_parameters()
        cells, encoded = self._encode_to_fit(X, afresh=afresh)
        check_consistent_length(encoded.present, y)
        weight = self._row_weights(encoded, sample_weight)
        if afresh:
            self._target, y = self._learn_target(y, weight)
        else:
            y = self._target.check(y)
        target = self._target.encode(y)
        weight = weight * self._class_weights(y)
        rows = self._rows_to_fit(encoded, weight)
        rng = check_random_state(self.random_state)
        fitting, validating = self._split(rows, rng, stratify=y if isinstance(self._target, ClassTarget) else None)
        settings = self._settings(epochs)
        with seeded(int(rng.randint(2**31)), settings.device):
            if afresh:
                self.module_ = Network(self._new_encoder(), self._target.n_outputs, normalised=self.fine_tune == "head")
            if self.fine_tune != "head":
                self.module_.encoder = own_encoder(self.module_.encoder)
            with self._trainable():
                network: nn.Module = self.module_
                if self.fine_tune == "head":
                    # The frozen encoder runs once for every row, and the head alone is trained on what it gave.
                    embedded = self._embed(encoded)
                    network = self.module_.head_network()

                    def batch(r: np.ndarray) -> dict[str, np.ndarray]:
                        return {"embedding": embedded[r]}

                    varied = batch
                else:

                    def batch(r: np.ndarray) -> dict[str, np.ndarray]:
                        return self._batch(encoded, r)

                    def varied(r: np.ndarray) -> dict[str, np.ndarray]:
                        return self._training_batch(cells, encoded, r, rng)

                history = train(
                    network,
                    TrainingData(fitting, varied, target, weight, lengths=encoded.lengths),
                    settings,
                    loss=self._target.loss(getattr(self, "label_smoothing", 0.0)),
                    learning_rates=[("*", self._rate(), self.weight_decay)],
                    validation=None if validating is None else TrainingData(validating, batch, target, weight),
                )
            self.module_.eval()
        self._record(history, afresh=afresh)
        return self

    def _class_weights(self, y: np.ndarray) -> np.ndarray:
        return np.ones(len(y))

    def _new_encoder(self) -> Encoder:
        if self.fine_tune == "head" and self._is_pretrained:
            return frozen_encoder(self, self.preprocessor_)
        return self._build_encoder(self.preprocessor_)

    def _embed(self, encoded: Encoded) -> np.ndarray:
        if self.fine_tune != "head":
            return super()._embed(encoded)
        return embed(self.module_.encoder, encoded, lambda function, rows: self._run(function, encoded, rows))

    def _tokens(self, encoded: Encoded) -> list[np.ndarray]:
        """Return each row's tokens by the frozen encoder, (length, embedding_size) float32."""
        return tokens(
            self.module_.encoder,
            encoded,
            lambda function, rows: self._run(function, encoded, rows, run=real_tokens),
        )

    def _raw_outputs(self, encoded: Encoded) -> np.ndarray:
        """Return the network's raw outputs, (n_rows, n_outputs) float32."""
        if self.fine_tune != "head":
            return np.asarray(self._run(self.module_, encoded))
        embedded = self._embed(encoded)
        with torch.inference_mode():
            device = next(self.module_.parameters()).device
            return self.module_.head_network().eval()(torch.from_numpy(embedded).to(device)).cpu().numpy()

    def _outputs(self, X: Any) -> np.ndarray:
        """Return the target's outputs, (n_samples, n_outputs) float64; its `fill` where a row is missing."""
        check_has_head(self)
        encoded = self._encode(X)
        if len(encoded) == 0:
            return np.zeros((0, self._target.n_outputs))
        outputs = self._target.outputs(self._raw_outputs(encoded))
        outputs[~encoded.present] = self._target.fill
        return outputs

    def save(self, folder: str | Path) -> None:
        """Write the fitted estimator as a folder of safetensors and JSON; nothing in it is pickled.

        Parameters
        ----------
        folder : str or path
            Made where it is not there. Files of an earlier `save` in it are replaced.

        Raises
        ------
        ConfigurationError
            If a parameter has no JSON form, as a ``RandomState``.
        """
        from mmensemble_estimators.storage.folder import save

        check_has_head(self)
        save(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path, *, backbone: Any = None) -> Self:
        """Read what `save` wrote.

        Parameters
        ----------
        folder : str or path
        backbone : callable, default=None
            The callable `backbone` that was fitted, which is code and so not in the folder.

        Returns
        -------
        estimator
            Fitted, of this class.

        Raises
        ------
        ModelFileError
            If the folder is damaged, holds another class, or was written by a newer version.
        """
        from mmensemble_estimators.storage.folder import load

        return load(cls, Path(folder), backbone)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        return tags


def check_has_head(estimator: TorchEstimator) -> None:
    """Raise a `NotFittedError` where an estimator is not fitted, or has only learned to embed."""
    check_is_fitted(estimator, "module_")
    check_is_fitted(
        estimator, "_target", msg="This %(name)s has no head of its own: it was fitted as a member of a joint fusion."
    )
