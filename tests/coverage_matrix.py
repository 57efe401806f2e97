"""Every scikit-learn estimator, exported in every place where it can stand.

``python -m tests.coverage_matrix`` fits and exports all of them, which takes some minutes, and prints each cell that is
not equal, with the reason, and how many there are of each outcome. Names of estimators choose some. With ``--write``
the table goes into the documentation.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sklearn
from joblib import Parallel, delayed
from sklearn.base import is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import BaggingClassifier, BaggingRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils import all_estimators

from mmensemble import (
    DataError,
    ExportError,
    MultimodalClassifier,
    MultimodalRegressor,
    SoftVoting,
    Stacking,
    export_onnx,
    on_column,
)

TABLE = Path(__file__).parents[1] / "docs" / "guide" / "coverage.md"
N_ROWS = 120
COLUMNS = ["weight", "price", "count", "share"]
NUMBERS, WORDS, CATEGORIES = tuple(COLUMNS), ("note",), ("colour", "make", "weight")

# What takes an estimator, or a choice, that has no default.
GIVEN: dict[str, dict[str, Any]] = {
    "ClassifierChain": {"estimator": LogisticRegression()},
    "FixedThresholdClassifier": {"estimator": LogisticRegression()},
    "MultiOutputClassifier": {"estimator": LogisticRegression()},
    "MultiOutputRegressor": {"estimator": Ridge()},
    "OneVsOneClassifier": {"estimator": LogisticRegression()},
    "OneVsRestClassifier": {"estimator": LogisticRegression()},
    "OutputCodeClassifier": {"estimator": LogisticRegression(), "random_state": 0},
    "RFE": {"estimator": Ridge()},
    "RFECV": {"estimator": Ridge()},
    "RegressorChain": {"estimator": Ridge()},
    "SelectFromModel": {"estimator": Ridge()},
    "SelfTrainingClassifier": {"estimator": LogisticRegression()},
    "SequentialFeatureSelector": {"estimator": Ridge()},
    "StackingClassifier": {"estimators": [("a", LogisticRegression()), ("b", LogisticRegression(C=0.1))], "cv": 2},
    "StackingRegressor": {"estimators": [("a", Ridge()), ("b", Ridge(10.0))], "cv": 2},
    "TunedThresholdClassifierCV": {"estimator": LogisticRegression(), "cv": 2},
    "VotingClassifier": {"estimators": [("a", LogisticRegression()), ("b", LogisticRegression(C=0.1))]},
    "VotingRegressor": {"estimators": [("a", Ridge()), ("b", Ridge(10.0))]},
    "SparseCoder": {"dictionary": np.eye(4)},
    "ColumnTransformer": {"transformers": [("scaled", StandardScaler(), COLUMNS)]},
    "FeatureUnion": {"transformer_list": [("scaled", StandardScaler()), ("imputed", SimpleImputer())]},
    "GridSearchCV": {"estimator": LogisticRegression(), "param_grid": {"C": [0.1, 1.0]}, "cv": 2},
    "HalvingGridSearchCV": {"estimator": LogisticRegression(), "param_grid": {"C": [0.1, 1.0]}, "cv": 2},
    "HalvingRandomSearchCV": {"estimator": LogisticRegression(), "param_distributions": {"C": [0.1, 1.0]}, "cv": 2},
    "RandomizedSearchCV": {"estimator": LogisticRegression(), "param_distributions": {"C": [0.1, 1.0]}, "n_iter": 2},
    "Pipeline": {"steps": [("scaled", StandardScaler())]},
    "FrozenEstimator": {"estimator": LogisticRegression()},
}
# Fewer of what makes an estimator slow.
SMALLER: dict[str, Any] = {
    "n_estimators": 5,
    "max_iter": 100,
    "n_components": 2,
    "n_init": 1,
    "random_state": 0,
    "n_clusters": 3,
    "cv": 2,
    "n_quantiles": 20,
    "hidden_layer_sizes": (8,),
}
OWN = {"HistGradientBoostingClassifier": {"max_iter": 5}, "HistGradientBoostingRegressor": {"max_iter": 5}}


def rows(columns: tuple[str, ...], missing: float) -> Any:
    """Return some columns; cells are missing with a probability."""
    if columns == NUMBERS:
        return numbers(missing)
    rng, X = np.random.default_rng(1), numbers()
    X["colour"] = rng.choice(["red", "green", "blue", "grey"], size=N_ROWS)
    X["colour"] = X["colour"].where(X["weight"] > -1.5, "black")
    X["make"] = pd.qcut(X["weight"] + rng.normal(size=N_ROWS), 3, labels=["old", "used", "new"]).astype(str)
    X["note"] = X["make"] + " " + X["colour"] + rng.choice([" one", " of two", ", in a box", ""], size=N_ROWS)
    return X[list(columns)]


def numbers(missing: float = 0.0) -> pd.DataFrame:
    """Return columns of different sizes; cells are missing with a probability."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame(
        {
            "weight": rng.normal(size=N_ROWS),
            "price": rng.lognormal(3, 1, N_ROWS).round(2),
            "count": rng.integers(0, 40, N_ROWS).astype(float),
            "share": rng.random(N_ROWS),
        }
    )
    return X.mask(rng.random(X.shape) < missing) if missing else X


