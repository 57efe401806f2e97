"""Whatever scikit-learn composes is exported whole: one parity test over a list, on real rows; and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    ElasticNet,
    HuberRegressor,
    Lasso,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    RandomizedSearchCV,
    TunedThresholdClassifierCV,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.naive_bayes import ComplementNB, GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PowerTransformer,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC, LinearSVC, LinearSVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from mmensemble import (
    HardVoting,
    MultimodalClassifier,
    MultimodalRegressor,
    OnnxPredictor,
    SoftVoting,
    Stacking,
    export_onnx,
    on_column,
    to_graph,
)
from mmensemble.exceptions import ExportError
from mmensemble.export import Frame
from mmensemble.preprocessing import CategoryPreprocessor, preprocessor_from_dict
from mmensemble_estimators import TextClassifier
from tests.instances import multilabel

BATCH_SIZES = (1, 7, 64)
TOLERANCE = 1e-4
NUMBERS = ["length", "brightness"]

Target = Literal["classes", "binary", "multilabel", "columns", "numbers", "table"]


@pytest.fixture
def rows(items: pd.DataFrame) -> pd.DataFrame:
    """`items` with texts in every row, some Chinese, accented, empty or emoji, and a gappy group of the initials."""
    frame = items.reset_index()
    frame["text"] = frame["name"].fillna("")
    frame.loc[[7, 30, 77], "text"] = ["熊猫 和 竹子 panda", "São Tomé, CÔTE d’Ivoire", "🐼🐼 \u0130stanbul ﬁne ½"]
    frame["group"] = frame["initial"].where(frame.index % 4 > 0, "common")
    frame["mean"] = frame["brightness"].fillna(200.0)
    frame["size"] = frame["text"].str.len().astype(float)
    frame["bold"] = frame["mean"] > 150
    return frame


def target_of(kind: Target, frame: pd.DataFrame, labels: np.ndarray) -> Any:
    number = frame["size"].to_numpy() + 10 * (labels == "Flags") + 1
    return {
        "classes": lambda: labels,
        "binary": lambda: np.where(labels == "Flags", "flag", "other"),
        "multilabel": lambda: multilabel(labels),
        "columns": lambda: np.column_stack([labels, np.where(frame["size"] > 14, "long", "short")]),
        "numbers": lambda: number,
        "table": lambda: np.column_stack([number, frame["mean"].to_numpy() / 100]),
    }[kind]()


@dataclass(frozen=True)
class Case:
    """An estimator over `rows`."""

    id: str
    make: Callable[[], Any]
    target: Target = "classes"


def logistic(C: float = 10.0) -> LogisticRegression:
    return LogisticRegression(C=C, max_iter=300)


def words(**params: Any) -> TfidfVectorizer:
    return TfidfVectorizer(**params)


def text(final: Any = None) -> Pipeline:
    return on_column("text", make_pipeline(words(), logistic() if final is None else final))


def facts(final: Any = None) -> Pipeline:
    return on_column(NUMBERS, make_pipeline(SimpleImputer(), StandardScaler(), logistic() if final is None else final))


def groups(encoder: Any, final: Any = None) -> Pipeline:
    return on_column(["group", "initial", "bold"], make_pipeline(encoder, logistic() if final is None else final))


def members() -> list[tuple[str, Any]]:
    return [("text", text()), ("facts", facts()), ("trees", facts(DecisionTreeClassifier(max_depth=3, random_state=0)))]


def regressors() -> list[tuple[str, Any]]:
    return [
        ("text", text(Ridge())),
        ("facts", facts(LinearRegression())),
        ("trees", facts(DecisionTreeRegressor(random_state=0))),
    ]


def voting(**params: Any) -> VotingClassifier:
    return VotingClassifier(members(), **params)


def stacking(final: Any = None, **params: Any) -> StackingClassifier:
    return StackingClassifier(members(), final, **{"cv": 2, **params})


def columns(**params: Any) -> ColumnTransformer:
    return ColumnTransformer(
        [
            ("words", words(), "text"),
            ("letters", words(analyzer="char_wb", ngram_range=(2, 3)), "text"),
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS),
            ("groups", OneHotEncoder(handle_unknown="ignore"), ["group", "initial"]),
        ],
        **params,
    )


def union(**params: Any) -> FeatureUnion:
    return FeatureUnion(
        [
            ("words", on_column("text", words())),
            ("numbers", on_column(NUMBERS, make_pipeline(SimpleImputer(), StandardScaler()))),
            ("letters", on_column("text", words(analyzer="char", ngram_range=(1, 2)))),
        ],
        **params,
    )


def multimodal(fusion: Any = None, **params: Any) -> MultimodalClassifier:
    members = [
        ("name", make_pipeline(words(), logistic()), "name"),
        ("facts", make_pipeline(SimpleImputer(), StandardScaler(), logistic()), NUMBERS),
        ("initial", make_pipeline(OneHotEncoder(handle_unknown="ignore"), logistic()), ["initial"]),
    ]
    return MultimodalClassifier(members, fusion=fusion, **params)


def text_vectors(final: Any) -> Pipeline:
    """A pipeline in which hardly two rows are alike."""
    steps = words(analyzer="char", ngram_range=(1, 2)), TruncatedSVD(5, random_state=0), final
    return on_column("text", make_pipeline(*steps))


def tiny_text() -> Pipeline:
    return on_column("text", TextClassifier(max_epochs=1, vocab_size=400, max_length=24, random_state=0))


class OfHalf(BaseEstimator):
    """A composition of members that were fitted before on half of the rows."""

    def __init__(self, make: Callable[[list[tuple[str, Any]]], Any]) -> None:
        self.make = make

    def fit(self, X: pd.DataFrame, y: np.ndarray) -> Any:
        half = np.arange(len(X)) % 2 == 0
        prefit = [(name, member.fit(X[half], y[half])) for name, member in members()]
        return self.make(prefit).fit(X[~half], y[~half])


def calibrated_frozen(prefit: list[tuple[str, Any]]) -> CalibratedClassifierCV:
    return CalibratedClassifierCV(FrozenEstimator(prefit[0][1]), cv=2, method="isotonic")


VECTORIZERS = {
    "default": words(),
    "bigrams": words(ngram_range=(1, 2), sublinear_tf=True),
    "only bigrams": words(ngram_range=(2, 3), token_pattern=r"(?u)\b\w+\b"),
    "l1": words(norm="l1", smooth_idf=False),
    "no norm": words(norm=None, use_idf=False),
    "binary": words(binary=True, min_df=2),
    "char": words(analyzer="char", ngram_range=(1, 3), strip_accents="ascii", max_features=200),
    "char_wb": words(analyzer="char_wb", ngram_range=(2, 5), strip_accents="unicode"),
    "stop words": words(stop_words="english", lowercase=False),
    "stop list": words(stop_words=["of", "face"], token_pattern=r"(\w)\w*", ngram_range=(1, 2)),
    "vocabulary": words(vocabulary=["flag", "face", "panda", "woman"]),
    "float32": words(dtype=np.float32),
    "counts": CountVectorizer(),
    "binary counts": CountVectorizer(binary=True, ngram_range=(1, 2)),
}

CLASSIFIERS = {
    "logistic": logistic(),
    "logistic_cv": LogisticRegressionCV(
        Cs=2, cv=2, l1_ratios=(0,), use_legacy_attributes=False, scoring="neg_log_loss"
    ),
    "random_forest": RandomForestClassifier(20, random_state=0),
    "extra_trees": ExtraTreesClassifier(20, random_state=0),
    "tree": DecisionTreeClassifier(random_state=0),
    "gradient_boosting": GradientBoostingClassifier(n_estimators=5, random_state=0),
    "hist_gradient_boosting": HistGradientBoostingClassifier(max_iter=8, min_samples_leaf=3),
    "gaussian_nb": GaussianNB(),
    "mlp": MLPClassifier((8,), max_iter=30, random_state=0),
    "sgd": SGDClassifier(loss="log_loss", random_state=0),
    "sgd_huber": SGDClassifier(loss="modified_huber", alpha=0.1, random_state=0),
    "discriminant": LinearDiscriminantAnalysis(),
    "bagging": BaggingClassifier(DecisionTreeClassifier(max_depth=3), 3, random_state=0),
    "one_vs_rest": OneVsRestClassifier(logistic()),
    "calibrated_svm": CalibratedClassifierCV(LinearSVC(), cv=2),
    "calibrated_kernel_svm": CalibratedClassifierCV(SVC(), cv=2, ensemble=False),
    "calibrated_poly_svm": CalibratedClassifierCV(SVC(kernel="poly", degree=2, coef0=1.0), cv=2),
    "calibrated_ridge": CalibratedClassifierCV(RidgeClassifier(), cv=2, ensemble=False),
    "calibrated_boosting": CalibratedClassifierCV(GradientBoostingClassifier(n_estimators=3, random_state=0), cv=2),
}

REGRESSORS = {
    "ridge": Ridge(),
    "lasso": Lasso(),
    "elastic_net": ElasticNet(),
    "huber": HuberRegressor(max_iter=1000),
    "sgd": SGDRegressor(random_state=0),
    "svr": LinearSVR(random_state=0, max_iter=10000),
    "poisson": PoissonRegressor(),
    "forest": RandomForestRegressor(10, random_state=0),
    "extra_trees": ExtraTreesRegressor(10, random_state=0),
    "gradient_boosting": GradientBoostingRegressor(n_estimators=10, random_state=0),
    "hist_gradient_boosting": HistGradientBoostingRegressor(max_iter=8, min_samples_leaf=3),
    "hist_poisson": HistGradientBoostingRegressor(loss="poisson", max_iter=8, min_samples_leaf=3),
}

ENCODERS = {
    "one_hot": OneHotEncoder(handle_unknown="ignore"),
    "drop": OneHotEncoder(handle_unknown="ignore", drop="first"),
    "if_binary": OneHotEncoder(handle_unknown="ignore", drop="if_binary", sparse_output=False),
    "infrequent": OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=4),
    "max_categories": OneHotEncoder(handle_unknown="ignore", max_categories=3, drop="first"),
    "ordinal": OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2),
    "imputed": make_pipeline(
        SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore", categories="auto")
    ),
    "constant": make_pipeline(
        SimpleImputer(strategy="constant", fill_value="none"), OneHotEncoder(handle_unknown="ignore")
    ),
    "target": TargetEncoder(),
}

TARGET_TRANSFORMERS: dict[str, dict[str, Any]] = {
    "standard": {"transformer": StandardScaler()},
    "min_max": {"transformer": MinMaxScaler()},
    "robust": {"transformer": make_pipeline(RobustScaler(), MaxAbsScaler())},
    "logarithm": {"func": np.log1p, "inverse_func": np.expm1},
    "root": {"func": np.sqrt, "inverse_func": np.square},
}


def calibrated(method: str, ensemble: bool, make: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: CalibratedClassifierCV(make(), method=method, ensemble=ensemble, cv=2)


CASES = [
    *(
        Case(f"voting_{name}", lambda params=params: voting(**params))
        for name, params in {
            "soft": {"voting": "soft"},
            "soft_weights": {"voting": "soft", "weights": [1, 2, 0.5]},
            "hard": {"voting": "hard"},
            "hard_weights": {"voting": "hard", "weights": [0.3, 0.1, 0.2]},
        }.items()
    ),
    Case("voting_dropped", lambda: voting(voting="soft", weights=[1, 5, 2]).set_params(facts="drop")),
    Case("voting_hard_dropped", lambda: voting(weights=[1, 5, 2]).set_params(facts="drop")),
    Case("voting_binary", lambda: voting(voting="soft"), "binary"),
    Case("voting_hard_binary", lambda: voting(), "binary"),
    Case(
        "voting_hard_without_probabilities",
        lambda: VotingClassifier(
            [
                ("svm", text(LinearSVC())),
                ("ridge", facts(RidgeClassifier())),
                ("tree", text(DecisionTreeClassifier(random_state=0))),
            ]
        ),
    ),
    Case("voting_network", lambda: VotingClassifier([("net", tiny_text()), *members()], voting="soft")),
    Case("voting_regressor", lambda: VotingRegressor(regressors()), "numbers"),
    Case("voting_regressor_weights", lambda: VotingRegressor(regressors(), weights=[1, 2, 3]), "numbers"),
    Case("voting_regressor_dropped", lambda: VotingRegressor(regressors()).set_params(text="drop"), "numbers"),
    Case("stacking", stacking),
    Case("stacking_binary", stacking, "binary"),
    Case("stacking_forest", lambda: stacking(RandomForestClassifier(5, max_depth=2, random_state=0)), "binary"),
    Case("stacking_dropped", lambda: stacking().set_params(facts="drop")),
    Case("stacking_predict", lambda: stacking(stack_method="predict")),
    Case("stacking_predict_binary", lambda: stacking(stack_method="predict"), "binary"),
    Case(
        "stacking_decisions",
        lambda: StackingClassifier(
            [("svm", text(LinearSVC())), ("ridge", facts(RidgeClassifier())), ("logistic", facts())],
            cv=2,
            stack_method="decision_function",
        ),
    ),
    Case(
        "stacking_mixed_methods_binary",
        lambda: StackingClassifier([("svm", text(LinearSVC())), ("facts", facts())], cv=2),
        "binary",
    ),
    Case("stacking_nested", lambda: StackingClassifier([("inner", stacking(logistic())), ("facts", facts())], cv=2)),
    Case("stacking_prefit", lambda: OfHalf(lambda prefit: StackingClassifier(prefit, cv="prefit"))),
    Case("stacking_prefit_binary", lambda: OfHalf(lambda prefit: StackingClassifier(prefit, cv="prefit")), "binary"),
    Case(
        "stacking_frozen",
        lambda: OfHalf(lambda prefit: StackingClassifier([(n, FrozenEstimator(m)) for n, m in prefit], cv=2)),
    ),
    Case(
        "stacking_thresholded",
        lambda: stacking(FixedThresholdClassifier(logistic(), threshold=0.3, pos_label=1)),
        "binary",
    ),
    Case("stacking_regressor", lambda: StackingRegressor(regressors(), cv=2), "numbers"),
    Case(
        "stacking_regressor_dropped", lambda: StackingRegressor(regressors(), cv=2).set_params(text="drop"), "numbers"
    ),
    Case("pipeline_columns", lambda: make_pipeline(columns(), logistic())),
    Case(
        "pipeline_columns_on_column",
        lambda: on_column(["text", "group", "initial", *NUMBERS], make_pipeline(columns(), logistic())),
    ),
    Case(
        "pipeline_columns_weights",
        lambda: make_pipeline(columns(transformer_weights={"words": 2.0, "numbers": 0.5}), logistic()),
    ),
    Case("pipeline_columns_forest", lambda: make_pipeline(columns(), RandomForestClassifier(10, random_state=0))),
    Case(
        "columns_of_indices",
        lambda: make_pipeline(
            FeatureUnion([("numbers", on_column([*NUMBERS, "size"], SimpleImputer()))]),
            ColumnTransformer([("two", StandardScaler(), [0, 2])], remainder="passthrough"),
            logistic(),
        ),
    ),
    Case(
        "columns_passed_through",
        lambda: make_pipeline(
            ColumnTransformer([("scaled", StandardScaler(), ["size"]), ("as_is", "passthrough", ["mean"])]), logistic()
        ),
    ),
    Case("feature_union", lambda: make_pipeline(union(), logistic())),
    Case("feature_union_weights", lambda: make_pipeline(union(transformer_weights={"words": 3.0}), logistic())),
    Case("feature_union_trees", lambda: make_pipeline(union(), ExtraTreesClassifier(10, random_state=0))),
    Case(
        "feature_union_dropped",
        lambda: make_pipeline(union().set_params(letters="drop"), StandardScaler(with_mean=False), logistic()),
    ),
    Case(
        "feature_union_of_vectorizers",
        lambda: on_column("text", make_pipeline(make_union(words(), words(analyzer="char")), logistic())),
    ),
    *(
        Case(f"calibrated_{method}_{ensemble}_{name}", calibrated(method, ensemble, make), target)
        for method in ("sigmoid", "isotonic", "temperature")
        for ensemble in (True, False)
        for name, make, target in (
            ("classes", lambda: stacking(logistic()), "classes"),
            ("binary", lambda: voting(voting="soft"), "binary"),
        )
    ),
    Case("calibrated_multimodal", lambda: CalibratedClassifierCV(multimodal(), cv=2)),
    Case("calibrated_frozen", lambda: OfHalf(calibrated_frozen), "binary"),
    Case("one_vs_rest", lambda: OneVsRestClassifier(text())),
    Case("one_vs_rest_of_labels", lambda: OneVsRestClassifier(make_pipeline(columns(), logistic())), "multilabel"),
    Case("multi_output", lambda: MultiOutputClassifier(voting(voting="soft")), "columns"),
    Case("multi_output_forest", lambda: facts(RandomForestClassifier(5, random_state=0)), "columns"),
    Case("multi_output_regressor", lambda: MultiOutputRegressor(VotingRegressor(regressors())), "table"),
    Case("two_targets", lambda: facts(Ridge()), "table"),
    Case("two_targets_forest", lambda: facts(RandomForestRegressor(5, random_state=0)), "table"),
    *(
        Case(f"target_{name}", lambda params=params: TransformedTargetRegressor(text(Ridge()), **params), "numbers")
        for name, params in TARGET_TRANSFORMERS.items()
    ),
    Case("target_of_two", lambda: TransformedTargetRegressor(text(Ridge()), transformer=StandardScaler()), "table"),
    Case("frozen", lambda: OfHalf(lambda prefit: FrozenEstimator(prefit[0][1]))),
    Case("tuned_threshold", lambda: TunedThresholdClassifierCV(stacking(logistic()), cv=2), "binary"),
    Case("fixed_threshold", lambda: FixedThresholdClassifier(text(), threshold=0.7, pos_label="flag"), "binary"),
    Case(
        "threshold_of_decision",
        lambda: FixedThresholdClassifier(text(), threshold=-0.4, pos_label="flag", response_method="decision_function"),
        "binary",
    ),
    Case(
        "threshold_in_search",
        lambda: GridSearchCV(FixedThresholdClassifier(facts(), pos_label="flag"), {"threshold": [0.2, 0.3]}, cv=2),
        "binary",
    ),
    Case(
        "threshold_in_hard_voting",
        lambda: VotingClassifier(
            [("eager", FixedThresholdClassifier(text(), threshold=0.1, pos_label=0)), ("facts", facts())]
        ),
        "binary",
    ),
    Case("grid_search", lambda: GridSearchCV(text(), {"estimator__logisticregression__C": [1, 10]}, cv=2)),
    Case(
        "randomized_search",
        lambda: RandomizedSearchCV(voting(voting="soft"), {"weights": [[1, 2, 3], [3, 2, 1]]}, n_iter=2, cv=2),
    ),
    *(Case(f"numbers_{name}", lambda final=final: facts(final)) for name, final in CLASSIFIERS.items()),
    *(Case(f"binary_{name}", lambda final=final: facts(final), "binary") for name, final in CLASSIFIERS.items()),
    *(Case(f"regressor_{name}", lambda final=final: facts(final), "numbers") for name, final in REGRESSORS.items()),
    *(
        Case(f"unscaled_{name}", lambda final=CLASSIFIERS[name]: on_column(NUMBERS, final))
        for name in ("random_forest", "extra_trees", "tree", "hist_gradient_boosting")
    ),
    *(
        Case(f"text_{name.replace(' ', '_')}", lambda v=v: on_column("text", make_pipeline(v, logistic())))
        for name, v in VECTORIZERS.items()
    ),
    Case("text_alone", lambda: OnTexts(make_pipeline(words(), logistic()))),
    Case(
        "text_counts_weighed",
        lambda: on_column("text", make_pipeline(CountVectorizer(), TfidfTransformer(), logistic())),
    ),
    Case("text_naive_bayes", lambda: text(MultinomialNB())),
    Case("text_complement_nb", lambda: text(ComplementNB())),
    Case(
        "text_svd",
        lambda: on_column(
            "text", make_pipeline(words(), TruncatedSVD(10, random_state=0), StandardScaler(), logistic())
        ),
    ),
    Case("text_svm", lambda: CalibratedClassifierCV(text(LinearSVC()), cv=2)),
    Case("text_forest", lambda: text(RandomForestClassifier(10, random_state=0))),
    Case(
        "text_gradient_boosting",
        lambda: on_column(
            "text", make_pipeline(CountVectorizer(), GradientBoostingClassifier(n_estimators=3, random_state=0))
        ),
    ),
    Case("text_neighbors", lambda: text_vectors(KNeighborsClassifier(5))),
    Case("text_neighbors_regressor", lambda: text_vectors(KNeighborsRegressor(5, weights="distance")), "numbers"),
    Case("text_scaled", lambda: on_column("text", make_pipeline(words(), MaxAbsScaler(), logistic()))),
    *(Case(f"encoder_{name}", lambda encoder=encoder: groups(encoder)) for name, encoder in ENCODERS.items()),
    Case("encoder_trees", lambda: groups(ENCODERS["ordinal"], HistGradientBoostingClassifier(max_iter=5))),
    Case("encoder_target_binary", lambda: groups(ENCODERS["target"]), "binary"),
    Case("encoder_target_numbers", lambda: groups(TargetEncoder(target_type="continuous"), Ridge()), "numbers"),
    Case(
        "svm_votes",
        lambda: VotingClassifier([("svm", facts(SVC(kernel="sigmoid"))), ("linear", facts(SVC(kernel="linear")))]),
    ),
    Case("svm_decisions", lambda: StackingClassifier([("svm", facts(SVC())), ("text", text())], cv=2)),
    Case("svm_probability", lambda: facts(SVC(probability=True, random_state=0)), "binary"),
    Case("pca", lambda: on_column(NUMBERS, make_pipeline(SimpleImputer(add_indicator=True), PCA(3), logistic()))),
    Case("power", lambda: facts(make_pipeline(PowerTransformer(), logistic()))),
    Case("function", lambda: on_column(["size", "mean"], make_pipeline(FunctionTransformer(np.log1p), logistic()))),
    Case("plain_frame", lambda: OnColumns(["size", "mean"], make_pipeline(StandardScaler(), logistic()))),
    Case("passthrough", lambda: OnColumns(["size", "mean"], passing_through())),
    Case("passthrough_binary", lambda: OnColumns(["size", "mean"], passing_through()), "binary"),
    Case(
        "passthrough_regressor",
        lambda: OnColumns(
            ["size", "mean"],
            StackingRegressor(
                [
                    ("size", on_column(["size"], Ridge())),
                    ("mean", on_column(["mean"], DecisionTreeRegressor(max_depth=2, random_state=0))),
                ],
                passthrough=True,
                cv=2,
            ),
        ),
        "numbers",
    ),
    Case("multimodal", multimodal),
    Case("multimodal_binary", lambda: multimodal(SoftVoting(weights=[1, 2, 0.3])), "binary"),
    Case("multimodal_hard", lambda: multimodal(HardVoting())),
    Case("multimodal_stacking", lambda: multimodal(Stacking(cv=2, passthrough=NUMBERS))),
    Case(
        "multimodal_calibrated_member",
        lambda: MultimodalClassifier(
            [
                ("name", CalibratedClassifierCV(make_pipeline(words(), logistic()), cv=2), "name"),
                ("facts", HistGradientBoostingClassifier(max_iter=5, min_samples_leaf=3), NUMBERS),
            ]
        ),
    ),
    Case(
        "multimodal_nested",
        lambda: MultimodalClassifier(
            [
                ("inner", multimodal(), ["name", "initial", *NUMBERS]),
                (
                    "vote",
                    VotingClassifier(
                        [
                            (
                                "a",
                                on_column(
                                    "initial",
                                    make_pipeline(FunctionTransformer(), CountVectorizer(analyzer="char"), logistic()),
                                ),
                            )
                        ],
                        voting="soft",
                    ),
                    ["initial"],
                ),
                ("same", make_pipeline(words(analyzer="char"), logistic()), "name"),
            ],
            fusion=SoftVoting(weights=[2, 1, 1]),
        ),
    ),
    Case(
        "multimodal_multilabel",
        lambda: MultimodalClassifier(
            [
                ("name", make_pipeline(words(), OneVsRestClassifier(logistic())), "name"),
                ("facts", make_pipeline(SimpleImputer(), MultiOutputClassifier(logistic())), NUMBERS),
                ("trees", RandomForestClassifier(5, random_state=0), NUMBERS),
            ]
        ),
        "multilabel",
    ),
    Case(
        "multimodal_regressor",
        lambda: MultimodalRegressor(
            [
                ("name", make_pipeline(words(), Ridge()), "name"),
                ("facts", HistGradientBoostingRegressor(max_iter=5, min_samples_leaf=3), NUMBERS),
            ],
            fusion=Stacking(cv=2),
        ),
        "numbers",
    ),
    Case(
        "multimodal_columns_not_read",
        lambda: MultimodalClassifier(
            [
                (
                    "facts",
                    make_pipeline(ColumnTransformer([("mean", "passthrough", ["mean"])]), logistic()),
                    ["mean", "initial"],
                ),
                ("name", make_pipeline(words(), logistic()), "name"),
            ]
        ),
    ),
]


class OnTexts(BaseEstimator):
    """An estimator that is fitted on the texts alone, and has no name for them."""

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def fit(self, X: pd.DataFrame, y: Any) -> Any:
        return self.estimator.fit(list(X["text"]), y)


class OnColumns(BaseEstimator):
    """An estimator that is fitted on a frame of some columns."""

    def __init__(self, columns: list[str], estimator: Any) -> None:
        self.columns = columns
        self.estimator = estimator

    def fit(self, X: pd.DataFrame, y: Any) -> Any:
        return self.estimator.fit(X[self.columns], y)


def passing_through() -> StackingClassifier:
    return StackingClassifier(
        [("size", on_column(["size"], logistic())), ("mean", on_column(["mean"], GaussianNB()))],
        passthrough=True,
        cv=2,
    )


def taken(model: Any, wrapper: Any, X: pd.DataFrame) -> Any:
    if isinstance(wrapper, OnTexts):
        return list(X["text"])
    return X[wrapper.columns] if isinstance(wrapper, OnColumns) else X


# That a model converges, and knows every category, is of no interest here.
@pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning",
    "ignore:Found unknown categories",
    "ignore:The `probability` parameter",
)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_parity(case: Case, tmp_path: Path, rows: pd.DataFrame, labels: np.ndarray) -> None:
    y = target_of(case.target, rows, labels)
    wrapper = case.make()
    train = np.arange(len(rows)) < 66
    model = wrapper.fit(rows[train], y[train])
    X = taken(model, wrapper, rows)
    export_onnx(model, tmp_path / "model.onnx")
    expected = model.predict(X)
    for batch_size in BATCH_SIZES:
        predictor = OnnxPredictor(tmp_path / "model.onnx", device="cpu", batch_size=batch_size)
        predicted = predictor.predict(X)
        assert predicted.shape == expected.shape
        if case.target in ("numbers", "table"):
            scale = np.abs(expected).max()
            np.testing.assert_allclose(predicted / scale, expected / scale, rtol=0, atol=TOLERANCE)
            continue
        assert predicted.tolist() == expected.tolist()
        if hasattr(model, "predict_proba"):
            ours, theirs = predictor.predict_proba(X), model.predict_proba(X)
            for one, other in zip(ours, theirs, strict=True) if isinstance(theirs, list) else [(ours, theirs)]:
                np.testing.assert_allclose(one, other, rtol=0, atol=TOLERANCE)


# --- what is refused: which part, and why


def shout(text: str) -> str:
    return text.upper()


class Unknown(TransformerMixin, BaseEstimator):
    def fit(self, X: Any, y: Any = None) -> Unknown:
        self.n_features_in_ = 1
        return self

    def transform(self, X: Any) -> Any:
        return X**2


REFUSED = {
    "tokenizer": (
        lambda: text_by(words(tokenizer=str.split, token_pattern=None)),
        r"estimator/tfidfvectorizer: TfidfVectorizer\(tokenizer=...\) is Python code",
    ),
    "preprocessor": (
        lambda: VotingClassifier([("one", text_by(words(preprocessor=shout))), ("two", text())], voting="soft"),
        r"one/estimator/tfidfvectorizer: TfidfVectorizer\(preprocessor=...\) is Python code",
    ),
    "analyzer": (
        lambda: make_pipeline(ColumnTransformer([("words", CountVectorizer(analyzer=str.split), "text")]), logistic()),
        r"columntransformer/words: CountVectorizer\(analyzer=...\) is Python code",
    ),
    "strip_accents": (lambda: text_by(words(strip_accents=shout)), r"TfidfVectorizer\(strip_accents=...\)"),
    "hashing": (
        lambda: text_by(HashingVectorizer(tokenizer=str.split, token_pattern=None, n_features=64)),
        r"estimator/hashingvectorizer: HashingVectorizer\(tokenizer=...\) is Python code",
    ),
    "function": (
        lambda: on_column(NUMBERS, make_pipeline(SimpleImputer(), FunctionTransformer(np.nan_to_num), logistic())),
        r"estimator/functiontransformer: cannot convert FunctionTransformer\(func=nan_to_num\), which is Python code",
    ),
    "inverse": (
        lambda: TransformedTargetRegressor(text(Ridge()), transformer=PowerTransformer()),
        "transformer: the inverse_transform of PowerTransformer has no ONNX form",
    ),
    "unknown": (
        lambda: MultimodalClassifier([("facts", make_pipeline(Unknown(), logistic()), ["mean"])]),
        "facts/unknown: skl2onnx cannot convert Unknown",
    ),
    "threshold": (
        lambda: FixedThresholdClassifier(
            facts(GradientBoostingClassifier(n_estimators=2, random_state=0)),
            pos_label="Flags",
            response_method="decision_function",
        ),
        "GradientBoostingClassifier: its threshold is no threshold of a probability",
    ),
    "categorical": (
        lambda: on_column(["mean"], HistGradientBoostingClassifier(categorical_features=[0], max_iter=2)),
        "HistGradientBoostingClassifier has categorical features",
    ),
    "init": (
        lambda: on_column(["mean"], GradientBoostingClassifier(init=GaussianNB(), n_estimators=2)),
        r"GradientBoostingClassifier\(init=GaussianNB\(\)\) starts from an estimator",
    ),
}


def text_by(vectorizer: Any) -> Pipeline:
    return on_column("text", make_pipeline(vectorizer, logistic()))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, tmp_path: Path, rows: pd.DataFrame, labels: np.ndarray) -> None:
    make, message = REFUSED[name]
    estimator = make()
    y: Any = np.where(labels == "Flags", "Flags", "other") if name == "threshold" else labels
    model = estimator.fit(rows, rows["size"] if name == "inverse" else y)
    with pytest.raises(ExportError, match=message):
        export_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_part_that_is_refused_is_found_before_a_network_is_exported(
    tmp_path: Path, rows: pd.DataFrame, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [("net", tiny_text()), ("words", text_by(words(preprocessor=shout)))]
    model = VotingClassifier(members, voting="soft").fit(rows, labels)
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: pytest.fail("the network was exported"))
    with pytest.raises(ExportError, match="words/estimator/tfidfvectorizer"):
        export_onnx(model, tmp_path / "model.onnx")


# --- what a file does with rows that scikit-learn refuses, and how it is verified


def test_rows_that_an_estimator_refuses_are_errors_of_their_own(
    tmp_path: Path, rows: pd.DataFrame, labels: np.ndarray
) -> None:
    model = VotingClassifier(
        [
            ("text", text()),
            ("group", groups(OneHotEncoder())),
            ("boost", on_column(["mean"], GradientBoostingClassifier(n_estimators=2, random_state=0))),
        ],
        voting="soft",
    ).fit(rows, labels)
    export_onnx(model, tmp_path / "model.onnx")
    predictor = OnnxPredictor(tmp_path / "model.onnx", device="cpu")
    bad = rows.head(6).copy()
    bad.loc[0, "text"] = None
    bad.loc[1, "group"] = "unseen"
    bad.loc[2, "mean"] = np.nan
    bad.loc[3, "text"] = 5
    (window,) = predictor.score_batches([bad])
    assert [error is not None for error in window.errors] == [True, True, True, True, False, False]
    assert "'unseen' is none of the categories" in window.errors[1].message
    np.testing.assert_allclose(window.outputs[4:], model.predict_proba(bad[4:]), atol=TOLERANCE)


@pytest.mark.parametrize("voting", ["soft", "hard"])
def test_verified(tmp_path: Path, rows: pd.DataFrame, labels: np.ndarray, voting: str) -> None:
    model = VotingClassifier(members(), voting=voting).fit(rows, labels)
    manifest = export_onnx(model, tmp_path / "model.onnx", verify=rows[:20])
    assert manifest.parity["max_abs_difference"] < TOLERANCE
    assert manifest.parity["equal_labels"] == 1
    predictor = OnnxPredictor(tmp_path / "model.onnx", device="cpu")
    assert predictor.classes_.tolist() == model.classes_.tolist()
    if voting == "hard":
        with pytest.raises(AttributeError, match="predict_proba"):
            predictor.predict_proba(rows)
        assert manifest.task.probability_columns()[0] == "votes_Animals & Nature"


def test_equal_votes_fall_as_in_scikit_learn(tmp_path: Path, rows: pd.DataFrame, labels: np.ndarray) -> None:
    # In float64 0.1 + 0.2 is more than 0.3, in float32 it is not.
    model = VotingClassifier([("a", text()), *members()[1:]], weights=[0.3, 0.1, 0.2]).fit(rows, labels)
    export_onnx(model, tmp_path / "model.onnx")
    assert OnnxPredictor(tmp_path / "model.onnx").predict(rows).tolist() == model.predict(rows).tolist()


def test_vectorizers_that_read_alike_share_an_input(tmp_path: Path, rows: pd.DataFrame, labels: np.ndarray) -> None:
    model = VotingClassifier(
        [("idf", text_by(words())), ("l1", text_by(words(norm="l1", use_idf=False)))], voting="soft"
    )
    export_onnx(model.fit(rows, labels), tmp_path / "model.onnx")
    (feed,) = OnnxPredictor(tmp_path / "model.onnx").manifest.feeds
    assert feed.columns == ("text",)


def test_a_linear_model_never_makes_whole_rows_of_terms(tmp_path: Path, rows: pd.DataFrame, labels: np.ndarray) -> None:

    export_onnx(make_pipeline(columns(), logistic()).fit(rows, labels), tmp_path / "model.onnx")
    operators = {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
    assert "ScatterElements" not in operators


def test_thresholds_fall_as_in_float64(tmp_path: Path) -> None:
    # Thresholds half way between neighbouring float32 numbers.
    x = np.nextafter(np.float32(1), np.float32(2)) + np.arange(64, dtype=np.float32) * np.float32(2**-23)
    frame = pd.DataFrame({"x": x})
    model = on_column(["x"], DecisionTreeClassifier()).fit(frame, np.arange(64) % 3)
    export_onnx(model, tmp_path / "model.onnx")
    assert OnnxPredictor(tmp_path / "model.onnx").predict(frame).tolist() == model.predict(frame).tolist()


@pytest.mark.parametrize("analyzer", ["word", "char", "char_wb"])
@pytest.mark.parametrize("ngram_range", [(1, 1), (1, 3), (2, 4)])
def test_texts_are_analyzed_as_by_scikit_learn(analyzer: str, ngram_range: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    characters = [*"aÁñß İ熊🐼ﬁ½ \t\n'_-9①x", "e\u0301"]
    texts = ["".join(rng.choice(characters, rng.integers(0, 30))) for _ in range(150)]
    for accents in (None, "ascii", "unicode"):
        vectorizer = CountVectorizer(analyzer=analyzer, ngram_range=ngram_range, strip_accents=accents)
        expected = vectorizer.fit(texts[:100]).transform(texts).toarray()
        source = Frame(columns="text")
        to_graph(vectorizer, source)
        state = json.loads(json.dumps(source.graph.feeds[0].preprocessor.to_dict(), ensure_ascii=False))
        preprocessor = preprocessor_from_dict(state)
        batch = preprocessor.collate(preprocessor.encode(texts), slice(None))
        counts = np.zeros(expected.shape)
        np.add.at(counts, (np.arange(len(texts))[:, None], batch["terms"]), batch["counts"])
        np.testing.assert_array_equal(counts, expected)


def test_none_and_nan_are_categories_of_their_own() -> None:
    both = CategoryPreprocessor({"x": ["a", None, float("nan")]})
    assert both.encode(["a", None, np.nan, pd.NA, "b", [1]]).items.ravel().tolist() == [0, 1, 2, 2, -1, -1]
    assert both == preprocessor_from_dict(json.loads(json.dumps(both.to_dict())))
    # A frame of another library gives None for NaN.
    assert CategoryPreprocessor({"x": ["a", float("nan")]}).encode([None]).items.tolist() == [[1]]
    filled = CategoryPreprocessor({"x": ["a", "b"]}, unknown="error", fill={"x": "b"}).encode([None, np.nan, "c"])
    assert filled.items[:2].tolist() == [[1], [1]]
    assert filled.errors == {2: "column 'x': 'c' is none of the categories seen in fit"}
    assert filled.present.tolist() == [False, False, False]
