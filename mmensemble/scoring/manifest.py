"""The manifest: what a model file says of itself. Standard library and `mmensemble.preprocessing` only.

It is JSON under the key ``mmensemble`` of the ONNX model's metadata. To change the format: raise `FORMAT_VERSION`,
teach `Manifest.from_json` to read the older version, and add files of the older version to ``tests/old_files``, by its
``write_files.py``. A reader refuses a version newer than its own. What readers of older versions may pass over, such as
the checksum that ``"sealed"`` says to be there (`mmensemble.files.seal`) and the ``"profile"``, needs no other version.
"""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from mmensemble.exceptions import ModelFileError
from mmensemble.files.seal import is_sealed, sha256_of, why_not_intact
from mmensemble.preprocessing import PRESENT, Preprocessor, preprocessor_from_dict, preprocessor_to_dict
from mmensemble.preprocessing.patterns import patterns_of_tokenizer, why_unsafe
from mmensemble.scoring.report.profile import Profile
from mmensemble.tasks import Generation, Task, task_from_dict

__all__ = [
    "FORMAT_VERSION",
    "METADATA_KEY",
    "Feed",
    "Manifest",
    "check_intact",
    "model_bytes",
    "model_stamp",
    "read_manifest",
]

METADATA_KEY = "mmensemble"
# 3: numbers may be float64, and the graph may decide labels. Files of 2 have neither.
# 2: what writes texts keeps its state in buffers. Files of 1 that write no texts are as those of 2.
FORMAT_VERSION = 3

# A second of film of 4,096 × 4,096 pixels has 1.2 GB.
_MOST_ROW_BYTES = 2**31
_TYPES: dict[str, Any] = {"int": int, "float": (int, float), "bool": bool, "str": str}
_LARGEST = 2**40
# Characters of the manifest before its task.
_HEAD = 60
_ORT_TYPES = {"object": "string", "float32": "float", "float64": "double", "float16": "float16"}


@dataclass(frozen=True)
class Feed:
    """One group of graph inputs and where they come from.

    The graph's inputs are named ``<name>.<tensor>`` for each of the preprocessor's tensors, and ``<name>.present``.

    Parameters
    ----------
    name : str
        Unique in the model.
    columns : tuple of str
        The columns of X that the preprocessor takes, in order.
    preprocessor : Preprocessor
        Cells of these columns → arrays.
    """

    __module__ = "mmensemble.scoring"
    name: str
    columns: tuple[str, ...]
    preprocessor: Preprocessor