def targets(kind: str) -> Any:
    """Return a target of a kind, which the columns tell something of."""
    X = numbers()
    score = X["weight"] + np.log(X["price"]) / 3 + X["share"]
    binary = (score > score.median()).to_numpy()
    classes = pd.qcut(score + X["count"] / 40, 3, labels=False).to_numpy()
    made = {
        "strings": np.array(["low", "middle", "high"])[classes],
        "booleans": binary,
        "gaps": np.array([3, 7, 20])[classes],
        "two classes": np.where(binary, "yes", "no"),
        "labels": np.column_stack([binary, classes > 0, X["count"] > 20]).astype(int),
        "label columns": np.column_stack([np.where(binary, "yes", "no"), np.array(["a", "b", "c"])[classes]]),
        "number": score.to_numpy() * 10,
        "two numbers": np.column_stack([score, X["count"]]),
    }
    return made[kind]


@dataclass(frozen=True)
class Place:
    """A place where an estimator can stand, and the target that it has there."""

    name: str
    target: str
    build: Callable[[Any], Any]
    missing: float = 0.0
    columns: tuple[str, ...] = NUMBERS


def _on_words(estimator: Any) -> Any:
    return on_column("note", make_pipeline(TfidfVectorizer(), estimator))


def _on_categories(estimator: Any) -> Any:
    encoded = ("categories", OneHotEncoder(handle_unknown="ignore"), ["colour", "make"])
    return make_pipeline(ColumnTransformer([encoded], remainder="passthrough"), estimator)


def _member(estimator: Any, fusion: Any) -> Any:
    composition = MultimodalClassifier if is_classifier(estimator) else MultimodalRegressor
    other = LogisticRegression() if is_classifier(estimator) else Ridge()
    return composition([("own", estimator, COLUMNS[:3]), ("other", other, ["share"])], fusion=fusion)


def _meta(estimator: Any) -> Any:
    composition = MultimodalClassifier if is_classifier(estimator) else MultimodalRegressor
    member = LogisticRegression() if is_classifier(estimator) else Ridge()
    members = [("one", member, COLUMNS[:2]), ("two", member, COLUMNS[2:])]
    return composition(members, fusion=Stacking(estimator, cv=2))


def _behind(estimator: Any) -> Any:
    return make_pipeline(SimpleImputer(), StandardScaler(), estimator)


