"""Options of the ``mmensemble`` command: what their values are, and those that several commands have. Imports click."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mmensemble.files.finding import is_pattern
from mmensemble.files.formats import described, known_formats
from mmensemble.files.places import is_uri

__all__ = ["COUNT", "EXISTING_FILE", "FILES", "FORMATS", "NEW_FILE", "RENAMED", "Source", "running"]

EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
COUNT = click.IntRange(min=1)
NEW_FILE = click.Path(dir_okay=False, path_type=Path)
FORMATS = described(known_formats())
FILES = f"INPUT and the output are files of rows, by the endings of their names: {FORMATS}."


class Source(click.Path):
    """A path, a URI or a pattern; what is neither of the latter must exist where that is asked for."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if is_uri(value) or (self.exists and is_pattern(value) and not Path(value).exists()):
            return value
        return super().convert(value, param, ctx)


class _Device(click.ParamType):
    """A device, or one of several GPUs by its number."""

    name = "auto|cpu|cuda|tensorrt|cuda:N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        kind, colon, number = value.partition(":")
        if kind not in ("auto", "cpu", "cuda", "tensorrt") or (colon and not number.isdecimal()):
            self.fail(f"{value!r} is not one of auto, cpu, cuda, tensorrt, or a GPU as cuda:1", param, ctx)
        return value


class _Limit(click.ParamType):
    """A number of rows, or a share of them in percent."""

    name = "number|percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            limit = float(value[:-1]) / 100 if str(value).endswith("%") else int(value)
        except ValueError:
            limit = -1
        if limit < 0 or (isinstance(limit, float) and not limit <= 1):
            self.fail(f"{value!r} is neither a number of rows nor a percentage", param, ctx)
        return limit


class _Renamed(click.ParamType):
    """A name, and what it is called elsewhere."""

    name = "name=other"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        name, equals, other = value.partition("=")
        if not (name and equals and other):
            self.fail(f"{value!r} is not of the form name=other", param, ctx)
        return name, other


RENAMED = _Renamed()


def running(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of every command that runs a model over rows."""
    for option in reversed(
        [
            click.option(
                "--device",
                type=_Device(),
                default="auto",
                show_default=True,
                help="auto takes a GPU that works, else the CPU. A device named here is used or refused; cuda:1 is one "
                "of several.",
            ),
            click.option(
                "--batch-size",
                type=COUNT,
                default=None,
                help="Most rows at a time.  [default: 32, and 2048 of numbers and categories alone]",
            ),
            click.option("--threads", type=COUNT, default=None, help="Threads to use.  [default: all cores]"),
            click.option(
                "--keep", metavar="COLUMN", multiple=True, help="Copy this input column to the output. Repeatable."
            ),
            click.option(
                "--on-error",
                type=click.Choice(["column", "missing", "raise"]),
                default="column",
                show_default=True,
                help="Report a bad row in the column 'error', score it as if the bad cell were missing, or stop at it.",
            ),
            click.option(
                "--on-bad-line",
                type=click.Choice(["error", "skip", "raise"]),
                default="error",
                show_default=True,
                help="Report a line that cannot be read in the column 'error', drop it, or stop at it.",
            ),
            click.option(
                "--max-errors",
                type=_Limit(),
                default=None,
                help="Stop when more rows than so many (20), or than this share of them (2%), are bad or dropped.",
            ),
            click.option(
                "--log-json",
                metavar="FILE",
                default=None,
                help="Append a line of JSON for the start, the progress, each warning and the end; - is stderr.",
            ),
            click.option("--sha256", default=None, help="The digest that MODEL must have, as sha256sum prints it."),
            click.option("--overwrite", is_flag=True, help="Replace an output that exists."),
            click.option("--quiet", is_flag=True, help="No progress bar or lines, and no closing line."),
        ]
    ):
        command = option(command)
    return command