@dataclass(repr=False)
class Manifest:
    """Everything that scoring needs beside the graph.

    Parameters
    ----------
    task : Task
        What the model predicts, and what its output means.
    feeds : list of Feed
        The inputs.
    provenance : dict
        Who wrote the file: versions, time, the estimator's repr.
    parity : dict
        What ``export_onnx(verify=...)`` measured; empty if it was not asked to.
    profile : Profile or None, default=None
        How the rows of ``export_onnx(profile=...)``, or of ``verify``, are distributed.
    """

    __module__ = "mmensemble.scoring"
    task: Task
    feeds: list[Feed]
    provenance: dict[str, Any] = field(default_factory=dict)
    parity: dict[str, Any] = field(default_factory=dict)
    profile: Profile | None = None

    def __repr__(self) -> str:
        parity = self.parity.get("max_abs_difference")
        verified = "not verified" if parity is None else f"verified to {parity:.1e} on {self.parity['n_rows']} rows"
        return f"<Manifest: {self.task.name} from {', '.join(map(repr, self.columns))}, {verified}>"

    @property
    def columns(self) -> list[str]:
        """The columns of X that the model reads, each once."""
        return list(dict.fromkeys(column for feed in self.feeds for column in feed.columns))

    def to_json(self, *, sealed: bool = False) -> str:
        """Return the manifest as JSON.

        Parameters
        ----------
        sealed : bool, default=False
            Whether the file will have a checksum, and is not to be opened without it.
        """
        return json.dumps(
            {
                "format_version": FORMAT_VERSION,
                **({"sealed": True} if sealed else {}),
                "task": self.task.to_dict(),
                "feeds": [
                    {"name": f.name, "columns": list(f.columns), "preprocessor": preprocessor_to_dict(f.preprocessor)}
                    for f in self.feeds
                ],
                "provenance": self.provenance,
                "parity": self.parity,
                **({} if self.profile is None else {"profile": self.profile.to_dict()}),
            },
            ensure_ascii=False,
        )

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read a manifest.

        Raises
        ------
        ModelFileError
            If it is damaged or newer than this version reads.
        """
        try:
            state = json.loads(text)
            version = state["format_version"]
            if version > FORMAT_VERSION:
                raise ModelFileError(
                    f"the model file has format version {version} and this mmensemble reads up to {FORMAT_VERSION}; "
                    "upgrade mmensemble on this machine"
                )
            if version < 2 and state["task"]["name"] == Generation.name:
                raise ModelFileError("the model file writes texts as in format version 1; export the model again")
            return cls(
                task=task_from_dict(state["task"]),
                feeds=_feeds(state["feeds"]),
                provenance=state["provenance"],
                parity=state["parity"],
                profile=Profile.from_dict(state["profile"]) if state.get("profile") else None,
            )
        except ModelFileError:
            raise
        except Exception as error:  # what a damaged description does to whoever reads it
            raise ModelFileError(f"the model file's manifest is damaged ({error!r}); export the model again") from error


def _check_patterns(state: dict[str, Any]) -> None:
    """Refuse patterns that would take forever on some texts."""
    patterns = [state["token_pattern"]] if isinstance(state.get("token_pattern"), str) else []
    if isinstance(state.get("tokenizer"), str):
        patterns += patterns_of_tokenizer(state["tokenizer"])
    for pattern in patterns:
        reason = why_unsafe(pattern)
        if reason is not None:
            raise ModelFileError(f"the model file has a pattern that may take forever, {pattern[:80]!r}: {reason}")


def _check_types(preprocessor: Preprocessor) -> None:
    """Refuse parameters of other types than the preprocessor's class declares, and numbers below 0 or past belief."""
    for name, parameter in inspect.signature(type(preprocessor)).parameters.items():
        declared = str(parameter.annotation).removesuffix(" | None")
        value = getattr(preprocessor, name, None)
        if declared not in _TYPES or (value is None and str(parameter.annotation) != declared):
            continue
        if not isinstance(value, _TYPES[declared]) or (isinstance(value, bool) and declared != "bool"):
            raise ModelFileError(f"the model file's {preprocessor.kind} preprocessor has {name} = {value!r}")
        if declared == "int" and not 0 <= value <= _LARGEST:
            raise ModelFileError(f"the model file's {preprocessor.kind} preprocessor has {name} = {value}")


def _check_size(name: str, preprocessor: Preprocessor) -> None:
    """Refuse rows that nobody has the memory for."""
    if not 0 <= preprocessor.row_bytes <= _MOST_ROW_BYTES:
        raise ModelFileError(f"the model file's input {name!r} takes {preprocessor.row_bytes} bytes for a row")


def _feeds(states: list[dict[str, Any]]) -> list[Feed]:
    """Read feeds; those with equal preprocessors share one, which is read once and encodes once."""
    feeds: list[Feed] = []
    for state in states:
        described = state["preprocessor"]
        _check_patterns(described)
        shared = (
            feed.preprocessor for feed, other in zip(feeds, states, strict=False) if other["preprocessor"] == described
        )
        feeds.append(
            Feed(state["name"], tuple(state["columns"]), next(shared, None) or preprocessor_from_dict(described))
        )
        _check_types(feeds[-1].preprocessor)
        _check_size(state["name"], feeds[-1].preprocessor)
        feeds[-1].preprocessor.encode(*([None] for _ in feeds[-1].columns))  # it takes so many columns, or none does
    return feeds


