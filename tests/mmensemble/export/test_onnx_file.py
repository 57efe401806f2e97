from __future__ import annotations

import datetime
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pandas as pd
import pytest
from click.testing import CliRunner
from onnx import TensorProto
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.multioutput import MultiOutputClassifier

from mmensemble import (
    MultimodalClassifier,
    MultimodalRegressor,
    OnnxPredictor,
    SoftVoting,
    Stacking,
    export_onnx,
    on_column,
)
from mmensemble.cli import main
from mmensemble.exceptions import ConfigurationError, DataError, ExportError, ModelFileError, ParityError
from mmensemble.export import onnx_file
from mmensemble.preprocessing import TabularPreprocessor
from mmensemble.scoring import Feed, score_file
from mmensemble.scoring.manifest import FORMAT_VERSION, METADATA_KEY, Manifest


@pytest.fixture(scope="module")
def X() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(30, 3)), columns=["a", "b", "c"])
    frame.loc[:4, "a"] = np.nan
    frame.loc[3:6, ["b", "c"]] = np.nan
    return frame


@pytest.fixture
def model(X: pd.DataFrame) -> MultimodalClassifier:
    y = np.where(X["c"].fillna(0) + X["a"].fillna(0) > 0, "up", "down")
    return MultimodalClassifier(
        [("left", LogisticRegression(), ["a"]), ("right", LogisticRegression(), ["b", "c"])], fusion=Stacking(cv=2)
    ).fit(X, y)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def stored_manifest(path: Path) -> Manifest:
    (text,) = [entry.value for entry in onnx.load(path).metadata_props if entry.key == METADATA_KEY]
    return Manifest.from_json(text)


def test_one_valid_file(model: Any, folder: Path) -> None:
    export_onnx(model, folder / "model.onnx")
    assert names(folder) == ["model.onnx"]
    onnx.checker.check_model(folder / "model.onnx", full_check=True)
    proto = onnx.load(folder / "model.onnx")
    assert proto.producer_name == "mmensemble"
    (output,) = proto.graph.output
    dims = [axis.dim_param or axis.dim_value for axis in output.type.tensor_type.shape.dim]
    assert (output.name, dims) == ("probabilities", ["batch", 2])


def test_a_linear_composition_needs_standard_operators_only(model: Any, folder: Path) -> None:
    export_onnx(model, folder / "model.onnx")
    proto = onnx.load(folder / "model.onnx")
    assert [entry.domain for entry in proto.opset_import] == [""]
    assert {node.domain for node in proto.graph.node} == {""}
    assert not proto.functions


