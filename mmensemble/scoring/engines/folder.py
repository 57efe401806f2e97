"""A folder of scores: one file for each fragment of the source, and what says which of them are finished.

While a job runs, ``_done/<key>.json`` says of each finished fragment what file holds its scores, and the file's digest.
When all are there, ``_manifest.json`` lists them in order, with the job, and ``_done`` goes. Names that begin with an
underscore are no data to Spark, Arrow and others. Each file is written under another name and renamed, and its record
comes after it: so what has a record is whole. Imports pyarrow on first use only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, BinaryIO, Self
from uuid import uuid4

from filelock import FileLock, Timeout

from mmensemble.exceptions import ConfigurationError
from mmensemble.files.places import Place, place_of
from mmensemble.files.writing import open_writer, put_in_place
from mmensemble.scoring.engines.fragments import Fragment
from mmensemble.scoring.engines.model_cache import file_digest
from mmensemble.scoring.report.tally import Tally

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Finished", "ScoreFolder"]

_MANIFEST, _DONE, _LOCK = "_manifest.json", "_done", "lock"
_VERSION = 1
_BLOCK = 2**20
_OURS = re.compile(r"part-(\d{5,}-[0-9a-f]{8}|whole)\.[a-z]+")


@dataclass(frozen=True)
class Finished:
    """What is known of a fragment whose scores are written.

    Parameters
    ----------
    key : str
        The fragment's.
    source : str
        The fragment's file.
    row_groups : tuple of int or None
    file : str
        The file of its scores, in the folder.
    size : int
    digest : str
        Of that file, in bytes and by content.
    n_rows, n_errors : int
    device : str
        Where the graph ran.
    n_skipped : int, default=0
        Lines of the source that were dropped.
    tally : dict, default=None
        What was counted of its rows, `mmensemble.scoring.report.tally.Tally.to_dict`, where there is to be a report.
    """

    key: str
    source: str
    row_groups: tuple[int, ...] | None
    file: str
    size: int
    digest: str
    n_rows: int
    n_errors: int
    device: str
    n_skipped: int = 0
    tally: dict[str, Any] | None = None


class ScoreFolder:
    """A folder of scores; it is pickled to workers, who write the files.

    Parameters
    ----------
    uri : str
        A path that all workers see, or a URI.
    ending : str
        Of the files, which names their format: ``.parquet``.
    job : dict
        What decides the scores beside the rows, as JSON.
    """

    def __init__(self, uri: str, ending: str, job: Mapping[str, Any]) -> None:
        self.uri = uri
        self.ending = ending
        self.job = json.loads(json.dumps(job))

    @property
    def place(self) -> Place:
        """Where it is."""
        return place_of(self.uri)

    def name(self, fragment: Fragment) -> str:
        """Return the name of a fragment's file of scores."""
        return f"part-{fragment.number:05}-{fragment.key[:8]}{self.ending}"

    @contextmanager
    def writing(self) -> Iterator[Self]:
        """Let no other process run a job on the folder; of a folder that is elsewhere, nobody can tell.

        Raises
        ------
        ConfigurationError
            If another one does.
        """
        self.place.filesystem.create_dir((self.place / _DONE).path, recursive=True)
        local = self.place.local
        if local is None:
            yield self
            return
        lock = FileLock(local / _DONE / _LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise ConfigurationError(
                f"another process is writing {self.uri}; wait for it, or write to another folder"
            ) from error
        try:
            yield self
        finally:
            # While it is held, so that nobody takes a lock that the next one does not see. Windows deletes it itself.
            if not any((local / _DONE).glob("*.json")):
                with suppress(OSError):
                    (local / _DONE / _LOCK).unlink()
            lock.release()
            for folder in (local / _DONE, local):
                with suppress(OSError):  # there is something in it
                    folder.rmdir()

    def take_up(self, fragments: Iterable[Fragment], *, overwrite: bool) -> dict[str, Finished]:
        """Return the finished fragments by key, and remove what an earlier run left half done.

        Parameters
        ----------
        fragments : iterable of Fragment
            All of the source.
        overwrite : bool
            Whether files of another job, or of fragments that the source no longer has, are removed; and those of this
            job too if it is complete.

        Raises
        ------
        ConfigurationError
            If there are such files and they are not to be removed, or files that are of no job.
        """
        wanted = {fragment.key for fragment in fragments}
        complete, finished = self._records()
        # A finished job is done again where that is asked for; one that was cut off goes on.
        stale = {
            key: (job, each)
            for key, (job, each) in finished.items()
            if job != self.job or key not in wanted or (complete and overwrite)
        }
        if stale and not overwrite:
            what = "another job" if any(job != self.job for job, _ in stale.values()) else "rows that have changed"
            raise ConfigurationError(
                f"{self.uri} holds scores of {what}, such as {next(iter(stale.values()))[1].file}; choose another "
                "folder, or replace them with overwrite (--overwrite)"
            )
        kept = {key: each for key, (_, each) in finished.items() if key not in stale}
        kept = {key: each for key, each in kept.items() if self._is_whole(each)}
        self._remove_what_is_not(kept, finished={each.file for _, each in finished.values()})
        return kept

    def finished(self, fragment: Fragment) -> Finished | None:
        """Return what is known of a fragment if it is finished: a task that is run again has nothing to do."""
        record = self._read(self.place / _DONE / f"{fragment.key}.json")
        return None if record is None or record["job"] != self.job else _finished(record["fragment"])

    def write(
        self,
        fragment: Fragment,
        schema: pa.Schema,
        tables: Iterable[pa.Table],
        device: str,
        n_skipped: Callable[[], int] = int,
        tally: Tally | None = None,
    ) -> Finished:
        """Write a fragment's file of scores, and then record that it is there.

        Parameters
        ----------
        fragment : Fragment
        schema : pyarrow.Schema
            Of all tables.
        tables : iterable of pyarrow.Table
            The scores, in order; an error that they raise leaves nothing behind.
        device : str
            Where they are made.
        n_skipped : callable
            Tells in the end how many lines were dropped.
        tally : Tally or None
            What counted the rows.

        Returns
        -------
        Finished
        """
        name, n_rows, n_errors = self.name(fragment), 0, 0
        target = self.place / name
        with ExitStack() as stack:
            path = target.local or Path(stack.enter_context(TemporaryDirectory(prefix="mmensemble-"))) / name
            with open_writer(path, schema) as writer:
                write = writer.write if tally is None else tally.stages.timed("write", writer.write)
                for table in tables:
                    write(table)
                    n_rows += table.num_rows
                    n_errors += table.num_rows - table["error"].null_count
            size, digest = path.stat().st_size, file_digest(path)
            if target.local is None:
                with path.open("rb") as file:
                    self._upload(file, target)
        finished = Finished(
            fragment.key,
            fragment.uri,
            fragment.row_groups,
            name,
            size,
            digest,
            n_rows,
            n_errors,
            device,
            n_skipped(),
            None if tally is None else tally.to_dict(),
        )
        self._put({"job": self.job, "fragment": asdict(finished)}, self.place / _DONE / f"{fragment.key}.json")
        return finished

    def complete(self, finished: list[Finished]) -> None:
        """Write the manifest, once all fragments are finished."""
        manifest = {
            "version": _VERSION,
            "job": self.job,
            "n_rows": sum(each.n_rows for each in finished),
            "n_errors": sum(each.n_errors for each in finished),
            "fragments": [asdict(replace(each, tally=None)) for each in finished],
        }
        self._put(manifest, self.place / _MANIFEST)
        for path in self._names(_DONE):
            if path.endswith(".json"):
                self.place.filesystem.delete_file(path)
        if self.place.local is None:
            self.place.filesystem.delete_dir((self.place / _DONE).path)

    def tables(self, finished: Iterable[Finished]) -> Iterator[pa.Table]:
        """Read the scores of a folder of this machine, in this order."""
        from mmensemble.files.reading import TableReader

        for each in finished:
            with TableReader(Path(self.place.path) / each.file) as reader:
                yield from reader.tables(reader.schema.names, 2**16)

    def remove(self) -> None:
        """Delete all that a job wrote."""
        _, finished = self._records()
        self._remove_what_is_not({}, finished={each.file for _, each in finished.values()})

    def _records(self) -> tuple[bool, dict[str, tuple[Any, Finished]]]:
        """Return whether the folder is complete, and the finished fragments by key, each with its job."""
        manifest = self._read(self.place / _MANIFEST)
        done = [record for path in self._names(_DONE) if path.endswith(".json") if (record := self._read_at(path))]
        if manifest is not None and manifest["version"] > _VERSION:
            raise ConfigurationError(
                f"{self.uri} was written by a newer mmensemble; upgrade mmensemble on this machine"
            )
        listed = [] if manifest is None else [{"job": manifest["job"], "fragment": f} for f in manifest["fragments"]]
        records = {each["fragment"]["key"]: (each["job"], _finished(each["fragment"])) for each in (*listed, *done)}
        return manifest is not None and not done, records

    def _is_whole(self, finished: Finished) -> bool:
        """Tell whether a file is as it was written; of one that is elsewhere, by its size alone."""
        target = self.place / finished.file
        (info,) = target.filesystem.get_file_info([target.path])
        return bool(
            info.is_file
            and info.size == finished.size
            and (target.local is None or file_digest(target.local) == finished.digest)
        )

    def _remove_what_is_not(self, kept: Mapping[str, Finished], finished: set[str]) -> None:
        """Delete what jobs wrote, all but these fragments' scores and records."""
        filesystem = self.place.filesystem
        files = {each.file for each in kept.values()}
        ours = []
        for path in self._names(""):
            name = path.rpartition("/")[2]
            if name in files or name == _MANIFEST:
                continue
            if name in finished or _OURS.fullmatch(name) or (name.startswith(".part-") and name.endswith(".part")):
                ours.append(path)
            elif not name.startswith((".", "_")):
                raise ConfigurationError(f"{self.uri} has files that mmensemble did not write, such as {name}")
        if not kept:
            ours += [(self.place / _MANIFEST).path] if self._read(self.place / _MANIFEST) else []
        # Records first: what has none is as good as not there.
        records = [path for path in self._names(_DONE) if path.endswith((".json", ".part"))]
        gone = [path for path in records if path.rpartition("/")[2].removesuffix(".json") not in kept]
        for path in (*gone, *ours):
            filesystem.delete_file(path)

    def _names(self, below: str) -> list[str]:
        from pyarrow.fs import FileSelector

        folder = self.place / below if below else self.place
        infos = self.place.filesystem.get_file_info(FileSelector(folder.path, allow_not_found=True))
        return sorted(info.path for info in infos if info.is_file)

    def _read(self, place: Place) -> Any:
        return self._read_at(place.path)

    def _read_at(self, path: str) -> Any:
        try:
            with self.place.filesystem.open_input_stream(path) as file:
                return json.loads(file.read())
        except FileNotFoundError:
            return None

    def _put(self, state: Mapping[str, Any], target: Place) -> None:
        self._upload(BytesIO(json.dumps(state, indent=1).encode()), target)

    def _upload(self, source: BinaryIO, target: Place) -> None:
        """Copy a file to a place, where it is whole or not there."""
        folder, _, name = target.path.rpartition("/")
        part = f"{folder}/.{name}.{uuid4().hex}.part"
        with target.filesystem.open_output_stream(part, compression=None) as file:
            while block := source.read(_BLOCK):
                file.write(block)
        if target.local is not None:
            put_in_place(Path(part), target.local)
        else:
            target.filesystem.move(part, target.path)


def _finished(state: Mapping[str, Any]) -> Finished:
    groups = state["row_groups"]
    return Finished(**{**state, "row_groups": None if groups is None else tuple(groups)})
