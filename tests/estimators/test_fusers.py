"""The fusers against the formulas of their papers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmensemble_estimators.fusers import (
    SMALLEST_NORMALISED,
    AttentionFuser,
    BilinearFuser,
    ConcatFuser,
    CrossAttentionFuser,
    Fuser,
    GatedFuser,
)

N, HIDDEN = 5, 8
LARGE = [20, 16, 24]


def embeddings(sizes: list[int], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [3 * torch.randn(N, size, generator=generator) + 1 for size in sizes]


def shaken(fuser: Fuser, seed: int = 1) -> Fuser:
    """With parameters that are not the ones it started with, so that none of them is a 0 or a 1 by chance."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in fuser.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return fuser.eval()


def norm(x: np.ndarray, layer: nn.Module) -> np.ndarray:
    """LayerNorm (Ba et al. 2016), or nothing for few features."""
    if x.shape[-1] < 16:
        return x
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return scaled * array(layer.weight) + array(layer.bias)


def array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def linear(x: np.ndarray, layer: nn.Module) -> np.ndarray:
    return x @ array(layer.weight).T + array(layer.bias)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def assert_close(made: Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(array(made), expected, rtol=1e-4, atol=1e-5)


every_number = pytest.mark.parametrize("sizes", [LARGE[:1], LARGE[:2], LARGE, [3, 20]], ids=str)


@every_number
def test_concatenation(sizes: list[int]) -> None:
    fuser, parts = shaken(ConcatFuser(sizes, HIDDEN, 0.5)), embeddings(sizes)
    normed = [norm(array(x), layer) for x, layer in zip(parts, fuser.normalise, strict=True)]
    assert_close(fuser(parts), np.maximum(linear(np.hstack(normed), fuser.layers[0]), 0))


@pytest.mark.parametrize("n_heads", [1, 2, 8])
@every_number
def test_attention_pooling(sizes: list[int], n_heads: int) -> None:
    """Yang et al. (2016), equations 5 to 7, with a query per head."""
    fuser, parts = shaken(AttentionFuser(sizes, HIDDEN, n_heads, 0.5)), embeddings(sizes)
    values = np.stack(
        [linear(norm(array(x), p[0]), p[1]) for x, p in zip(parts, fuser.project.layers, strict=True)], axis=1
    )
    seen, width = np.tanh(linear(values, fuser.key)), HIDDEN // n_heads
    heads, alphas = [], []
    for h in range(n_heads):
        own = slice(h * width, (h + 1) * width)
        alpha = softmax(seen[:, :, own] @ array(fuser.query[h]), axis=1)
        heads.append((alpha[:, :, None] * values[:, :, own]).sum(axis=1))
        alphas.append(alpha)
    assert_close(fuser(parts), np.maximum(np.hstack(heads), 0))
    assert_close(fuser.weights(parts), np.mean(alphas, axis=0))
    assert_close(fuser.weights(parts).sum(dim=1), np.ones(N))


@every_number
def test_gated_units(sizes: list[int]) -> None:
    """Arevalo et al. (2017), section 3.1: two modalities share one gate, more have one each."""
    fuser, parts = shaken(GatedFuser(sizes, HIDDEN, 0.5)), embeddings(sizes)
    x = [norm(array(part), layer) for part, layer in zip(parts, fuser.normalise, strict=True)]
    h = [np.tanh(linear(part, layer)) for part, layer in zip(x, fuser.candidates, strict=True)]
    gates = sigmoid(linear(np.hstack(x), fuser.gate))
    if len(sizes) == 2:
        assert gates.shape == (N, HIDDEN)
        assert_close(fuser(parts), gates * h[0] + (1 - gates) * h[1])
        assert_close(fuser.weights(parts).sum(dim=1), np.ones(N))
        return
    z = np.split(gates, len(sizes), axis=1)
    assert_close(fuser(parts), sum(zm * hm for zm, hm in zip(z, h, strict=True)))
    assert_close(fuser.weights(parts), np.stack([zm.mean(axis=1) for zm in z], axis=1))


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("sizes", [[16], [3, 2], [3, 16, 2]], ids=str)
def test_low_rank_fusion_is_the_contraction_of_a_tensor(sizes: list[int], rank: int) -> None:
    """Liu et al. (2018), equations 2 to 4: the outer product of all [x; 1] meets the tensor that the factors span."""
    fuser, parts = shaken(BilinearFuser(sizes, 4, rank, 0.5)), embeddings(sizes)
    weights = []
    for layer, size in zip(fuser.factors, sizes, strict=True):
        full = np.hstack([array(layer.weight), array(layer.bias)[:, None]])
        weights.append(full.reshape(rank, 4, size + 1))
    with_one = [
        np.hstack([norm(array(x), layer), np.ones((N, 1))]) for x, layer in zip(parts, fuser.normalise, strict=True)
    ]
    letters = "uvw"[: len(sizes)]
    outer = np.einsum(",".join(f"n{c}" for c in letters) + f"->n{letters}", *with_one)
    tensor = np.einsum(
        "r," + ",".join(f"rh{c}" for c in letters) + f"->h{letters}", array(fuser.rank_weights), *weights
    )
    fused = np.einsum(f"n{letters},h{letters}->nh", outer, tensor) + array(fuser.bias)
    centred = fused - fused.mean(axis=1, keepdims=True)
    fused = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
    assert_close(fuser(parts), fused * array(fuser.after[0].weight) + array(fuser.after[0].bias))


# Cross-attention


def sequences(sizes: list[int], lengths: list[int], seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Tokens of rows of several lengths; the first token is always real."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for size, length in zip(sizes, lengths, strict=True):
        mask = torch.rand(N, length, generator=generator) < 0.6
        mask[:, 0] = True
        made.append((torch.randn(N, length, size, generator=generator), mask))
    return made


def reference_layer(layer: nn.Module, states: Tensor, others: Tensor, mask: Tensor) -> Tensor:
    """A layer of a transformer with the normalisation first, over torch's own attention with the same weights."""
    size = states.shape[-1]
    attention = nn.MultiheadAttention(size, layer.n_heads, batch_first=True).eval()
    with torch.no_grad():
        projections = (layer.query, layer.key, layer.value)
        attention.in_proj_weight.copy_(torch.cat([p.weight for p in projections]))
        attention.in_proj_bias.copy_(torch.cat([p.bias for p in projections]))
        attention.out_proj.weight.copy_(layer.out.weight)
        attention.out_proj.bias.copy_(layer.out.bias)

    def normed(x: Tensor, by: nn.LayerNorm) -> Tensor:
        return functional.layer_norm(x, (size,), by.weight, by.bias)

    keys = normed(others, layer.of_keys)
    attended, _ = attention(normed(states, layer.of_queries), keys, keys, key_padding_mask=~mask, need_weights=False)
    states = states + attended
    first, _, _, last = layer.feed_forward
    return states + last(torch.relu(first(normed(states, layer.of_states))))


@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize(("sizes", "lengths"), [([20], [4]), ([20, 3], [4, 6]), ([20, 3, 16], [4, 6, 1])], ids=str)
def test_cross_attention(sizes: list[int], lengths: list[int], n_layers: int) -> None:
    """Tsai et al. (2019), section 3: a transformer per ordered pair, one per modality over what it gathered."""
    fuser, parts = shaken(CrossAttentionFuser(sizes, HIDDEN, 2, n_layers, 0.5)), sequences(sizes, lengths)
    with torch.no_grad():
        states = [layer(tokens) for (tokens, _), layer in zip(parts, fuser.project.layers, strict=True)]
        masks = [mask for _, mask in parts]
        cross, pooled = list(fuser.cross), []
        for m in range(len(sizes)):
            seen = []
            for other in [o for o in range(len(sizes)) if o != m] or [m]:
                x = states[m]
                for layer in cross.pop(0).layers:
                    # Of one modality alone, what it looks at changes from layer to layer; of others it stays.
                    x = reference_layer(layer, x, states[other], masks[other])
                seen.append(x)
            x = torch.cat(seen, dim=2)
            for layer in fuser.gather[m].layers:
                x = reference_layer(layer, x, x, masks[m])
            pooled.append(torch.stack([row[real].mean(dim=0) for row, real in zip(x, masks[m], strict=True)]))
        joined = torch.cat(pooled, dim=1)
        expected = functional.layer_norm(joined, (fuser.fused_size,), fuser.after[0].weight, fuser.after[0].bias)
        assert not cross
        torch.testing.assert_close(fuser(parts), expected, rtol=1e-4, atol=1e-5)


def test_padding_changes_nothing() -> None:
    sizes = [20, 3]
    fuser, parts = shaken(CrossAttentionFuser(sizes, HIDDEN, 2, 2, 0.5)), sequences(sizes, [4, 6])
    padded = [
        (
            torch.cat([tokens, 100 * torch.randn(N, 3, tokens.shape[2])], dim=1),
            torch.cat([mask, torch.zeros(N, 3, dtype=torch.bool)], dim=1),
        )
        for tokens, mask in parts
    ]
    # Nor does what stands in places that are masked already.
    other = [(torch.where(mask.unsqueeze(2), tokens, -50.0), mask) for tokens, mask in parts]
    expected = fuser(parts)
    torch.testing.assert_close(fuser(padded), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(fuser(other), expected, rtol=1e-5, atol=1e-6)
    # But the tokens that are real do count.
    moved = [(tokens + mask.unsqueeze(2) * 0.5 * torch.randn(tokens.shape), mask) for tokens, mask in parts]
    assert not torch.allclose(fuser(moved), expected, atol=1e-3)


# All of them


FUSERS = {
    "concatenation": lambda sizes: ConcatFuser(sizes, HIDDEN, 0.0),
    "attention": lambda sizes: AttentionFuser(sizes, HIDDEN, 2, 0.0),
    "gated": lambda sizes: GatedFuser(sizes, HIDDEN, 0.0),
    "bilinear": lambda sizes: BilinearFuser(sizes, HIDDEN, 2, 0.0),
    "cross-attention": lambda sizes: CrossAttentionFuser(sizes, HIDDEN, 2, 1, 0.0),
}
every_fuser = pytest.mark.parametrize("kind", FUSERS)


def inputs(kind: str, sizes: list[int]) -> list[object]:
    if kind == "cross-attention":
        return list(sequences(sizes, [3, 4, 2][: len(sizes)]))
    return list(embeddings(sizes))


@every_fuser
@every_number
def test_shape_and_gradients(kind: str, sizes: list[int]) -> None:
    torch.manual_seed(0)
    fuser = FUSERS[kind](sizes)
    if kind == "cross-attention" and len(sizes) == 1:
        assert fuser.fused_size == HIDDEN
    out = fuser(inputs(kind, sizes))
    assert out.shape == (N, fuser.fused_size)
    (out * torch.randn(out.shape)).sum().backward()
    for name, parameter in fuser.named_parameters():
        assert parameter.grad is not None, name
        if kind == "cross-attention" and name.endswith("key.bias"):
            continue  # moves all of a query's scores alike, which softmax does not see
        if kind == "attention" and len(sizes) == 1 and name in ("query", "key.weight", "key.bias"):
            continue  # one modality has all the attention
        assert (parameter.grad != 0).any(), name


@every_fuser
def test_rows_do_not_see_each_other(kind: str) -> None:
    sizes = [20, 3]
    fuser, parts = shaken(FUSERS[kind](sizes)), inputs(kind, sizes)
    one = [(p[0][2:3], p[1][2:3]) if isinstance(p, tuple) else p[2:3] for p in parts]
    torch.testing.assert_close(fuser(one), fuser(parts)[2:3], rtol=1e-5, atol=1e-6)


@every_fuser
@pytest.mark.parametrize("size", [1, 2, SMALLEST_NORMALISED - 1])
def test_few_features_keep_their_values(kind: str, size: int) -> None:
    """LayerNorm would make one number nothing, and two numbers one bit."""
    fuser = shaken(FUSERS[kind]([size]))
    column = torch.tensor([[0.1], [0.5], [2.0]]).expand(3, size)
    column = column.unsqueeze(1) if kind == "cross-attention" else column
    made = fuser([(column, torch.ones(3, 1, dtype=torch.bool))] if kind == "cross-attention" else [column])
    assert (made[0] - made[1]).abs().max() > 1e-3
    assert (made[1] - made[2]).abs().max() > 1e-3


@every_fuser
def test_scale_of_an_embedding_does_not_matter(kind: str) -> None:
    sizes = [20, 16]
    fuser, parts = shaken(FUSERS[kind](sizes)), inputs(kind, sizes)
    scaled = [(1000 * p[0], p[1]) if isinstance(p, tuple) else 1000 * p for p in parts]
    torch.testing.assert_close(fuser(scaled), fuser(parts), rtol=1e-3, atol=1e-3)
