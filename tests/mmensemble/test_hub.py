from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from mmensemble.exceptions import MissingDependencyError, ModelFileError
from mmensemble.publishing import from_hub, push_to_hub


@pytest.mark.parametrize("external", [False, True], ids=["one file", "weights beside it"])
def test_there_and_back(model_path: Path, tmp_path: Path, external: bool) -> None:
    pytest.importorskip("huggingface_hub")
    path = tmp_path / "model.onnx"
    if external:
        onnx.save(
            onnx.load(model_path), path, save_as_external_data=True, location="model.onnx.data", size_threshold=1000
        )
    else:
        shutil.copy(model_path, path)
    script = Path(__file__).with_name("hub_server.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, script, path, tmp_path / "cache"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "/me/model/commit/" in found["url"]
    assert found["names"] == ["README.md", "model.onnx", *(["model.onnx.data"] if external else [])]
    assert found["equal"]
    assert found["kept"], "what the user wrote into the card stays"
    assert found["columns"] == ["title", "picture", "weight", "price"]
    assert found["absent"].startswith("other.onnx of me/model cannot be fetched: ")


def test_what_is_no_model(foreign_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelFileError):
        push_to_hub(foreign_path, "me/model")
    with pytest.raises(ModelFileError, match=r"ends in \.onnx"):
        from_hub("me/model", "model.joblib")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match=r"\[hub\]"):
        from_hub("me/model")
