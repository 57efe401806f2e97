"""What can go wrong in loading pretrained files, as errors that name the parameter."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import AutoTokenizer
from transformers.utils import cached_file
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

from mmensemble.exceptions import ConfigurationError

__all__ = ["load_tokenizer", "loading", "no_progress_bar", "pad_id", "read_processor"]


@contextmanager
def loading(pretrained: str | os.PathLike[str]) -> Iterator[None]:
    """Raise what the loading of `pretrained` raises in this block as a `ConfigurationError`; show no progress bar."""
    try:
        with no_progress_bar():
            yield
    except ConfigurationError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        name = os.fspath(pretrained)
        if os.path.isdir(name):
            place = "the folder"
        elif os.path.isabs(name) or name.startswith("."):
            raise ConfigurationError(f"pretrained={name!r}: there is no such folder") from error
        else:
            place = "no such folder here, and as a model of the hub it"
        reason = str(error).strip().split("\n", 1)[0]
        raise ConfigurationError(f"pretrained={name!r}: {place} cannot be loaded ({reason})") from error


@contextmanager
def no_progress_bar() -> Iterator[None]:
    """Keep transformers' progress bars off the screen."""
    shown = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            enable_progress_bar()


def load_tokenizer(pretrained: str | os.PathLike[str]) -> Any:
    """Load the tokenizer of a folder or hub id.

    Raises
    ------
    ConfigurationError
        If there is none, or none of the `tokenizers` library.
    """
    with loading(pretrained):
        tokenizer = AutoTokenizer.from_pretrained(pretrained)
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise ConfigurationError(f"pretrained={os.fspath(pretrained)!r} has no tokenizer of the `tokenizers` library")
    return tokenizer


def pad_id(tokenizer: Any) -> int:
    """Return the token that fills padded positions."""
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0)


def read_processor(pretrained: str, inputs: str, *parts: str) -> dict[str, Any]:
    """Read how a pretrained model wants its inputs.

    Parameters
    ----------
    pretrained : str
    inputs : str
        What they are, for the error.
    *parts : {"image_processor", "video_processor", "feature_extractor"}
        Of ``processor_config.json``, which goes first, as in transformers. Those of version 4 write
        ``preprocessor_config.json`` instead.

    Raises
    ------
    ConfigurationError
        If neither file says it.
    """
    for name in ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"):
        with loading(pretrained):
            path = cached_file(pretrained, name, _raise_exceptions_for_missing_entries=False)
        if path is None:
            continue
        settings: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        if name != "processor_config.json":
            return settings
        for part in parts:
            if isinstance(settings.get(part), dict):
                found: dict[str, Any] = settings[part]
                return found
    raise ConfigurationError(
        f"pretrained={pretrained!r} has no preprocessor_config.json, which says how its {inputs} are prepared"
    )
