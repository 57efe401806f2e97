"""Whisper's weights out of a CTranslate2 model file, by transformers' names. Imports numpy only.

Such a file is little-endian: the version of the format (uint32, 6 here), the name of the kind of model (a string: its
size as uint16, then its bytes with a zero at the end), that kind's revision (uint32), the number of variables
(uint32); then of each its name, its rank (uint8), its shape (uint32 each), its type (uint8), its size in bytes
(uint32) and its values. Names that stand for others' follow, which are not needed. The source is CTranslate2's
``python/ctranslate2/specs/model_spec.py``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from mmensemble.exceptions import ConfigurationError

__all__ = ["read_variables", "whisper_weights"]

_VERSION = 6
_TYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)


@dataclass
class _Cursor:
    content: bytes
    position: int = 0

    def take(self, size: int) -> bytes:
        if self.position + size > len(self.content):
            raise ConfigurationError("the CTranslate2 model ends too early; install the packages of its parts again")
        self.position += size
        return self.content[self.position - size : self.position]

    def numbers(self, code: str) -> tuple[int, ...]:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))

    def number(self, code: str) -> int:
        return self.numbers(code)[0]

    def string(self) -> str:
        return self.take(self.number("H"))[:-1].decode(errors="replace")


def read_variables(content: bytes) -> dict[str, np.ndarray]:
    """Read the variables of a CTranslate2 model.

    Parameters
    ----------
    content : bytes
        Of a file ``model.bin``.

    Returns
    -------
    dict of str to ndarray
        In the types in which they are stored.

    Raises
    ------
    ConfigurationError
        If the content is cut off, of another version, no Whisper model, or of a type that numpy does not have.
    """
    cursor = _Cursor(content)
    version, kind = cursor.number("I"), cursor.string()
    if (version, kind) != (_VERSION, "WhisperSpec"):
        raise ConfigurationError(f"a CTranslate2 WhisperSpec of version {_VERSION} is expected, not {kind} {version}")
    cursor.number("I")
    variables = {}
    for _ in range(cursor.number("I")):
        name = cursor.string()
        shape = cursor.numbers(f"{cursor.number('B')}I")
        number = cursor.number("B")
        if number >= len(_TYPES):
            raise ConfigurationError(
                f"the CTranslate2 variable {name} is of the type {number}, which numpy does not have"
            )
        variables[name] = np.frombuffer(cursor.take(cursor.number("I")), _TYPES[number]).reshape(shape)
    return variables


def whisper_weights(variables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename the variables of a Whisper model as transformers' ``WhisperForConditionalGeneration`` has them.

    Parameters
    ----------
    variables : dict of str to ndarray
        Of float16 or float32.

    Returns
    -------
    dict of str to ndarray
        float32. The output layer is the token embedding and has no entry.
    """
    weights: dict[str, np.ndarray] = {}
    for name in variables:
        side, *path = name.split("/")
        if path == ["position_encodings", "encodings"]:
            weights[f"model.{side}.embed_positions.weight"] = variables[name]
        elif path == ["embeddings", "weight"]:
            weights[f"model.{side}.embed_tokens.weight"] = variables[name]
        elif path[0].startswith("conv"):
            weights[f"model.{side}.{path[0]}.{path[1]}"] = variables[name]
        elif path[0] == "layer_norm":
            weights[f"model.{side}.layer_norm.{_NORM[path[1]]}"] = variables[name]
        elif path[0].startswith("layer_"):
            layer = f"model.{side}.layers.{path[0].removeprefix('layer_')}"
            weights.update(_of_layer(layer, path[1:], variables[name]))
    return {name: array.astype(np.float32) for name, array in weights.items()}


_NORM = {"gamma": "weight", "beta": "bias"}
_ATTENTION = {"self_attention": "self_attn", "attention": "encoder_attn"}
# Queries, keys and values of a text's own are one matrix; of those over the sound, keys and values are.
_PROJECTIONS = {
    ("self_attention", "linear_0"): ("q_proj", "k_proj", "v_proj"),
    ("self_attention", "linear_1"): ("out_proj",),
    ("attention", "linear_0"): ("q_proj",),
    ("attention", "linear_1"): ("k_proj", "v_proj"),
    ("attention", "linear_2"): ("out_proj",),
}


def _of_layer(layer: str, path: list[str], array: np.ndarray) -> dict[str, np.ndarray]:
    """Return what one variable of a layer is in transformers."""
    block, part, what = path
    if part == "layer_norm":
        norm = "final_layer_norm" if block == "ffn" else f"{_ATTENTION[block]}_layer_norm"
        return {f"{layer}.{norm}.{_NORM[what]}": array}
    if block == "ffn":
        return {f"{layer}.{ {'linear_0': 'fc1', 'linear_1': 'fc2'}[part] }.{what}": array}
    names = _PROJECTIONS[block, part]
    pieces = zip(names, np.split(array, len(names)), strict=True)
    # Keys have no bias; CTranslate2 stores zeros.
    return {
        f"{layer}.{_ATTENTION[block]}.{name}.{what}": piece
        for name, piece in pieces
        if (name, what) != ("k_proj", "bias")
    }
