"""How the ``mmensemble`` command runs a model over rows: what it logs, which signals end it, and its exit codes.

Imports click, and what scores when it runs.
"""

from __future__ import annotations

import datetime
import json
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmensemble.exceptions import MmensembleError

if TYPE_CHECKING:
    from mmensemble.scoring import ScoreReport

__all__ = ["run_over_rows"]

# Of a job that is finished, but whose rows are not like those that the model was made for.
_DRIFTED = 3


class _Interrupted(click.ClickException):
    exit_code = 130  # as of every program that Ctrl-C ends


def run_over_rows(
    write: Callable[..., ScoreReport],
    model: Path | str,
    input: Path | str,
    output: Path | str,
    quiet: bool,
    **options: Any,
) -> None:
    """Run a model over rows, and say how it went.

    Parameters
    ----------
    write : callable
        `score_dataset` or its like.
    model, input, output : path or str
    quiet : bool
    **options
        Of `write`, and ``sha256`` and ``log_json``.

    Raises
    ------
    click.ClickException
        After Ctrl-C or SIGTERM.
    click.exceptions.Exit
        With 1 if all rows are bad, with 3 if they have drifted.
    """
    from mmensemble.scoring.engines.model_cache import local_model
    from mmensemble.scoring.manifest import check_intact
    from mmensemble.scoring.progress import log_event

    sha256, log_json = options.pop("sha256"), options.pop("log_json")
    only_json, is_terminal = log_json == "-", sys.stderr.isatty()
    show = not quiet and is_terminal and not only_json
    with _logging(log_json, lines=not quiet and not is_terminal):
        try:
            check_intact(local_model(model), sha256)
            with _sigterm_as_ctrl_c():
                report = write(model, input, output, progress=show, **options)
        except KeyboardInterrupt:
            message = (
                "interrupted; the same command goes on where it stopped: finished rows are kept in a hidden folder "
                f"beside {output}, or in that folder"
            )
            log_event("interrupted", message, logging.ERROR)
            if only_json:
                raise click.exceptions.Exit(_Interrupted.exit_code) from None
            raise _Interrupted(message) from None
        except Exception as error:
            expected = isinstance(error, (MmensembleError, OSError))
            log_event("error", str(error) if expected else repr(error), logging.ERROR)
            if expected and only_json:
                raise click.exceptions.Exit(1) from error
            raise
        if not quiet:
            click.echo(_closing_line(report))
        for warning in _warnings(report, input, output):
            log_event("warning", warning, logging.WARNING)
            if not only_json:
                click.echo(f"Warning: {warning}", err=True)
    if 0 < report.n_rows == report.n_errors:
        raise click.exceptions.Exit(1)
    if report.drifted:
        raise click.exceptions.Exit(_DRIFTED)


def _errors(report: ScoreReport) -> str:
    return f"{report.n_errors} error{'' if report.n_errors == 1 else 's'}"


def _closing_line(report: ScoreReport) -> str:
    resumed = f", {report.n_resumed} of them by an earlier, unfinished run" if report.n_resumed else ""
    return (
        f"{report.n_rows} rows{resumed} ({_errors(report)}) in {report.seconds:.2f} s, "
        f"{report.rows_per_second:.0f} rows/s on {report.device}"
    )


def _warnings(report: ScoreReport, input: Path | str, output: Path | str) -> Iterator[str]:
    if report.n_skipped:
        yield f"{report.n_skipped} lines of {input} cannot be read and were dropped"
    if report.n_errors:
        yield f"{_errors(report)} in {report.n_rows} rows; see the column 'error' of {output}"
    if report.drifted:
        yield f"drifted from the training profile: {', '.join(report.drifted)}"


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """End a job that a scheduler ends as one that Ctrl-C ends: what is finished is kept."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _JsonLines(logging.Formatter):
    """A record as one line of JSON: ``time``, ``level``, ``event``, ``message``, and what belongs to the event."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")
        event = getattr(record, "event", {"event": "warning"})
        line = {"time": time, "level": record.levelname.lower(), **event, "message": _message(record)}
        return json.dumps(line, ensure_ascii=False, default=str)


class _Lines(logging.Formatter):
    """A record as one line of text, with the time before it."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{datetime.datetime.fromtimestamp(record.created):%Y-%m-%d %H:%M:%S}  {_message(record)}"


def _message(record: logging.LogRecord) -> str:
    return " ".join(record.getMessage().split())


def _is_progress(record: logging.LogRecord) -> bool:
    event: dict[str, Any] = getattr(record, "event", {})
    return event.get("event") == "progress"


@contextmanager
def _logging(log_json: str | None, *, lines: bool) -> Iterator[None]:
    """Write what a job logs.

    Parameters
    ----------
    log_json : str or None
        A file that gets a line of JSON for each record and each of Python's warnings, behind what it has; ``"-"`` is
        stderr.
    lines : bool
        Whether stderr gets a line of text for each record of the progress, if it gets no JSON.
    """
    with ExitStack() as stack:
        if log_json is not None:
            to = sys.stderr if log_json == "-" else stack.enter_context(open(log_json, "a", encoding="utf-8"))
            handler = logging.StreamHandler(to)
            handler.setFormatter(_JsonLines())
            stack.enter_context(_heard("mmensemble.scoring", handler))
            stack.enter_context(_heard("py.warnings", handler))
            logging.captureWarnings(True)
            stack.callback(logging.captureWarnings, False)
        if lines and log_json != "-":
            handler = logging.StreamHandler(sys.stderr)
            handler.setFormatter(_Lines())
            handler.addFilter(_is_progress)
            stack.enter_context(_heard("mmensemble.scoring", handler))
        yield


@contextmanager
def _heard(name: str, handler: logging.Handler) -> Iterator[None]:
    """Let a handler have a logger's records, which nobody else above it gets."""
    logger = logging.getLogger(name)
    before = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before
