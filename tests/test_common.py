"""What holds for every estimator and composition, over the one list of instances."""

from __future__ import annotations

import inspect
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.utils import estimator_checks
from sklearn.utils.validation import check_is_fitted

import mmensemble
import mmensemble_estimators
from mmensemble import (
    ColumnSelector,
    DataError,
    EnsembleSelection,
    HardVoting,
    LinearFusion,
    LogOpinionPool,
    MultimodalClassifier,
    MultimodalRegressor,
    OnnxPredictor,
    ProductOfExperts,
    SoftVoting,
    Stacking,
    SuperLearner,
)
from mmensemble.fusion import Fusion
from mmensemble.scoring import Manifest
from mmensemble_estimators import (
    AttentionFusion,
    AudioClassifier,
    AudioRegressor,
    BilinearFusion,
    CausalLM,
    ConcatFusion,
    CrossAttentionFusion,
    GatedFusion,
    ImageCaptioner,
    ImageClassifier,
    ImageRegressor,
    Seq2SeqGenerator,
    TextClassifier,
    TextRegressor,
    VideoClassifier,
    VideoRegressor,
    ZeroShotImageClassifier,
    ZeroShotTextClassifier,
)
from tests.conftest import ALL_MISSING, WITHOUT_CLIP, WITHOUT_FACTS, WITHOUT_NAME, WITHOUT_PICTURE, WITHOUT_SOUND
from tests.instances import BY_ID, INSTANCES, WRITTEN_BYTES, Instance

Fitted = Callable[[str], Any]
Scored = Callable[[str], np.ndarray]
Exported = Callable[[str], Path]

TOLERANCE = 1e-4

# What no modality takes. A number among categories is one that was not seen, to scikit-learn and so to the file.
BAD_CELLS = {"name": 3.5, "picture": b"not an image", "length": "long", "sound": b"not a sound", "clip": b"not a clip"}


@pytest.fixture(params=INSTANCES, ids=lambda instance: instance.id)
def instance(request: pytest.FixtureRequest) -> Instance:
    chosen: Instance = request.param
    reason = chosen.expected_failures.get(request.function.__name__)
    if reason is not None:
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    return chosen


def only(which: Callable[[Instance], Any]) -> pytest.MarkDecorator:
    """Run a test on the instances for which it means something."""
    chosen = [instance for instance in INSTANCES if which(instance)]
    return pytest.mark.parametrize("instance", chosen, ids=lambda instance: instance.id, indirect=True)


def instances_of_each_kind() -> list[Instance]:
    """The first instance of each class of estimators, of each class of strategies, and of each kind of target.

    How frames and targets are taken depends on these, and on no network.
    """
    chosen, seen = [], set()
    for instance in INSTANCES:
        estimator = instance.make()
        kinds = {type(estimator), type(getattr(estimator, "fusion", None)), instance.target}
        if not kinds <= seen:
            chosen.append(instance)
            seen |= kinds
    return chosen


OF_EACH_KIND = instances_of_each_kind()
of_each_kind = only(lambda instance: instance in OF_EACH_KIND)


def public_estimators() -> list[type]:
    public = [getattr(package, name) for package in (mmensemble, mmensemble_estimators) for name in package.__all__]
    return [item for item in public if inspect.isclass(item) and issubclass(item, BaseEstimator)]


def parts_of(estimator: Any) -> list[Any]:
    """The estimator and all estimators in its parameters, those in lists of candidates too."""
    values = [estimator, *estimator.get_params().values()]
    for value in list(values):
        if isinstance(value, dict):
            values += [candidate for candidates in value.values() for candidate in candidates]
    return [value for value in values if isinstance(value, BaseEstimator)]


def fitted_names(estimator: Any) -> set[str]:
    return {name for name in vars(estimator) if name.endswith("_") and not name.startswith("_")}


