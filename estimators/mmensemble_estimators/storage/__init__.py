"""Fitted estimators as folders of safetensors and JSON."""
