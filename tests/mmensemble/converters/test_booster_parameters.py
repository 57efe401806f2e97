"""`can_export` answers for a booster's parameters, before it is fitted, as the export does afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import is_classifier

from mmensemble import MultimodalClassifier, can_export, to_graph
from mmensemble.exceptions import ExportError
from tests.mmensemble.converters.test_boosters import booster, rows

X = rows(n=80)[["a", "count"]].assign(few=np.arange(80) % 4)
LABELS = (X["a"] > 0).astype(int).to_numpy()
NUMBERS = (X["a"] ** 2 + 0.1).clip(upper=4).to_numpy()


def squared_error(y: Any, predicted: Any) -> Any:
    return predicted - y, np.ones_like(y)


class SquaredError:
    """As catboost takes an objective."""

    def calc_ders_range(self, predicted: Any, y: Any, weight: Any) -> list[tuple[float, float]]:
        return [(truth - value, -1.0) for value, truth in zip(predicted, y, strict=True)]


def each(name: str, *values: Any) -> list[dict[str, Any]]:
    return [{name: value} for value in values]


PARAMETERS: dict[tuple[str, str], list[dict[str, Any]]] = {
    ("xgboost", "Classifier"): [
        *each("booster", "gbtree", "dart", "gblinear"),
        *each("objective", None, "binary:logistic", "binary:logitraw", "binary:hinge", "rank:pairwise", squared_error),
        *each("tree_method", "approx", "exact"),
        {"multi_strategy": "multi_output_tree"},
        {"monotone_constraints": (1, 0, 0)},
        {"enable_categorical": True},
        {"enable_categorical": True, "feature_types": ["q", "q", "c"]},
        {"num_parallel_tree": 2},
        {"missing": 0.0},
        {"scale_pos_weight": 2.0},
    ],
    ("xgboost", "Regressor"): each(
        "objective",
        "reg:squaredlogerror",
        "reg:absoluteerror",
        "reg:pseudohubererror",
        "count:poisson",
        "reg:gamma",
        "reg:tweedie",
        "survival:cox",
        squared_error,
    ),
    ("xgboost", "RFClassifier"): [{}],
    ("xgboost", "Ranker"): [{}],
    ("lightgbm", "Classifier"): [
        *each("boosting_type", "gbdt", "dart", "goss"),
        {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
        *each("linear_tree", True, False),
        {"linear_trees": True},
        *each("zero_as_missing", True, False),
        *each("objective", "cross_entropy", "xentlambda", squared_error),
        {"application": "binary"},
        {"categorical_feature": [2]},
        {"cat_feature": "2"},
        {"monotone_constraints": [1, 0, 0]},
        {"extra_trees": True},
        {"use_missing": False},
    ],
    ("lightgbm", "Regressor"): [
        *each("objective", "l2_root", "mae", "huber", "fair", "poisson", "quantile", "mape", "gamma", "tweedie"),
        {"objective": squared_error},
        {"reg_sqrt": True},
    ],
    ("lightgbm", "Ranker"): [{}],
    ("catboost", "Classifier"): [
        *each("loss_function", "Logloss", "CrossEntropy", "Focal:focal_alpha=0.5;focal_gamma=1.5", "MultiClass"),
        {"objective": "Logloss"},
        *each("grow_policy", "Depthwise", "Lossguide"),
        {"nan_mode": "Max"},
        *each("cat_features", [2], ["few"], []),
        {"monotone_constraints": [1, 0, 0]},
    ],
    ("catboost", "Regressor"): [
        *each("loss_function", "MAE", "Quantile", "MultiQuantile:alpha=0.1,0.5", "Huber:delta=1", "Poisson"),
        {"loss_function": "RMSEWithUncertainty"},
        {"loss_function": SquaredError(), "eval_metric": "RMSE"},
    ],
}
CASES = [(library, kind, settings) for (library, kind), each in PARAMETERS.items() for settings in each]
REFUSED = {"gblinear", "binary:logitraw", "binary:hinge", "rank:pairwise", "survival:cox", "RMSEWithUncertainty"}


@pytest.mark.filterwarnings("ignore::UserWarning")  # of parameters that a booster does not read, or by another name
@pytest.mark.parametrize(("library", "kind", "settings"), CASES)
def test_the_answer_before_fit_is_that_of_the_export(library: str, kind: str, settings: dict[str, Any]) -> None:
    model = booster(library, kind, **{**settings, "n_estimators": 3})
    answer = can_export(model)
    if kind == "Ranker":
        model.fit(
            X, np.arange(80) % 3, **({"group": [40, 40]} if library == "lightgbm" else {"qid": [0] * 40 + [1] * 40})
        )
    else:
        model.fit(X, LABELS if is_classifier(model) else NUMBERS)
    assert bool(can_export(model)) == bool(answer), "fitted or not"
    if answer:
        to_graph(model)
        return
    with pytest.raises(ExportError) as caught:
        to_graph(model)
    assert answer.reasons == (str(caught.value),)
    assert " at 0x" not in answer.reasons[0]


def test_some_are_refused_and_others_not() -> None:
    for library, kind, settings in CASES:
        refused = any(isinstance(value, str) and value in REFUSED for value in settings.values())
        if refused:
            assert not can_export(booster(library, kind, **settings)), settings


def test_a_member_is_named() -> None:
    linear = booster("lightgbm", "Classifier", linear_tree=True)
    answer = can_export(MultimodalClassifier([("facts", linear, ["a"])]))
    assert answer.reasons == ("facts: LGBMClassifier(linear_tree=True) is not exported; leave linear_tree out",)
