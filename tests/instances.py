"""One list of small estimators and compositions. The common checks, and whatever else holds for all, run over it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier, StackingClassifier, VotingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from mmensemble import ColumnSelector, MultimodalClassifier, SoftVoting, Stacking, on_column
from mmensemble_estimators import ConcatFusion, ImageClassifier, TextClassifier

NUMBERS = ["length", "brightness"]


@dataclass(frozen=True)
class Instance:
    """An estimator and what it takes.

    `columns` are the columns of `items` that it reads. A leaf takes the cells of its one column. `expected_failures`
    maps the name of a common check to the reason why it fails.
    """

    id: str
    make: Callable[[], Any]
    columns: tuple[str, ...]
    takes: Literal["cells", "frame"] = "frame"
    expected_failures: dict[str, str] = field(default_factory=dict)

    def of(self, items: Any) -> Any:
        """Return what the estimator takes of the items."""
        return items[self.columns[0]] if self.takes == "cells" else items


def text() -> TextClassifier:
    return TextClassifier(max_epochs=1, vocab_size=400, max_length=24, random_state=0)


def image() -> ImageClassifier:
    return ImageClassifier(image_size=32, max_epochs=1, random_state=0)


def numbers() -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression())


def imputed_numbers() -> Pipeline:
    return make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())


def multimodal(fusion: Any = None) -> MultimodalClassifier:
    members = [("text", text(), "name"), ("image", image(), "picture"), ("facts", numbers(), NUMBERS)]
    return MultimodalClassifier(members, fusion=fusion)


def nested() -> MultimodalClassifier:
    inner = MultimodalClassifier([("image", image(), "picture"), ("facts", numbers(), NUMBERS)])
    return MultimodalClassifier(
        [("inner", inner, ["picture", *NUMBERS]), ("forest", forest(), NUMBERS)], fusion=SoftVoting(weights=[3, 1])
    )


def forest() -> RandomForestClassifier:
    return RandomForestClassifier(n_estimators=5, max_depth=3, random_state=0)


def mixed_columns() -> Pipeline:
    columns = ColumnTransformer(
        [("initial", OneHotEncoder(handle_unknown="ignore"), ["initial"]), ("numbers", StandardScaler(), NUMBERS)]
    )
    return make_pipeline(columns, LogisticRegression())


ALL_COLUMNS = ("name", "picture", *NUMBERS)

_REFUSES_0_ROWS = {"test_no_rows": "scikit-learn's transformers and classifiers refuse 0 rows"}

INSTANCES = [
    Instance("text", text, ("name",), "cells"),
    Instance("image", image, ("picture",), "cells"),
    Instance("text_on_column", lambda: on_column("name", text()), ("name",)),
    Instance("image_on_column", lambda: on_column("picture", image()), ("picture",)),
    Instance("soft_voting", lambda: multimodal(SoftVoting(weights=[2, 1, 0.5])), ALL_COLUMNS),
    Instance(
        "stacking",
        lambda: MultimodalClassifier(
            [("text", text(), "name"), ("facts", numbers(), NUMBERS)], fusion=Stacking(LogisticRegression(C=10), cv=2)
        ),
        ("name", *NUMBERS),
    ),
    Instance("concat_fusion", lambda: multimodal(ConcatFusion(random_state=0, modality_dropout=0.2)), ALL_COLUMNS),
    Instance("nested_with_forest", nested, ("picture", *NUMBERS)),
    # Both members take the same pixels, so that the graph has one input for them.
    Instance(
        "same_column_twice",
        lambda: MultimodalClassifier(
            [("one", image(), "picture"), ("other", image().set_params(random_state=1), "picture")]
        ),
        ("picture",),
    ),
    Instance(
        "mixed_columns",
        lambda: MultimodalClassifier(
            [("mixed", mixed_columns(), ["initial", *NUMBERS]), ("forest", forest(), NUMBERS)], fusion=Stacking(cv=2)
        ),
        ("initial", *NUMBERS),
    ),
    Instance(
        "voting_classifier",
        lambda: VotingClassifier(
            [
                ("text", on_column("name", text())),
                ("image", on_column("picture", image())),
                ("facts", on_column(NUMBERS, imputed_numbers())),
            ],
            voting="soft",
            weights=[1, 2, 0.5],
        ),
        ALL_COLUMNS,
        expected_failures=_REFUSES_0_ROWS,
    ),
    Instance(
        "stacking_classifier",
        lambda: StackingClassifier(
            [("image", on_column("picture", image())), ("facts", on_column(NUMBERS, imputed_numbers()))], cv=2
        ),
        ("picture", *NUMBERS),
        expected_failures={
            **_REFUSES_0_ROWS,
            "test_not_fitted": "scikit-learn's StackingClassifier has no predict before fit: AttributeError",
        },
    ),
    Instance(
        "pipeline_over_embedding",
        lambda: Pipeline(
            [
                ("column", ColumnSelector("picture")),
                ("embed", image()),
                ("scale", StandardScaler()),
                ("classify", LogisticRegression(C=0.1)),
            ]
        ),
        ("picture",),
        expected_failures=_REFUSES_0_ROWS,
    ),
    Instance(
        "grid_search",
        lambda: GridSearchCV(
            MultimodalClassifier([("image", image(), "picture"), ("facts", numbers(), NUMBERS)]),
            {"fusion": [SoftVoting(), SoftVoting(weights=[1, 3])]},
            cv=2,
        ),
        ("picture", *NUMBERS),
    ),
]

BY_ID = {instance.id: instance for instance in INSTANCES}
