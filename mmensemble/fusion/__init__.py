"""Late fusion strategies: ways of joining members by their outputs."""

from mmensemble.fusion._base import Fusion, LateFusion, Member
from mmensemble.fusion.stacking import Stacking
from mmensemble.fusion.voting import SoftVoting

__all__ = ["Fusion", "LateFusion", "Member", "SoftVoting", "Stacking"]
