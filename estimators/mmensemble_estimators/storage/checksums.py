"""Digests of the files of a folder, in the form of the command ``sha256sum``, which can check and write them too."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from mmensemble.exceptions import ModelFileError
from mmensemble.files.seal import sha256_of

__all__ = ["SUMS", "check_sums", "write_sums"]

SUMS = "SHA256SUMS"

_LINE = r"([0-9a-f]{64})  ([^\n]+)\n"


def write_sums(folder: Path, files: Iterable[Path]) -> None:
    """Write the digests of some files of a folder, given by their paths in it."""
    lines = [f"{sha256_of(folder / file)}  {file.as_posix()}\n" for file in files]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def check_sums(folder: Path, last: str) -> None:
    """Compare the files of a folder with their digests.

    Parameters
    ----------
    folder : Path
    last : str
        The file that `write_sums` got last: where it is not listed, something is cut off.

    Raises
    ------
    ModelFileError
        If one of them is another, or the digests are damaged themselves.
    FileNotFoundError
        If one of them is not there.
    """
    text = (folder / SUMS).read_bytes().decode("utf-8", "replace")
    listed = {name: digest for digest, name in re.findall(_LINE, text)}
    if (
        not re.fullmatch(f"({_LINE})+", text)
        or last not in listed
        or any(PurePosixPath(name).is_absolute() or ".." in name for name in listed)
    ):
        raise ModelFileError(f"{folder / SUMS} is damaged")
    for name, digest in listed.items():
        if sha256_of(folder / name) != digest:
            raise ModelFileError(
                f"{folder} is damaged: {name} is not what save wrote, by its digest in {SUMS}. If it was changed on "
                "purpose, write that anew by sha256sum"
            )
