"""Tiny folders of models that embed texts and images in one space, CLIP and SigLIP, with weights drawn at random."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast, SiglipConfig, SiglipModel

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
IMAGE = {**SIZES, "image_size": 32, "patch_size": 8}
WORDS = "a,photo,of,the,red,green,apple,pear,fast,slow,car,and,flag,cat,dog,face,man,woman,nature,flags,people,symbols"
N_POSITIONS = 20


def save_contrastive_folder(folder: Path, kind: str) -> str:
    """Write one of the kind "clip" or "siglip"."""
    # The end of CLIP's texts has the largest id.
    special = ["<unknown>", "<pad>", "<start>", "<end>"] if kind == "clip" else ["<unknown>", "<end>"]
    words = [*WORDS.split(","), *"bcdefghijklmnopqrstuvwxyz"]
    vocabulary = {token: number for number, token in enumerate([*words, *special])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    form = "<start> $A <end>" if kind == "clip" else "$A <end>"
    ends = [(token, vocabulary[token]) for token in ("<start>", "<end>") if token in form]
    tokenizer.post_processor = processors.TemplateProcessing(single=form, special_tokens=ends)
    pad = "<pad>" if kind == "clip" else "<end>"
    text: dict[str, Any] = {
        **SIZES,
        "vocab_size": len(vocabulary),
        "max_position_embeddings": N_POSITIONS,
        "pad_token_id": vocabulary[pad],
        "eos_token_id": vocabulary["<end>"],
        "bos_token_id": vocabulary.get("<start>"),
    }
    torch.manual_seed(0)
    model: Any
    if kind == "clip":
        # Beginnings of 1 would give vectors that hardly differ.
        more = {"initializer_factor": 20.0}
        config = CLIPConfig(text_config={**text, **more}, vision_config={**IMAGE, **more}, projection_dim=12)
        model = CLIPModel(config)
    else:
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=IMAGE))
        with torch.no_grad():
            model.logit_scale.fill_(3.0)
            model.logit_bias.fill_(-5.0)
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, eos_token="<end>", unk_token="<unknown>"
    ).save_pretrained(folder)
    processor = {
        "do_resize": True,
        "size": {"shortest_edge": 32} if kind == "clip" else {"height": 32, "width": 32},
        "do_center_crop": kind == "clip",
        "crop_size": {"height": 32, "width": 32},
        "do_normalize": True,
        "image_mean": [0.48, 0.46, 0.41],
        "image_std": [0.27, 0.26, 0.28],
        "resample": 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return str(folder)
