"""Model files and their cards on the Hugging Face Hub: files alone, of which nothing is unpickled.

huggingface_hub, of the extra ``hub``, is imported at use.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from mmensemble.exceptions import ConfigurationError, MissingDependencyError, ModelFileError
from mmensemble.publishing.card import write_card
from mmensemble.scoring.predictor import OnnxPredictor

__all__ = ["from_hub", "push_to_hub"]

_CARD = "README.md"


def push_to_hub(
    model: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    commit_message: str = "Upload a model file and its card",
) -> str:
    """Upload a model file, its weights where they lie beside it, and its model card.

    The repository is made where it is not there. Of a card that is there already, what `mmensemble card` wrote is
    written anew, and what else stands in it stays.

    Parameters
    ----------
    model : str or path
        What `export_onnx` has written. It keeps its name.
    repo_id : str
        As ``"name/model"``.
    private : bool, default=None
        Of a repository that is made; None is what the account says.
    revision : str, default=None
        The branch; None is ``main``.
    token : str or bool, default=None
        As in huggingface_hub: None takes the one that was stored by ``hf auth login``.
    commit_message : str

    Returns
    -------
    str
        The address of the commit.

    Raises
    ------
    ModelFileError
        If the file cannot be opened.
    MissingDependencyError
        If huggingface_hub is not installed.
    """
    hub = _huggingface_hub()
    model = Path(model)
    api = hub.HfApi(token=token)
    weights = model.with_name(f"{model.name}.data")
    with tempfile.TemporaryDirectory() as folder:
        card = Path(folder, _CARD)
        write_card(model, card)  # what cannot be opened here is of no use there
        if api.file_exists(repo_id, _CARD, revision=revision):
            there = hub.hf_hub_download(repo_id, _CARD, revision=revision, token=token)
            card.write_bytes(Path(there).read_bytes())
            write_card(model, card)
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.create_commit(
            repo_id,
            [hub.CommitOperationAdd(path.name, path) for path in (model, weights, card) if path.is_file()],
            commit_message=commit_message,
            revision=revision,
        )
    return str(commit.commit_url)


def from_hub(
    repo_id: str,
    filename: str = "model.onnx",
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    **options: Any,
) -> OnnxPredictor:
    """Open a model file of the Hugging Face Hub, which is fetched once.

    An ONNX file holds no code of its own; its checksum tells whether its bytes are those that were written, and not who
    wrote them.

    Parameters
    ----------
    repo_id : str
        As ``"name/model"``.
    filename : str, default="model.onnx"
    revision : str, default=None
        A branch, a tag or a commit; a commit is always the same file.
    token : str or bool, default=None
        As in huggingface_hub.
    **options
        Of `OnnxPredictor`.

    Returns
    -------
    OnnxPredictor

    Raises
    ------
    ConfigurationError
        If there is no such repository or file, or the hub cannot be reached.
    ModelFileError
        If it is no model file of mmensemble.
    MissingDependencyError
        If huggingface_hub is not installed.
    """
    hub = _huggingface_hub()
    if not filename.endswith(".onnx"):
        raise ModelFileError(f"{filename} is no model file: its name ends in .onnx")
    place: dict[str, Any] = {"revision": revision, "token": token}
    try:
        path = hub.hf_hub_download(repo_id, filename, **place)
        if hub.HfApi(token=token).file_exists(repo_id, f"{filename}.data", revision=revision):
            hub.hf_hub_download(repo_id, f"{filename}.data", **place)
    except (OSError, ValueError) as error:  # huggingface_hub's own are of these, as those of the network are
        reason = str(error).strip().split("\n", 1)[0]
        raise ConfigurationError(f"{filename} of {repo_id} cannot be fetched: {reason}") from error
    return OnnxPredictor(path, **options)


def _huggingface_hub() -> Any:
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise MissingDependencyError("huggingface-hub", "hub") from error
    return huggingface_hub
