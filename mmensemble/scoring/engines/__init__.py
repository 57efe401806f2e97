"""Scoring by many workers: the function that they call, the plan of a job, and the engines that run it."""

from __future__ import annotations

from mmensemble.scoring.engines.engine import Engine, LocalEngine, register_engine
from mmensemble.scoring.engines.ray import RayEngine
from mmensemble.scoring.engines.spark import SparkEngine

__all__ = ["Engine", "register_engine"]

for _engine in (LocalEngine(), RayEngine(), SparkEngine()):
    register_engine(_engine)
