"""transformers' configs, which say what a network is like."""

from __future__ import annotations

import copy
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

__all__ = ["config_of"]


def config_of(config: PreTrainedConfig | dict[str, Any], **changes: Any) -> Any:
    """Return a copy of a config, or what a dict of its values says; networks keep theirs, and change it.

    Parameters
    ----------
    config : PreTrainedConfig or dict
    **changes
        Values that it shall have in the place of its own.

    Returns
    -------
    PreTrainedConfig
    """
    config = AutoConfig.for_model(**config) if isinstance(config, dict) else copy.deepcopy(config)
    for name, value in changes.items():
        setattr(config, name, value)
    return config
