"""What a worker does: score one fragment of a source. Imports pyarrow on first use only."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from mmensemble.exceptions import DataError, MmensembleError, ModelFileError
from mmensemble.files.lines import OnBadLine
from mmensemble.files.renaming import RenamedRows
from mmensemble.scoring.engines.batch_scorer import BatchScorer
from mmensemble.scoring.engines.folder import Finished, ScoreFolder
from mmensemble.scoring.engines.fragments import Fragment, FragmentRows, open_fragment
from mmensemble.scoring.engines.model_cache import model_digest
from mmensemble.scoring.file_job import check_columns, output_table, windows_of
from mmensemble.scoring.report.tally import Tally

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["FragmentScorer"]


@dataclass(frozen=True)
class FragmentScorer:
    """Scores a fragment and writes its scores; it is what engines call.

    Parameters
    ----------
    scorer : BatchScorer
    digest : str
        Of the model that the job is to use.
    folder : ScoreFolder
        Where the scores go.
    schema : pyarrow.Schema
        Of the scores.
    on_bad_line : {"error", "skip", "raise"}
    observed : bool, default=False
        Whether the rows are counted for a report.
    columns : dict of str to str, default=None
        What columns that the model reads are called.
    """

    scorer: BatchScorer
    digest: str
    folder: ScoreFolder
    schema: pa.Schema
    on_bad_line: OnBadLine
    observed: bool = False
    columns: Mapping[str, str] | None = None

    def __call__(self, fragment: Fragment) -> Finished | MmensembleError | OSError:
        """Score a fragment; what is wrong with it, or with the model, is returned: trying again would not mend it."""
        try:
            return self.folder.finished(fragment) or self._score(fragment)
        except (MmensembleError, FileNotFoundError, PermissionError) as error:
            return error

    def _score(self, fragment: Fragment) -> Finished:
        keep = self.scorer.keep
        with open_fragment(fragment, self.schema, self.on_bad_line) as found:
            rows = RenamedRows(found, self.columns, fragment.uri) if self.columns else found
            added = self.scorer.added
            path = added.model.path
            if _digest(path, path.stat().st_mtime_ns) != self.digest:
                raise ModelFileError(f"{path} on this machine is not the model that the job began with")
            check_columns(fragment.uri, rows.schema.names, [*added.model.manifest.columns, *keep])
            tally = Tally(added.model.manifest, fragment.uri, fragment.first_row) if self.observed else None
            with closing(self._tables(fragment, rows, tally)) as tables:
                device = added.model.device
                return self.folder.write(fragment, self.schema, tables, device, lambda: found.n_skipped, tally)

    def _tables(self, fragment: Fragment, rows: FragmentRows | RenamedRows, tally: Tally | None) -> Generator[pa.Table]:
        added, number = self.scorer.added, fragment.first_row
        with closing(windows_of(added, rows, self.scorer.keep, 0, {}, tally)) as windows:
            for kept, window in windows:
                if self.scorer.on_error == "raise":
                    try:
                        window.raise_for_errors(number)
                    except DataError as error:
                        message = f"{error.message} (in {fragment.uri})"
                        raise DataError(message, row=error.row, column=error.column) from error
                number += len(window.errors)
                table = output_table(kept, window, added, self.schema)
                if tally is not None:
                    tally.add_scores(table)
                yield table


@lru_cache(maxsize=1)
def _digest(path: Path, mtime_ns: int) -> str:
    """Read a model through once for each process."""
    return model_digest(path)
