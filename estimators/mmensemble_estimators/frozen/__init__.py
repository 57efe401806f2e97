"""Frozen encoders: one copy for all, and each row embedded once."""