def classes_of(model: Any) -> list[Any]:
    return (
        [column.tolist() for column in model.classes_] if isinstance(model.classes_, list) else model.classes_.tolist()
    )


def assert_scores_agree(scored: np.ndarray, expected: np.ndarray) -> None:
    """Probabilities to `TOLERANCE`; numbers to that share of the largest one, as float32 allows no more."""
    scale = np.abs(expected).max(axis=0, initial=1.0)
    np.testing.assert_allclose(scored / scale, expected / scale, rtol=0, atol=TOLERANCE)


# The list itself


@pytest.mark.parametrize("cls", public_estimators(), ids=lambda cls: cls.__name__)
def test_every_public_estimator_has_an_instance(cls: type) -> None:
    assert any(type(part) is cls for instance in INSTANCES for part in parts_of(instance.make()))


def test_instance_ids_are_unique_and_expected_failures_name_tests() -> None:
    assert len(BY_ID) == len(INSTANCES)
    named = {name for instance in INSTANCES for name in instance.expected_failures}
    assert named <= {name for name in globals() if name.startswith("test_")}


def test_items_miss_what_they_should(items: pd.DataFrame) -> None:
    missing = {
        "name": WITHOUT_NAME,
        "picture": WITHOUT_PICTURE,
        "length": WITHOUT_FACTS,
        "sound": WITHOUT_SOUND,
        "clip": WITHOUT_CLIP,
    }
    for column, rows in missing.items():
        assert np.flatnonzero(items[column].isna()).tolist() == sorted(rows)
    assert np.flatnonzero(items.isna().all(axis=1)).tolist() == [ALL_MISSING]


# The invariant: the exported graph on preprocessed rows gives the estimator's probabilities


# Some items miss a modality, and one misses all: such a row is a batch of its own, and one of several.
@pytest.mark.parametrize("batch_size", [1, 7])
def test_exported_model_gives_the_probabilities_and_labels(
    instance: Instance, fitted: Fitted, scored: Scored, exported: Exported, items: pd.DataFrame, batch_size: int
) -> None:
    X = instance.of(items)
    predictor = OnnxPredictor(exported(instance.id), device="cpu", batch_size=batch_size)
    assert_scores_agree(instance.scores(predictor, X), scored(instance.id))
    predicted, expected = instance.predict(predictor, X), instance.predict(fitted(instance.id), X)
    assert predicted.shape == expected.shape
    if instance.target not in ("numbers", "number_table"):
        assert predicted.dtype == expected.dtype
        assert predicted.tolist() == expected.tolist()


def test_exported_model_on_shuffled_rows_of_pandas_and_polars(
    instance: Instance, scored: Scored, exported: Exported, items: pd.DataFrame
) -> None:
    predictor = OnnxPredictor(exported(instance.id), device="cpu")
    rows = np.random.default_rng(1).permutation(len(items))[:40]
    some, expected = items.iloc[rows], scored(instance.id)[rows]
    assert_scores_agree(instance.scores(predictor, instance.of(some)), expected)
    assert_scores_agree(instance.scores(predictor, instance.of(pl.from_pandas(some))), expected)


def test_manifest(instance: Instance, fitted: Fitted, exported: Exported) -> None:
    predictor = OnnxPredictor(exported(instance.id), device="cpu")
    assert isinstance(predictor.manifest, Manifest)
    if not instance.has_classes:
        assert not hasattr(fitted(instance.id), "classes_")
        with pytest.raises(AttributeError, match=r"predicts numbers|writes texts"):
            _ = predictor.classes_
        with pytest.raises(AttributeError, match=r"predicts numbers|writes texts"):
            predictor.predict_proba([])
    else:
        assert classes_of(predictor) == classes_of(fitted(instance.id))
    assert set(predictor.manifest.columns) == set(instance.exported_columns)


def test_members_on_the_same_column_share_their_input(exported: Exported) -> None:
    (feed,) = OnnxPredictor(exported("same_column_twice"), device="cpu").manifest.feeds
    assert feed.columns == ("picture",)


