"""What a model adds to the rows of a file: columns of scores, or of texts. Imports pyarrow on first use only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mmensemble.exceptions import ConfigurationError
from mmensemble.scoring.batching import ScoredWindow
from mmensemble.scoring.generation import GenerationSettings, room_for_prompt
from mmensemble.scoring.predictor import OnnxPredictor
from mmensemble.scoring.report.stages import Stages
from mmensemble.tasks import Classification, Generation

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["AddedColumns", "ScoreColumns", "TextColumns", "TopColumns"]


class AddedColumns(ABC):
    """What a model adds to the rows of a file, ``error`` apart.

    Parameters
    ----------
    model : OnnxPredictor

    Attributes
    ----------
    fields : list of pyarrow.Field
        The columns' names and types.
    settings : dict
        What decides the cells beside the model and the rows, as JSON.
    drawn : dict
        What of that was drawn by chance.
    """

    def __init__(self, model: OnnxPredictor) -> None:
        self.model = model
        self.settings: dict[str, Any] = {}
        self.drawn: dict[str, Any] = {}
        self.fields: list[pa.Field] = []

    @abstractmethod
    def windows(
        self, frames: Iterable[pa.Table], first_row: int, drawn: Mapping[str, Any], stages: Stages | None = None
    ) -> Generator[ScoredWindow]:
        """Run the model over tables of rows, of which the first is number `first_row`; `stages` takes the seconds."""

    @abstractmethod
    def cells(self, window: ScoredWindow) -> list[pa.Array]:
        """Turn a window into an array for each field, null in the bad rows."""


class ScoreColumns(AddedColumns):
    """Predictions and probabilities.

    Parameters
    ----------
    model : OnnxPredictor
    bad_as_missing : bool, default=None
        Whether a cell that cannot be read counts as missing; None is as the model was opened.

    Raises
    ------
    ConfigurationError
        If the model writes texts.
    """

    def __init__(self, model: OnnxPredictor, *, bad_as_missing: bool | None = None) -> None:
        import pyarrow as pa

        super().__init__(model)
        self.bad_as_missing = bad_as_missing
        self.task = task = model.manifest.task
        if isinstance(task, Generation):
            raise ConfigurationError(
                f"{model.path} writes texts and has no scores; use generate_file (mmensemble generate)"
            )
        # The types of the predictions are those of the prediction for any outputs.
        predicted = _columns(task.predict(np.zeros((1, task.n_columns), dtype=np.float32)))
        self.fields = [
            *(
                pa.field(name, pa.array(column.tolist()).type)
                for name, column in zip(task.prediction_columns(), predicted, strict=True)
            ),
            *(pa.field(name, pa.float32()) for name in task.probability_columns()),
        ]

    def windows(
        self, frames: Iterable[pa.Table], first_row: int, drawn: Mapping[str, Any], stages: Stages | None = None
    ) -> Generator[ScoredWindow]:
        return self.model.score_batches(frames, bad_as_missing=self.bad_as_missing, stages=stages)

    def cells(self, window: ScoredWindow) -> list[pa.Array]:
        import pyarrow as pa

        bad = _bad_rows(window)
        # What a bad row would be predicted as does not matter, but NaN must not reach argmax and comparisons.
        outputs = np.where(bad[:, None], 0.0, window.outputs).astype(np.float32)
        predicted = _columns(self.task.predict(outputs))
        probabilities = list(outputs.T[: self.task.width]) if self.task.probability_columns() else []
        return [
            *(
                pa.array(column.tolist(), field.type, mask=bad)
                for field, column in zip(self.fields, predicted, strict=False)  # the first fields
            ),
            *(pa.array(np.ascontiguousarray(column), mask=bad) for column in probabilities),
        ]


class TopColumns(ScoreColumns):
    """Predictions, and the most probable classes with their probabilities: ``top_1``, ``top_1_probability``, ….

    Parameters
    ----------
    model : OnnxPredictor
    top_k : int
        How many classes; of a model that has fewer, all.
    bad_as_missing : bool, default=None
        See `ScoreColumns`.

    Raises
    ------
    ConfigurationError
        If the model does not give probabilities of classes of one label.
    """

    def __init__(self, model: OnnxPredictor, top_k: int, *, bad_as_missing: bool | None = None) -> None:
        import pyarrow as pa

        super().__init__(model, bad_as_missing=bad_as_missing)
        if not isinstance(self.task, Classification) or self.task.output != "probabilities":
            raise ConfigurationError(f"top_k needs probabilities of classes, and {model.path} does {self.task.name}")
        self.settings = {"top_k": top_k}
        prediction, *_ = self.fields
        self.top_k = min(top_k, self.task.width)
        self.fields = [prediction]
        for place in range(1, self.top_k + 1):
            self.fields += [
                pa.field(f"top_{place}", prediction.type),
                pa.field(f"top_{place}_probability", pa.float32()),
            ]

    def cells(self, window: ScoredWindow) -> list[pa.Array]:
        import pyarrow as pa

        prediction, *_ = super().cells(window)
        bad = _bad_rows(window)
        probabilities = np.where(bad[:, None], 0.0, window.outputs)[:, : self.task.width].astype(np.float32)
        # Stable, so that of equals the first class comes first, as it does in a prediction.
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, : self.top_k]
        cells = [prediction]
        for places in order.T:
            cells += [
                pa.array(self.task.classes[places].tolist(), prediction.type, mask=bad),
                pa.array(np.take_along_axis(probabilities, places[:, None], axis=1)[:, 0], mask=bad),
            ]
        return cells


class TextColumns(AddedColumns):
    """Texts that are written: ``generated``, or ``generated_0`` and so on of several for each row.

    Parameters
    ----------
    model : OnnxPredictor
    settings : GenerationSettings
    fixed_seed : bool
        Whether the seed was asked for; else it was drawn.

    Raises
    ------
    ConfigurationError
        If the model writes no texts, or not as long ones.
    """

    def __init__(self, model: OnnxPredictor, settings: GenerationSettings, *, fixed_seed: bool) -> None:
        import pyarrow as pa

        super().__init__(model)
        task = model.manifest.task
        if not isinstance(task, Generation):
            raise ConfigurationError(
                f"{model.path} does {task.name} and writes no texts; use score_file (mmensemble score)"
            )
        room_for_prompt(task, settings)
        self.generation = settings
        self.settings = {
            name: value.item() if isinstance(value, np.generic) else value for name, value in asdict(settings).items()
        }
        if not fixed_seed:
            self.drawn = {"seed": self.settings.pop("seed")}
        copies = settings.num_return_sequences
        names = ["generated"] if copies == 1 else [f"generated_{copy}" for copy in range(copies)]
        self.fields = [pa.field(name, pa.string()) for name in names]

    def windows(
        self, frames: Iterable[pa.Table], first_row: int, drawn: Mapping[str, Any], stages: Stages | None = None
    ) -> Generator[ScoredWindow]:
        return self.model.generate_batches(frames, replace(self.generation, **drawn), first_row=first_row)

    def cells(self, window: ScoredWindow) -> list[pa.Array]:
        import pyarrow as pa

        return [pa.array(texts.tolist(), pa.string()) for texts in window.outputs.T]


def _bad_rows(window: ScoredWindow) -> np.ndarray:
    # A row may have scores and a note.
    return ~np.isfinite(window.outputs).all(axis=1)


def _columns(predictions: np.ndarray) -> list[np.ndarray]:
    """Return predictions (n,) or (n, n_columns) as a list of columns."""
    return [predictions] if predictions.ndim == 1 else list(predictions.T)
