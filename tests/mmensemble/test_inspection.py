"""Every number of `mmensemble.inspection`, against a computation of a few lines or scikit-learn's own."""

from __future__ import annotations

from itertools import pairwise, permutations
from math import isnan
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from joblib import parallel_config
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import calibration_curve
from sklearn.ensemble import HistGradientBoostingRegressor, StackingClassifier, VotingClassifier, VotingRegressor
from sklearn.exceptions import NotFittedError
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import accuracy_score, log_loss, make_scorer
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from mmensemble import (
    ConfigurationError,
    DataError,
    MultimodalClassifier,
    MultimodalRegressor,
    SoftVoting,
    Stacking,
    expected_calibration_error,
    member_disagreement,
    missing_modality_curve,
    modality_importance,
    modality_shapley,
    on_column,
)
from mmensemble.inspection import pairwise_disagreement, reliability_curve

LABELS = np.array(["apple", "pear", "plum"])


def make_data(n: int = 60, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Three classes; "shape" and "size" tell much, "tint" little. The index repeats, as in a bootstrap."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 3, n)
    frame = pd.DataFrame(
        {
            "shape": codes + rng.normal(0, 0.5, n),
            "size": rng.normal(0, 0.6, n) - codes,
            "tint": rng.normal(size=n) + 0.3 * codes,
        },
        index=rng.integers(0, 10, n),
    )
    return frame, LABELS[codes]


X, Y = make_data()
X_NEW, Y_NEW = make_data(40, seed=1)


def model(fusion: Any = None, **columns: Any) -> MultimodalClassifier:
    columns = columns or {"shape": ["shape"], "size": ["size"], "tint": ["tint"]}
    members = [(name, LogisticRegression(), chosen) for name, chosen in columns.items()]
    return MultimodalClassifier(members, fusion=fusion)


@pytest.fixture(scope="module")
def fitted() -> MultimodalClassifier:
    return model().fit(X, Y)


class Recorder(ClassifierMixin, BaseEstimator):
    """Keeps the frames that it is asked about."""

    def __init__(self) -> None:
        self.classes_ = LABELS
        self.frames_: list[Any] = []

    def fit(self, X: Any, y: Any) -> Recorder:
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        self.frames_.append(X)
        return np.full((len(X), 3), 1 / 3)

    def predict(self, X: Any) -> np.ndarray:
        self.frames_.append(X)
        return np.repeat(LABELS[:1], len(X))


# importance


@pytest.mark.parametrize("scoring", [None, "neg_log_loss"])
def test_importance_of_single_columns_is_scikit_learns(fitted: MultimodalClassifier, scoring: str | None) -> None:
    weight = np.random.default_rng(2).random(len(X_NEW))
    ours = modality_importance(fitted, X_NEW, Y_NEW, scoring=scoring, n_repeats=4, random_state=3, sample_weight=weight)
    theirs = permutation_importance(
        fitted, X_NEW, Y_NEW, scoring=scoring, n_repeats=4, random_state=3, sample_weight=weight
    )
    assert ours.names == list(X.columns)
    for key in ("importances", "importances_mean", "importances_std"):
        np.testing.assert_allclose(ours[key], theirs[key], rtol=0, atol=1e-12)
    if scoring is None:
        assert ours.baseline_score == accuracy_score(Y_NEW, fitted.predict(X_NEW), sample_weight=weight)


def test_importance_shuffles_the_columns_of_a_modality_together() -> None:
    recorder = Recorder()
    frame = pd.DataFrame({"a": range(20), "b": range(20), "c": range(20)})
    modality_importance(recorder, frame, LABELS[[0] * 20], groups={"ab": ["a", "b"]}, n_repeats=2, random_state=0)
    baseline, first, second = recorder.frames_
    pd.testing.assert_frame_equal(baseline, frame)
    for shuffled in (first, second):
        assert (shuffled["a"] == shuffled["b"]).all()
        assert (shuffled["a"] != frame["a"]).any()
        assert sorted(shuffled["a"]) == list(range(20))
        assert (shuffled["c"] == frame["c"]).all()
    assert (first["a"] != second["a"]).any()


def test_importance_is_the_same_in_parallel_in_polars_and_for_equal_seeds(fitted: MultimodalClassifier) -> None:
    wanted = modality_importance(fitted, X_NEW, Y_NEW, n_repeats=3, random_state=0).importances
    with parallel_config(backend="threading"):
        again = modality_importance(fitted, X_NEW, Y_NEW, n_repeats=3, random_state=np.random.RandomState(0), n_jobs=2)
    np.testing.assert_array_equal(again.importances, wanted)
    polars = modality_importance(fitted, pl.from_pandas(X_NEW), Y_NEW, n_repeats=3, random_state=0)
    np.testing.assert_array_equal(polars.importances, wanted)


def test_modalities_that_share_a_column_are_one() -> None:
    joined = model(one=["shape"], two=["tint"], three=["size", "shape"], four=["size"]).fit(X, Y)
    assert modality_importance(joined, X, Y, n_repeats=1).names == ["one+three+four", "two"]
    whole = model(fusion=SoftVoting(), text="shape", other=["shape", "size", "tint"])
    whole.set_params(text="drop").fit(X, Y)
    assert modality_importance(whole, X, Y, n_repeats=1).names == ["other"]


def test_importance_of_other_compositions(fitted: MultimodalClassifier) -> None:
    members = [(name, on_column([name], LogisticRegression())) for name in ("shape", "size")]
    voting = VotingClassifier(members, voting="soft").fit(X, Y)
    assert modality_importance(voting, X, Y, n_repeats=1).names == ["shape", "size"]
    search = GridSearchCV(model(), {"fusion": [SoftVoting(), Stacking(cv=2)]}, cv=2).fit(X, Y)
    assert modality_importance(search, X, Y, n_repeats=1).names == ["shape", "size", "tint"]
    alone = LogisticRegression().fit(X, Y)
    with pytest.raises(ConfigurationError, match="does not say which columns"):
        modality_importance(alone, X, Y)
    with pytest.raises(ConfigurationError, match="does not say which columns"):
        modality_importance(VotingClassifier([("all", LogisticRegression())]).fit(X, Y), X, Y)
    assert modality_importance(alone, X, Y, groups={"a": "shape", "b": ["size", "tint"]}).names == ["a", "b"]


def test_importance_says_what_cannot_work(fitted: MultimodalClassifier) -> None:
    with pytest.raises(NotFittedError):
        modality_importance(model(), X, Y)
    with pytest.raises(ConfigurationError, match="n_repeats"):
        modality_importance(fitted, X, Y, n_repeats=0)
    with pytest.raises(ConfigurationError, match="one score"):
        modality_importance(fitted, X, Y, scoring=["accuracy"])
    with pytest.raises(ConfigurationError, match="in two groups"):
        modality_importance(fitted, X, Y, groups={"a": "shape", "b": ["shape", "size"]})
    with pytest.raises(ConfigurationError, match="at least one"):
        modality_importance(fitted, X, Y, groups={})
    with pytest.raises(DataError, match="no such column"):
        modality_importance(fitted, X, Y, groups={"a": "weight"})
    with pytest.raises(DataError, match="must be a DataFrame"):
        modality_importance(fitted, X.to_numpy(), Y)
    with pytest.raises(DataError, match="no rows"):
        modality_importance(fitted, X[:0], Y[:0])


# Shapley values


@pytest.mark.parametrize("fusion", [SoftVoting(), Stacking(cv=3)])
def test_shapley_values_are_means_over_all_orders(fusion: Any) -> None:
    fitted = model(fusion).fit(X, Y)
    result = modality_shapley(fitted, X_NEW)
    wanted = np.zeros((len(X_NEW), 3, 3))
    for order in permutations(range(3)):
        frame = X_NEW * np.nan
        before = fitted.predict_proba(frame)
        for player in order:
            frame = frame.assign(**{X.columns[player]: X_NEW[X.columns[player]]})
            after = fitted.predict_proba(frame)
            wanted[:, player] += (after - before) / 6
            before = after
    np.testing.assert_allclose(result.shapley_values, wanted, rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.base_values, [(label == Y).mean() for label in LABELS])
    np.testing.assert_array_equal(result.predictions, fitted.predict_proba(X_NEW))
    np.testing.assert_allclose(
        result.base_values + result.shapley_values.sum(axis=1), result.predictions, rtol=0, atol=1e-12
    )
    np.testing.assert_allclose(result.importances, np.abs(wanted).mean(axis=(0, 2)))
    assert result.names == ["shape", "size", "tint"]
    assert result.output_names == LABELS.tolist()


def test_a_missing_modality_adds_nothing(fitted: MultimodalClassifier) -> None:
    frame = X_NEW[:4].reset_index(drop=True)
    frame.loc[0, "size"] = np.nan
    frame.loc[1] = np.nan
    before = frame.copy()
    values = modality_shapley(fitted, frame).shapley_values
    np.testing.assert_allclose(values[0, 1], 0, atol=1e-12)
    np.testing.assert_allclose(values[1], 0, atol=1e-12)
    assert np.abs(values[0, 0]).max() > 0.01
    pd.testing.assert_frame_equal(frame, before)
    polars = modality_shapley(fitted, pl.from_pandas(frame, nan_to_null=True))
    np.testing.assert_allclose(polars.shapley_values, values, rtol=0, atol=1e-12)


def test_cells_of_every_dtype_can_be_taken_away() -> None:
    recorder = Recorder()
    frame = pd.DataFrame(
        {
            "text": ["a", "b"],
            "object": [b"1", {"bytes": b"2", "path": None}],
            "array": [np.zeros(2), np.ones(3)],
            "count": [1, 2],
            "flag": [True, False],
            "kind": pd.Categorical(["x", "y"]),
            "day": pd.to_datetime(["2024-01-01", "2024-01-02"]),
        },
        index=[7, 7],
    )
    modality_shapley(recorder, frame, groups={"all": list(frame.columns)})
    nothing, whole = recorder.frames_
    assert nothing.isna().all(axis=None)
    assert list(nothing.index) == [7, 7]
    pd.testing.assert_frame_equal(whole, frame)


def test_shapley_predicts_each_coalition_once() -> None:
    recorder = Recorder()
    modality_shapley(recorder, X, groups={name: name for name in X.columns})
    coalitions = {tuple(frame.notna().all()) for frame in recorder.frames_}
    assert len(recorder.frames_) == len(coalitions) == 8


def test_shapley_of_a_regressor_and_of_a_margin() -> None:
    y = X["shape"].to_numpy() * 2 + X["size"].to_numpy()
    groups = {"shape": "shape", "rest": ["size", "tint"]}
    trees = HistGradientBoostingRegressor(max_iter=5).fit(X, y)
    result = modality_shapley(trees, X, groups=groups)
    assert result.shapley_values.shape == (len(X), 2, 1)
    assert result.output_names == ["prediction"]
    np.testing.assert_allclose(result.base_values + result.shapley_values.sum(axis=1)[:, 0], trees.predict(X))

    class Margin(Recorder):
        def decision_function(self, X: Any) -> np.ndarray:
            return X["a"].notna().to_numpy() * 1.0

    margin = Margin()
    margin.classes_ = LABELS[:2]
    result = modality_shapley(margin, pd.DataFrame({"a": [1.0]}), method="decision_function", groups={"a": "a"})
    assert (result.output_names, result.shapley_values.tolist()) == (["pear"], [[[1.0]]])


def test_shapley_puts_columns_of_labels_side_by_side() -> None:
    class Two(Recorder):
        def predict_proba(self, X: Any) -> Any:
            return [np.full((len(X), 2), 0.5), np.full((len(X), 3), 1 / 3)]

    two = Two()
    two.classes_ = [np.array(["a", "b"]), np.array([0, 1, 2])]  # type: ignore[assignment]
    result = modality_shapley(two, X[:2], groups={"shape": "shape"})
    assert result.output_names == ["0_a", "0_b", "1_0", "1_1", "1_2"]
    assert result.shapley_values.shape == (2, 1, 5)


def test_shapley_says_what_cannot_work(fitted: MultimodalClassifier) -> None:
    many = pd.DataFrame({str(i): [0.0] for i in range(11)})
    with pytest.raises(ConfigurationError, match="2048 coalitions"):
        modality_shapley(Recorder(), many, groups={name: name for name in many.columns})
    with pytest.raises(ConfigurationError, match="still differ from row to row"):
        modality_shapley(fitted, X, groups={"shape": "shape"})
    with pytest.raises(ConfigurationError, match="method must be one of"):
        modality_shapley(fitted, X, method="transform")
    with pytest.raises(ConfigurationError, match="has no decision_function"):
        modality_shapley(fitted, X, method="decision_function")
    with pytest.raises(ConfigurationError, match="labels cannot be shared out"):
        modality_shapley(fitted, X, method="predict")
    with pytest.raises(NotFittedError):
        modality_shapley(model(), X)


@pytest.mark.parametrize("kind", ["multilabel", "multioutput", "regression", "two targets"])
def test_tasks_of_every_kind(kind: str) -> None:
    numbers = X[["shape", "size"]].to_numpy()
    labels = np.column_stack([numbers[:, 0] > 0, np.digitize(numbers[:, 1], [-1, 0])]).astype(int)
    y = {
        "multilabel": np.minimum(labels, 1),
        "multioutput": labels,
        "regression": numbers.sum(axis=1),
        "two targets": numbers,
    }[kind]
    classify = kind.startswith("multi")
    member = KNeighborsClassifier() if classify else LinearRegression()
    composition = (MultimodalClassifier if classify else MultimodalRegressor)(
        [("shape", member, ["shape"]), ("rest", member, ["size", "tint"])]
    ).fit(X, y)
    result = modality_shapley(composition, X)
    outputs = composition.predict_proba(X) if classify else composition.predict(X)
    if kind == "multioutput":
        outputs = np.hstack(outputs)
    np.testing.assert_allclose(
        result.base_values + result.shapley_values.sum(axis=1), outputs.reshape(len(X), -1), rtol=0, atol=1e-12
    )
    assert len(result.output_names) == result.shapley_values.shape[2]
    importances = modality_importance(composition, X, y, n_repeats=2, random_state=0).importances_mean
    assert importances.max() > 0
    curve = missing_modality_curve(composition, X, y, fractions=[0, 1], n_repeats=1)
    assert (curve.scores[:, 0, 0] == composition.score(X, y)).all()
    if y.ndim == 2:
        with pytest.raises(ConfigurationError, match="one column of predictions only"):
            member_disagreement(composition, X, y)


# disagreement


def test_members_predict_what_they_predict_alone(fitted: MultimodalClassifier) -> None:
    frame = X_NEW.reset_index(drop=True)
    frame.loc[[2, 5], "size"] = np.nan
    result = member_disagreement(fitted, frame, Y_NEW)
    assert list(result.predictions) == ["shape", "size", "tint", "ensemble"]
    shape = fitted.named_estimators_["shape"]
    assert result.predictions["shape"].tolist() == fitted.classes_[shape.predict(frame[["shape"]])].tolist()
    assert result.predictions["ensemble"].tolist() == fitted.predict(frame).tolist()
    assert result.predictions.index[result.predictions["size"].isna()].tolist() == [2, 5]
    pair = result.pairwise.set_index(["first", "second"]).loc[("shape", "size")]
    assert pair["n_rows"] == 38
    assert len(result.pairwise) == 6


def test_pairwise_measures() -> None:
    rng = np.random.default_rng(0)
    y, a, b = rng.integers(0, 3, (3, 200))
    (row,) = pairwise_disagreement({"a": a, "b": b}, y).to_dict("records")
    right_a, right_b = a == y, b == y
    assert row["disagreement"] == np.mean(a != b)
    assert row["double_fault"] == np.mean(~right_a & ~right_b)
    assert row["error_correlation"] == pytest.approx(np.corrcoef(right_a, right_b)[0, 1])
    odds = pd.crosstab(right_a, right_b).to_numpy()
    ratio = odds[0, 0] * odds[1, 1] / (odds[0, 1] * odds[1, 0])
    assert row["q_statistic"] == pytest.approx((ratio - 1) / (ratio + 1))
    assert list(pairwise_disagreement({"a": a, "b": b})) == ["first", "second", "n_rows", "disagreement"]
    never_wrong = pairwise_disagreement({"a": a, "b": y}, y).iloc[0]
    assert isnan(never_wrong["q_statistic"])
    assert isnan(never_wrong["error_correlation"])


def test_pairwise_measures_of_numbers() -> None:
    y, a, b = np.random.default_rng(0).normal(size=(3, 50))
    a[3] = np.nan
    (row,) = pairwise_disagreement({"a": a, "b": b}, y).to_dict("records")
    there = np.arange(50) != 3
    assert row["n_rows"] == 49
    assert row["disagreement"] == pytest.approx(np.abs(a - b)[there].mean())
    assert row["error_correlation"] == pytest.approx(np.corrcoef((a - y)[there], (b - y)[there])[0, 1])


@pytest.mark.parametrize(
    "make",
    [
        lambda members: VotingClassifier(members),
        lambda members: StackingClassifier(members, cv=2),
        lambda members: StackingClassifier([(n, m.fit(X, Y)) for n, m in members], cv="prefit"),
    ],
)
def test_members_of_scikit_learns_ensembles_predict_labels(make: Any) -> None:
    members = [(name, on_column([name], make_pipeline(StandardScaler(), LogisticRegression()))) for name in X.columns]
    result = member_disagreement(make(members).fit(X, Y), X_NEW)
    wanted = LogisticRegression().fit(StandardScaler().fit_transform(X[["size"]]), Y)
    scaled = StandardScaler().fit(X[["size"]]).transform(X_NEW[["size"]])
    assert result.predictions["size"].tolist() == wanted.predict(scaled).tolist()
    assert set(result.predictions["ensemble"]) <= set(LABELS)


def test_members_that_predict_numbers() -> None:
    voting = VotingRegressor([(name, on_column([name], LinearRegression())) for name in ("shape", "size")])
    y = X["shape"].to_numpy() + X["size"].to_numpy()
    result = member_disagreement(voting.fit(X, y), X, y)
    assert result.predictions.dtypes.tolist() == [np.dtype(float)] * 3
    np.testing.assert_allclose(result.predictions[["shape", "size"]].mean(axis=1), result.predictions["ensemble"])
    assert list(result.pairwise) == ["first", "second", "n_rows", "disagreement", "error_correlation"]


def test_disagreement_says_what_cannot_work(fitted: MultimodalClassifier) -> None:
    with pytest.raises(ConfigurationError, match="no composition of members"):
        member_disagreement(LogisticRegression().fit(X, Y), X)
    with pytest.raises(NotFittedError):
        member_disagreement(model(), X)
    with pytest.raises(DataError, match="no predictions"):
        pairwise_disagreement({})
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        pairwise_disagreement({"a": [1], "b": [1]}, [1, 2])


def test_a_member_may_be_called_ensemble() -> None:
    fitted = model(ensemble=["shape"], size=["size"]).fit(X, Y)
    assert list(member_disagreement(fitted, X).predictions) == ["ensemble", "size", "ensemble_"]


# calibration


def random_probabilities(n: int = 500, k: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, k, n), rng.dirichlet(np.full(k, 0.4), n)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
@pytest.mark.parametrize("n_bins", [1, 7, 15])
def test_calibration_error_bin_by_bin(strategy: str, n_bins: int) -> None:
    y, proba = random_probabilities()
    confidence, right = proba.max(axis=1), proba.argmax(axis=1) == y
    shares = np.linspace(0, 1, n_bins + 1)
    edges = shares if strategy == "uniform" else np.quantile(confidence, shares)
    edges[0] = -1.0
    wanted = 0.0
    for low, high in pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            wanted += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    error = expected_calibration_error(y, proba, n_bins=n_bins, strategy=strategy)
    assert error == pytest.approx(wanted, abs=1e-12)
    curve = reliability_curve(y, proba, n_bins=n_bins, strategy=strategy)
    assert curve.weight.sum() == len(y)
    if strategy == "quantile":
        assert np.ptp(curve.weight) <= 1


def test_reliability_of_two_classes_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    second = rng.uniform(0.5, 1.0, 300)
    y = (rng.random(300) < second).astype(int)
    ours = reliability_curve(y, second, n_bins=10)
    accuracy, confidence = calibration_curve(y, second, n_bins=10)
    filled = ours.weight > 0
    np.testing.assert_allclose(ours.accuracy[filled], accuracy)
    np.testing.assert_allclose(ours.confidence[filled], confidence)
    both = np.column_stack([1 - second, second])
    assert expected_calibration_error(y, both) == expected_calibration_error(y, second)


def test_a_weight_counts_as_rows() -> None:
    y, proba = random_probabilities(60)
    weight = np.random.default_rng(1).integers(0, 4, 60)
    assert expected_calibration_error(y, proba, sample_weight=weight) == pytest.approx(
        expected_calibration_error(np.repeat(y, weight), np.repeat(proba, weight, axis=0))
    )


def test_labels_in_the_order_of_classes() -> None:
    proba = np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1]])
    error = expected_calibration_error(["pear", "apple"], proba, classes=["pear", "apple", "plum"])
    assert error == pytest.approx((0.1 + 0.3) / 2)
    certain = np.eye(2)
    assert expected_calibration_error([0, 1], certain, strategy="quantile") == 0


