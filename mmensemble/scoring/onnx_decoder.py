"""A generator's model file as the decoding loop's decoder. Imports numpy and onnxruntime.

The state stays in ONNX Runtime's own memory, on the device: what a step gives is bound to the inputs of the next one,
and no array of it passes through Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

from mmensemble.exceptions import MmensembleError
from mmensemble.preprocessing import TensorSpec
from mmensemble.scoring.manifest import Manifest
from mmensemble.scoring.providers import ResolvedDevice
from mmensemble.scoring.tasks import Generation

__all__ = ["OnnxDecoder"]

# Inputs that a run does not depend on have this length on every dynamic axis.
_UNUSED_LENGTH = 1


@dataclass(frozen=True)
class _State:
    attention_mask: np.ndarray
    values: dict[str, Any]  # name → OrtValue, what was encoded and what changes


class OnnxDecoder:
    """A session as the `mmensemble.scoring.generation.Decoder` of the decoding loop.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
    device : {"cpu", "cuda", "tensorrt"}
    manifest : Manifest
        Of a file that generates.

    Raises
    ------
    AttributeError
        If the file predicts.
    """

    def __init__(self, session: Any, device: ResolvedDevice, manifest: Manifest) -> None:
        task = manifest.task
        if not isinstance(task, Generation):
            raise AttributeError(f"the model does {task.name} and writes no texts; use predict")
        self.session = session
        self.task = task
        self.feed = manifest.feeds[0].name
        self.place = "cpu" if device == "cpu" else "cuda"
        self.inputs = {node.name: node for node in session.get_inputs()}

    def prefill(self, inputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, _State]:
        return self._run(*self._first(inputs))

    def prefill_arrays(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return all inputs of the graph in the run that `prefill` makes."""
        ids, state = self._first(inputs)
        bound = self._bound(ids, state)
        return {name: value if isinstance(value, np.ndarray) else value.numpy() for name, value in bound.items()}

    def step(self, tokens: np.ndarray, state: _State) -> tuple[np.ndarray, _State]:
        mask = np.pad(state.attention_mask, ((0, 0), (0, 1)), constant_values=1)
        return self._run(tokens[:, None], _State(mask, state.values))

    def select(self, state: _State, rows: np.ndarray) -> _State:
        values = {name: self._value(np.take(value.numpy(), rows, axis=0)) for name, value in state.values.items()}
        return _State(state.attention_mask[rows], values)

    def _first(self, inputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, _State]:
        """Return the first tokens, and the state before them."""
        n_rows = len(next(iter(inputs.values())))
        values = {name: self._value(_zeros(spec, batch=n_rows, past=0)) for name, spec in self.task.state.items()}
        if not self.task.start_ids:
            return inputs["input_ids"], _State(inputs["attention_mask"], values)
        encoded = self._fetch(
            {
                **{f"{self.feed}.{name}": array for name, array in inputs.items()},
                **self._unused(("decoder.", "state.")),
                "decoder.encode": np.asarray(True),
            },
            [f"encoded.{name}" for name in self.task.encoded],
        )
        ids = np.tile(np.asarray(self.task.start_ids, dtype=np.int64), (n_rows, 1))
        return ids, _State(np.ones_like(ids), {**dict(zip(self.task.encoded, encoded, strict=True)), **values})

    def _bound(self, ids: np.ndarray, state: _State) -> dict[str, Any]:
        bound = {f"state.{name}": value for name, value in state.values.items()}
        group = "decoder" if self.task.start_ids else self.feed
        bound |= {f"{group}.input_ids": ids, f"{group}.attention_mask": state.attention_mask}
        if self.task.start_ids:
            bound |= {**self._unused((f"{self.feed}.",)), "decoder.encode": np.asarray(False)}
        return bound

    def _run(self, ids: np.ndarray, state: _State) -> tuple[np.ndarray, _State]:
        logits, *grown = self._fetch(self._bound(ids, state), ["logits", *(f"next.{name}" for name in self.task.state)])
        values = {**state.values, **dict(zip(self.task.state, grown, strict=True))}
        return logits.numpy(), _State(state.attention_mask, values)

    def _fetch(self, bound: Mapping[str, Any], outputs: list[str]) -> list[Any]:
        """Run the graph; return OrtValues, the scores on the host and all others on the device."""
        binding = self.session.io_binding()
        for name, value in bound.items():
            if name not in self.inputs:  # the exporter prunes inputs that the graph does not use
                continue
            if isinstance(value, np.ndarray):
                binding.bind_cpu_input(name, np.ascontiguousarray(value))
            else:
                binding.bind_ortvalue_input(name, value)
        for name in outputs:
            binding.bind_output(name, "cpu" if name == "logits" else self.place)
        try:
            self.session.run_with_iobinding(binding)
        except Exception as error:  # ONNX Runtime's errors have no other base class in common
            raise MmensembleError(
                f"ONNX Runtime failed ({error}); if memory ran out, a smaller batch_size needs less"
            ) from error
        fetched: list[Any] = binding.get_outputs()
        return fetched

    def _value(self, array: np.ndarray) -> Any:
        return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self.place)

    def _unused(self, groups: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Return arrays for the inputs of the part of the graph that does not run, or whose result nobody wants."""
        return {
            name: np.zeros(
                [axis if isinstance(axis, int) else _UNUSED_LENGTH for axis in node.shape], dtype=_DTYPES[node.type]
            )
            for name, node in self.inputs.items()
            if name.startswith(groups)
        }


_DTYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(bool)": np.bool_, "tensor(uint8)": np.uint8}


def _zeros(spec: TensorSpec, *, batch: int, past: int) -> np.ndarray:
    sizes: dict[int | str, int] = {"batch": batch, "past": past}
    return np.zeros([axis if isinstance(axis, int) else sizes[axis] for axis in spec.shape], dtype=spec.dtype)
