"""A report on the disk: JSON or a page, by the ending of its name. Standard library only."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmensemble.exceptions import ConfigurationError
from mmensemble.files.writing import write_text
from mmensemble.scoring.report.page import page_of

__all__ = ["ReportPaths", "check_reports", "write_reports"]

ReportPaths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def check_reports(report: ReportPaths) -> list[Path]:
    """Return the files that a report is to be written to.

    Raises
    ------
    ConfigurationError
        If one of them is neither JSON nor HTML, by its ending, or cannot be written.
    """
    paths = [Path(each) for each in ([report] if isinstance(report, (str, os.PathLike)) else report)]
    for path in paths:
        if path.suffix.lower() not in (".json", ".html", ".htm"):
            raise ConfigurationError(f"a report is a .json or .html file, not {path}")
        if not path.parent.is_dir() or path.is_dir():
            raise ConfigurationError(f"the report {path} is a folder, or in none that exists")
    return paths


def write_reports(paths: Sequence[Path], summary: Mapping[str, Any]) -> None:
    """Write a report to each of some files; earlier ones are replaced."""
    for path in paths:
        page = path.suffix.lower() != ".json"
        text = page_of(summary) if page else json.dumps(summary, ensure_ascii=False, indent=1)
        write_text(path, text)
