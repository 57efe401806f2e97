"""xgboost, lightgbm and catboost in files: each library's objectives and settings, alone and in compositions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sklearn.base import is_regressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import BaggingClassifier, BaggingRegressor, StackingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import MaxAbsScaler, OneHotEncoder, StandardScaler

from mmensemble import MultimodalClassifier, OnnxPredictor, Stacking, can_export, export_onnx, on_column
from mmensemble.cli import main
from mmensemble.exceptions import ExportError

FAST: dict[str, dict[str, Any]] = {
    "xgboost": {"n_estimators": 8, "max_depth": 4, "n_jobs": 1},
    "lightgbm": {"n_estimators": 8, "min_child_samples": 5, "n_jobs": 1, "verbose": -1},
    "catboost": {"n_estimators": 8, "depth": 4, "thread_count": 1, "verbose": 0, "allow_writing_files": False},
}
PREFIX = {"xgboost": "XGB", "lightgbm": "LGBM", "catboost": "CatBoost"}


def booster(library: str, kind: str, **settings: Any) -> Any:
    """Make ``"Classifier"``, ``"Regressor"`` and the like of a library; skip the test where it is not installed."""
    package = pytest.importorskip(library, reason=f"{library} is not installed")
    return getattr(package, PREFIX[library] + kind)(**{**FAST[library], **settings})


def rows(seed: int = 0, n: int = 240) -> pd.DataFrame:
    """Numbers of all kinds: normal, whole, prices of two decimals, times in seconds; a text and a category."""
    rng = np.random.default_rng(seed)
    words = np.array(["red", "green", "blue", "round", "old", "new", "soft"])
    return pd.DataFrame(
        {
            "a": rng.normal(size=n),
            "count": rng.integers(-3, 9, n),
            "price": np.where(rng.random(n) < 0.5, rng.choice([4.99, 9.99, 0.1], n), rng.lognormal(3, 1, n).round(2)),
            "time": 1.7e9 + rng.integers(0, 500, n) * 3600.0,
            "text": [" ".join(rng.choice(words, 3)) for _ in range(n)],
            "colour": rng.choice(["red", "green", "blue"], n),
        }
    )


ALIKE = "rows that all score alike show nothing"
NUMBERS = ["a", "count", "price", "time"]


def with_gaps(X: pd.DataFrame) -> pd.DataFrame:
    """Let numbers be missing, never all of a row."""
    gaps = X.copy()
    rng = np.random.default_rng(7)
    for column in ("a", "price"):
        gaps.loc[rng.random(len(X)) < 0.25, column] = np.nan
    return gaps


def number_of(X: pd.DataFrame) -> np.ndarray:
    noise = np.random.default_rng(3).normal(size=len(X))
    return (
        X["a"].fillna(2) + X["count"] / 3 + np.log(X["price"].fillna(30)) + (X["text"].str.contains("red")) + noise / 4
    )


def target(X: pd.DataFrame, kind: str) -> np.ndarray:
    """Make a y of some kind that the columns tell."""
    number = number_of(X).to_numpy()
    thirds = np.digitize(number, np.quantile(number, [0.3, 0.7]))
    two_labels = np.column_stack([thirds > 0, thirds == 1]).astype(int)
    return {
        "binary": (thirds > 0).astype(int),
        "multiclass": thirds,
        "multilabel": two_labels,
        "number": number,
        "positive": np.exp(number / 3),
        "counts": np.round(np.exp(number / 3)).astype(int),
        "share": 1 / (1 + np.exp(-number)),
        "two numbers": np.column_stack([number, -2 * number**2]),
    }[kind]


def assert_equal_file(model: Any, X: Any, tmp_path: Path) -> None:
    """Export, which compares on rows that it makes itself, and compare on some more."""
    export_onnx(model, tmp_path / "model.onnx")
    file = OnnxPredictor(tmp_path / "model.onnx", device="cpu")
    predicted = np.asarray(model.predict(X))
    if is_regressor(model):
        assert len(np.unique(predicted)) > 2, ALIKE
        np.testing.assert_allclose(file.predict(X), predicted, rtol=1e-5, atol=1e-5 * np.abs(predicted).max())
        return
    ours, theirs = file.predict_proba(X), model.predict_proba(X)
    for one, other in zip(ours, theirs, strict=True) if isinstance(theirs, list) else [(ours, theirs)]:
        assert len(np.unique(other.round(4))) > 2, ALIKE
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)
    # catboost gives labels of several classes as a column.
    np.testing.assert_array_equal(file.predict(X), predicted.reshape(len(X), -1).squeeze())


# library → kind of estimator, its settings, kind of y.
ALONE: list[tuple[str, str, dict[str, Any], str]] = [
    ("xgboost", "Classifier", {}, "binary"),
    ("xgboost", "Classifier", {}, "multiclass"),
    ("xgboost", "Classifier", {"objective": "multi:softmax"}, "multiclass"),
    ("xgboost", "Classifier", {}, "multilabel"),
    ("xgboost", "Classifier", {"multi_strategy": "multi_output_tree", "tree_method": "hist"}, "multilabel"),
    ("xgboost", "Classifier", {"booster": "dart", "rate_drop": 0.5}, "multiclass"),
    ("xgboost", "Classifier", {"base_score": 0.2, "scale_pos_weight": 3}, "binary"),
    ("xgboost", "Classifier", {"missing": 0}, "binary"),
    ("xgboost", "Classifier", {"tree_method": "exact"}, "binary"),
    ("xgboost", "Classifier", {"grow_policy": "lossguide", "max_leaves": 5, "num_parallel_tree": 3}, "multiclass"),
    ("xgboost", "RFClassifier", {}, "multiclass"),
    ("xgboost", "RFClassifier", {}, "binary"),
    ("xgboost", "RFRegressor", {}, "number"),
    ("xgboost", "Regressor", {}, "number"),
    ("xgboost", "Regressor", {}, "two numbers"),
    ("xgboost", "Regressor", {"multi_strategy": "multi_output_tree", "tree_method": "hist"}, "two numbers"),
    ("xgboost", "Regressor", {"booster": "dart", "rate_drop": 0.5}, "number"),
    ("xgboost", "Regressor", {"objective": "reg:absoluteerror"}, "number"),
    ("xgboost", "Regressor", {"objective": "reg:pseudohubererror", "huber_slope": 10}, "number"),
    ("xgboost", "Regressor", {"objective": "reg:squaredlogerror"}, "positive"),
    ("xgboost", "Regressor", {"objective": "reg:logistic"}, "share"),
    ("xgboost", "Regressor", {"objective": "reg:gamma"}, "positive"),
    ("xgboost", "Regressor", {"objective": "reg:tweedie"}, "positive"),
    ("xgboost", "Regressor", {"objective": "count:poisson"}, "counts"),
    ("xgboost", "Regressor", {"objective": "reg:quantileerror", "quantile_alpha": 0.8}, "number"),
    ("xgboost", "Regressor", {"objective": "reg:quantileerror", "quantile_alpha": [0.2, 0.8]}, "number"),
    ("lightgbm", "Classifier", {}, "binary"),
    ("lightgbm", "Classifier", {}, "multiclass"),
    ("lightgbm", "Classifier", {"objective": "multiclassova", "sigmoid": 2.0}, "multiclass"),
    ("lightgbm", "Classifier", {"objective": "cross_entropy"}, "binary"),
    ("lightgbm", "Classifier", {"sigmoid": 0.5, "is_unbalance": True}, "binary"),
    ("lightgbm", "Classifier", {"boosting_type": "dart", "drop_rate": 0.5}, "multiclass"),
    ("lightgbm", "Classifier", {"boosting_type": "rf", "subsample": 0.6, "subsample_freq": 1}, "binary"),
    ("lightgbm", "Classifier", {"boosting_type": "rf", "subsample": 0.6, "subsample_freq": 1}, "multiclass"),
    ("lightgbm", "Classifier", {"boosting_type": "goss"}, "multiclass"),
    ("lightgbm", "Classifier", {"use_missing": False}, "binary"),
    ("lightgbm", "Regressor", {}, "number"),
    ("lightgbm", "Regressor", {"reg_sqrt": True}, "number"),
    ("lightgbm", "Regressor", {"objective": "regression_l1"}, "number"),
    ("lightgbm", "Regressor", {"objective": "huber"}, "number"),
    ("lightgbm", "Regressor", {"objective": "fair"}, "number"),
    ("lightgbm", "Regressor", {"objective": "quantile", "alpha": 0.8}, "number"),
    ("lightgbm", "Regressor", {"objective": "mape"}, "positive"),
    ("lightgbm", "Regressor", {"objective": "poisson"}, "counts"),
    ("lightgbm", "Regressor", {"objective": "gamma"}, "positive"),
    ("lightgbm", "Regressor", {"objective": "tweedie"}, "positive"),
    ("lightgbm", "Regressor", {"objective": "cross_entropy"}, "share"),
    ("lightgbm", "Regressor", {"objective": "cross_entropy_lambda"}, "share"),
    ("lightgbm", "Regressor", {"boosting_type": "rf", "subsample": 0.6, "subsample_freq": 1}, "number"),
    (
        "lightgbm",
        "Regressor",
        {"objective": "poisson", "boosting_type": "rf", "subsample": 0.6, "subsample_freq": 1},
        "counts",
    ),
    ("catboost", "Classifier", {}, "binary"),
    ("catboost", "Classifier", {}, "multiclass"),
    ("catboost", "Classifier", {"loss_function": "CrossEntropy"}, "binary"),
    ("catboost", "Classifier", {"loss_function": "Focal:focal_alpha=0.5;focal_gamma=2"}, "binary"),
    ("catboost", "Classifier", {"loss_function": "MultiClassOneVsAll"}, "multiclass"),
    ("catboost", "Classifier", {"loss_function": "MultiLogloss"}, "multilabel"),
    ("catboost", "Classifier", {"loss_function": "MultiCrossEntropy"}, "multilabel"),
    ("catboost", "Classifier", {"grow_policy": "Lossguide"}, "multiclass"),
    ("catboost", "Classifier", {"grow_policy": "Depthwise"}, "binary"),
    ("catboost", "Classifier", {"nan_mode": "Max"}, "binary"),
    ("catboost", "Classifier", {"nan_mode": "Max", "grow_policy": "Lossguide"}, "multiclass"),
    ("catboost", "Classifier", {"ignored_features": [0]}, "multiclass"),
    ("catboost", "Regressor", {}, "number"),
    ("catboost", "Regressor", {"boost_from_average": False}, "number"),
    ("catboost", "Regressor", {"loss_function": "MultiRMSE"}, "two numbers"),
    ("catboost", "Regressor", {"loss_function": "MultiQuantile:alpha=0.2,0.8"}, "number"),
    *(
        ("catboost", "Regressor", {"loss_function": loss}, "positive")
        for loss in (
            *("MAE", "MAPE", "Quantile:alpha=0.8", "LogLinQuantile", "Huber:delta=1", "Expectile:alpha=0.8", "LogCosh"),
            *("Lq:q=2", "RMSPE", "Poisson", "Tweedie:variance_power=1.5"),
        )
    ),
]


@pytest.mark.parametrize("case", ALONE, ids=lambda case: " ".join(map(str, case)))
def test_objectives_and_settings(tmp_path: Path, case: tuple[str, str, dict[str, Any], str]) -> None:
    library, kind, settings, what = case
    X, new = with_gaps(rows()), with_gaps(rows(1))  # some columns have gaps in fit, and others at prediction alone
    new.loc[::9, "count"] = np.nan
    assert_equal_file(booster(library, kind, **settings).fit(X[NUMBERS], target(X, what)), new[NUMBERS], tmp_path)


@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_trees_of_one_leaf(tmp_path: Path, library: str) -> None:
    X = rows()
    stump = {"xgboost": {"gamma": 1e9}, "lightgbm": {"min_child_samples": 10_000}}[library]
    model = booster(library, "Classifier", **stump).fit(X[NUMBERS], target(X, "binary"))
    assert len(np.unique(model.predict_proba(X[NUMBERS]))) == 2
    export_onnx(model, tmp_path / "model.onnx", verify=X[NUMBERS])


LIBRARIES = list(PREFIX)


@pytest.mark.parametrize("library", LIBRARIES)
def test_export_is_promised_before_fit(library: str) -> None:
    assert can_export(scaled(booster(library, "Classifier")))


@pytest.mark.parametrize("library", LIBRARIES)
def test_early_stopping(tmp_path: Path, library: str) -> None:
    X, new = rows()[NUMBERS], rows(1)[NUMBERS]
    y = target(rows(), "multiclass")
    noise = np.random.default_rng(0).permutation(y)  # what is learned is soon worse than nothing
    early = {"early_stopping_rounds": 3} if library != "lightgbm" else {}
    model = booster(library, "Classifier", **{"n_estimators": 40, **early})
    fitting: dict[str, Any] = {"eval_set": [(X, noise)], "verbose": False}
    if library == "lightgbm":
        stop = pytest.importorskip("lightgbm").early_stopping(3, verbose=False)
        fitting = {"eval_X": X, "eval_y": noise, "callbacks": [stop]}
    model.fit(X, y, **fitting)
    assert (model.best_iteration if library == "xgboost" else model.best_iteration_) < 30
    assert_equal_file(model, new, tmp_path)


def scaled(estimator: Any) -> Any:
    return make_pipeline(SimpleImputer(add_indicator=True), StandardScaler(), estimator)


COMPOSED = {
    "column": lambda make: on_column(NUMBERS, make("Classifier")),
    "imputer and scaler": lambda make: on_column(NUMBERS, scaled(make("Classifier"))),
    "bagged": lambda make: on_column(NUMBERS, BaggingClassifier(make("Classifier"), 3, max_features=3, random_state=0)),
    "calibrated": lambda make: on_column(NUMBERS, CalibratedClassifierCV(make("Classifier"), cv=2)),
    "one against the rest": lambda make: on_column(NUMBERS, OneVsRestClassifier(make("Classifier"))),
    "scikit-learn's stacking": lambda make: on_column(
        NUMBERS,
        StackingClassifier(
            [("linear", scaled(LogisticRegression())), ("boosted", make("Classifier"))], make("Classifier"), cv=2
        ),
    ),
    "member": lambda make: MultimodalClassifier(
        [("facts", make("Classifier"), NUMBERS), ("words", words(LogisticRegression()), "text")]
    ),
    "member and meta-learner": lambda make: MultimodalClassifier(
        [("facts", scaled(make("Classifier")), NUMBERS), ("words", words(LogisticRegression()), "text")],
        fusion=Stacking(make("Classifier"), cv=2),
    ),
}


def words(estimator: Any) -> Any:
    return make_pipeline(TfidfVectorizer(), estimator)


# scikit-learn's stacking warns of catboost's labels of several classes, which are a column.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", COMPOSED)
@pytest.mark.parametrize("library", LIBRARIES)
def test_compositions(tmp_path: Path, library: str, name: str, n_classes: int) -> None:
    X, new = with_gaps(rows()), with_gaps(rows(1))
    y = target(X, "binary" if n_classes == 2 else "multiclass")
    model = COMPOSED[name](lambda kind: booster(library, kind))
    assert_equal_file(model.fit(X, y), new, tmp_path)


@pytest.mark.parametrize("library", LIBRARIES)
def test_several_outputs(tmp_path: Path, library: str) -> None:
    X, new = with_gaps(rows()), with_gaps(rows(1))
    model = on_column(NUMBERS, MultiOutputClassifier(booster(library, "Classifier")))
    assert_equal_file(model.fit(X, target(X, "multilabel")), new, tmp_path)
    regressor = on_column(NUMBERS, MultiOutputRegressor(booster(library, "Regressor")))
    assert_equal_file(regressor.fit(X, target(X, "two numbers")), new, tmp_path)
    bagged = on_column(NUMBERS, BaggingRegressor(booster(library, "Regressor"), 3, random_state=0))
    assert_equal_file(bagged.fit(X, target(X, "number")), new, tmp_path)


# Of a sparse matrix xgboost reads what is not stored as missing, the others read it as 0.
SPARSE = {
    "words": lambda: TfidfVectorizer(),
    "words as a column": lambda: ColumnTransformer([("words", TfidfVectorizer(), "text")]),
    "words, selected": lambda: make_pipeline(TfidfVectorizer(), SelectKBest(k=4)),
    "words, scaled": lambda: make_pipeline(TfidfVectorizer(), MaxAbsScaler()),
    "words and more words": lambda: FeatureUnion([("one", TfidfVectorizer()), ("two", TfidfVectorizer(norm=None))]),
    "sparse beside numbers": lambda: ColumnTransformer(
        [
            ("words", TfidfVectorizer(), "text"),
            ("colour", OneHotEncoder(), ["colour"]),
            ("rest", "passthrough", ["count"]),
        ],
        sparse_threshold=1.0,
    ),
    "dense beside numbers": lambda: ColumnTransformer(
        [
            ("words", TfidfVectorizer(), "text"),
            ("colour", OneHotEncoder(), ["colour"]),
            ("rest", "passthrough", ["count"]),
        ],
        sparse_threshold=0,
    ),
    "dense categories": lambda: ColumnTransformer([("colour", OneHotEncoder(sparse_output=False), ["colour"])]),
    "sparse categories": lambda: ColumnTransformer([("colour", OneHotEncoder(), ["colour"])], sparse_threshold=1.0),
}


@pytest.mark.parametrize("name", SPARSE)
@pytest.mark.parametrize("library", LIBRARIES)
def test_sparse_matrices(tmp_path: Path, library: str, name: str) -> None:
    X, new = rows(), rows(1)
    steps = make_pipeline(SPARSE[name](), booster(library, "Classifier"))
    model = on_column("text", steps) if isinstance(steps[0], (TfidfVectorizer, FeatureUnion, Pipeline)) else steps
    assert_equal_file(model.fit(X, target(X, "multiclass")), new, tmp_path)


def test_bagged_and_stacked_over_a_sparse_matrix(tmp_path: Path) -> None:
    X, new = rows(), rows(1)
    bagged = BaggingClassifier(booster("xgboost", "Classifier"), 3, max_features=0.6, random_state=0)
    stacked = StackingClassifier([("boosted", bagged)], booster("xgboost", "Classifier"), passthrough=True, cv=2)
    assert_equal_file(on_column("text", words(stacked)).fit(X, target(X, "multiclass")), new, tmp_path)


REFUSED: list[tuple[str, str, dict[str, Any], str, str]] = [
    (
        "xgboost",
        "Classifier",
        {"booster": "gblinear", "max_depth": None},
        "binary",
        "use a linear model of scikit-learn",
    ),
    ("xgboost", "Classifier", {"objective": "binary:hinge"}, "binary", r"objective='binary:hinge'"),
    ("lightgbm", "Classifier", {"linear_tree": True}, "binary", "leave linear_tree out"),
    ("lightgbm", "Classifier", {"zero_as_missing": True}, "binary", "put NaN where a number is missing"),
    ("catboost", "Regressor", {"loss_function": "RMSEWithUncertainty"}, "number", "RMSEWithUncertainty"),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: " ".join(map(str, case[:3])))
def test_what_has_no_form_is_refused_with_the_remedy(tmp_path: Path, case: Any) -> None:
    library, kind, settings, what, remedy = case
    X = rows()
    model = on_column(NUMBERS, booster(library, kind, **settings)).fit(X, target(X, what))
    with pytest.raises(ExportError, match=remedy):
        export_onnx(model, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_custom_objective_and_one_class_are_refused(tmp_path: Path, library: str) -> None:
    X = rows()

    def squared_error(y: Any, predicted: Any) -> Any:
        return predicted - y, np.ones_like(y)

    if library != "catboost":  # which refuses labels that are all the same
        model = booster(library, "Classifier").fit(X[NUMBERS], np.zeros(len(X), dtype=int))
        with pytest.raises(ExportError, match="one class only"):
            export_onnx(model, tmp_path / "model.onnx")
        custom = booster(library, "Regressor", objective=squared_error).fit(X[NUMBERS], target(X, "number"))
        with pytest.raises(ExportError, match="objective="):
            export_onnx(custom, tmp_path / "model.onnx")


@pytest.mark.parametrize("library", LIBRARIES)
def test_categories_are_refused_with_the_remedy(tmp_path: Path, library: str) -> None:
    X = rows()[["a", "colour"]]
    settings = {"xgboost": {"enable_categorical": True}, "catboost": {"cat_features": ["colour"]}}.get(library, {})
    if library != "catboost":
        X["colour"] = X["colour"].astype("category")
    model = booster(library, "Classifier", **settings).fit(X, target(rows(), "binary"))
    with pytest.raises(ExportError, match=r"put an .*OneHotEncoder"):
        export_onnx(model, tmp_path / "model.onnx")


def test_the_threshold_of_a_catboost_classifier(tmp_path: Path) -> None:
    X = rows()
    model = booster("catboost", "Classifier").fit(X[NUMBERS], np.where(target(X, "binary"), "yes", "no"))
    model.set_probability_threshold(0.8)
    assert_equal_file(model, rows(1)[NUMBERS], tmp_path)


@pytest.mark.parametrize("labels", [["no", "yes"], [False, True], [3, 7]], ids=str)
@pytest.mark.parametrize("library", ["lightgbm", "catboost"])
def test_labels_of_any_type(tmp_path: Path, library: str, labels: list[Any]) -> None:
    X = rows()
    model = booster(library, "Classifier").fit(X[NUMBERS], np.asarray(labels)[target(X, "binary")])
    assert_equal_file(model, rows(1)[NUMBERS], tmp_path)


@pytest.mark.parametrize("library", LIBRARIES)
def test_from_the_command_line(tmp_path: Path, library: str) -> None:
    X = with_gaps(rows())
    model = on_column(NUMBERS, booster(library, "Classifier")).fit(X, target(X, "binary"))
    joblib.dump(model, tmp_path / "model.joblib")
    command = ["export", str(tmp_path / "model.joblib"), str(tmp_path / "model.onnx")]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    scored = OnnxPredictor(tmp_path / "model.onnx", device="cpu").predict_proba(X)
    np.testing.assert_allclose(scored, model.predict_proba(X), rtol=0, atol=1e-5)


def test_samplers_do_nothing_at_prediction(tmp_path: Path) -> None:
    pytest.importorskip("imblearn", reason="imbalanced-learn is not installed")
    from imblearn.over_sampling import RandomOverSampler
    from imblearn.pipeline import make_pipeline as with_sampler
    from imblearn.under_sampling import RandomUnderSampler

    X, new = rows(), rows(1)
    y = np.where(number_of(X) > np.quantile(number_of(X), 0.8), "rare", "usual")
    steps = RandomOverSampler(random_state=0), StandardScaler(), RandomUnderSampler(random_state=0)
    members = [
        ("facts", with_sampler(*steps, LogisticRegression()), NUMBERS),
        ("words", words(LogisticRegression()), "text"),
    ]
    assert can_export(MultimodalClassifier(members))
    assert_equal_file(MultimodalClassifier(members).fit(X, y), new, tmp_path)
    assert_equal_file(with_sampler(*steps, LogisticRegression()).fit(X[NUMBERS], y), new[NUMBERS], tmp_path)