def test_the_path_may_be_a_string_and_relative(
    model: Any, X: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    export_onnx(model, "model.onnx", verify=X)
    assert names(folder) == ["model.onnx"]


def test_manifest(model: Any, folder: Path) -> None:
    manifest = export_onnx(model, folder / "model.onnx")
    assert manifest.task.name == "classification"
    assert manifest.task.classes.tolist() == ["down", "up"]
    assert manifest.feeds == [
        Feed("left", ("a",), TabularPreprocessor({"a": "float"}, dtype="float64", finite=True)),
        Feed("right", ("b", "c"), TabularPreprocessor({"b": "float", "c": "float"}, dtype="float64", finite=True)),
    ]
    assert manifest.columns == ["a", "b", "c"]
    assert manifest.parity["rows"] == "made"
    assert manifest.parity["n_rows"] > 64
    assert manifest.parity["max_abs_difference"] < 1e-6
    provenance = manifest.provenance
    assert provenance["estimator"] == repr(model)
    assert {"python", "scikit-learn", "onnx"} <= set(provenance["versions"])
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(provenance["created"])
    assert abs(age) < datetime.timedelta(hours=1)

    assert stored_manifest(folder / "model.onnx") == manifest
    assert OnnxPredictor(folder / "model.onnx", device="cpu").manifest == manifest
    assert json.loads(manifest.to_json())["format_version"] == FORMAT_VERSION


def test_verify_stores_what_it_measured(model: Any, X: Any, folder: Path) -> None:
    manifest = export_onnx(model, folder / "model.onnx", verify=X, tolerance=1e-5)
    assert stored_manifest(folder / "model.onnx") == manifest
    scored = OnnxPredictor(folder / "model.onnx", device="cpu").predict_proba(X)
    difference = np.abs(scored - model.predict_proba(X)).max()
    assert manifest.parity == {
        "rows": "given",
        "n_rows": 30,
        "max_abs_difference": pytest.approx(difference, rel=1e-6),
        "equal_labels": 1.0,
        "tolerance": 1e-5,
    }
    assert 0 < difference < 1e-5


def off_by(model: Any, monkeypatch: pytest.MonkeyPatch, error: float, row: int = 7) -> None:
    """Let the estimator's probabilities differ from what its graph gives, in one row."""
    honest = model.predict_proba

    def predict_proba(X: Any) -> np.ndarray:
        probabilities = honest(X)
        probabilities[row] += error
        return probabilities

    monkeypatch.setattr(model, "predict_proba", predict_proba)


@pytest.mark.parametrize("error", [0.01, float("nan")])
def test_a_graph_that_disagrees_is_not_written(
    model: Any, X: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, error: float
) -> None:
    off_by(model, monkeypatch, error)
    with pytest.raises(ParityError, match=r"row 7: .* differ from the estimator's.* by .*nothing was written"):
        export_onnx(model, folder / "model.onnx", verify=X)
    assert names(folder) == []


def test_the_tolerance_decides(model: Any, X: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    off_by(model, monkeypatch, 0.01)
    with pytest.raises(ParityError, match=r"tolerance=0\.009"):
        export_onnx(model, folder / "model.onnx", verify=X, tolerance=0.009)
    manifest = export_onnx(model, folder / "model.onnx", verify=X, tolerance=0.011)
    assert manifest.parity["max_abs_difference"] == pytest.approx(0.01, abs=1e-5)


def test_labels_that_differ_are_counted(model: Any, X: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = model.predict
    monkeypatch.setattr(model, "predict", lambda X: honest(X)[::-1])
    manifest = export_onnx(model, folder / "model.onnx", verify=X, tolerance=2.0)
    assert manifest.parity["equal_labels"] < 0.7
    with pytest.raises(ParityError, match=r"the file predicts '(up|down)' and the estimator '(up|down)'"):
        export_onnx(model, folder / "model.onnx", verify=X)


def test_a_failure_leaves_the_existing_file(model: Any, X: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "model.onnx"
    export_onnx(model, path)
    before = path.read_bytes()
    off_by(model, monkeypatch, 0.01)
    with pytest.raises(ParityError):
        export_onnx(model, path, verify=X)
    with pytest.raises(ExportError):
        export_onnx(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), path)
    assert path.read_bytes() == before
    assert names(folder) == ["model.onnx"]


def test_an_existing_file_is_replaced(model: Any, X: Any, folder: Path) -> None:
    path = folder / "model.onnx"
    path.write_bytes(b"something older")
    export_onnx(model, path, verify=X)
    np.testing.assert_allclose(OnnxPredictor(path, device="cpu").predict_proba(X), model.predict_proba(X), atol=1e-6)
    assert names(folder) == ["model.onnx"]


def test_a_folder_that_is_not_there(model: Any, folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"the folder .*missing does not exist; create it first"):
        export_onnx(model, folder / "missing" / "model.onnx")
    assert names(folder) == []


@pytest.mark.parametrize("precision", ["fp8", "", None])
def test_a_precision_that_is_not_there(model: Any, folder: Path, precision: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"precision must be one of .*, not {precision!r}"):
        export_onnx(model, folder / "model.onnx", precision=precision)
    assert names(folder) == []


def test_verify_needs_rows(model: Any, X: Any, folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="verify has 0 rows"):
        export_onnx(model, folder / "model.onnx", verify=X[:0])
    assert names(folder) == []


def test_exporting_changes_nothing_in_the_estimator(model: Any, X: Any, folder: Path) -> None:
    before, parameters = model.predict_proba(X), repr(model)
    export_onnx(model, folder / "model.onnx", verify=X)
    np.testing.assert_array_equal(model.predict_proba(X), before)
    assert repr(model) == parameters


def test_the_same_model_twice_is_the_same_graph(model: Any, folder: Path) -> None:
    graphs = []
    for name in ("first.onnx", "second.onnx"):
        export_onnx(model, folder / name)
        graphs.append(onnx.load(folder / name).graph.SerializeToString(deterministic=True))
    assert graphs[0] == graphs[1]


class TestExternalData:
    """Weights above a size lie beside the file, as protobuf holds 2 GiB at most."""

    @pytest.fixture
    def wide(self) -> pd.DataFrame:
        rng = np.random.default_rng(0)
        return pd.DataFrame(rng.normal(size=(20, 300)), columns=[f"c{i}" for i in range(300)])

    @pytest.fixture
    def heavy(self, wide: pd.DataFrame) -> Any:
        members = [
            ("m", LogisticRegression(), list(wide.columns)),
            ("n", LogisticRegression(C=0.1), list(wide.columns)),
        ]
        return MultimodalClassifier(members, fusion=SoftVoting()).fit(wide, ["up", "down"] * 10)

    def export(self, heavy: Any, wide: Any, path: Path, limit: int, monkeypatch: pytest.MonkeyPatch) -> Manifest:
        monkeypatch.setattr(onnx_file, "EXTERNAL_DATA_BYTES", limit)
        return export_onnx(heavy, path, verify=wide)

    def test_weights_beside_the_file(
        self, heavy: Any, wide: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inside = self.export(heavy, wide, folder / "inside.onnx", 1_000_000, monkeypatch)
        beside = self.export(heavy, wide, folder / "beside.onnx", 0, monkeypatch)
        assert names(folder) == ["beside.onnx", "beside.onnx.data", "inside.onnx"]
        assert (folder / "beside.onnx.data").stat().st_size >= 2 * 300 * 4
        assert beside.parity == inside.parity
        onnx.checker.check_model(folder / "beside.onnx", full_check=True)
        locations = {
            entry.value
            for tensor in onnx.load(folder / "beside.onnx", load_external_data=False).graph.initializer
            for entry in tensor.external_data
            if entry.key == "location"
        }
        assert locations == {"beside.onnx.data"}, "a name, so that both can be moved together"

        scores = [
            OnnxPredictor(folder / f"{name}.onnx", device="cpu").predict_proba(wide) for name in ("inside", "beside")
        ]
        np.testing.assert_array_equal(*scores)

    def test_both_files_can_be_moved(
        self, heavy: Any, wide: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.export(heavy, wide, folder / "model.onnx", 0, monkeypatch)
        moved = folder.rename(tmp_path / "elsewhere")
        wide.to_parquet(tmp_path / "items.parquet")
        report = score_file(moved / "model.onnx", tmp_path / "items.parquet", tmp_path / "scores.parquet", device="cpu")
        assert (report.n_rows, report.n_errors) == (20, 0)
        scores = pd.read_parquet(tmp_path / "scores.parquet")
        np.testing.assert_allclose(scores["probability_up"], heavy.predict_proba(wide)[:, 1], atol=1e-6)

    def test_without_its_weights_the_file_is_refused(
        self, heavy: Any, wide: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.export(heavy, wide, folder / "model.onnx", 0, monkeypatch)
        (folder / "model.onnx.data").unlink()
        with pytest.raises(ModelFileError, match=r"has its weights in model\.onnx\.data, which is not beside it"):
            OnnxPredictor(folder / "model.onnx", device="cpu")

    def test_the_weights_are_there_before_the_file_that_names_them(
        self, heavy: Any, wide: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        placed: list[str] = []
        replace = os.replace

        def recording(source: Any, target: Any) -> None:
            if Path(target).parent == folder:
                placed.append(Path(target).name)
            replace(source, target)

        monkeypatch.setattr(os, "replace", recording)
        self.export(heavy, wide, folder / "model.onnx", 0, monkeypatch)
        assert placed == ["model.onnx.data", "model.onnx"]

    def test_a_failure_leaves_neither(
        self, heavy: Any, wide: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        off_by(heavy, monkeypatch, 0.1)
        with pytest.raises(ParityError):
            self.export(heavy, wide, folder / "model.onnx", 0, monkeypatch)
        assert names(folder) == []

    def test_a_smaller_successor_leaves_no_weights_behind(
        self, heavy: Any, wide: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.export(heavy, wide, folder / "model.onnx", 0, monkeypatch)
        self.export(heavy, wide, folder / "model.onnx", 1_000_000, monkeypatch)
        assert names(folder) == ["model.onnx"]

    @pytest.mark.parametrize("precision", ["fp16", "int8"])
    def test_at_any_precision(
        self, fitted: Any, items: pd.DataFrame, folder: Path, monkeypatch: pytest.MonkeyPatch, precision: Any
    ) -> None:
        saved = ir.save

        def watched(model: Any, path: Any, **kwargs: Any) -> None:
            """No file on the way may hold the weights: above 2 GiB it could not be written."""
            assert kwargs["external_data"], path
            saved(model, path, **kwargs)

        monkeypatch.setattr(ir, "save", watched)
        monkeypatch.setattr(onnx_file, "EXTERNAL_DATA_BYTES", 0)
        model, names_of = fitted("text"), items["name"]
        (folder / "m.onnx.data").write_bytes(b"of an older model")
        manifest = export_onnx(model, folder / "m.onnx", precision=precision, verify=names_of, tolerance=0.5)
        assert names(folder) == ["m.onnx", "m.onnx.data"]
        graph = onnx.load(folder / "m.onnx", load_external_data=False).graph
        inside = [t for t in graph.initializer if t.data_location != TensorProto.EXTERNAL and len(t.raw_data) > 1024]
        assert inside == []
        coarse = {TensorProto.FLOAT16, TensorProto.INT8}
        assert {tensor.data_type for tensor in graph.initializer} & coarse, "some weights are converted"
        predictor = OnnxPredictor(folder.rename(folder.with_name("moved")) / "m.onnx", device="cpu")
        assert predictor.manifest.parity == manifest.parity
        largest = np.abs(predictor.predict_proba(names_of) - model.predict_proba(names_of)).max()
        assert largest == pytest.approx(manifest.parity["max_abs_difference"], rel=1e-4)

    def test_inspect_counts_the_weights(
        self, heavy: Any, wide: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.export(heavy, wide, folder / "model.onnx", 0, monkeypatch)
        shown = CliRunner().invoke(main, ["inspect", str(folder / "model.onnx"), "--json"])
        facts = json.loads(shown.output)
        assert facts["bytes"] == sum(file.stat().st_size for file in folder.iterdir())
        assert facts["parity"]["n_rows"] == 20

    def test_a_folder_of_that_name(self, heavy: Any, wide: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "model.onnx").mkdir()
        with pytest.raises(ConfigurationError, match=r"model\.onnx is a folder"):
            self.export(heavy, wide, folder / "model.onnx", 0, monkeypatch)
        assert names(folder) == ["model.onnx"]


@pytest.mark.parametrize("columns", [1, 2])
def test_figures_of_a_regression(X: pd.DataFrame, folder: Path, columns: int) -> None:
    y = 50 * X[["c", "b"]].fillna(0.0).to_numpy()[:, :columns] + 200
    y = y.ravel() if columns == 1 else y
    members = [("left", Ridge(), ["a"]), ("right", Ridge(), ["b", "c"])]
    model = MultimodalRegressor(members, fusion=SoftVoting()).fit(X, y)
    parity = export_onnx(model, folder / "model.onnx", verify=X, verify_y=y).parity
    expected, scored = model.predict(X), OnnxPredictor(folder / "model.onnx", device="cpu").predict(X)
    relative = np.abs(expected - scored).max() / np.abs(expected).max()
    assert parity == {
        "rows": "given",
        "n_rows": 30,
        "max_abs_difference": pytest.approx(relative, rel=1e-6),
        "tolerance": 1e-4,
        "score": pytest.approx(r2_score(y, scored)),
        "reference_score": pytest.approx(r2_score(y, expected)),
    }
    shown = CliRunner().invoke(main, ["inspect", str(folder / "model.onnx"), "--json"])
    assert json.loads(shown.output)["parity"] == parity


def test_figures_of_several_label_columns(X: pd.DataFrame, folder: Path) -> None:
    numbers = X.fillna(0.0)
    y = np.column_stack([np.where(numbers["c"] > 0, "up", "down"), np.where(numbers["b"] > 0, "in", "out")])
    model = on_column(["b", "c"], MultiOutputClassifier(LogisticRegression(C=0.05))).fit(numbers, y)
    parity = export_onnx(model, folder / "model.onnx", verify=numbers, verify_y=y).parity
    scored = OnnxPredictor(folder / "model.onnx", device="cpu").predict(numbers)
    right = (scored == y).all(axis=1).mean()
    assert 0.3 < right < 1, "a row counts where both of its labels are right"
    assert (parity["score"], parity["reference_score"], parity["equal_labels"]) == (right, right, 1.0)


def test_rows_to_verify_that_the_estimator_cannot_score(folder: Path, X: Any) -> None:
    numbers = on_column(["b", "c"], LogisticRegression()).fit(X.fillna(0.0), ["up", "down"] * (len(X) // 2))
    broken = X.fillna(0.0)
    broken.loc[broken.index[3], "b"] = np.nan
    with pytest.raises(DataError, match="cannot score the rows of verify: Input X contains NaN"):
        export_onnx(numbers, folder / "model.onnx", verify=broken)
    assert names(folder) == []


@pytest.mark.parametrize("given", ["verify", "calibrate"])
def test_rows_of_another_form_are_noticed_before_anything_is_exported(
    model: Any, folder: Path, X: pd.DataFrame, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        onnx_file, "to_graph", lambda *arguments: pytest.fail("exported before the rows were looked at")
    )
    with pytest.raises(DataError, match="column 'b': there is no such column"):
        export_onnx(model, folder / "model.onnx", **{given: X.rename(columns={"b": "B"})})
    with pytest.raises(ConfigurationError, match=f"{given} has 0 rows"):
        export_onnx(model, folder / "model.onnx", **{given: X[:0]})
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        export_onnx(model, folder / "model.onnx", verify=X, verify_y=[0])
    assert names(folder) == []


def test_a_manifest_is_shown_in_one_line(model: Any, folder: Path, X: Any) -> None:
    unverified = export_onnx(model, folder / "model.onnx", verify=False)
    assert repr(unverified).endswith("from 'a', 'b', 'c', not verified>")
    assert unverified.parity == {"rows": "none"}
    assert "on 30 rows>" in repr(export_onnx(model, folder / "model.onnx", verify=X))