CLASSIFIERS = [
    Place("alone, strings", "strings", lambda e: e),
    Place("alone, booleans", "booleans", lambda e: e),
    Place("alone, gaps", "gaps", lambda e: e),
    Place("alone, labels", "labels", lambda e: e),
    Place("alone, label columns", "label columns", lambda e: e),
    Place("imputer, scaler", "strings", _behind, 0.1),
    Place("missing numbers", "two classes", lambda e: e, 0.1),
    Place("on words", "strings", _on_words, columns=WORDS),
    Place("on categories", "strings", _on_categories, columns=CATEGORIES),
    Place("member", "strings", lambda e: _member(e, SoftVoting())),
    Place("stacked", "strings", lambda e: _member(e, Stacking(cv=2))),
    Place("meta-learner", "strings", _meta),
    Place("bagged", "strings", lambda e: BaggingClassifier(e, 3, random_state=0)),
    Place("calibrated", "two classes", lambda e: CalibratedClassifierCV(e, cv=2)),
    Place("one-vs-rest", "strings", OneVsRestClassifier),
    Place("multi-output", "label columns", MultiOutputClassifier),
]
REGRESSORS = [
    Place("alone", "number", lambda e: e),
    Place("alone, two numbers", "two numbers", lambda e: e),
    Place("imputer, scaler", "number", _behind, 0.1),
    Place("missing numbers", "number", lambda e: e, 0.1),
    Place("on words", "number", _on_words, columns=WORDS),
    Place("on categories", "number", _on_categories, columns=CATEGORIES),
    Place("member", "number", lambda e: _member(e, SoftVoting())),
    Place("stacked", "number", lambda e: _member(e, Stacking(cv=2))),
    Place("meta-learner", "number", _meta),
    Place("bagged", "number", lambda e: BaggingRegressor(e, 3, random_state=0)),
    Place("multi-output", "two numbers", MultiOutputRegressor),
]
TRANSFORMERS = [
    Place("before a linear model", "strings", lambda e: make_pipeline(e, LogisticRegression())),
    Place(
        "behind imputer, scaler",
        "strings",
        lambda e: make_pipeline(SimpleImputer(), StandardScaler(), e, LogisticRegression()),
        0.1,
    ),
    Place("missing numbers", "strings", lambda e: make_pipeline(e, SimpleImputer(), LogisticRegression()), 0.1),
    Place("on words", "strings", lambda e: _on_words(make_pipeline(e, LogisticRegression())), columns=WORDS),
    Place(
        "on categories",
        "strings",
        lambda e: _on_categories(make_pipeline(e, LogisticRegression())),
        columns=CATEGORIES,
    ),
    Place("in a member", "strings", lambda e: _member(make_pipeline(e, LogisticRegression()), Stacking(cv=2))),
    Place("before trees", "number", lambda e: make_pipeline(e, _forest())),
]
KINDS = {"classifier": CLASSIFIERS, "regressor": REGRESSORS, "transformer": TRANSFORMERS}


def _forest() -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(max_iter=5)


def instance(name: str, cls: Any) -> Any:
    """Return an estimator of a class that is quick to fit."""
    estimator = cls(**GIVEN.get(name, {}))
    known = estimator.get_params(deep=False)
    settings = {k: v for k, v in SMALLER.items() if k in known and k not in GIVEN.get(name, {})}
    return estimator.set_params(**{**settings, **OWN.get(name, {})})


Cell = tuple[str, str, Any, Place]


def cells_of(kind: str) -> list[Cell]:
    """Return the kind, the name and class of an estimator, and a place, for every cell of a kind's table."""
    return [
        (kind, name, cls, place)
        for name, cls in all_estimators(type_filter=kind)
        if not cls.__module__.startswith("sklearn.utils") and name not in ("CCA", "PLSSVD")
        for place in KINDS[kind]
    ]


def outcome(kind: str, name: str, cls: Any, place: Place, path: Path) -> tuple[str, str]:
    """Return what became of a cell: equal, refused, unfitted, wrong or crash; and why."""
    X, y = rows(place.columns, place.missing), targets(place.target)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = place.build(instance(name, cls)).fit(X, y)
            model.predict(X[:3])
        except Exception as error:  # whatever it says to such data
            return "unfitted", str(error).splitlines()[0] if str(error) else repr(error)
        try:
            export_onnx(model, path)
            export_onnx(model, path, verify=X)
        except (ExportError, DataError) as error:
            return "refused", str(error)
        except Exception as error:
            return "crash", f"{type(error).__name__}: {error}"
    return "equal", ""


