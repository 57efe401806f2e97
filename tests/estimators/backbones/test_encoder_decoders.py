"""Encoder-decoders as networks: their state spares computing anything twice, and changes nothing."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import (
    BartConfig,
    GPT2Config,
    LlamaConfig,
    MarianConfig,
    PegasusConfig,
    PreTrainedConfig,
    ResNetConfig,
    T5Config,
)

from mmensemble import ConfigurationError
from mmensemble_estimators.backbones.image import HALF, image_encoder_from_architecture, image_encoder_from_config
from mmensemble_estimators.backbones.writers import decoders
from mmensemble_estimators.backbones.writers.encoder_decoder import (
    SEQUENCE_BACKBONES,
    EncoderDecoder,
    encoder_decoder_from_architecture,
    encoder_decoder_from_config,
)
from mmensemble_estimators.backbones.writers.networks import GenerativeNetwork, causal_network_from_config

VOCAB, LENGTH = 300, 12

SMALL = {
    "vocab_size": VOCAB,
    "max_position_embeddings": 20,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
}
CONFIGS: list[PreTrainedConfig] = [
    BartConfig(**SMALL, scale_embedding=True),
    MarianConfig(**SMALL),
    PegasusConfig(**SMALL),
    T5Config(vocab_size=VOCAB, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=4, decoder_start_token_id=0),
]

CAUSAL: list[PreTrainedConfig] = [
    GPT2Config(vocab_size=VOCAB, n_positions=20, n_embd=16, n_layer=2, n_head=2),
    LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    ),
]

NETWORKS: dict[str, Callable[[], EncoderDecoder]] = {
    **{
        name: lambda build=build: build(vocab_size=VOCAB, max_length=LENGTH, pooling="mean")
        for name, build in SEQUENCE_BACKBONES.items()
    },
    **{
        config.model_type: lambda config=config: encoder_decoder_from_config(
            config, vocab_size=VOCAB, attention="own", pooling="mean"
        )
        for config in CONFIGS
    },
}


def architecture_of(network: EncoderDecoder) -> dict[str, Any]:
    parts = {"encoder": network.encoder.architecture(), "decoder": network.decoder.architecture()}
    return json.loads(json.dumps(parts))


def captioner(kind: str) -> EncoderDecoder:
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    encoder = image_encoder_from_config(config, image_size=32, normalisation=HALF, pooling=None)
    build = decoders.DECODERS[kind]
    return EncoderDecoder(encoder, build(vocab_size=VOCAB, max_length=LENGTH, memory_size=encoder.embedding_size))


def texts(seed: int = 0) -> dict[str, torch.Tensor]:
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
    return {
        "input_ids": torch.randint(2, VOCAB, (3, 5), generator=torch.manual_seed(seed)),
        "attention_mask": mask,
    }


def pictures() -> dict[str, torch.Tensor]:
    return {"pixels": torch.randint(0, 256, (3, 32, 32, 3), generator=torch.manual_seed(0)).to(torch.uint8)}


def scores_of(network: EncoderDecoder, written: torch.Tensor, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the scores after each token of whole texts, as in training."""
    with torch.no_grad():
        return network(written, None, **network.encode(**inputs))[0]


def check_decoding(network: EncoderDecoder, inputs: dict[str, torch.Tensor]) -> None:
    """Compare all tokens at once with token by token, and both states with what is said of them."""
    network.eval()
    written = torch.randint(2, VOCAB, (3, 6), generator=torch.manual_seed(1))
    with torch.no_grad():
        memory = network.encode(**inputs)
        state, steps = network.initial_state(3), []
        for step in range(6):
            mask = torch.ones(3, step + 1, dtype=torch.int64)
            scores, state = network(written[:, step : step + 1], mask, **memory, **state)
            steps.append(scores)
    at_once = scores_of(network, written, inputs)
    assert at_once.shape == (3, 6, VOCAB)
    torch.testing.assert_close(torch.cat(steps, dim=1), at_once, rtol=0, atol=1e-5)
    source = memory["source_mask"].shape[1]
    for tensors, spec in ((memory, network.encoded_spec()), (state, network.state_spec())):
        assert list(tensors) == list(spec)
        for name, tensor in tensors.items():
            assert str(tensor.dtype) == f"torch.{spec[name].dtype}"
            sizes = {"batch": 3, "capacity": 6, "source": source}
            assert list(tensor.shape) == [sizes.get(axis, axis) for axis in spec[name].shape]


