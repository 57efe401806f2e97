"""What the torch estimators that predict share: fitting of an encoder and a head, prediction, storage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d
from torch import nn

from mmensemble.exceptions import ConfigurationError
from mmensemble.frames import Cells, naming_rows
from mmensemble.learning.related_rows import repeated_cells
from mmensemble.preprocessing import Encoded
from mmensemble.progress import Step, fitting
from mmensemble.time_limits import TimeLimit, time_limit, warn_of_cut
from mmensemble_estimators.backbones.network import Network
from mmensemble_estimators.base.embedding import frozen_embedding, is_pretrained, layer_rates, new_encoder
from mmensemble_estimators.base.head import calibrate_head, solve_head
from mmensemble_estimators.base.modality import EncodedModality
from mmensemble_estimators.base.parameters import check_choice, check_decay, check_target
from mmensemble_estimators.base.rows import arrays_of, cells_to_fit, encode, encode_to_fit, run
from mmensemble_estimators.base.trained import TrainedLeaf
from mmensemble_estimators.frozen.encoders import own_encoder
from mmensemble_estimators.storage.predictors import load_predictor, save_predictor
from mmensemble_estimators.training.loop import TrainingData, TrainingSettings, resolve_device, seeded, train, was_cut
from mmensemble_estimators.training.targets import ClassTarget, NumberTarget, Target

__all__ = ["Learn", "TorchEstimator", "check_has_head"]

# Fewer rows that are set aside tell too little of when to stop.
LEAST_VALIDATION = 20

# y and the rows' weights → what y is, and y checked.
Learn = Callable[[Any, np.ndarray], tuple[Target, np.ndarray]]


class TorchEstimator(TrainedLeaf):
    """A scikit-learn estimator of one modality that predicts: an encoder and a head, trained on a target `y`.

    What it reads, its `modality` knows; what it learns, a `Target`.
    """

    modality: ClassVar[EncodedModality]
    module_: Network
    target_: Target

    def check_parameters(self) -> None:
        super().check_parameters()
        check_choice("early_stopping", str(self.early_stopping), ("True", "False", "auto"))
        check_decay(self)
        self.modality.check_parameters(self)

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        learn: Learn,
        *,
        afresh: bool,
        partial: bool = False,
        groups: Any = None,
    ) -> Self:
        """Fit all, or by one epoch if it is `partial`.

        Of a pretrained encoder the head is solved first, unless it is `partial`; of a frozen one that is all.
        """
        check_target(self, y)
        self.check_parameters()
        name = "partial_fit" if partial else "fit"
        with (
            fitting(self, X, y, sample_weight, name=name),
            time_limit(None if partial else self.time_limit) as limit,
        ):
            self._fit_in_time(X, y, sample_weight, learn, groups, limit, afresh=afresh, partial=partial)
        if limit.cut:
            remedy = "it is as good as it was then (history_)"
            warn_of_cut(self.time_limit, f"this {type(self).__name__}", remedy, stacklevel=3)
        return self

    def _fit_in_time(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        learn: Learn,
        groups: Any,
        limit: TimeLimit,
        *,
        afresh: bool,
        partial: bool,
    ) -> None:
        cells = cells_to_fit(self, X)
        with naming_rows(X):
            if afresh:
                self.preprocessor_ = self.modality.fit_preprocessor(self, cells)
            encoded = encode_to_fit(self, cells)
        check_consistent_length(encoded.present, y, groups)
        weight = self._row_weights(encoded, sample_weight)
        if afresh:
            self.target_, y = learn(y, weight)
        else:
            y = self.target_.check(y)
        target = self.target_.encode(y)
        weight = weight * self._class_weights(y)
        rows = self._rows_to_fit(encoded, weight)
        rng = check_random_state(self.random_state)
        groups = None if groups is None else column_or_1d(groups)
        solved = self.fine_tune == "head" and not partial
        starts_solved = self._starts_solved and afresh and not partial
        strata = y if isinstance(self.target_, ClassTarget) else None
        together = repeated_cells(cells) if groups is None else groups
        fit_rows, validating = (rows, None) if solved else self._split(rows, rng, strata, together)
        settings = self._settings(1 if partial else self.max_epochs, None if partial else limit)
        with seeded(int(rng.randint(2**31)), settings.device):
            if afresh:
                encoder = new_encoder(self, frozen=starts_solved)
                normalised = self.fine_tune == "head" or starts_solved
                self.module_ = Network(encoder, self.target_.n_outputs, normalised=normalised)
            if solved or starts_solved:
                with Step("head", told=False, last=solved):
                    embedding = frozen_embedding(self, encoded)
                    history = solve_head(self, embedding, fit_rows, target, weight, groups)
            if self.fine_tune != "head":
                self.module_.encoder = own_encoder(self.module_.encoder)
            if not solved:
                parts = (fit_rows, validating)
                history = self._train(cells, encoded, parts, target, weight, settings, rng, solved=starts_solved)
            if starts_solved and not history["kept"][history["epoch"] > 0].any():
                # Nothing was better than the solved head: then it is that of all rows.
                solve_head(self, embedding, rows, target, weight, groups)
            elif starts_solved and validating is not None and not isinstance(self.target_, NumberTarget):
                raw = run(self, self.module_, encoded, validating)
                calibrate_head(self, raw, target[validating], weight[validating])
            self.module_.eval()
        self._record(history, afresh=afresh or solved)

    @property
    def timed_out_(self) -> bool:
        """Whether a time limit had a say in the training."""
        return was_cut(self.history_)

    @property
    def _starts_solved(self) -> bool:
        """Whether a training begins with a head that was solved on what a pretrained encoder gives."""
        return self.fine_tune != "head" and is_pretrained(self)

    def _split(
        self,
        rows: np.ndarray,
        rng: np.random.RandomState,
        stratify: np.ndarray | None = None,
        groups: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        if self.early_stopping == "auto":
            enough = len(rows) * self.validation_fraction >= LEAST_VALIDATION
            if not (enough and self._starts_solved) or (groups is not None and len(np.unique(groups[rows])) < 2):
                return rows, None
            if stratify is not None and np.unique(stratify[rows], return_counts=True)[1].min() < 2:
                stratify = None
        return super()._split(rows, rng, stratify, groups)

    def _train(
        self,
        cells: Cells,
        encoded: Encoded,
        parts: tuple[np.ndarray, np.ndarray | None],
        target: np.ndarray,
        weight: np.ndarray,
        settings: TrainingSettings,
        rng: np.random.RandomState,
        *,
        solved: bool,
    ) -> pd.DataFrame:
        """Train the network on the first part of the rows; the second one, if there is one, says when to stop."""
        fit_rows, validating = parts
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
                    return arrays_of(self.preprocessor_, encoded, r)

                def varied(r: np.ndarray) -> dict[str, np.ndarray]:
                    return self.modality.training_batch(self, cells, encoded, r, rng)

            return train(
                network,
                TrainingData(fit_rows, varied, target, weight, lengths=encoded.lengths),
                settings,
                loss=self._loss(),
                valid_loss=self.target_.loss(0.0) if solved else None,
                learning_rates=layer_rates(self),
                validation=None if validating is None else TrainingData(validating, batch, target, weight),
                solved=solved,
            )

    def _loss(self) -> nn.Module:
        return self.target_.loss(0.0)

    def fit_embedding(self, X: Any) -> Self:
        """Fit what `transform` needs, a preprocessor and a frozen encoder, and no head.

        Parameters
        ----------
        X : sequence of cells, or frame or array of one column, n_samples rows

        Returns
        -------
        self

        Raises
        ------
        ConfigurationError
            If the encoder is one that is trained.
        """
        if self.fine_tune != "head":
            raise ConfigurationError(
                f"{type(self).__name__}(fine_tune={self.fine_tune!r}) is trained, and only a frozen network embeds "
                "rows that it was not fitted to as those that it was; set fine_tune='head', or fit it before and put a "
                "FrozenEstimator around it"
            )
        self.check_parameters()
        cells = cells_to_fit(self, X)
        with naming_rows(X):
            self.preprocessor_ = self.modality.fit_preprocessor(self, cells)
            encode_to_fit(self, cells)
        seed = int(check_random_state(self.random_state).randint(2**31))
        with seeded(seed, resolve_device(self.device)):
            self.module_ = Network(new_encoder(self), None)
        return self

    def _class_weights(self, y: np.ndarray) -> np.ndarray:
        return np.ones(len(y))

    def _embed(self, encoded: Encoded) -> np.ndarray:
        return frozen_embedding(self, encoded) if self.fine_tune == "head" else super()._embed(encoded)

    def _raw_outputs(self, encoded: Encoded) -> np.ndarray:
        """Return the network's raw outputs, (n_rows, n_outputs) float32."""
        if self.fine_tune != "head":
            return np.asarray(run(self, self.module_, encoded))
        embedded = self._embed(encoded)
        with torch.inference_mode():
            device = next(self.module_.parameters()).device
            return self.module_.head_network().eval()(torch.from_numpy(embedded).to(device)).cpu().numpy()

    def _outputs(self, X: Any) -> np.ndarray:
        """Return the target's outputs, (n_samples, n_outputs) float64; its `fill` where a row is missing."""
        check_has_head(self)
        encoded = encode(self, X)
        if len(encoded) == 0:
            return np.zeros((0, self.target_.n_outputs))
        outputs = self.target_.outputs(self._raw_outputs(encoded))
        outputs[~encoded.present] = self.target_.fill
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
            If a parameter has no JSON form, as a ``RandomState``, or the folder holds other files.
        """
        check_has_head(self)
        save_predictor(self, Path(folder))

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
        return load_predictor(cls, Path(folder), backbone)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        return tags


def check_has_head(estimator: TorchEstimator) -> None:
    """Raise a `NotFittedError` where an estimator is not fitted, or has only learned to embed."""
    check_is_fitted(estimator, "module_")
    check_is_fitted(
        estimator, "target_", msg="This %(name)s has no head of its own: it was fitted as a member of a joint fusion."
    )
