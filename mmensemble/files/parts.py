"""Rows that survive their process: written part by part, each atomically. Imports pyarrow on first use only.

The parts of ``scores.parquet`` lie in ``.scores.parquet.parts`` beside it: ``job.json`` says what was asked for and
what was drawn for it, ``part-00000.arrow`` and so on hold the finished rows in order, and ``digests`` has the SHA-256
of each. Whoever asks for the same again goes on after the last part; whoever asks for something else begins anew. When
all rows are there, the output is made of the parts. One process writes them at a time: it holds ``lock``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from filelock import FileLock, Timeout

from mmensemble.exceptions import ConfigurationError
from mmensemble.files.seal import sha256_of
from mmensemble.files.writing import put_in_place

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Parts"]

# A part is closed after so many seconds or rows: a process that is killed loses no more than these.
_PART_SECONDS = 20.0
_PART_ROWS = 2**20
_JOB, _LOCK, _DIGESTS = "job.json", "lock", "digests"


class Parts:
    """The parts of one output; a context in which they are written, by one process at a time.

    Parameters
    ----------
    output : Path
        The file that will be made of them.
    schema : pyarrow.Schema
        Of all tables.
    job : dict
        What decides every byte of the output, as JSON: parts of another job are of no use and are removed.
    drawn : dict, default={}
        What decides the bytes too but was not asked for, such as a seed that was drawn. Parts keep their own.

    Attributes
    ----------
    drawn : dict
        What counts: that of the parts that are there, else that of the argument.
    n_rows : int
        Rows in the parts, those of an earlier process included.
    n_errors : int
        Rows among them whose column ``error`` is not null.

    Raises
    ------
    ConfigurationError
        On entering, if another process, or another thread, writes the same output.
    """

    def __init__(
        self, output: Path, schema: pa.Schema, job: dict[str, Any], drawn: Mapping[str, Any] | None = None
    ) -> None:
        self.output = output
        self.folder = output.with_name(f".{output.name}.parts")
        self.schema = schema
        self.job = job
        self.drawn: dict[str, Any] = dict(drawn or {})
        self.n_rows = 0
        self.n_errors = 0
        self._lock = FileLock(self.folder / _LOCK, timeout=0)
        self._sink: pa.RecordBatchFileWriter | None = None
        self._part_rows = 0
        self._part_start = 0.0

    def __enter__(self) -> Self:
        self.folder.mkdir(exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise ConfigurationError(
                f"another process is writing {self.output}; wait for it, or write to another file"
            ) from error
        try:
            self._take_up()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self.close()
            if not self._paths():
                self.remove()  # there is nothing to go on with
        finally:
            self._unlock()

    def _take_up(self) -> None:
        """Go on with the parts that are there, if they are of this job, or else begin anew."""
        earlier = _read_job(self.folder / _JOB)
        if earlier is not None and earlier["job"] == json.loads(json.dumps(self.job)):
            self.drawn = earlier["drawn"]
        else:
            self.remove()
            _write_job(self.folder / _JOB, {"job": self.job, "drawn": self.drawn})
        for unfinished in self.folder.glob("*.partial"):
            unfinished.unlink()
        self._drop_damaged()
        for table in self.tables():
            self._count(table)

    def _drop_damaged(self) -> None:
        """Delete a part whose bytes are not those that were written, and those behind it, whose rows follow its own."""
        digests = _read_digests(self.folder / _DIGESTS)
        whole = True
        for path in self._paths():
            whole = whole and digests.get(path.name) == sha256_of(path)
            if not whole:
                path.unlink()

    def _unlock(self) -> None:
        if not (self.folder / _JOB).exists():
            # While it is held, so that nobody takes a lock that the next one does not see. Windows deletes it itself.
            with suppress(OSError):
                (self.folder / _LOCK).unlink()
        self._lock.release()
        with suppress(OSError):
            self.folder.rmdir()

    def write(self, table: pa.Table) -> None:
        """Add the next rows."""
        import pyarrow as pa

        if self._sink is None:
            self._sink = pa.ipc.new_file(self._partial, self.schema)
            self._part_rows, self._part_start = 0, time.monotonic()
        self._sink.write_table(table)
        self._count(table)
        self._part_rows += table.num_rows
        if self._part_rows >= _PART_ROWS or time.monotonic() - self._part_start >= _PART_SECONDS:
            self.close()

    def tables(self) -> Iterator[pa.Table]:
        """Read the parts that are whole, as many rows at a time as were written at once."""
        import pyarrow as pa

        for path in self._paths():
            with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as part:
                for number in range(part.num_record_batches):
                    yield pa.Table.from_batches([part.get_batch(number)])

    def remove(self) -> None:
        """Delete the parts."""
        self.close()
        # Without the job parts do not count, and without their digests they do not either.
        for path in sorted(self.folder.iterdir(), key=lambda path: (path.name != _JOB, path.name == _DIGESTS)):
            if path.name != _LOCK:
                path.unlink()

    @property
    def _partial(self) -> Path:
        return self.folder / f"part-{len(self._paths()):05}.arrow.partial"

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("part-*.arrow"))

    def _count(self, table: pa.Table) -> None:
        self.n_rows += table.num_rows
        self.n_errors += table.num_rows - table["error"].null_count

    def close(self) -> None:
        """Finish the part that is being written."""
        if self._sink is None:
            return
        self._sink.close()
        self._sink = None
        partial = self._partial
        path = partial.with_suffix("")
        # Before the part has its name, so that one without a digest is none.
        with (self.folder / _DIGESTS).open("a", encoding="ascii") as file:
            file.write(f"{sha256_of(partial)}  {path.name}\n")
        put_in_place(partial, path)


def _read_digests(path: Path) -> dict[str, str]:
    """Return the digests of the parts by their names, of each the last one."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, UnicodeDecodeError):
        return {}
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _read_job(path: Path) -> dict[str, Any] | None:
    """Return what a folder of parts says of itself; None where there is none, or a damaged or older one."""
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return state if isinstance(state, dict) and state.keys() == {"job", "drawn"} else None


def _write_job(path: Path, state: dict[str, Any]) -> None:
    partial = path.with_suffix(".json.partial")
    partial.write_text(json.dumps(state), encoding="utf-8")
    put_in_place(partial, path)
