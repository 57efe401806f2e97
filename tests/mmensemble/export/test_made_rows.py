"""Every export is compared with its estimator on rows that it makes itself, and a wrong file never leaves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes, load_wine, make_multilabel_classification
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import RFE, SelectKBest
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, RegressorChain
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.neighbors import RadiusNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    KBinsDiscretizer,
    Normalizer,
    OneHotEncoder,
    PowerTransformer,
    StandardScaler,
)
from sklearn.svm import SVC, SVR, LinearSVC, NuSVC
from sklearn.tree import DecisionTreeClassifier

from mmensemble import (
    DataError,
    EnsembleSelection,
    ExportError,
    HardVoting,
    LinearFusion,
    LogOpinionPool,
    MultimodalClassifier,
    OnnxPredictor,
    ParityError,
    ProductOfExperts,
    SoftVoting,
    Stacking,
    SuperLearner,
    can_export,
    export_onnx,
    on_column,
    to_graph,
)
from mmensemble.export import as_tensor
from mmensemble.graph import Outputs
from tests.coverage_matrix import numbers, targets

WINE = load_wine(as_frame=True)
DIABETES = load_diabetes(as_frame=True)
RNG = np.random.default_rng(0)


def two_numbers(missing=0.0):
    X = pd.DataFrame({"a": RNG.normal(size=400), "b": RNG.normal(size=400)})
    y = np.where(X["a"] + X["b"] > 0, "yes", "no")
    X.loc[RNG.random(400) < missing, "a"] = np.nan
    return X, y


def prices():
    usual = RNG.choice([4.99, 9.99, 14.99, 19.99, 49.99], 1500)
    X = pd.DataFrame({"price": usual, "seconds": 1.7e9 + np.round(RNG.random(1500) * 1e6)})
    return X, (np.log(X["price"]) + (X["seconds"] % 1000) / 300 > 4).to_numpy()


def several_labels():
    A, Y = make_multilabel_classification(n_classes=3, random_state=0)
    return pd.DataFrame(A).add_prefix("c"), Y


def scaled(estimator):
    return make_pipeline(StandardScaler(), estimator)


CASES = {
    "bagged trees, missing numbers": (BaggingClassifier(DecisionTreeClassifier(max_depth=5), 4), two_numbers(0.15)),
    "prices before boosted trees": (scaled(HistGradientBoostingClassifier(max_iter=20)), prices()),
    "prices before a forest": (scaled(RandomForestClassifier(5)), prices()),
    "saturated sigmoids": (SGDClassifier(loss="log_loss", random_state=0), (WINE.data, WINE.target)),
    "multilabel network": (MLPClassifier((8,), max_iter=30, random_state=0), several_labels()),
    "bagged votes": (BaggingClassifier(LinearSVC(), 3, random_state=0), (WINE.data, WINE.target)),
    "selected features": (RFE(LinearRegression(), n_features_to_select=2), (DIABETES.data, DIABETES.target)),
    "two targets": (
        MLPRegressor(hidden_layer_sizes=(8,), max_iter=30),
        (DIABETES.data, np.c_[DIABETES.target, DIABETES.data["bmi"]]),
    ),
    "a linear kernel": (scaled(SVR(kernel="linear")), (WINE.data, WINE.target.astype(float))),
    "imputed by neighbours": (
        make_pipeline(KNNImputer(), LogisticRegression(max_iter=500)),
        (WINE.data.mask(RNG.random(WINE.data.shape) < 0.1), WINE.target),
    ),
    "distances": (make_pipeline(KMeans(3, n_init=1), LogisticRegression()), (WINE.data, WINE.target)),
    "labels alone": (scaled(LinearSVC()), (WINE.data, WINE.target)),
    "labels alone, words": (RidgeClassifier(), two_numbers()),
    "votes beside probabilities": (scaled(SVC(probability=True, random_state=0)), (WINE.data, WINE.target)),
    "one-vs-rest of decisions": (OneVsRestClassifier(LinearSVC()), (WINE.data, WINE.target)),
    "one-vs-one": (OneVsOneClassifier(LogisticRegression(max_iter=500)), (WINE.data, WINE.target)),
    "codes": (OutputCodeClassifier(LogisticRegression(max_iter=500), random_state=0), (WINE.data, WINE.target)),
    "a chain of labels": (ClassifierChain(LogisticRegression()), several_labels()),
    "a chain of numbers": (RegressorChain(LinearRegression()), (DIABETES.data, DIABETES.data[["bmi", "bp"]] * 100)),
    "columns of labels without probabilities": (MultiOutputClassifier(LinearSVC()), several_labels()),
    "likelihoods": (GaussianNB(), (WINE.data, WINE.target)),
    "powers": (make_pipeline(PowerTransformer(), LogisticRegression()), (WINE.data, WINE.target)),
    "powers before trees": (
        make_pipeline(PowerTransformer(), HistGradientBoostingClassifier(max_iter=5)),
        (WINE.data, WINE.target),
    ),
    "lengths of 1, of rows that are as good as 0": (
        make_pipeline(SimpleImputer(), StandardScaler(), Normalizer(), LogisticRegression()),
        two_numbers(0.1),
    ),
    "large likelihoods": (MultinomialNB(), (WINE.data * 100, WINE.target)),
    "numbers as categories": (
        make_pipeline(SimpleImputer(), OneHotEncoder(handle_unknown="ignore"), LogisticRegression()),
        (WINE.data.round(), WINE.target),
    ),
    "bins": (make_pipeline(KBinsDiscretizer(), LogisticRegression()), (WINE.data, WINE.target)),
}


@pytest.mark.filterwarnings("ignore")  # of estimators that are stopped early
@pytest.mark.parametrize("case", CASES)
def test_the_file_says_what_the_estimator_says(case, tmp_path):
    estimator, (X, y) = CASES[case]
    model = estimator.fit(X, y)
    manifest = export_onnx(model, tmp_path / "m.onnx")
    assert manifest.parity["rows"] == "made"
    assert manifest.parity["n_rows"] > 3
    file = OnnxPredictor(tmp_path / "m.onnx", device="cpu")
    expected, scored = np.asarray(model.predict(X)), file.predict(X)
    assert scored.shape == expected.shape
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(scored, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    else:
        assert scored.tolist() == expected.tolist()
    assert hasattr(file, "predict_proba") == hasattr(model, "predict_proba")
    if hasattr(model, "predict_proba"):
        np.testing.assert_allclose(file.predict_proba(X), model.predict_proba(X), rtol=0, atol=1e-4)


class Shifted(LogisticRegression):
    """Its graph is off by a little."""


@to_graph.register
def _shifted(estimator: Shifted, source=None):
    plain = LogisticRegression()
    plain.__dict__.update(estimator.__dict__)
    outputs = to_graph(plain, source)
    graph = outputs.graph
    moved = graph.op("Add", outputs.probabilities, graph.constant(np.asarray([[0.001, -0.001]], dtype=np.float32)))
    return Outputs(graph, probabilities=moved, present=outputs.present)


def test_a_wrong_file_is_not_written(tmp_path):
    X, y = two_numbers()
    model = Shifted().fit(X, y)
    with pytest.raises(ParityError, match=r"differ by 0\.001.*for the row \{'a': .*verify=X"):
        export_onnx(model, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
    assert export_onnx(model, tmp_path / "m.onnx", verify=False).parity == {"rows": "none"}


class Lenient(LogisticRegression):
    """Its graph takes NaN for 0."""


@to_graph.register
def _lenient(estimator: Lenient, source=None):
    plain = LogisticRegression()
    plain.__dict__.update(estimator.__dict__)
    X = as_tensor(estimator, source)
    graph = X.graph
    filled = graph.op("Where", graph.op("IsNaN", X.exact), graph.number(0, X.exact), X.exact)
    return to_graph(plain, replace(X, value=filled))


def test_a_file_that_answers_what_the_estimator_refuses_is_not_written(tmp_path):
    model = Lenient().fit(*two_numbers())
    with pytest.raises(ParityError, match=r"predicts .* for a row that the estimator refuses \(Input X contains NaN"):
        export_onnx(model, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_rows_for_which_the_estimator_gives_nan_are_left_out(tmp_path):
    X, _ = two_numbers()
    model = RadiusNeighborsRegressor(0.3).fit(X, X["a"] * 2)
    rows = pd.concat([X[:20], X[:5] + 100])
    with pytest.warns(UserWarning, match="no neighbors"):
        assert np.isnan(model.predict(rows)[20:]).all()
    assert export_onnx(model, tmp_path / "m.onnx", verify=rows).parity["n_rows"] == 20
    with pytest.raises(DataError, match="NaN"):
        OnnxPredictor(tmp_path / "m.onnx", device="cpu").predict(rows[20:])
    with pytest.raises(DataError, match="NaN for every row of verify"):
        export_onnx(model, tmp_path / "m.onnx", verify=rows[20:])


def test_a_row_on_an_edge_is_no_difference(tmp_path):
    """A row on a threshold behind a logarithm falls to either side by its last digits, in the file and elsewhere."""
    X = numbers()
    model = make_pipeline(PowerTransformer(), HistGradientBoostingRegressor(max_iter=5)).fit(X, targets("number"))
    assert export_onnx(model, tmp_path / "m.onnx").parity["tied_rows"] > 0
    assert export_onnx(model, tmp_path / "m.onnx", verify=X).parity["max_abs_difference"] < 1e-6


def test_a_difference_at_a_threshold_alone_is_found(tmp_path, monkeypatch):
    """float32 rounds a threshold to one of its neighbours, which no usual row shows."""
    X = pd.DataFrame({"a": np.arange(200) / 10})
    model = DecisionTreeClassifier(max_depth=1).fit(X, X["a"] > 9.95)
    monkeypatch.setattr(
        "mmensemble.converters.trees.scikit_learn.rounded_down", lambda t: np.nextafter(np.float32(t), np.float32(9))
    )
    with pytest.raises(ParityError, match="for the row"):
        export_onnx(model, tmp_path / "m.onnx")


def test_missing_modalities_are_among_the_rows(tmp_path, monkeypatch):
    X = pd.DataFrame({"name": ["red apple", "fast car"] * 20, "weight": np.r_[np.ones(20), np.zeros(20)]})
    members = [("name", make_pipeline(TfidfVectorizer(), LogisticRegression()), "name")]
    members.append(("weight", LogisticRegression(), ["weight"]))
    model = MultimodalClassifier(members).fit(X, ["fruit", "vehicle"] * 20)
    seen = []
    predict = model.predict
    monkeypatch.setattr(model, "predict", lambda X: seen.append(X) or predict(X))
    export_onnx(model, tmp_path / "m.onnx")
    rows = pd.concat(seen)
    assert (rows["name"].isna() & rows["weight"].notna()).any()
    assert (rows["name"].notna() & rows["weight"].isna()).any()
    assert (rows["name"].isna() & rows["weight"].isna()).any()
    assert {"", "漢字 и кириллица 🦊"} <= set(rows["name"].dropna())


def test_categories_known_and_unknown_are_among_the_rows(tmp_path, monkeypatch):
    X = pd.DataFrame({"colour": ["red", "green"] * 20})
    model = on_column(["colour"], make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()))
    model.fit(X, ["a", "b"] * 20)
    seen = []
    predict = model.predict
    monkeypatch.setattr(model, "predict", lambda X: seen.append(X) or predict(X))
    export_onnx(model, tmp_path / "m.onnx")
    assert {"red", "green", "an unknown category"} <= set(pd.concat(seen)["colour"].dropna())


def test_an_estimator_that_refuses_all_rows_needs_some(tmp_path, monkeypatch):
    X, y = two_numbers()
    model = LogisticRegression().fit(X, y)

    def refuses(X):
        raise ValueError("no such row")

    monkeypatch.setattr(model, "predict", refuses)
    with pytest.raises(ExportError, match=r"refuses every row.*no such row.*verify=X"):
        export_onnx(model, tmp_path / "m.onnx")


def test_can_export_answers_before_fit():
    assert can_export(scaled(LogisticRegression()))
    members = [("name", make_pipeline(TfidfVectorizer(analyzer=str.split), LogisticRegression()), "name")]
    answer = can_export(MultimodalClassifier(members))
    assert not answer
    assert "TfidfVectorizer(analyzer=...) is Python code" in answer.reasons[0]


NUMBERS_REFUSED = {
    "svm": scaled(LinearSVC()),
    "ridge": scaled(RidgeClassifier()),
    "hinge": scaled(SGDClassifier(random_state=0)),
    "kernel": scaled(SVC()),
    "boosted votes": scaled(AdaBoostClassifier(n_estimators=3)),
    "codes": scaled(OutputCodeClassifier(LogisticRegression(), random_state=0)),
    "pairs": scaled(OneVsOneClassifier(LogisticRegression())),
    "bagged": scaled(BaggingClassifier(LinearSVC(), 3)),
    "selected": scaled(RFE(LogisticRegression(), n_features_to_select=2)),
    "sigmoids": scaled(SGDClassifier(loss="log_loss", random_state=0)),
    "logistic": scaled(LogisticRegression()),
    "a bag of kernels": scaled(BaggingClassifier(NuSVC(), 2)),
    "trees behind components": make_pipeline(PCA(2), HistGradientBoostingClassifier(max_iter=3)),
    "trees behind components of some columns": make_pipeline(
        ColumnTransformer([("some", PCA(2), ["alcohol", "ash"])], remainder="passthrough"),
        HistGradientBoostingClassifier(max_iter=3),
    ),
    "a tree behind signs": make_pipeline(Binarizer(), DecisionTreeClassifier()),
    "an imputer behind a selection": make_pipeline(SelectKBest(k=3), SimpleImputer(), GaussianNB()),
    "hard vote": VotingClassifier([("a", scaled(LinearSVC())), ("b", scaled(SVC()))]),
}


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", NUMBERS_REFUSED)
def test_a_row_that_the_estimator_refuses_is_an_error_of_the_file(name, number, tmp_path):
    model = NUMBERS_REFUSED[name].fit(WINE.data, WINE.target)
    export_onnx(model, tmp_path / "m.onnx")
    rows = WINE.data[:3].copy()
    rows.iloc[1, 2] = number
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        model.predict(rows)
    file = OnnxPredictor(tmp_path / "m.onnx", device="cpu")
    with pytest.raises(DataError) as refused:
        file.predict(rows)
    assert refused.value.row == 1
    assert file.predict(rows.drop(index=1)).tolist() == model.predict(rows.drop(index=1)).tolist()


@pytest.mark.parametrize("final", [LinearSVC(), SVC(), DecisionTreeClassifier(), RandomForestClassifier(3)])
def test_a_text_that_is_missing_is_an_error_of_the_file(final, tmp_path):
    X = pd.DataFrame({"text": ["ripe apple", "steel saw"] * 10, "weight": [1.0, 2.0] * 10})
    model = on_column("text", make_pipeline(TfidfVectorizer(), final)).fit(X, ["fruit", "tool"] * 10)
    export_onnx(model, tmp_path / "m.onnx")
    file = OnnxPredictor(tmp_path / "m.onnx", device="cpu")
    with pytest.raises(DataError) as refused:
        file.predict(pd.DataFrame({"text": ["apple", None]}))
    assert refused.value.row == 1


def test_a_missing_text_of_a_member_is_no_error(tmp_path):
    X = pd.DataFrame({"text": ["ripe apple", "steel saw"] * 10, "weight": [1.0, 2.0] * 10})
    members = [("text", make_pipeline(TfidfVectorizer(), DecisionTreeClassifier()), "text")]
    members.append(("weight", RandomForestClassifier(3), ["weight"]))
    model = MultimodalClassifier(members).fit(X, ["fruit", "tool"] * 10)
    export_onnx(model, tmp_path / "m.onnx")
    rows = pd.DataFrame({"text": ["apple", None, None], "weight": [1.0, 2.0, np.nan]})
    file = OnnxPredictor(tmp_path / "m.onnx", device="cpu")
    np.testing.assert_allclose(file.predict_proba(rows), model.predict_proba(rows), rtol=0, atol=1e-6)


STRATEGIES = [
    SoftVoting(),
    HardVoting(),
    ProductOfExperts(),
    LogOpinionPool(cv=2),
    EnsembleSelection(cv=2),
    Stacking(cv=2),
    SuperLearner(cv=2),
    SuperLearner([HardVoting()], cv=2),
    LinearFusion(cv=2),
]


def reads_columns(fusion):
    """Whether a strategy with members of its own is among those that were taken."""
    return any(isinstance(strategy, LinearFusion) for _, strategy in getattr(fusion, "candidates_", []))


@pytest.mark.parametrize("useful", [True, False])
@pytest.mark.parametrize("fusion", STRATEGIES, ids=lambda fusion: type(fusion).__name__)
def test_what_a_member_refuses_the_file_refuses_if_the_strategy_asks_it(fusion, useful, tmp_path):
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(80, 3)), columns=["a", "b", "c"])
    y = np.where(X["a"] + X["b"] > 0 if useful else X["c"] > 0, "yes", "no")
    members = [("two", LogisticRegression(), ["a", "b"]), ("one", LogisticRegression(), ["c"])]
    model = MultimodalClassifier(members, fusion=fusion).fit(X, y)
    export_onnx(model, tmp_path / "m.onnx")
    file = OnnxPredictor(tmp_path / "m.onnx", device="cpu")
    row = pd.DataFrame({"a": [np.nan], "b": [1.0], "c": [2.0]})
    if isinstance(model.fusion_, LinearFusion) or model.fusion_.takes_part()[0] or reads_columns(model.fusion_):
        with pytest.raises(ValueError, match="NaN"):
            model.predict(row)
        with pytest.raises(DataError):
            file.predict(row)
    else:
        assert isinstance(fusion, EnsembleSelection | LogOpinionPool | SuperLearner)
        assert not useful
        assert file.predict(row).tolist() == model.predict(row).tolist()


def test_a_difference_of_labels_that_are_words_is_told(tmp_path):
    X, _ = two_numbers()
    model = Shifted().fit(X, pd.Series(np.where(X["a"] > 0, "yes", "no")))
    with pytest.raises(ParityError, match=r"differ by 0\.001"):
        export_onnx(model, tmp_path / "m.onnx")
