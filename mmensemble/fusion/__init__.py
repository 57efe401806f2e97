"""Fusion strategies that need no torch: by the members' outputs, and by one linear model over their features."""

from mmensemble.fusion.late import LateFusion
from mmensemble.fusion.linear import LinearFusion
from mmensemble.fusion.pool import LogOpinionPool
from mmensemble.fusion.product import ProductOfExperts
from mmensemble.fusion.rows import Rows
from mmensemble.fusion.selection import EnsembleSelection
from mmensemble.fusion.stacking import Stacking
from mmensemble.fusion.strategy import Fusion, Member
from mmensemble.fusion.super_learner import SuperLearner
from mmensemble.fusion.voting import HardVoting, SoftVoting
from mmensemble.operations import Operations

__all__ = [
    "EnsembleSelection",
    "Fusion",
    "HardVoting",
    "LateFusion",
    "LinearFusion",
    "LogOpinionPool",
    "Member",
    "Operations",
    "ProductOfExperts",
    "Rows",
    "SoftVoting",
    "Stacking",
    "SuperLearner",
]
