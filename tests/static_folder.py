"""A tiny folder of static embeddings, as model2vec writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = "a,red,green,apple,pear,fast,slow,very,car,and,flag,heart,cat,dog,face,man,woman,sign,of,with,hand"
TOKENS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    ",",
    *WORDS.split(","),
    *"bcdefghijklmnopqrstuvwxyz",
    *(f"##{c}" for c in "aeinrst"),
]
N_TOKENS, SIZE = len(TOKENS), 12


def save_static_folder(
    folder: Path, *more: str, normalize: bool = False, name: str = "embeddings", dtype: Any = np.float32
) -> str:
    """Write one; `more` are ``weights`` and ``mapping``, which has two tokens share a vector."""
    folder.mkdir(parents=True)
    tokenizer = Tokenizer(models.WordPiece({token: i for i, token in enumerate(TOKENS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # As in the folders of networks, of which such vectors are made; it must not count.
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(folder / "tokenizer.json"))
    rng = np.random.default_rng(0)
    n_vectors = N_TOKENS // 2 if "mapping" in more else N_TOKENS
    tensors = {name: rng.standard_normal((n_vectors, SIZE)).astype(dtype)}
    if "weights" in more:
        tensors["weights"] = rng.random(N_TOKENS).astype(np.float32)
    if "mapping" in more:
        tensors["mapping"] = np.arange(N_TOKENS) % n_vectors
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "model2vec", "normalize": normalize}))
    return str(folder)