def read_manifest(session: Any, path: Path) -> Manifest:
    """Return the manifest of the file that a session was made of.

    Raises
    ------
    ModelFileError
        If the file has none, or one that does not describe its graph.
    """
    try:
        text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    except UnicodeDecodeError as error:
        raise ModelFileError(f"{path} is damaged: its metadata are not UTF-8; copy or export it again") from error
    if text is None:
        raise ModelFileError(
            f"{path} was not written by mmensemble.export_onnx: it is an ONNX model without mmensemble's metadata"
        )
    manifest = Manifest.from_json(text)
    described = {f"{feed.name}.{tensor}" for feed in manifest.feeds for tensor in (*feed.preprocessor.tensors, PRESENT)}
    described |= set(manifest.task.further_inputs)
    undescribed = [node.name for node in session.get_inputs() if node.name not in described]
    if undescribed or manifest.task.output not in [node.name for node in session.get_outputs()]:
        raise ModelFileError(
            f"the graph in {path} does not fit its manifest (inputs that it does not describe: {undescribed}; outputs: "
            f"{[node.name for node in session.get_outputs()]}); export the model again"
        )
    if '"sealed": true' in text[:_HEAD] and not is_sealed(path):
        raise ModelFileError(f"{path} has lost its checksum: it was cut off, or changed by another program")
    for node in session.get_inputs():
        _check_tensor(manifest, node, path)
    _check_width(manifest, session.get_outputs(), path)
    return manifest


def _check_width(manifest: Manifest, nodes: list[Any], path: Path) -> None:
    """Check that the graph gives as many columns as the task has, where its outputs say how many."""
    widths = [node.shape[-1] for node in nodes if node.name in manifest.task.outputs and node.shape]
    known = bool(widths) and all(isinstance(width, int) for width in widths)
    if known and not isinstance(manifest.task, Generation) and sum(widths) != manifest.task.n_columns:
        raise ModelFileError(
            f"the graph in {path} gives {sum(widths)} columns, and its manifest has {manifest.task.n_columns}; export "
            "the model again"
        )


def _check_tensor(manifest: Manifest, node: Any, path: Path) -> None:
    """Check that the graph takes what the preprocessor gives, before anything of that size is made."""
    for feed in manifest.feeds:
        tensor = node.name.removeprefix(f"{feed.name}.")
        spec = feed.preprocessor.tensors.get(tensor) if tensor != node.name else None
        if spec is None:
            continue
        expected = _ORT_TYPES.get(spec.dtype, spec.dtype)
        axes = list(zip(spec.shape, node.shape, strict=False))
        fits = len(spec.shape) == len(node.shape) and all(
            ours == theirs for ours, theirs in axes if isinstance(ours, int) and isinstance(theirs, int)
        )
        if not fits or node.type != f"tensor({expected})":
            raise ModelFileError(
                f"the graph in {path} takes {node.name} as {node.type} of shape {node.shape}, and its manifest gives "
                f"{spec.dtype} of shape {list(spec.shape)}; export the model again"
            )


def check_intact(path: Path, sha256: str | None = None) -> None:
    """Check a model file's bytes before anything in it is believed.

    Parameters
    ----------
    path : Path
        A model file, which may be one of a version that wrote no checksum.
    sha256 : str or None
        The digest that it must have, as ``sha256sum`` prints it.

    Raises
    ------
    ModelFileError
        If the bytes are not those that were written, or not those that are wanted.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no model file {path}")
    reason = why_not_intact(path, _data_path(path))
    if reason is not None:
        raise ModelFileError(f"{path} cannot be trusted: {reason}; copy or export it again")
    if sha256 is not None and sha256_of(path) != sha256.strip().lower():
        raise ModelFileError(
            f"{path} is another file than the one that was asked for: its SHA-256 is {sha256_of(path)}"
        )


def model_stamp(path: Path) -> str:
    """Return a hash that tells one model file from another: its content, and size and time of external data."""
    digest = blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    data = _data_path(path)
    if data.is_file():  # too large to be read through
        digest.update(repr((data.stat().st_size, data.stat().st_mtime_ns)).encode())
    return digest.hexdigest()


def model_bytes(path: Path) -> int:
    """Return the size of a model file, in bytes, with that of the weights that lie beside it."""
    return sum(file.stat().st_size for file in (path, _data_path(path)) if file.is_file())


def _data_path(path: Path) -> Path:
    """Return where a model that is too large for one file has its weights."""
    return path.with_name(f"{path.name}.data")
