"""PyAV for sounds and films: imported at use, and opening a cell's own file alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

from mmensemble.exceptions import MissingDependencyError

__all__ = ["decoded_frames", "open_by_av", "require_av"]


def require_av(extra: str) -> Any:
    """Import PyAV, or name the extra that brings it."""
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError("av", extra) from error
    return av


def open_by_av(file: IO[bytes], extra: str) -> Any:
    """Open a container for reading.

    Playlists, session descriptions and the like name other files and addresses of a network; nothing but this one file
    is read.

    Parameters
    ----------
    file : binary file
    extra : str
        The extra that brings PyAV.

    Returns
    -------
    av.container.InputContainer
        A context manager.

    Raises
    ------
    av.FFmpegError
        If PyAV does not know the format.
    MissingDependencyError
        If PyAV is not installed.
    """
    # Titles and comments are not always UTF-8, and nobody here reads them.
    options = {"protocol_whitelist": "none"}
    return require_av(extra).open(file, mode="r", options=options, metadata_errors="ignore")


def decoded_frames(container: Any, stream: Any) -> Iterator[Any]:
    """Decode what follows of a stream; leave damaged packets out, and end where the file is damaged."""
    from av import FFmpegError

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except FFmpegError:
            return
        if packet is None:
            return
        try:
            frames = packet.decode()
        except FFmpegError:
            continue
        yield from frames
