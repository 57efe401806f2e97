"""The joint strategy over the members' tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmensemble.exceptions import ConfigurationError
from mmensemble.fusion import Member
from mmensemble_estimators.base.documented import documented
from mmensemble_estimators.base.parameters import check_fractions, check_integers
from mmensemble_estimators.fusers import CrossAttentionFuser, Fuser
from mmensemble_estimators.joint.fusion import JointFusion

__all__ = ["CrossAttentionFusion"]


@documented()
class CrossAttentionFusion(JointFusion):
    """Let the tokens of each modality look at those of every other one (multimodal transformer, Tsai et al. 2019).

    A text brings its tokens, an image the places of its feature map, anything else one token. They are normalised and
    projected to `hidden_size`; for each ordered pair of modalities a transformer of `n_layers` layers lets the tokens
    of the first one attend to those of the second; what a modality has gathered from all others passes a transformer of
    its own; and the means over its tokens are concatenated.

    Where the paper convolves a sequence before and takes the last token after, this projects token by token and takes
    the mean, as its encoders have seen the neighbourhood already.

    Parameters
    ----------
    hidden_size : int, default=64
        Size of the tokens; a multiple of `n_heads`. The fused representation has ``M * (M - 1) * hidden_size`` features
        of M modalities.
    n_heads : int, default=4
        Attention heads.
    n_layers : int, default=1
        Layers of each transformer.
    dropout : float, default=0.1
        Within the transformers and after the fused representation, in training.
    <<joint>>

    Attributes
    ----------
    <<joint_fitted>>

    References
    ----------
    Tsai, Bai, Liang, Kolter, Morency, Salakhutdinov (2019). Multimodal transformer for unaligned multimodal language
    sequences. ACL.
    """

    __module__ = "mmensemble_estimators"
    fuser_class = CrossAttentionFuser

    def __init__(
        self,
        *,
        hidden_size: int = 64,
        n_heads: int = 4,
        n_layers: int = 1,
        dropout: float = 0.1,
        modality_dropout: float = 0.2,
        max_epochs: int | None = None,
        frozen_epochs: int = 0,
        batch_size: int | None = None,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        warmup_fraction: float = 0.1,
        time_limit: float | None = None,
        label_smoothing: float = 0.1,
        device: str = "auto",
        random_state: Any = None,
        verbose: int = False,
    ) -> None:
        self.hidden_size = hidden_size
        self.n_heads = n_heads
        self.n_layers = n_layers
        self.dropout = dropout
        self.modality_dropout = modality_dropout
        self.max_epochs = max_epochs
        self.frozen_epochs = frozen_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup_fraction = warmup_fraction
        self.time_limit = time_limit
        self.label_smoothing = label_smoothing
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def check_parameters(self, members: Sequence[Member], X: Any) -> None:
        super().check_parameters(members, X)
        check_integers(self, hidden_size=1, n_heads=1, n_layers=1)
        check_fractions(self, "dropout")
        if self.hidden_size % self.n_heads:
            raise ConfigurationError(f"hidden_size={self.hidden_size} is no multiple of n_heads={self.n_heads}")

    def build_fuser(self, sizes: Sequence[int]) -> Fuser:
        return CrossAttentionFuser(sizes, self.hidden_size, self.n_heads, self.n_layers, self.dropout)