def check_buffers(network: GenerativeNetwork, memory: dict[str, torch.Tensor]) -> None:
    """Run tokens with buffers that have room for more, as an exported step does, and with a state that grows."""
    network.eval()
    written = torch.randint(2, VOCAB, (3, 6), generator=torch.manual_seed(1))
    sizes = {"batch": 3, "capacity": 8}
    spec = network.state_spec()
    state = {name: torch.zeros([sizes.get(axis, axis) for axis in one.shape]) for name, one in spec.items()}
    mask, steps = torch.zeros(3, 8, dtype=torch.int64), []
    mask[1, 0] = -1  # padding, which stays
    for first, last in ((0, 2), (2, 3), (3, 6)):
        mask[:, first:last] += 1
        past = torch.full((3,), first)
        with torch.no_grad():
            scores, state = network(written[:, first:last], mask, past=past, **memory, **state)
        steps.append(scores)
    assert [list(state[name].shape) for name in spec] == [[sizes.get(a, a) for a in one.shape] for one in spec.values()]
    with torch.no_grad():
        at_once, _ = network(written, mask[:, :6], **memory)
    real = mask[:, :6].bool()
    torch.testing.assert_close(torch.cat(steps, dim=1)[real], at_once[real], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_state_in_buffers(name: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    with torch.no_grad():
        check_buffers(network, network.encode(**texts()))


@pytest.mark.parametrize("config", CAUSAL, ids=lambda config: config.model_type)
def test_state_of_a_language_model_in_buffers(config: PreTrainedConfig) -> None:
    torch.manual_seed(0)
    check_buffers(causal_network_from_config(config), {})


@pytest.mark.parametrize("name", NETWORKS)
def test_state(name: str) -> None:
    torch.manual_seed(0)
    check_decoding(NETWORKS[name](), texts())


@pytest.mark.parametrize("kind", decoders.DECODERS)
def test_state_of_a_captioner(kind: str) -> None:
    torch.manual_seed(0)
    check_decoding(captioner(kind), pictures())


@pytest.mark.parametrize("name", NETWORKS)
def test_padding_of_the_source_is_not_seen(name: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    source, written = texts(), torch.randint(2, VOCAB, (1, 4), generator=torch.manual_seed(2))
    padded = scores_of(network, written.expand(3, -1), source)
    for row, length in enumerate((5, 3, 1)):
        alone = scores_of(network, written, {k: v[row : row + 1, :length] for k, v in source.items()})
        torch.testing.assert_close(padded[row : row + 1], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_future_is_not_seen_and_the_source_is(name: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    written = torch.randint(2, VOCAB, (3, 4), generator=torch.manual_seed(2))
    other = written.clone()
    other[:, 3] = (other[:, 3] + 1) % VOCAB
    scores = scores_of(network, written, texts())
    torch.testing.assert_close(scores_of(network, other, texts())[:, :3], scores[:, :3], rtol=0, atol=1e-6)
    assert not torch.allclose(scores_of(network, written, texts(seed=5)), scores, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_architecture(name: str) -> None:
    network = NETWORKS[name]().eval()
    rebuilt = encoder_decoder_from_architecture(architecture_of(network)).eval()
    rebuilt.load_state_dict(network.state_dict())
    assert len(list(rebuilt.parameters())) == len(list(network.parameters()))  # what is shared still is
    written = torch.ones(3, 4, dtype=torch.int64)
    torch.testing.assert_close(
        scores_of(rebuilt, written, texts()), scores_of(network, written, texts()), rtol=0, atol=0
    )


@pytest.mark.parametrize("kind", decoders.DECODERS)
def test_architecture_of_a_captioner(kind: str) -> None:
    network = captioner(kind).eval()
    architecture = architecture_of(network)
    encoder = image_encoder_from_architecture(architecture["encoder"], image_size=32)
    rebuilt = EncoderDecoder(
        encoder, decoders.decoder_from_architecture(architecture["decoder"], encoder.embedding_size)
    ).eval()
    rebuilt.load_state_dict(network.state_dict())
    written = torch.ones(3, 4, dtype=torch.int64)
    torch.testing.assert_close(
        scores_of(rebuilt, written, pictures()), scores_of(network, written, pictures()), rtol=0, atol=0
    )


def test_the_transformer_shares_the_vectors_of_its_tokens() -> None:
    network = copy.deepcopy(NETWORKS["transformer"]())
    vectors = network.decoder.lm_head.weight
    assert vectors is network.encoder.backbone.get_input_embeddings().weight
    assert vectors is network.decoder.network.get_input_embeddings().weight


def test_scores_of_another_making_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # A model that does more with its hidden states than its head.
    monkeypatch.setattr(decoders.TransformerDecoder, "head", lambda self, hidden: 2 * self.lm_head(hidden))
    with pytest.raises(ConfigurationError, match=r"BartForConditionalGeneration cannot be generated with"):
        NETWORKS["bart"]()
