"""`OnnxPredictor`: a model file as a fitted classifier. Imports numpy, onnxruntime and what preprocessing needs."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmensemble.cores import usable_cores
from mmensemble.exceptions import ConfigurationError, DataError
from mmensemble.frames import frame_with, n_rows
from mmensemble.scoring.batching import (
    ScoredWindow,
    score_window,
    usual_batch_size,
    window_size,
)
from mmensemble.scoring.conditional import available_if
from mmensemble.scoring.generation import GenerationSettings, room_for_prompt
from mmensemble.scoring.generation.onnx_decoder import OnnxDecoder
from mmensemble.scoring.manifest import Manifest
from mmensemble.scoring.open_model import OpenModel
from mmensemble.scoring.providers import Device, ResolvedDevice
from mmensemble.scoring.report.stages import Stages
from mmensemble.scoring.window import warn_of
from mmensemble.scoring.writing import write_windows
from mmensemble.tasks import Generation, Multioutput

__all__ = ["OnnxPredictor"]

# Windows of a model that writes are of so few batches, because each token of each takes a call of the graph, or of half
# as many as there are threads.
_WRITTEN_BATCHES = 4


class OnnxPredictor:
    """Score with a model file, without torch and without scikit-learn.

    Nothing is unpickled: the file is an ONNX graph and a JSON description. A predictor can be pickled itself; the copy
    opens the file again, by its absolute path, when it is first used.

    Parameters
    ----------
    path : str or path-like
        A file written by `mmensemble.export_onnx`.
    device : {"auto", "cpu", "cuda", "tensorrt"}, default="auto"
        ``"auto"`` takes a GPU that works, else the CPU. A device named here is used or refused, never replaced. One of
        several GPUs has its number behind a colon, ``"cuda:1"``.
    batch_size : int, default=None
        Most rows in one call of the graph; None is 2048 where it reads numbers and categories only, else 32. Rows of
        more than 32 tokens go in smaller batches, so that a batch has at most ``32 * batch_size`` tokens. On a CPU
        larger batches miss the cache; a GPU wants some hundred rows.
    n_threads : int, default=None
        Threads that score on the CPU, and that decode images and the like. All usable cores where None. One batch runs
        on all of them; of more batches, as many run at once, each on one thread (of texts, where there are batches for
        half of the threads). Tokenizers have threads of their own, see ``TOKENIZERS_PARALLELISM``.
    on_error : {"raise", "missing"}, default="raise"
        Whether a cell that cannot be read is a `DataError`, or counts as missing, with a warning.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,), or list of them
        The labels, in the order of the probabilities; of several label columns, those of each.
    manifest : Manifest
        What the file says of itself: columns, preprocessors, provenance.
    device : {"cpu", "cuda", "tensorrt"}
        Where the graph runs.
    n_threads : int
        Threads in use.

    Raises
    ------
    ConfigurationError
        If a parameter has a value that it cannot have.
    DeviceError
        If the named device does not work here.
    FileNotFoundError
        If there is no such file.
    ModelFileError
        If the file is damaged, is not from mmensemble, or is newer than this version reads.

    Examples
    --------
    >>> from mmensemble import OnnxPredictor
    >>> predictor = OnnxPredictor("model.onnx")  # doctest: +SKIP
    >>> predictor.predict_proba({"text": ["a red apple"], "picture": ["apple.jpg"]})  # doctest: +SKIP
    array([[0.97, 0.03]], dtype=float32)
    """

    __module__ = "mmensemble"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        device: Device = "auto",
        batch_size: int | None = None,
        n_threads: int | None = None,
        on_error: Literal["raise", "missing"] = "raise",
    ) -> None:
        if on_error not in ("raise", "missing"):
            raise ConfigurationError(f"on_error must be 'raise' or 'missing', not {on_error!r}")
        self._bad_as_missing = on_error == "missing"
        self.path = Path(path).absolute()
        self._asked_rows = None if batch_size is None else _at_least_one("batch_size", batch_size)
        self._asked_device = device
        self._asked_threads = None if n_threads is None else _at_least_one("n_threads", n_threads)
        # Opened now, so that a bad file is refused here and not at the first row.
        _ = self._model

    _bad_as_missing = False  # of pickles that are older

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_model"}

    def __repr__(self) -> str:
        return f"OnnxPredictor({str(self.path)!r}, device={self._asked_device!r}, batch_size={self._asked_rows})"

    @cached_property
    def _model(self) -> OpenModel:
        return OpenModel(self.path, self._asked_device, self.n_threads)

    @property
    def manifest(self) -> Manifest:
        """What the file says of itself."""
        return self._model.manifest

    @property
    def classes_(self) -> Any:
        """The labels, in the order of the probabilities; a regression has none."""
        self.manifest.task.check_scores()
        classes = self.manifest.task.classes
        if classes is None:
            raise AttributeError("the model predicts numbers and has no classes_")
        return classes

    @property
    def device(self) -> ResolvedDevice:
        """Where the graph runs."""
        return self._model.device

    @property
    def n_threads(self) -> int:
        """Threads in use."""
        return self._asked_threads or usable_cores()

    @property
    def batch_size(self) -> int:
        """Most rows in one call of the graph."""
        return self._asked_rows or usual_batch_size(self.manifest.feeds)

    @property
    def window_size(self) -> int:
        """How many rows `score_batches` and `generate_batches` take best at a time."""
        rows = window_size(self.manifest.feeds, self.batch_size)
        return min(rows, max(_WRITTEN_BATCHES, self.n_threads // 2) * self.batch_size) if self._writes else rows

    @property
    def _writes(self) -> bool:
        return isinstance(self.manifest.task, Generation)

    @available_if(lambda self: self.manifest.task.check_probabilities())
    def predict_proba(self, X: Any) -> Any:
        """Return the probability of each class.

        Parameters
        ----------
        X : pandas, polars or Arrow frame, dict of columns, or sequence of cells
            The columns that the model reads; others are ignored. A plain sequence will do if it reads one column.
            None, NaN and NA mean that the modality is missing in this row.

        Returns
        -------
        ndarray of float32, shape (n_rows, n_classes), or list of them
            Of several label columns, one array per column.

        Raises
        ------
        AttributeError
            If the model predicts numbers, votes, or writes; ``hasattr`` tells beforehand.
        DataError
            If a column is missing or a row cannot be read; it says which.
        """
        task = self.manifest.task
        outputs = self._outputs(X)
        return task.split(outputs) if isinstance(task, Multioutput) else outputs[:, : task.width]

    def _outputs(self, X: Any) -> np.ndarray:
        """Return the graph's output for all rows, float32 of shape (n_rows, width)."""
        task = self.manifest.task
        X = frame_with(X, self.manifest.columns)
        noted: list[DataError] = []
        if n_rows(X) <= self.batch_size:
            feeds, width = self.manifest.feeds, task.n_columns
            options: Any = {"batch_size": self.batch_size, "bad_as_missing": self._bad_as_missing}
            window = score_window(feeds, X, self._model.run, width=width, **options)
            self._check(window, 0, noted)
            warn_of(noted)
            return window.outputs
        scored = []
        start = 0
        with closing(self.score_batches(self._cut(X))) as windows:
            for window in windows:
                self._check(window, start, noted)
                scored.append(window.outputs)
                start += len(window.errors)
        warn_of(noted)
        return np.concatenate(scored)

    def _check(self, window: ScoredWindow, first_row: int, noted: list[DataError]) -> None:
        if self._bad_as_missing:
            noted += window.take_notes(first_row)
        window.raise_for_errors(first_row)

    @available_if(lambda self: self.manifest.task.check_scores())
    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label, or the number, of each row.

        Parameters
        ----------
        X : pandas, polars or Arrow frame, dict of columns, or sequence of cells
            As in `predict_proba`.

        Returns
        -------
        ndarray of shape (n_rows,) or (n_rows, n_columns)

        Raises
        ------
        AttributeError
            If the model writes texts; ``hasattr`` tells beforehand.
        DataError
            If a column is missing or a row cannot be read; it says which.
        """
        return self.manifest.task.predict(self._outputs(X))

    @available_if(lambda self: self.manifest.task.check_scores())
    def score_batches(
        self, frames: Iterable[Any], *, bad_as_missing: bool | None = None, stages: Stages | None = None
    ) -> Generator[ScoredWindow]:
        """Score a stream of frames in order and in constant memory; a bad row costs nothing but itself.

        Parameters
        ----------
        frames : iterable of frame or dict of columns
            Of any size; `window_size` rows each are good.
        bad_as_missing : bool, default=None
            Whether a cell that cannot be read counts as missing, and is noted in `errors`. None is as `on_error` says.
        stages : Stages, default=None
            Takes the seconds of encoding and of the graph.

        Yields
        ------
        ScoredWindow
            ``(outputs, errors)``, one for each frame.
        """
        as_missing = self._bad_as_missing if bad_as_missing is None else bad_as_missing
        return self._model.scored(frames, self.batch_size, bad_as_missing=as_missing, stages=stages)

    @available_if(lambda self: self.manifest.task.check_texts())
    def generate(
        self,
        prompts: Any,
        max_new_tokens: int = 32,
        num_return_sequences: int = 1,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        num_beams: int = 1,
        random_state: Any = None,
    ) -> np.ndarray:
        """Write a text for each row, token by token, as the estimator's ``generate`` does.

        Parameters
        ----------
        prompts : pandas, polars or Arrow frame, dict of columns, or sequence of cells
            As in `predict_proba`.
        max_new_tokens : int, default=32
            Most tokens of a text.
        num_return_sequences : int, default=1
            Texts per row.
        temperature : float, default=1.0
            The scores are divided by it before a token is drawn; 0 takes the most probable token (greedy).
        top_k : int, default=None
            Draw among so many most probable tokens only.
        top_p : float, default=None
            Draw among the fewest most probable tokens whose probabilities add up to so much.
        num_beams : int, default=1
            Above 1, search with so many beams, and rank what has ended by its mean log-probability per token.
        random_state : int, RandomState, Generator or None, default=None
            With an int, the same prompts give the same texts.

        Returns
        -------
        ndarray of object, shape (n_prompts, num_return_sequences)
            What was written, without the prompt; None where the row is missing.

        Raises
        ------
        AttributeError
            If the model predicts and writes nothing; ``hasattr`` tells beforehand.
        ConfigurationError
            For an argument that cannot work, or one that does not go with another.
        DataError
            If a column is missing or a row cannot be read; it says which.
        """
        settings = GenerationSettings.of(
            max_new_tokens=max_new_tokens,
            num_return_sequences=num_return_sequences,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            num_beams=num_beams,
            random_state=random_state,
        )
        X = frame_with(prompts, self.manifest.columns)
        texts = [np.empty((0, num_return_sequences), dtype=object)]
        start = 0
        with closing(self.generate_batches(self._cut(X), settings)) as windows:
            for window in windows:
                window.raise_for_errors(start)
                texts.append(window.outputs)
                start += len(window.errors)
        return np.concatenate(texts)

    @available_if(lambda self: self.manifest.task.check_texts())
    def generate_batches(
        self, frames: Iterable[Any], settings: GenerationSettings, *, first_row: int = 0
    ) -> Generator[ScoredWindow]:
        """Write texts for a stream of frames in order and in constant memory; a bad row costs nothing but itself.

        Parameters
        ----------
        frames : iterable of frame or dict of columns
            Of any size; `window_size` rows each are good.
        settings : GenerationSettings
            What `generate` takes as arguments; see `mmensemble.scoring.GenerationSettings.of`.
        first_row : int, default=0
            The number of the first row in the data. What is drawn for a row depends on its number: the rows get the
            texts that `generate` gives them among all others.

        Yields
        ------
        ScoredWindow
            ``(texts, errors)``, one for each frame.

        Raises
        ------
        AttributeError
            If the model predicts and writes nothing; ``hasattr`` tells beforehand.
        ConfigurationError
            If more tokens are asked for than the network can write.
        """
        room_for_prompt(self.token_decoder().task, settings)  # now, and not at the first row
        return write_windows(self._model, frames, settings, batch_size=self.batch_size, first_row=first_row)

    @available_if(lambda self: self.manifest.task.check_texts())
    def token_decoder(self) -> OnnxDecoder:
        """Return the graph as what the decoding loop drives, of a model that generates."""
        return self._model.decoder()

    @property
    def input_names(self) -> list[str]:
        """The names of the graph's inputs, ``<feed>.<tensor>``."""
        return self._model.input_names

    def windows(self, X: Any) -> Iterator[dict[str, Any]]:
        """Cut X into what `score_batches` takes best.

        Parameters
        ----------
        X : pandas, polars or Arrow frame, dict of columns, or sequence of cells
            As in `predict_proba`.

        Yields
        ------
        dict of columns
            At most `window_size` rows, the first ones fewer, of the columns that the model reads.
        """
        return self._cut(frame_with(X, self.manifest.columns))

    def _cut(self, X: dict[str, Any]) -> Iterator[dict[str, Any]]:
        # Short ones first: until the first is encoded there is nothing to score. `generate_file` writes in whole ones.
        rows, start, size = n_rows(X), 0, self.window_size if self._writes else min(self.batch_size, self.window_size)
        while start < rows:
            stop = min(start + size, rows)
            yield {column: cells[start:stop] for column, cells in X.items()}
            start, size = stop, min(2 * size, self.window_size)


def _at_least_one(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ConfigurationError(f"{name} must be an integer of at least 1, not {value!r}")
    return int(value)
