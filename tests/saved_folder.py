"""What tests do to folders that `save` wrote."""

from __future__ import annotations

from pathlib import Path

from mmensemble_estimators.storage.checksums import SUMS, write_sums

__all__ = ["sum_anew"]


def sum_anew(folder: Path) -> None:
    """Let the digests be right, so that what the files say is looked into."""
    files = [file.relative_to(folder) for file in folder.rglob("*") if file.is_file() and file != folder / SUMS]
    write_sums(folder, sorted(files, key=lambda file: file.name == "estimator.json"))
