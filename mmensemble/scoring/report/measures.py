"""What is measured of a column's cells, so that its distribution can be compared: numbers, lengths, sizes.

Of a preprocessor that comes from outside, the share of missing cells alone is compared. Imports numpy, and what reads
the headers of files.
"""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial, singledispatch
from typing import Any, NamedTuple

import numpy as np

from mmensemble.frames import Cells, missing_cells
from mmensemble.preprocessing import (
    AudioPreprocessor,
    CategoryPreprocessor,
    HashedTermsPreprocessor,
    ImagePreprocessor,
    Preprocessor,
    PromptPreprocessor,
    TabularPreprocessor,
    TermsPreprocessor,
    TextPreprocessor,
    VideoPreprocessor,
)
from mmensemble.preprocessing.decoding.cells import file_of, open_file
from mmensemble.preprocessing.decoding.pictures import open_picture
from mmensemble.scoring.manifest import Feed
from mmensemble.scoring.report.profile import Measure

__all__ = ["Measured", "Values", "category_name", "measured_columns"]

# Of each window so many files are looked into: a header takes some 0.05 ms, that of a film milliseconds.
_SAMPLED_FILES = 32
# As long as one film is looked into, so many others are.
_FILES_PER_FILM = 8


class Values(NamedTuple):
    """What was measured of some cells.

    Attributes
    ----------
    values : ndarray of float64, or Counter
        Of the cells that could be measured; of categories how often each is there, by its name.
    n_missing : int
    n_bad : int
        Cells that cannot be read.
    """

    values: Any
    n_missing: int
    n_bad: int


Measured = dict[Measure, Callable[[Cells], Values]]


def measured_columns(feeds: Sequence[Feed], *, most_files: int = _SAMPLED_FILES) -> Measured:
    """Return what is measured of each column that a model reads, once, whoever reads it.

    Parameters
    ----------
    feeds : sequence of Feed
    most_files : int, default=32
        Pictures and sounds that are looked into at most, of the cells given at once, evenly spaced.
    """
    measured: Measured = {}
    for feed in feeds:
        for column in feed.columns:
            for what, measure in measures_of(feed.preprocessor, column, most_files).items():
                measured.setdefault(Measure(column, what), measure)
    return measured


@singledispatch
def measures_of(preprocessor: Preprocessor, column: str, most_files: int) -> dict[str, Callable[[Cells], Values]]:
    """Return what a preprocessor's column is compared by: names, and functions of its cells."""
    return {"missing": partial(_each, _nothing)}


@measures_of.register(TextPreprocessor)
@measures_of.register(PromptPreprocessor)
@measures_of.register(TermsPreprocessor)
@measures_of.register(HashedTermsPreprocessor)
def _(preprocessor: Preprocessor, column: str, most_files: int) -> dict[str, Callable[[Cells], Values]]:
    return {"length": partial(_each, _length)}


@measures_of.register
def _(preprocessor: TabularPreprocessor, column: str, most_files: int) -> dict[str, Callable[[Cells], Values]]:
    return {"number": _numbers} if preprocessor.columns[column] == "float" else {"category": _categories}


@measures_of.register
def _(preprocessor: CategoryPreprocessor, column: str, most_files: int) -> dict[str, Callable[[Cells], Values]]:
    return {"category": _categories}


@measures_of.register
def _(preprocessor: ImagePreprocessor, column: str, most_files: int) -> dict[str, Callable[[Cells], Values]]:
    return {
        "width": partial(_some, most_files, lambda cell: _picture_size(cell)[0]),
        "height": partial(_some, most_files, lambda cell: _picture_size(cell)[1]),
    }


@measures_of.register
def _(preprocessor: AudioPreprocessor, column: str, most_files: int) -> dict[str, Callable[[Cells], Values]]:
    return {"seconds": partial(_some, most_files, partial(_seconds_of_sound, preprocessor.sampling_rate))}


@measures_of.register
def _(preprocessor: VideoPreprocessor, column: str, most_files: int) -> dict[str, Callable[[Cells], Values]]:
    return {"seconds": partial(_some, most_files // _FILES_PER_FILM, _seconds_of_film)}


def category_name(cell: Any) -> str:
    """Return a category as a text that is the same for 1, 1.0 and numpy's ones."""
    if isinstance(cell, np.generic):
        cell = cell.item()
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return str(cell)


def _each(measure: Callable[[Any], float], cells: Cells) -> Values:
    """Measure each cell; what cannot be measured is counted as bad."""
    missing = missing_cells(cells)
    values, n_bad = [], 0
    for row in np.flatnonzero(~missing).tolist():
        try:
            values.append(float(measure(cells[row])))
        except Exception:  # whatever a decoder raises for a damaged file; the row's own error says what it is
            n_bad += 1
    return Values(np.asarray(values), int(missing.sum()), n_bad)


def _some(most: int, measure: Callable[[Any], float], cells: Cells) -> Values:
    """Measure some of the cells, evenly spaced."""
    rows = np.unique(np.linspace(0, len(cells) - 1, min(most, len(cells))).round().astype(int)).tolist()
    return _each(measure, [cells[row] for row in rows])


def _nothing(cell: Any) -> float:
    return 0.0


def _length(cell: Any) -> float:
    if not isinstance(cell, str):
        raise TypeError
    return len(cell)


def _numbers(cells: Cells) -> Values:
    if isinstance(cells, np.ndarray) and cells.dtype.kind in "fiub":
        values = cells.astype(np.float64)
        missing = np.isnan(values)
        return Values(values[~missing], int(missing.sum()), 0)
    found = _each(float, cells)
    missing = np.isnan(found.values)  # "nan" as a text
    return Values(found.values[~missing], found.n_missing + int(missing.sum()), found.n_bad)


def _categories(cells: Cells) -> Values:
    missing = missing_cells(cells)
    names = Counter(category_name(cells[row]) for row in np.flatnonzero(~missing).tolist())
    return Values(names, int(missing.sum()), 0)


def _opened(cell: Any) -> Any:
    if isinstance(cell, (bytes, bytearray, memoryview)):
        return nullcontext(io.BytesIO(cell))
    if isinstance(cell, (str, os.PathLike)):
        return open_file(cell)
    raise TypeError


def _picture_size(cell: Any) -> tuple[int, int]:
    """Return the width and height of a picture as it is stored, from its header."""
    cell = file_of(cell)
    if isinstance(cell, np.ndarray):
        return cell.shape[1], cell.shape[0]
    if hasattr(cell, "size"):
        width, height = cell.size
        return width, height
    with _opened(cell) as file, open_picture(file) as picture:
        width, height = picture.size
        return width, height


def _seconds_of_sound(sampling_rate: int, cell: Any) -> float:
    if isinstance(cell, dict) and cell.get("array") is not None:
        return len(cell["array"]) / cell["sampling_rate"]
    cell = file_of(cell)
    if isinstance(cell, (np.ndarray, list, tuple)):
        return len(cell) / sampling_rate
    import soundfile

    with _opened(cell) as file:
        try:
            return float(soundfile.info(file).duration)
        except soundfile.SoundFileError:
            file.seek(0)
            return _seconds_by_av(file, "audio")


def _seconds_of_film(cell: Any) -> float:
    cell = file_of(cell)
    with _opened(cell) as file:  # frames in an array have no times
        return _seconds_by_av(file, "video")


def _seconds_by_av(file: Any, extra: str) -> float:
    from mmensemble.preprocessing.decoding.pyav import open_by_av

    with open_by_av(file, extra) as container:
        return float(container.duration) / 1e6