@pytest.mark.parametrize("dtype", [int, bool, float])
def test_exported_model_keeps_labels_that_are_no_strings(
    tmp_path: Path, items: pd.DataFrame, labels: np.ndarray, dtype: type
) -> None:
    y = (labels == "Flags").astype(dtype)
    estimator = BY_ID["mixed_columns"].make().fit(items, y)
    manifest = mmensemble.export_onnx(estimator, tmp_path / "model.onnx", verify=items)
    predicted = OnnxPredictor(tmp_path / "model.onnx", device="cpu").predict(items)
    assert manifest.parity["equal_labels"] == 1.0
    assert predicted.dtype == y.dtype
    assert predicted.tolist() == estimator.predict(items).tolist()


# Parameters


def test_clone_and_parameters(instance: Instance) -> None:
    estimator = instance.make()
    params = estimator.get_params(deep=False)
    for name, value in type(estimator)(**params).get_params(deep=False).items():
        assert value is params[name], f"the constructor changes {name}"
    copy = clone(estimator)
    assert repr(copy) == repr(estimator)
    assert copy.get_params().keys() == estimator.get_params().keys()
    assert repr(copy.set_params(**estimator.get_params())) == repr(estimator)


def test_nested_parameters_are_set(instance: Instance) -> None:
    estimator = instance.make()
    nested = [name for name in estimator.get_params() if name.endswith(("max_epochs", "max_depth"))]
    assert nested
    for name in nested:
        estimator.set_params(**{name: 17})
        assert estimator.get_params()[name] == 17
        assert clone(estimator).get_params()[name] == 17


def test_unknown_parameter(instance: Instance) -> None:
    with pytest.raises(ValueError, match="Invalid parameter 'nonsense'"):
        instance.make().set_params(nonsense=1)


def test_fit_changes_neither_data_nor_parameters(instance: Instance, items: pd.DataFrame, labels: np.ndarray) -> None:
    items_before, labels_before = items.copy(deep=True), labels.copy()
    estimator = instance.make()
    before, text = estimator.get_params(), repr(estimator)
    assert estimator.fit(instance.of(items), instance.y(labels)) is estimator
    pd.testing.assert_frame_equal(items, items_before)
    assert (labels == labels_before).all()
    assert repr(estimator) == text
    after = estimator.get_params()
    assert after.keys() == before.keys()
    # scikit-learn's pipelines fit their own steps; that is their documented behaviour.
    if not isinstance(estimator, Pipeline):
        for name, value in before.items():
            assert after[name] is value, f"fit replaced {name}"
        for part in parts_of(estimator)[1:]:
            assert not fitted_names(part), f"fit left its mark on the parameter {part}"


# Fitting


def test_second_fit_forgets_the_first_and_is_reproducible(
    instance: Instance, fitted: Fitted, scored: Scored, items: pd.DataFrame, labels: np.ndarray
) -> None:
    # First of another dtype and, for numbers, of another mean, where the target's kind allows.
    y = np.where(np.isin(labels, ["Flags", "Symbols"]), 10, 3) if instance.target == "classes" else instance.y(labels)
    if instance.target in ("numbers", "number_table"):
        y = 7.0 - y
    X, other_rows = instance.of(items), instance.of(items.iloc[:60])
    again = instance.make().fit(other_rows, y[:60])
    if instance.target == "classes":
        assert again.classes_.tolist() == [3, 10]
    again.fit(X, instance.y(labels))
    assert fitted_names(again) == fitted_names(fitted(instance.id))
    np.testing.assert_array_equal(instance.scores(again, X), scored(instance.id))


