"""Kinds of preprocessors from outside the package: in a model file, and where nobody has imported them."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin

from mmensemble import (
    ConfigurationError,
    ExportError,
    ModelFileError,
    OnnxPredictor,
    export_onnx,
    on_column,
    score_file,
)
from mmensemble.export import Outputs
from mmensemble.preprocessing import (
    TabularPreprocessor,
    TextPreprocessor,
    preprocessor_from_dict,
    preprocessor_to_dict,
    register_preprocessor,
    registry,
)

MODULE = """
import numpy as np
from mmensemble.preprocessing import Encoded, Preprocessor, TensorSpec, missing_cells, register_preprocessor

class Unregistered(Preprocessor):
    kind = "characters"
    tensors = {"count": TensorSpec("float32", ("batch", 1))}

    def __init__(self, character):
        self.character = character

    def encode(self, *columns):
        (cells,) = columns
        present, errors = ~missing_cells(cells), {}
        counts = np.zeros((len(cells), 1), dtype=np.float32)
        for row in np.flatnonzero(present):
            if isinstance(cells[row], str):
                counts[row] = cells[row].count(self.character)
            else:
                errors[row], present[row] = "this is no text", False
        return Encoded(counts, present, errors, self.lengths(counts))

    def arrays(self, encoded, rows):
        return {"count": encoded.items[rows]}

    def to_dict(self):
        return {"kind": self.kind, "character": self.character}

@register_preprocessor
class Characters(Unregistered):
    pass
"""


class CountClassifier(ClassifierMixin, BaseEstimator):
    """Says yes where a text has a character at least twice."""

    def __init__(self, preprocessor: Any) -> None:
        self.preprocessor = preprocessor

    def fit(self, X: Any, y: Any) -> CountClassifier:
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        encoded = self.preprocessor.encode(list(X))
        encoded.raise_for_errors()
        yes = (self.preprocessor.collate(encoded, slice(None))["count"] >= 2).astype(np.float32)
        return np.hstack([1 - yes, yes])

    def predict(self, X: Any) -> np.ndarray:
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def __onnx_graph__(self, source: Any) -> Outputs:
        graph = source.graph
        inputs = graph.feed("text", source.column_list(), self.preprocessor)
        yes = graph.op(
            "Cast", graph.op("GreaterOrEqual", inputs["count"], graph.constant(np.float32(2))), to=graph.FLOAT
        )
        no = graph.op("Sub", graph.constant(np.float32(1)), yes)
        return Outputs(graph, probabilities=graph.op("Concat", no, yes, axis=1), present=graph.present(inputs))


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))


@pytest.fixture
def guest(kinds: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "guest_of_the_tests.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("guest_of_the_tests")
    del sys.modules["guest_of_the_tests"]


def test_from_fit_to_a_scored_file(guest: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X = pd.DataFrame({"title": ["banana", "apple", None, "papaya", "kiwi"]})
    y = ["yes", "no", "no", "yes", "no"]
    model = on_column("title", CountClassifier(guest.Characters("a"))).fit(X, y)
    path = tmp_path / "model.onnx"
    manifest = export_onnx(model, path, verify=X)
    (feed,) = json.loads(manifest.to_json())["feeds"]
    assert feed["preprocessor"] == {"kind": "characters", "character": "a", "module": "guest_of_the_tests"}
    pd.concat([X, pd.DataFrame({"title": [""]})]).to_parquet(tmp_path / "in.parquet")
    report = score_file(path, tmp_path / "in.parquet", tmp_path / "out.csv", device="cpu")
    assert (report.n_rows, report.n_errors) == (6, 0)
    assert pd.read_csv(tmp_path / "out.csv")["prediction"].tolist() == [*y, "no"]

    del registry._KINDS["characters"]
    del sys.modules["guest_of_the_tests"]
    with pytest.raises(ModelFileError, match="'characters' is unknown here; import guest_of_the_tests, which"):
        OnnxPredictor(path, device="cpu")
    assert "guest_of_the_tests" not in sys.modules, "a file must not import anything"
    importlib.import_module("guest_of_the_tests")
    assert OnnxPredictor(path, device="cpu").predict(X[:2]).tolist() == ["yes", "no"]


def test_what_is_not_registered_is_not_exported(guest: Any, tmp_path: Path) -> None:
    model = on_column("title", CountClassifier(guest.Unregistered("a"))).fit(
        pd.DataFrame({"title": ["a", "b"]}), [0, 1]
    )
    with pytest.raises(ExportError, match=r"guest_of_the_tests\.Unregistered could not be opened"):
        export_onnx(model, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_a_kind_belongs_to_one_class(kinds: None) -> None:
    class Mine(TextPreprocessor):
        """Has the kind of another."""

    with pytest.raises(ConfigurationError, match=r"'text' belongs to mmensemble\.preprocessing.*TextPreprocessor"):
        register_preprocessor(Mine)


def test_a_module_may_be_loaded_again(guest: Any) -> None:
    again = importlib.reload(guest)
    assert isinstance(preprocessor_from_dict({"kind": "characters", "character": "a"}), again.Characters)


def test_residents_are_described_as_before() -> None:
    numbers = TabularPreprocessor({"weight": "float"})
    assert preprocessor_to_dict(numbers) == numbers.to_dict()
    with pytest.raises(ModelFileError, match=r"'nothing' is unknown here; this version knows \['audio', 'categories'"):
        preprocessor_from_dict({"kind": "nothing"})
