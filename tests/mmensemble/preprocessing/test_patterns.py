from __future__ import annotations

import json

import pytest

from mmensemble.preprocessing.patterns import patterns_of_tokenizer, why_unsafe


@pytest.mark.parametrize(
    "pattern",
    [
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}]*[\p{Ll}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}|\s+",
        r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
        r"(?u)\b\w\w+\b",
        r"[]()*+]+x",
        r"\(a+\)+",
        r"(ab)+",
        " {2,}",
    ],
)
def test_patterns_of_tokenizers_are_safe(pattern: str) -> None:
    assert why_unsafe(pattern) is None


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(a|a)*b", "((a*))*", "(?:x{2,})+", "(a+){10}", "((ab)*c)+", r"(.)\1", "x" * 10_001, "(a*?)+"]
)
def test_patterns_that_take_forever_are_not(pattern: str) -> None:
    assert why_unsafe(pattern) is not None


def test_where_a_tokenizer_has_patterns() -> None:
    state = {
        "normalizer": {"type": "Replace", "pattern": {"Regex": "a+"}},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "b+"}}]},
        "model": {"vocab": {"Regex": 1}},
    }
    assert sorted(patterns_of_tokenizer(json.dumps(state))) == ["a+", "b+"]
