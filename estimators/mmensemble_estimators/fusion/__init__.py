"""Joint fusion strategies: the members' networks are trained together, with what fuses their representations.

One of your own derives from `JointFusion`, or from `WeighingFusion`; its network derives from `Fuser`.
"""

from __future__ import annotations

from mmensemble_estimators.fusers import Fuser
from mmensemble_estimators.fusion.cross_attention import CrossAttentionFusion
from mmensemble_estimators.fusion.strategies import AttentionFusion, BilinearFusion, ConcatFusion, GatedFusion
from mmensemble_estimators.joint.fusion import JointFusion, WeighingFusion

__all__ = [
    "AttentionFusion",
    "BilinearFusion",
    "ConcatFusion",
    "CrossAttentionFusion",
    "Fuser",
    "GatedFusion",
    "JointFusion",
    "WeighingFusion",
]
