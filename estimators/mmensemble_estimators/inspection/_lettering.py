"""Texts in letters of one width, piece by piece: what is coloured, where lines break, and their outlines."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.patches import PathPatch

__all__ = ["LINE_HEIGHT", "letters", "segments", "width_of", "wrapped"]

# Width of a letter of DejaVu Sans Mono over its size: 1233 of 2048 units.
ADVANCE = 0.602
# Height of a line over the width of a letter.
LINE_HEIGHT = 2.25


def segments(text: str, tokens: Sequence[tuple[str, tuple[int, int], float]]) -> list[tuple[str, float | None]]:
    """Return all of a text in pieces with their attributions; None for what no token stands for."""
    pieces: list[tuple[str, float | None]] = []
    offsets: list[tuple[int, int] | None] = []
    done = 0
    for token, (start, end), attribution in tokens:
        if start == end:
            pieces.append((token, attribution))
            offsets.append(None)
            continue
        if offsets and offsets[-1] == (start, end):  # a further part of the same character
            pieces[-1] = (pieces[-1][0], (pieces[-1][1] or 0.0) + attribution)
            continue
        if start > done:
            pieces.append((text[done:start], None))
            offsets.append(None)
        pieces.append((text[max(start, done) : end], attribution))
        offsets.append((start, end))
        done = max(done, end)
    return pieces


def letters(
    text: str,
    place: float,
    line: int,
    *,
    family: str = "DejaVu Sans Mono",
    weight: str = "normal",
    color: str = "black",
) -> PathPatch:
    """Draw a text as outlines, in units of letters and lines, of which the latter count downwards.

    Set as text, its letters would be moved to whole pixels and drift off their ground.
    """
    from matplotlib.font_manager import FontProperties
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path
    from matplotlib.textpath import TextPath

    if not text.strip():  # matplotlib 3.11 has no outline for blanks alone
        return PathPatch(Path(np.zeros((0, 2))), label=text)
    # Dollars would begin a formula.
    outline = TextPath(
        (0, 0), text.replace("$", r"\$"), size=1 / ADVANCE, prop=FontProperties(family=family, weight=weight)
    )
    vertices = outline.vertices * [1.0, -1.0 / LINE_HEIGHT] + [place, line + 0.76]
    return PathPatch(Path(vertices, outline.codes), color=color, linewidth=0, label=text)


def wrapped(segments: Sequence[tuple[str, float | None]], width: int) -> list[list[tuple[str, float | None]]]:
    """Break pieces into lines: before a word where it fits the next line, inside it where it fits none."""
    words: list[list[tuple[str, float | None]]] = []
    before = " "
    for text, attribution in segments:
        text = text.replace("\r\n", "↵").replace("\n", "↵").replace("\r", "↵").replace("\t", " ")
        if before.endswith((" ", "↵")) or text.startswith(" "):
            words.append([])
        words[-1].append((text, attribution))
        before = text
    lines: list[list[tuple[str, float | None]]] = [[]]
    used = 0
    for word in words:
        length = sum(width_of(text) for text, _ in word)
        if used and used + length > width >= length:
            lines.append([])
            used = 0
        for text, attribution in word:
            piece = ""
            for letter in text:
                if used + width_of(piece + letter) > width:
                    lines[-1] += [(piece, attribution)] if piece else []
                    lines.append([])
                    piece, used = "", 0
                piece += letter
            lines[-1] += [(piece, attribution)] if piece else []
            used += width_of(piece)
    return lines


def width_of(text: str) -> int:
    """Count the cells that a text takes in letters of one width: East Asian ones take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )
