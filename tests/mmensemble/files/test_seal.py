from __future__ import annotations

from pathlib import Path

import pytest

from mmensemble.files.seal import is_sealed, seal, sha256_of, why_not_intact


def test_every_byte_counts(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(bytes(range(100)))
    assert not is_sealed(path)
    assert why_not_intact(path) is None
    seal(path)
    content = path.read_bytes()
    assert is_sealed(path)
    assert why_not_intact(path) is None
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert why_not_intact(path) is not None or not is_sealed(path) or at >= len(content) - 32
    for cut in (content[:-1], content + b"x", content[:50]):
        path.write_bytes(cut)
        assert not is_sealed(path)


def test_the_weights_beside_the_file_count(tmp_path: Path) -> None:
    path, data = tmp_path / "model.onnx", tmp_path / "model.onnx.data"
    path.write_bytes(b"model")
    data.write_bytes(b"weights")
    seal(path, data)
    assert why_not_intact(path, data) is None
    data.write_bytes(b"Weights")
    assert "the weights in model.onnx.data are damaged" in str(why_not_intact(path, data))


def test_the_digest_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_of(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        is_sealed(tmp_path / "none")