@only(lambda instance: instance in OF_EACH_KIND and instance.target == "classes")
@pytest.mark.parametrize("dtype", [object, bool])
def test_labels_of_other_dtypes(instance: Instance, items: pd.DataFrame, labels: np.ndarray, dtype: type) -> None:
    y = labels.astype(object) if dtype is object else labels == "Flags"
    X = instance.of(items)
    estimator = instance.make().fit(X, y)
    assert estimator.classes_.dtype == y.dtype
    assert estimator.classes_.tolist() == np.unique(y).tolist()
    probabilities, predicted = estimator.predict_proba(X), estimator.predict(X)
    assert probabilities.shape == (len(items), len(np.unique(y)))
    assert predicted.dtype == y.dtype
    np.testing.assert_array_equal(predicted, estimator.classes_[probabilities.argmax(axis=1)])


@of_each_kind
def test_labels_as_a_series_with_an_index_of_its_own(
    instance: Instance, scored: Scored, items: pd.DataFrame, labels: np.ndarray
) -> None:
    X, y = instance.of(items), instance.y(labels)
    with_index = (pd.Series if y.ndim == 1 else pd.DataFrame)(y, index=items.index[::-1])
    estimator = instance.make().fit(X, with_index)
    # A frame lies column by column in memory, so its mean may differ in the last bit.
    np.testing.assert_allclose(instance.scores(estimator, X), scored(instance.id), rtol=1e-12)


def test_features_in(instance: Instance, fitted: Fitted, items: pd.DataFrame) -> None:
    seen = list(instance.columns) if instance.takes == "cells" else list(items.columns)
    assert fitted(instance.id).n_features_in_ == len(seen)
    assert list(fitted(instance.id).feature_names_in_) == seen


@of_each_kind
def test_fit_on_polars(instance: Instance, scored: Scored, items: pd.DataFrame, labels: np.ndarray) -> None:
    X = instance.of(pl.from_pandas(items))
    estimator = instance.make().fit(X, instance.y(labels))
    np.testing.assert_allclose(instance.scores(estimator, X), scored(instance.id), rtol=1e-6, atol=1e-6)


# Prediction


def test_not_fitted(instance: Instance, items: pd.DataFrame) -> None:
    estimator = instance.make()
    assert hasattr(type(estimator), "predict_proba") == instance.has_classes
    for predict in (instance.predict, instance.scores):
        with pytest.raises(NotFittedError):
            predict(estimator, instance.of(items))
    with pytest.raises(NotFittedError):
        mmensemble.to_graph(estimator)


@only(lambda instance: instance.target == "classes")
def test_probabilities(instance: Instance, fitted: Fitted, items: pd.DataFrame, labels: np.ndarray) -> None:
    probabilities = fitted(instance.id).predict_proba(instance.of(items))
    assert probabilities.shape == (len(items), 4)
    # scikit-learn's linear models compute in the float32 of an embedding.
    assert probabilities.dtype == (np.float32 if instance.id.startswith("pipeline_over") else np.float64)
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=0, atol=1e-6)
    assert fitted(instance.id).classes_.tolist() == np.unique(labels).tolist()
    assert np.ptp(probabilities, axis=0).max() > 0, "all rows get the same prediction"


@only(lambda instance: instance.target == "texts")
def test_texts_that_are_written(instance: Instance, fitted: Fitted, items: pd.DataFrame) -> None:
    texts = instance.predict(fitted(instance.id), instance.of(items))
    missing = items[instance.columns[0]].isna().to_numpy()
    assert [text is None for text in texts] == missing.tolist()
    assert len(set(texts[~missing])) > 1, "all rows get the same text"


def test_rows_do_not_depend_on_each_other(
    instance: Instance, fitted: Fitted, scored: Scored, items: pd.DataFrame
) -> None:
    estimator, whole = fitted(instance.id), scored(instance.id)
    rows = np.random.default_rng(2).permutation(len(items))[:23]
    part = instance.scores(estimator, instance.of(items.iloc[rows]))
    np.testing.assert_allclose(part, whole[rows], rtol=1e-6, atol=1e-5)
    one = instance.scores(estimator, instance.of(items.iloc[[7]]))
    np.testing.assert_allclose(one, whole[[7]], rtol=1e-6, atol=1e-5)


