"""Joint strategies over the members' embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmensemble.exceptions import ConfigurationError
from mmensemble.fusion import Member
from mmensemble_estimators.base.documented import documented
from mmensemble_estimators.base.parameters import check_fractions, check_integers
from mmensemble_estimators.fusers import AttentionFuser, BilinearFuser, ConcatFuser, Fuser, GatedFuser
from mmensemble_estimators.joint.fusion import JointFusion, WeighingFusion

__all__ = ["AttentionFusion", "BilinearFusion", "ConcatFusion", "GatedFusion"]


@documented()
class ConcatFusion(JointFusion):
    """Concatenate the members' embeddings, each normalised (LayerNorm): a ReLU layer, a linear head.

    Fewer than 16 features are left as they are, as LayerNorm would leave too little of them.

    Parameters
    ----------
    hidden_size : int, default=128
        Width of the hidden layer.
    dropout : float, default=0.1
        After the hidden layer, in training.
    <<joint>>

    Attributes
    ----------
    <<joint_fitted>>
    """

    __module__ = "mmensemble_estimators"
    fuser_class = ConcatFuser

    def __init__(
        self,
        *,
        hidden_size: int = 128,
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
        check_integers(self, hidden_size=1)
        check_fractions(self, "dropout")

    def build_fuser(self, sizes: Sequence[int]) -> Fuser:
        return ConcatFuser(sizes, self.hidden_size, self.dropout)


@documented()
class AttentionFusion(WeighingFusion):
    r"""Sum the members' embeddings, each weighted by how much attention it draws in this row.

    Each embedding :math:`x_m` is normalised and projected to :math:`v_m`, and in each head a learned query :math:`q`
    weighs the modalities as Yang et al. (2016) weigh words:

    .. math:: \alpha_m = \mathrm{softmax}_m\, q^\top \tanh(W v_m + b), \qquad h = \sum_m \alpha_m v_m

    Parameters
    ----------
    hidden_size : int, default=128
        Size of the projections and of the fused representation; a multiple of `n_heads`.
    n_heads : int, default=4
        Queries, each over its own share of the projections.
    dropout : float, default=0.1
        After the fused representation and a ReLU, in training.
    <<joint>>

    Attributes
    ----------
    <<joint_fitted>>

    References
    ----------
    Yang, Yang, Dyer, He, Smola, Hovy (2016). Hierarchical attention networks for document classification. NAACL.
    """

    __module__ = "mmensemble_estimators"
    fuser_class = AttentionFuser

    def __init__(
        self,
        *,
        hidden_size: int = 128,
        n_heads: int = 4,
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
        check_integers(self, hidden_size=1, n_heads=1)
        check_fractions(self, "dropout")
        if self.hidden_size % self.n_heads:
            raise ConfigurationError(f"hidden_size={self.hidden_size} is no multiple of n_heads={self.n_heads}")

    def build_fuser(self, sizes: Sequence[int]) -> Fuser:
        return AttentionFuser(sizes, self.hidden_size, self.n_heads, self.dropout)


@documented()
class GatedFusion(WeighingFusion):
    r"""Let learned gates decide, unit by unit, which modality counts (gated multimodal unit, Arevalo et al. 2017).

    .. math:: h_m = \tanh(W_m x_m), \qquad z_m = \sigma(Y_m [x_1, \dots, x_M]), \qquad h = \sum_m z_m \odot h_m

    Of two modalities :math:`z_2 = 1 - z_1`, as in the paper. The embeddings are normalised first (LayerNorm), as
    encoders of different kinds differ in scale.

    Parameters
    ----------
    hidden_size : int, default=128
        Units.
    dropout : float, default=0.1
        After the fused representation, in training.
    <<joint>>

    Attributes
    ----------
    <<joint_fitted>>

    References
    ----------
    Arevalo, Solorio, Montes-y-Gómez, González (2017). Gated multimodal units for information fusion. ICLR workshop.
    """

    __module__ = "mmensemble_estimators"
    fuser_class = GatedFuser

    def __init__(
        self,
        *,
        hidden_size: int = 128,
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
        check_integers(self, hidden_size=1)
        check_fractions(self, "dropout")

    def build_fuser(self, sizes: Sequence[int]) -> Fuser:
        return GatedFuser(sizes, self.hidden_size, self.dropout)


@documented()
class BilinearFusion(JointFusion):
    r"""Multiply the members' embeddings with each other, through a weight tensor of low rank (Liu et al. 2018).

    The outer product of all embeddings, each with a 1 appended, meets a weight tensor whose factors are learned:

    .. math:: h = \sum_{r=1}^{R} \lambda_r \bigodot_m \big(W_m^{(r)} [x_m; 1]\big) + b

    so that interactions of up to all modalities count, at a cost linear in their number. The embeddings are normalised
    first (LayerNorm), and so is the product.

    Parameters
    ----------
    hidden_size : int, default=128
        Size of the fused representation.
    rank : int, default=4
        :math:`R`, the rank of the weight tensor.
    dropout : float, default=0.1
        After the fused representation, in training.
    <<joint>>

    Attributes
    ----------
    <<joint_fitted>>

    References
    ----------
    Liu, Shen, Lakshminarasimhan, Liang, Zadeh, Morency (2018). Efficient low-rank multimodal fusion with
    modality-specific factors. ACL.
    """

    __module__ = "mmensemble_estimators"
    fuser_class = BilinearFuser

    def __init__(
        self,
        *,
        hidden_size: int = 128,
        rank: int = 4,
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
        self.rank = rank
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
        check_integers(self, hidden_size=1, rank=1)
        check_fractions(self, "dropout")

    def build_fuser(self, sizes: Sequence[int]) -> Fuser:
        return BilinearFuser(sizes, self.hidden_size, self.rank, self.dropout)
