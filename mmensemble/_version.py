"""The version, for whoever stamps what it writes."""

__version__ = "0.1.0"