@pytest.mark.parametrize(
    ("y", "proba", "params", "match"),
    [
        ([0, 1], [[0.5, 0.5]] * 2, {"n_bins": 0}, "n_bins"),
        ([0, 1], [[0.5, 0.5]] * 2, {"strategy": "other"}, "strategy"),
        ([0, 1], [[0.5, 0.6]] * 2, {}, "probabilities"),
        ([0, 1], [[1.5, -0.5]] * 2, {}, "probabilities"),
        ([0, 1], [[0.5, 0.25, 0.25]] * 2, {}, "3 columns for 2 classes"),
        ([0, 2], [[0.5, 0.5]] * 2, {"classes": [0, 1]}, "holds 2, which is not among"),
        ([0, 1], [[0.5, 0.5]] * 2, {"sample_weight": [0, 0]}, "weight"),
        ([0, 1], [np.array([[0.5, 0.5]] * 2)] * 2, {}, "one column of labels"),
        ([0, 1, 1], [[0.5, 0.5]] * 2, {}, "inconsistent numbers"),
    ],
)
def test_calibration_says_what_cannot_work(y: Any, proba: Any, params: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        expected_calibration_error(y, proba, **params)


# missing modalities


def test_the_curve_begins_with_the_score_and_ends_without_the_modality(fitted: MultimodalClassifier) -> None:
    curve = missing_modality_curve(fitted, X_NEW, Y_NEW, n_repeats=4, random_state=0)
    assert curve.scores.shape == (3, 6, 4)
    assert (curve.scores[:, 0] == fitted.score(X_NEW, Y_NEW)).all()
    for number, name in enumerate(curve.names):
        assert (curve.scores[number, -1] == fitted.score(X_NEW.assign(**{name: np.nan}), Y_NEW)).all()
        predicted = fitted.classes_[fitted.named_estimators_[name].predict(X_NEW[[name]])]
        assert curve.member_scores[name] == accuracy_score(Y_NEW, predicted)
    assert curve.complete_score == fitted.score(X_NEW, Y_NEW)
    again = missing_modality_curve(fitted, pl.from_pandas(X_NEW), Y_NEW, n_repeats=4, random_state=0)
    np.testing.assert_array_equal(again.scores, curve.scores)


def test_that_share_of_the_rows_that_have_it_loses_it() -> None:
    frame = X_NEW.reset_index(drop=True)
    frame.loc[:9, "size"] = np.nan
    lost: list[set[int]] = []

    def score(estimator: Any, X: pd.DataFrame, y: Any) -> float:
        lost.append(set(X.index[X["size"].isna()]) - set(range(10)))
        return float(len(lost[-1]))

    curve = missing_modality_curve(
        Recorder(),
        frame,
        Y_NEW,
        fractions=[0.1, 0.5, 1],
        scoring=score,
        groups={"size": "size"},
        n_repeats=2,
        random_state=0,
    )
    np.testing.assert_array_equal(curve.scores[0], [[3, 3], [15, 15], [30, 30]])
    whole, tenth, half, everything, other_tenth, *_ = lost
    assert not whole
    assert tenth < half < everything
    assert tenth != other_tenth
    assert curve.member_scores == {}


def test_members_are_scored_on_complete_rows(fitted: MultimodalClassifier) -> None:
    frame = X_NEW.reset_index(drop=True)
    frame.loc[:9, "size"] = np.nan
    frame.loc[5:14, "tint"] = np.nan
    curve = missing_modality_curve(fitted, frame, Y_NEW, fractions=[0], scoring="neg_log_loss")
    shape = fitted.named_estimators_["shape"]
    wanted = -log_loss(Y_NEW[15:], shape.predict_proba(frame[["shape"]][15:]))
    assert curve.member_scores["shape"] == pytest.approx(wanted)
    assert curve.complete_score == pytest.approx(-log_loss(Y_NEW[15:], fitted.predict_proba(frame[15:])))
    nowhere = missing_modality_curve(fitted, frame.assign(size=np.nan), Y_NEW, fractions=[0, 1])
    assert nowhere.member_scores == {}
    assert isnan(nowhere.complete_score)


def test_members_that_lack_what_the_score_wants_are_left_out() -> None:
    members = [(name, on_column([name], LogisticRegression())) for name in ("shape", "size")]
    assert missing_modality_curve(VotingClassifier(members).fit(X, Y), X, Y, fractions=[0]).member_scores == {}
    stub = MultimodalClassifier([("soft", LogisticRegression(), ["size"])]).fit(X, Y)
    stub.estimators = [("hard", SVC(), ["shape"]), *stub.estimators]
    stub.named_estimators_["hard"] = SVC().fit(X[["shape"]], Y)
    curve = missing_modality_curve(stub, X, Y, fractions=[0], scoring="neg_log_loss")
    assert set(curve.member_scores) == {"soft"}


def test_curve_of_scikit_learns_ensembles_and_searches(fitted: MultimodalClassifier) -> None:
    search = GridSearchCV(model(), {"fusion": [SoftVoting()]}, cv=2).fit(X, Y)
    curve = missing_modality_curve(search, X_NEW, Y_NEW, fractions=[0, 1], scoring=make_scorer(accuracy_score))
    assert set(curve.member_scores) == {"shape", "size", "tint"}


def test_curve_says_what_cannot_work(fitted: MultimodalClassifier) -> None:
    for fractions in ([], [-0.1], [1.1], 0.5, [[0.5]]):
        with pytest.raises(ConfigurationError, match="fractions"):
            missing_modality_curve(fitted, X, Y, fractions=fractions)
    with pytest.raises(ConfigurationError, match="n_repeats"):
        missing_modality_curve(fitted, X, Y, n_repeats=0)
    with pytest.raises(ConfigurationError, match="one score"):
        missing_modality_curve(fitted, X, Y, scoring={"a": "accuracy"})
    with pytest.raises(NotFittedError):
        missing_modality_curve(model(), X, Y)
    with pytest.raises(ValueError, match="inconsistent numbers"):
        missing_modality_curve(fitted, X, Y[:-1])