@of_each_kind
def test_index_has_no_effect(instance: Instance, fitted: Fitted, scored: Scored, items: pd.DataFrame) -> None:
    for index in (np.zeros(len(items)), np.arange(len(items))[::-1]):
        scores = instance.scores(fitted(instance.id), instance.of(items.set_axis(index)))
        np.testing.assert_array_equal(scores, scored(instance.id))


@only(lambda instance: instance.takes == "frame")
def test_order_of_columns_and_further_columns_have_no_effect(
    instance: Instance, fitted: Fitted, scored: Scored, items: pd.DataFrame
) -> None:
    mixed = items.assign(more=1.0)[["more", *items.columns[::-1]]]
    np.testing.assert_array_equal(instance.scores(fitted(instance.id), mixed), scored(instance.id))


def test_no_rows(instance: Instance, fitted: Fitted, exported: Exported, items: pd.DataFrame) -> None:
    nothing, estimator = instance.of(items.iloc[:0]), fitted(instance.id)
    predictor = OnnxPredictor(exported(instance.id), device="cpu")
    widths = {"classes": 4, "multilabel": 3, "columns": 4 + 2, "numbers": 1, "number_table": 2, "texts": WRITTEN_BYTES}
    for model in (estimator, predictor):
        assert instance.scores(model, nothing).shape == (0, widths[instance.target])
        some = instance.predict(estimator, instance.of(items.iloc[:3]))
        assert instance.predict(model, nothing).shape == (0, *some.shape[1:])


def test_missing_column(instance: Instance, fitted: Fitted, exported: Exported, items: pd.DataFrame) -> None:
    for column in instance.columns:
        without = items.drop(columns=column)
        if instance.takes == "cells":
            without = without[["initial"]]
        with pytest.raises(ValueError, match=column):
            instance.predict(fitted(instance.id), without)
        if column in instance.exported_columns:
            with pytest.raises(DataError, match=column):
                instance.predict(OnnxPredictor(exported(instance.id), device="cpu"), without)


def raw_columns(instance: Instance) -> list[str]:
    """The columns that a torch estimator reads; of other columns scikit-learn's estimators complain themselves."""
    return [column for column in instance.columns if column in ("name", "picture", "sound", "clip")]


@only(raw_columns)
@pytest.mark.parametrize("row", [0, 50])
def test_bad_cell_at_predict(instance: Instance, fitted: Fitted, items: pd.DataFrame, row: int) -> None:
    for column in raw_columns(instance):
        items[column] = items[column].astype(object)
        bad = items.copy()
        bad.iloc[row, items.columns.get_loc(column)] = BAD_CELLS[column]
        with pytest.raises(DataError) as caught:
            instance.predict(fitted(instance.id), instance.of(bad))
        assert (caught.value.row, caught.value.column) == (row, column)
        assert f"row {row}, column {column!r}" in str(caught.value)


@only(raw_columns)
def test_bad_cell_at_fit(instance: Instance, items: pd.DataFrame, labels: np.ndarray) -> None:
    for column in raw_columns(instance):
        items[column] = items[column].astype(object)
        bad = items.copy()
        bad.iloc[50, items.columns.get_loc(column)] = BAD_CELLS[column]
        estimator = instance.make()
        if instance.id == "grid_search":
            # A search fits on folds, whose row numbers are their own.
            estimator = estimator.estimator
        with pytest.raises(DataError) as caught:
            estimator.fit(instance.of(bad), instance.y(labels))
        assert (caught.value.row, caught.value.column) == (50, column)


def test_bad_cell_in_the_exported_model(instance: Instance, exported: Exported, items: pd.DataFrame) -> None:
    predictor = OnnxPredictor(exported(instance.id), device="cpu", batch_size=16)
    for column in set(instance.exported_columns) & set(BAD_CELLS):
        bad = items.astype({column: object})
        bad.iloc[50, items.columns.get_loc(column)] = BAD_CELLS[column]
        with pytest.raises(DataError) as caught:
            instance.predict(predictor, instance.of(bad))
        assert (caught.value.row, caught.value.column) == (50, column)


