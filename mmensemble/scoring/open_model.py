"""A model file and the sessions that run it. Imports numpy, onnxruntime and what preprocessing needs."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from mmensemble.exceptions import MmensembleError
from mmensemble.scoring.batching import ScoredWindow, score_window, score_windows
from mmensemble.scoring.generation.onnx_decoder import OnnxDecoder
from mmensemble.scoring.manifest import check_intact, model_bytes, read_manifest
from mmensemble.scoring.providers import Device, ResolvedDevice, open_session
from mmensemble.scoring.report.stages import Stages
from mmensemble.tasks import Generation

__all__ = ["OpenModel"]

# Above this size of the files, in bytes, weights are not held twice, to score several batches at once: in large
# networks the threads of one batch seldom wait for each other.
_HELD_TWICE = 256 * 2**20


class OpenModel:
    """A model file that is open.

    Parameters
    ----------
    path : Path
    device : {"auto", "cpu", "cuda", "tensorrt"}
        See `OnnxPredictor`.
    n_threads : int
        Threads of a batch that runs alone.

    Attributes
    ----------
    session : onnxruntime.InferenceSession
    device : {"cpu", "cuda", "tensorrt"}
        Where the graph runs.
    manifest : Manifest
    input_names : list of str
        The graph's inputs, ``<feed>.<tensor>``.
    """

    def __init__(self, path: Path, device: Device, n_threads: int) -> None:
        self.path = path
        self.n_threads = n_threads
        self.device: ResolvedDevice
        check_intact(path)
        self.session, self.device = open_session(path, device, n_threads, try_out=self._try_out)
        self.manifest = read_manifest(self.session, path)
        self.input_names = _input_names(self.session)

    @cached_property
    def _one_thread(self) -> Any:
        """The session for several batches at once, each on one thread; opened when there are any.

        What is gained, measured on two cores: 20 % of the time of a small GPT, 5 % with MiniLM in int8, 2 % in fp32.
        """
        return open_session(self.path, "cpu", 1, try_out=self._try_out)[0]

    @property
    def runs_batches_at_once(self) -> bool:
        """Whether several batches, each on one thread, are to run side by side where there are several."""
        return self.device == "cpu" and self.n_threads > 1 and model_bytes(self.path) <= _HELD_TWICE

    def run(self, arrays: dict[str, np.ndarray], *, on_one_thread: bool = False) -> np.ndarray:
        """Run the graph on a batch.

        Parameters
        ----------
        arrays : dict of str to ndarray
            Named ``<feed>.<tensor>``.
        on_one_thread : bool, default=False
            Whether the batch is one of several that run side by side.

        Returns
        -------
        ndarray of float32, shape (n_rows, width)
        """
        return _run(self._session(on_one_thread), self.device, self.input_names, arrays, self.manifest.task.outputs)

    def scored(
        self, frames: Iterable[Any], batch_size: int, *, bad_as_missing: bool, stages: Stages | None = None
    ) -> Generator[ScoredWindow]:
        """Score a stream of frames; see `OnnxPredictor.score_batches`."""
        at_once = self.runs_batches_at_once
        return score_windows(
            self.manifest.feeds,
            frames,
            partial(self.run, on_one_thread=at_once),
            width=self.manifest.task.n_columns,
            batch_size=batch_size,
            n_threads=self.n_threads,
            run_in_threads=at_once,
            bad_as_missing=bad_as_missing,
            stages=stages,
        )

    def decoder(self, *, on_one_thread: bool = False) -> OnnxDecoder:
        """Return the graph as what the decoding loop drives, of a model that generates."""
        return OnnxDecoder(self._session(on_one_thread), self.device, self.manifest)

    def _session(self, on_one_thread: bool) -> Any:
        return self._one_thread if on_one_thread else self.session

    def _try_out(self, session: Any, device: ResolvedDevice) -> None:
        """Score one row that misses everything."""
        manifest = read_manifest(session, self.path)
        row: dict[str, list[None]] = {column: [None] for column in manifest.columns}
        if isinstance(manifest.task, Generation):
            (feed,) = manifest.feeds
            inputs = feed.preprocessor.collate(feed.preprocessor.encode(*row.values()), [0])
            OnnxDecoder(session, device, manifest).prefill({name: inputs[name] for name in feed.preprocessor.tensors})
            return
        score_window(
            manifest.feeds,
            row,
            lambda arrays: _run(session, device, _input_names(session), arrays, manifest.task.outputs),
            width=manifest.task.n_columns,
            batch_size=1,
        )


def _input_names(session: Any) -> list[str]:
    return [node.name for node in session.get_inputs()]


def _run(
    session: Any, device: ResolvedDevice, names: list[str], arrays: dict[str, np.ndarray], outputs: list[str]
) -> np.ndarray:
    arrays = {name: arrays[name] for name in names}  # the exporter prunes inputs that the graph does not use
    try:
        # Binding takes no strings.
        if device == "cpu" or any(array.dtype == object for array in arrays.values()):
            return _side_by_side(session.run(outputs, arrays))
        binding = session.io_binding()
        for name, array in arrays.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name in outputs:
            binding.bind_output(name)
        session.run_with_iobinding(binding)
        return _side_by_side(binding.copy_outputs_to_cpu())
    except Exception as error:  # ONNX Runtime's errors have no other base class in common
        rows = len(next(iter(arrays.values()), []))
        raise MmensembleError(
            f"ONNX Runtime failed on {device!r} in a batch of {rows} rows ({error}); "
            "if memory ran out, a smaller batch_size needs less"
        ) from error


def _side_by_side(outputs: list[np.ndarray]) -> np.ndarray:
    """Put outputs side by side, float32; numbers of labels are small enough for it."""
    return np.asarray(outputs[0]) if len(outputs) == 1 else np.hstack(outputs).astype(np.float32, copy=False)
