"""Estimators around other estimators: ensembles, one per class or target, calibration, chains."""