def outcomes(cells: Sequence[Cell], n_jobs: int = 1) -> list[tuple[str, str]]:
    """Return what became of some cells."""
    with tempfile.TemporaryDirectory() as folder:
        tried = (delayed(outcome)(*cell, Path(folder) / f"{number}.onnx") for number, cell in enumerate(cells))
        return Parallel(n_jobs)(tried)


SIGNS = {"equal": "✓", "unfitted": "", "refused": "✗"}

PAGE = f"""# scikit-learn, cell by cell

Every classifier, regressor and transformer of scikit-learn {sklearn.__version__}, fitted in every place where it can
stand, exported, and compared on the rows of the fit and on [rows that the export makes](exporting.md). Written by
`python -m tests.coverage_matrix --write`; the tests try a part of it again.

✓ the file says what the estimator says, to 1e-4 and with equal labels · ✗ `ExportError`, and no file; the reasons stand
below the table · an empty cell could not be fitted, with or without an export: it takes no such rows or targets.
"""


def page(cells: Sequence[Cell], results: Sequence[tuple[str, str]]) -> str:
    """Return the table as a page of the documentation.

    Raises
    ------
    ValueError
        If a cell is wrong or crashed.
    """
    text = PAGE
    counts = Counter(what for what, _ in results)
    if bad := counts.keys() - SIGNS.keys():
        raise ValueError(f"there are cells that are {bad}; mend them first")
    fitted = len(results) - counts["unfitted"]
    share = counts["equal"] / fitted
    text += f"\nOf {fitted:,} cells that could be fitted, {counts['equal']:,} are equal: {share:.1%}.\n"
    for kind, places in KINDS.items():
        found = {
            (name, place.name): result
            for (of_kind, name, _, place), result in zip(cells, results, strict=True)
            if of_kind == kind
        }
        names = list(dict.fromkeys(name for name, _ in found))
        text += f"\n## {kind.capitalize()}s\n\n| | {' | '.join(place.name for place in places)} |\n"
        text += f"| --- |{' :-: |' * len(places)}\n"
        reasons = []
        for name in names:
            row = [found[name, place.name] for place in places]
            text += f"| {name} | {' | '.join(SIGNS[what] for what, _ in row)} |\n"
            refused = {place.name: why for place, (what, why) in zip(places, row, strict=True) if what == "refused"}
            if refused:
                where = (
                    "everywhere" if len(refused) == sum(what != "unfitted" for what, _ in row) else "; ".join(refused)
                )
                # The most of them without the names of the steps around it.
                reasons.append(f"- **{name}**, {where}: {_reason(min(refused.values(), key=len))}")
        text += "\n" + "\n".join(reasons) + ("\n" if reasons else "")
    return text


def _reason(message: str) -> str:
    """Shorten a message: without the names of steps before it, and the way out of every comparison behind it."""
    return re.sub(r"^[a-z_/]+: ", "", message).partition(", which the export has made")[0]


def main() -> None:
    """Try all cells, or those of some estimators; print those that are not equal, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of estimators; all where none is given")
    parser.add_argument("--kind", choices=list(KINDS), action="append")
    parser.add_argument("--jobs", type=int, default=-1)
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.name}")
    arguments = parser.parse_args()
    chosen = [
        cell
        for kind in arguments.kind or KINDS
        for cell in cells_of(kind)
        if not arguments.names or cell[1] in arguments.names
    ]
    results = outcomes(chosen, arguments.jobs)
    for (kind, name, _, place), (what, why) in zip(chosen, results, strict=True):
        if what not in ("equal", "unfitted"):
            print(f"{what:8} {kind:11} {name:28} {place.name:24} {why[:130]}")
    print(dict(Counter(what for what, _ in results)))
    if arguments.write:
        TABLE.write_text(page(chosen, results))


if __name__ == "__main__":
    main()
