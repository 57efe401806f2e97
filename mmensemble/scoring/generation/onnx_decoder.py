"""A generator's model file as the decoding loop's decoder. Imports numpy and onnxruntime.

From step to step the state stays in ONNX Runtime's own memory, on the device. Keys and values of attention lie in
buffers with room for tokens to come: a step writes those of its token in place, since input and output are bound to the
same memory. They pass through Python where rows are selected, as beams are at each step, and where room is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import onnxruntime

from mmensemble.exceptions import MmensembleError
from mmensemble.scoring.manifest import Manifest
from mmensemble.scoring.providers import ResolvedDevice
from mmensemble.tasks import Generation

__all__ = ["OnnxDecoder"]

# Buffers get so many more places at a time. Attention goes over all places, taken or not, so they are not many.
ROOM = 64

# Inputs that a run does not depend on have this length on every dynamic axis.
_UNUSED_LENGTH = 1


@dataclass
class _State:
    """What is known of some rows between two runs.

    Parameters
    ----------
    attention_mask : ndarray of int64, shape (n, capacity)
        1 at real tokens, 0 at padding and at places that are not taken.
    taken : int
        Places with a token, or with padding before the first one.
    encoded : dict of str to OrtValue
        What stays as it is.
    values : dict of str to OrtValue
        What changes with every run.
    prompts : ndarray of int64, shape (n,)
        Which of the rows that were run first each of these rows came from.
    step : _Bound, default=None
        The run of one more token, where there was one and it can be repeated.
    """

    attention_mask: np.ndarray
    taken: int
    encoded: dict[str, Any]
    values: dict[str, Any]
    prompts: np.ndarray
    step: _Bound | None = None


@dataclass
class _Bound:
    """A run of so many tokens of so many rows, with all that stays in its place bound to inputs and outputs."""

    binding: Any
    logits: np.ndarray


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
        manifest.task.check_texts()
        self.session = session
        self.task = cast(Generation, manifest.task)
        self.feed = manifest.feeds[0].name
        self.place = "cpu" if device == "cpu" else "cuda"
        self.inputs = {node.name: node for node in session.get_inputs()}

    def prefill(self, inputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, _State]:
        ids, state = self._first(inputs)
        return self._run(self._bind(len(ids), state), ids, state), state

    def prefill_arrays(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return all inputs of the graph in the run that `prefill` makes."""
        ids, state = self._first(inputs)
        kept = {**state.encoded, **state.values}
        values = {f"state.{name}": value.numpy().copy() for name, value in kept.items()}  # numpy() does not own it
        arrays = {**self._unused_inputs(), **values, **self._tokens(ids, state)}
        return {name: array for name, array in arrays.items() if name in self.inputs}

    def step(self, tokens: np.ndarray, state: _State) -> tuple[np.ndarray, _State]:
        if state.taken == state.attention_mask.shape[1]:
            self._make_room(state)
        state.attention_mask[:, state.taken] = 1
        if state.step is None:
            state.step = self._bind(len(tokens), state)
        return self._run(state.step, tokens[:, None], state), state

    def select(self, state: _State, rows: np.ndarray) -> _State:
        prompts = state.prompts[rows]
        # Beams of one prompt have one encoding, so from step to step it stays where it is.
        same = np.array_equal(prompts, state.prompts)
        encoded = state.encoded if same else self._taken(state.encoded, rows)
        return _State(state.attention_mask[rows], state.taken, encoded, self._taken(state.values, rows), prompts)

    def _taken(self, values: Mapping[str, Any], rows: np.ndarray) -> dict[str, Any]:
        return {name: self._value(np.take(value.numpy(), rows, axis=0)) for name, value in values.items()}

    def _first(self, inputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, _State]:
        """Return the first tokens, and the state before them."""
        n_rows = len(next(iter(inputs.values())))
        encoded: dict[str, Any] = {}
        if self.task.start_ids:
            ids = np.tile(np.asarray(self.task.start_ids, dtype=np.int64), (n_rows, 1))
            mask = np.ones_like(ids)
            encoded = self._encoded(inputs)
        else:
            ids, mask = inputs["input_ids"], inputs["attention_mask"]
        mask = np.pad(mask, ((0, 0), (0, ROOM - mask.shape[1] % ROOM)))
        values = {name: self._value(self._zeros(name, n_rows, mask.shape[1])) for name in self.task.state}
        return ids, _State(mask, 0, encoded, values, np.arange(n_rows))

    def _encoded(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Encode rows; return what stays as it is."""
        binding = self.session.io_binding()
        rows = {f"{self.feed}.{name}": array for name, array in inputs.items()}
        unused = self._unused(("decoder.", "state."))
        self._bind_arrays(binding, {**unused, "decoder.encode": np.asarray(True), **rows})
        for name in self.task.encoded:
            binding.bind_output(f"encoded.{name}", self.place)
        # The step runs too, on one row of zeros.
        self._bind_state(binding, {name: self._value(unused[f"state.{name}"]) for name in self.task.state})
        self._run_bound(binding)
        return dict(zip(self.task.encoded, binding.get_outputs(), strict=False))

    def _make_room(self, state: _State) -> None:
        """Move keys and values to buffers with more places."""
        state.attention_mask = np.pad(state.attention_mask, ((0, 0), (0, ROOM)))
        for name, spec in self.task.state.items():
            if "capacity" in spec.shape:
                widths = [(0, ROOM if axis == "capacity" else 0) for axis in spec.shape]
                state.values[name] = self._value(np.pad(state.values[name].numpy(), widths))
        state.step = None

    def _unused_inputs(self) -> dict[str, np.ndarray]:
        """Return the inputs that are there to encode, in a run that does not."""
        return {**self._unused((f"{self.feed}.",)), "decoder.encode": np.asarray(False)} if self.task.start_ids else {}

    def _tokens(self, ids: np.ndarray, state: _State) -> dict[str, np.ndarray]:
        group = "decoder" if self.task.start_ids else self.feed
        return {
            f"{group}.input_ids": ids,
            f"{group}.attention_mask": state.attention_mask,
            "decoder.past": np.full(len(ids), state.taken),
        }

    def _bind(self, n_rows: int, state: _State) -> _Bound:
        """Bind all but the tokens and what is known of them."""
        binding = self.session.io_binding()
        self._bind_arrays(binding, self._unused_inputs())
        for name, value in state.encoded.items():
            if f"state.{name}" in self.inputs:
                binding.bind_ortvalue_input(f"state.{name}", value)
        self._bind_state(binding, state.values)
        logits = np.zeros((n_rows, self.task.width), dtype=np.float32)
        binding.bind_ortvalue_output("logits", onnxruntime.OrtValue.ortvalue_from_numpy(logits))
        return _Bound(binding, logits)

    def _bind_state(self, binding: Any, values: Mapping[str, Any]) -> None:
        """Bind what changes; keys and values are input and output in one, or each run would copy all of them."""
        for name, spec in self.task.state.items():
            binding.bind_ortvalue_input(f"state.{name}", values[name])
            if "capacity" in spec.shape:
                binding.bind_ortvalue_output(f"next.{name}", values[name])

    def _run(self, bound: _Bound, ids: np.ndarray, state: _State) -> np.ndarray:
        """Run some more tokens of each row, and return the scores after them."""
        self._bind_arrays(bound.binding, self._tokens(ids, state))
        replaced = {}
        for name, spec in self.task.state.items():
            if "capacity" not in spec.shape:  # an operator may read it again after it has begun to write
                replaced[name] = self._value(self._zeros(name, len(ids), 0))
                bound.binding.bind_ortvalue_output(f"next.{name}", replaced[name])
        self._run_bound(bound.binding)
        for name, value in replaced.items():
            state.values[name] = value
            bound.binding.bind_ortvalue_input(f"state.{name}", value)
        state.taken += ids.shape[1]
        return bound.logits.copy()

    def _bind_arrays(self, binding: Any, arrays: Mapping[str, np.ndarray]) -> None:
        for name, array in arrays.items():
            if name in self.inputs:  # the exporter prunes inputs that the graph does not use
                binding.bind_cpu_input(name, np.ascontiguousarray(array))

    def _run_bound(self, binding: Any) -> None:
        try:
            self.session.run_with_iobinding(binding)
        except Exception as error:  # ONNX Runtime's errors have no other base class in common
            raise MmensembleError(
                f"ONNX Runtime failed ({error}); if memory ran out, a smaller batch_size needs less"
            ) from error

    def _value(self, array: np.ndarray) -> Any:
        return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self.place)

    def _zeros(self, name: str, n_rows: int, capacity: int) -> np.ndarray:
        """Return a tensor of the state before the first token, in the type that the file has it in."""
        sizes: dict[int | str, int] = {"batch": n_rows, "capacity": capacity}
        shape = [axis if isinstance(axis, int) else sizes[axis] for axis in self.task.state[name].shape]
        return np.zeros(shape, dtype=_DTYPES[self.inputs[f"state.{name}"].type])

    def _unused(self, groups: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Return arrays for the inputs of the part of the graph that does not run, or whose result nobody wants."""
        return {
            name: np.zeros(
                [axis if isinstance(axis, int) else _UNUSED_LENGTH for axis in node.shape], dtype=_DTYPES[node.type]
            )
            for name, node in self.inputs.items()
            if name.startswith(groups)
        }


_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
    "tensor(uint8)": np.uint8,
}
