"""What can go wrong in loading pretrained files, as errors that name the parameter."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

from mmensemble.exceptions import ConfigurationError

__all__ = ["loading"]


@contextmanager
def loading(pretrained: str | os.PathLike[str]) -> Iterator[None]:
    """Raise what the loading of `pretrained` raises in this block as a `ConfigurationError`; show no progress bar."""
    shown = is_progress_bar_enabled()
    disable_progress_bar()
    try:
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
    finally:
        if shown:
            enable_progress_bar()
