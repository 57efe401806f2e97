"""One linear model over what all members make of their rows."""

from __future__ import annotations

from mmensemble.fusion.linear.strategy import LinearFusion

__all__ = ["LinearFusion"]
