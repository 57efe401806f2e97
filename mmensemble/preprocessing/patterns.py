"""Patterns of a model file that would take forever on some texts. Standard library only.

An engine that goes back and tries again takes a time that doubles with each character where a group repeats without end
what itself repeats, or has alternatives, as in ``(a+)+`` and ``(a|a)*``. Patterns of tokenizers need no such groups.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

__all__ = ["patterns_of_tokenizer", "why_unsafe"]

_LONGEST = 10_000


def patterns_of_tokenizer(text: str) -> Iterator[str]:
    """Yield the patterns of a tokenizer in the JSON form of the `tokenizers` library.

    Raises
    ------
    ValueError
        If it is no JSON.
    """
    waiting: list[Any] = [json.loads(text)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if isinstance(node.get("Regex"), str):
                yield node["Regex"]
            waiting += [value for name, value in node.items() if name != "vocab"]
        elif isinstance(node, list):
            waiting += [value for value in node if isinstance(value, (dict, list))]


def why_unsafe(pattern: str) -> str | None:
    """Say why a pattern may take forever; None where it does not."""
    if len(pattern) > _LONGEST:
        return f"it has {len(pattern)} characters"
    # Of each group that is open: whether it repeats something without end, or has alternatives.
    groups = [False]
    at, closed = 0, False
    while at < len(pattern):
        character, repeated = pattern[at], False
        if character == "\\":
            if pattern[at + 1 : at + 2].isdigit() or pattern[at + 1 : at + 2] in ("k", "g"):
                return "it refers back to what a group has found"
            at, closed = at + 2, False
            continue
        if character == "[":
            at, closed = _end_of_set(pattern, at), False
            continue
        if character == "(":
            groups.append(False)
        elif character == ")" and len(groups) > 1:
            inner = groups.pop()
            closed, at = inner, at + 1
            groups[-1] |= inner
            continue
        elif character == "|":
            groups[-1] |= len(groups) > 1
        elif character in "*+":
            repeated = True
        elif character == "{":
            end = pattern.find("}", at)
            most = pattern[at + 1 : end].split(",")[-1] if end > 0 else "1"
            repeated = not most.isdigit() or int(most) > 1
            at = max(at, end)
        if repeated and closed:
            return "a group repeats what itself repeats or has alternatives"
        groups[-1] |= repeated
        # A lazy or possessive sign behind a number of times is none of its own.
        at += 1
        if repeated and pattern[at : at + 1] in ("?", "+"):
            at += 1
        closed = False
    return None


def _end_of_set(pattern: str, at: int) -> int:
    """Return where a set of characters that begins here has ended; sets may hold sets."""
    depth, at = 1, at + 1
    if pattern[at : at + 1] == "^":
        at += 1
    if pattern[at : at + 1] == "]":
        at += 1
    while at < len(pattern) and depth:
        if pattern[at] == "\\":
            at += 1
        depth += (pattern[at : at + 1] == "[") - (pattern[at : at + 1] == "]")
        at += 1
    return at