# Being kept and shown


def test_joblib(instance: Instance, fitted: Fitted, scored: Scored, items: pd.DataFrame, tmp_path: Path) -> None:
    estimator = fitted(instance.id)
    joblib.dump(estimator, tmp_path / "model.joblib")
    loaded = joblib.load(tmp_path / "model.joblib")
    check_is_fitted(loaded)
    np.testing.assert_array_equal(instance.scores(loaded, instance.of(items)), scored(instance.id))
    assert fitted_names(loaded) == fitted_names(estimator)


def test_pickle_in_another_process(fitted: Fitted, items: pd.DataFrame, tmp_path: Path) -> None:
    ids = ["text", "concat_fusion", "voting_classifier"]
    models = [(fitted(i), BY_ID[i].of(items)) for i in ids]
    (tmp_path / "models.pickle").write_bytes(pickle.dumps(models))
    script = (
        "import pickle, sys, numpy as np\n"
        "models = pickle.load(open(sys.argv[1], 'rb'))\n"
        "np.savez(sys.argv[2], *[model.predict_proba(X) for model, X in models])\n"
    )
    subprocess.run(
        [sys.executable, "-c", script, tmp_path / "models.pickle", tmp_path / "scores.npz"],
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with np.load(tmp_path / "scores.npz") as scores:
        for number, (model, X) in enumerate(models):
            np.testing.assert_allclose(scores[f"arr_{number}"], model.predict_proba(X), rtol=0, atol=1e-6)


def test_html(instance: Instance, fitted: Fitted) -> None:
    for estimator in (instance.make(), fitted(instance.id)):
        html = estimator._repr_html_()
        for part in parts_of(estimator):
            if part is estimator or not isinstance(part, Fusion):
                assert type(part).__name__ in html


# scikit-learn's own checks, those that do not need a numeric matrix

DEFAULTS = [
    TextClassifier(),
    TextRegressor(),
    ImageClassifier(),
    ImageRegressor(),
    AudioClassifier(),
    AudioRegressor(),
    VideoClassifier(),
    VideoRegressor(),
    CausalLM(),
    Seq2SeqGenerator(),
    ImageCaptioner(),
    ZeroShotImageClassifier("a folder"),
    ZeroShotTextClassifier(CausalLM()),
    MultimodalClassifier([("text", TextClassifier(), "name"), ("image", ImageClassifier(), "picture")]),
    MultimodalRegressor([("text", TextRegressor(), "name"), ("image", ImageRegressor(), "picture")]),
    SoftVoting(),
    HardVoting(),
    ProductOfExperts(),
    LogOpinionPool(),
    EnsembleSelection(),
    Stacking(),
    SuperLearner(),
    LinearFusion(),
    ConcatFusion(),
    AttentionFusion(),
    GatedFusion(),
    BilinearFusion(),
    CrossAttentionFusion(),
    ColumnSelector("name"),
]
CHECKS = [
    estimator_checks.check_estimator_cloneable,
    estimator_checks.check_estimator_repr,
    estimator_checks.check_estimator_tags_renamed,
    estimator_checks.check_get_params_invariance,
    estimator_checks.check_mixin_order,
    estimator_checks.check_no_attributes_set_in_init,
    estimator_checks.check_parameters_default_constructible,
    estimator_checks.check_set_params,
    estimator_checks.check_valid_tag_types,
]


@pytest.mark.parametrize("estimator", DEFAULTS, ids=lambda estimator: type(estimator).__name__)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_scikit_learn_check(estimator: BaseEstimator, check: Callable[[str, Any], None]) -> None:
    check(type(estimator).__name__, clone(estimator))
