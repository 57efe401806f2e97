from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import softmax
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectFromModel
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder
from sklearn.utils import Bunch

from mmensemble import (
    ConfigurationError,
    DataError,
    DeviceError,
    MultimodalClassifier,
    MultimodalRegressor,
    OnnxPredictor,
    export_onnx,
)
from mmensemble_estimators import AttentionFusion, BilinearFusion, ConcatFusion, CrossAttentionFusion, GatedFusion
from mmensemble_estimators.joint.network import JointNetwork
from tests.conftest import ALL_MISSING, WITHOUT_FACTS, WITHOUT_NAME, WITHOUT_PICTURE
from tests.instances import NUMBERS, image, numbers, text


def fusion(**changes: Any) -> ConcatFusion:
    return ConcatFusion(**{"random_state": 0, "hidden_size": 16, **changes})


def image_and_facts(strategy: ConcatFusion, facts: Any = None, **image_changes: Any) -> MultimodalClassifier:
    members = [
        ("image", image().set_params(**image_changes), "picture"),
        ("facts", numbers() if facts is None else facts, NUMBERS),
    ]
    return MultimodalClassifier(members, fusion=strategy)


def state_of(model: MultimodalClassifier) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in model.fusion_.network_.state_dict().items()}


def same_weights(one: MultimodalClassifier, other: MultimodalClassifier) -> bool:
    a, b = state_of(one), state_of(other)
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.fixture
def complete(items: pd.DataFrame, labels: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
    """The rows that miss nothing."""
    rows = np.flatnonzero(items.notna().all(axis=1))
    return items.iloc[rows], labels[rows]


@pytest.fixture
def model(fitted: Callable[[str], Any]) -> MultimodalClassifier:
    """Text, image and two numbers, fused. Shared: do not change it."""
    fused: MultimodalClassifier = fitted("concat_fusion")
    return fused


# Against the formula


def embeddings_of(model: MultimodalClassifier, items: pd.DataFrame) -> list[np.ndarray]:
    """The members' embeddings with missing tokens, from their `transform` and from plain numpy."""
    facts = items[NUMBERS].to_numpy()
    made = [
        model.named_estimators_["text"].transform(items["name"]),
        model.named_estimators_["image"].transform(items["picture"]),
        # The member's StandardScaler, then the fusion's: the second one changes no more than rounding.
        (facts - np.nanmean(facts, axis=0)) / np.nanstd(facts, axis=0),
    ]
    missing = [items["name"].isna(), items["picture"].isna(), items[NUMBERS].isna().all(axis=1)]
    tokens = [token.detach().numpy() for token in model.fusion_.network_.missing]
    return [np.where(m.to_numpy()[:, None], t, e) for e, m, t in zip(made, missing, tokens, strict=True)]


def fused_of(state: dict[str, np.ndarray], embeddings: list[np.ndarray]) -> np.ndarray:
    """LayerNorm (Ba et al. 2016) of embeddings, not of the two numbers; linear layer, ReLU."""
    parts = []
    for m, x in enumerate(embeddings):
        if x.shape[1] > 2:
            centred = x - x.mean(axis=1, keepdims=True)
            x = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
            x = x * state[f"fuser.normalise.{m}.weight"] + state[f"fuser.normalise.{m}.bias"]
        parts.append(x)
    return np.maximum(np.hstack(parts) @ state["fuser.layers.0.weight"].T + state["fuser.layers.0.bias"], 0)


def test_predictions_are_those_of_the_formula(model: MultimodalClassifier, items: pd.DataFrame) -> None:
    state = state_of(model)
    fused = fused_of(state, embeddings_of(model, items))
    expected = softmax(fused @ state["head.weight"].T + state["head.bias"], axis=1)
    expected[ALL_MISSING] = model.fusion_.prior_
    np.testing.assert_allclose(model.transform(items), fused, rtol=0, atol=1e-4)
    np.testing.assert_allclose(model.predict_proba(items), expected, rtol=0, atol=1e-5)


def test_features_are_standardised_by_the_rows_that_have_them(model: MultimodalClassifier, items: pd.DataFrame) -> None:
    strategy = image_and_facts(fusion(), facts=LogisticRegression()).fit(items, items["name"].isna()).fusion_
    scale = strategy.network_.encoders[1]
    np.testing.assert_allclose(scale.mean.numpy(), items[NUMBERS].mean(), rtol=1e-5)
    np.testing.assert_allclose(scale.scale.numpy(), items[NUMBERS].std(ddof=0), rtol=1e-5)


def test_constant_feature(items: pd.DataFrame, labels: np.ndarray) -> None:
    constant = items.assign(brightness=items["brightness"] * 0 + 7.0)
    proba = image_and_facts(fusion(), facts=LogisticRegression()).fit(constant, labels).predict_proba(constant)
    assert np.isfinite(proba).all()


# Missing modalities


def test_row_without_any_modality_gets_the_prior(
    model: MultimodalClassifier, items: pd.DataFrame, labels: np.ndarray
) -> None:
    _, counts = np.unique(labels, return_counts=True)
    np.testing.assert_allclose(model.predict_proba(items)[ALL_MISSING], counts / counts.sum())


@pytest.mark.parametrize(
    ("number", "rows"), [(0, WITHOUT_NAME), (1, WITHOUT_PICTURE), (2, WITHOUT_FACTS)], ids=["text", "image", "facts"]
)
def test_token_stands_for_what_is_missing(
    model: MultimodalClassifier, items: pd.DataFrame, number: int, rows: list[int]
) -> None:
    before = model.predict_proba(items)
    other = pickle.loads(pickle.dumps(model))
    with torch.no_grad():
        other.fusion_.network_.missing[number].add_(torch.linspace(-1, 1, len(other.fusion_.network_.missing[number])))
    changed = np.flatnonzero((other.predict_proba(items) != before).any(axis=1))
    assert changed.tolist() == sorted(set(rows) - {ALL_MISSING})


def test_tokens_are_learned(model: MultimodalClassifier) -> None:
    assert all((token != 0).any() for token in model.fusion_.network_.missing)


def test_placeholders_of_missing_pictures_do_not_reach_batch_statistics(
    items: pd.DataFrame, labels: np.ndarray
) -> None:
    """Rows without a picture, whatever else they hold, leave the image's normalisation as it would be."""
    network = image_and_facts(fusion(max_epochs=1)).fit(items, labels).fusion_.network_
    network.train()
    pixels = torch.zeros(4, 32, 32, 3, dtype=torch.uint8)
    pixels[:2] = 200
    before = {name: value.clone() for name, value in network.encoders[0].named_buffers()}
    facts = {"1.features": torch.zeros(4, 2), "1.present": torch.ones(4, dtype=torch.bool)}
    network(**facts, **{"0.pixels": pixels, "0.present": torch.tensor([True, True, False, False])})
    with_placeholders = {name: value.clone() for name, value in network.encoders[0].named_buffers()}
    for name, value in network.encoders[0].named_buffers():
        value.copy_(before[name])
    network.encoders[0](pixels=pixels[:2])
    for name, value in network.encoders[0].named_buffers():
        torch.testing.assert_close(value, with_placeholders[name], rtol=0, atol=0)
    assert any((value != before[name]).any() for name, value in with_placeholders.items())


def withholding(rate: float) -> JointNetwork:
    encoder = torch.nn.Identity()
    encoder.embedding_size = 2  # type: ignore[assignment]
    fuser = torch.nn.Identity()
    fuser.fused_size = 2  # type: ignore[assignment]
    return JointNetwork([encoder], fuser, 2, modality_dropout=rate)


@pytest.mark.parametrize("rate", [0.3, 0.99])
def test_modality_dropout_never_withholds_all(rate: float) -> None:
    network = withholding(rate)
    generator = torch.Generator().manual_seed(0)
    present = torch.rand(4000, 3, generator=generator) < 0.7
    with torch.random.fork_rng():
        torch.manual_seed(1)
        used = network._withhold(present)
    assert not (used & ~present).any()
    assert (used.any(dim=1) == present.any(dim=1)).all()
    full = present.all(dim=1)
    # Of three modalities: each is kept with 1 - rate, and all three are kept where none would be.
    expected = (1 - rate) + rate**3
    assert used[full].float().mean().item() == pytest.approx(expected, abs=0.03)


def test_modality_dropout_is_for_training_only(model: MultimodalClassifier, items: pd.DataFrame) -> None:
    assert model.fusion_.modality_dropout == 0.2
    np.testing.assert_array_equal(model.predict_proba(items), model.predict_proba(items))


def test_modality_dropout_changes_training(items: pd.DataFrame, labels: np.ndarray) -> None:
    with_it, without = (image_and_facts(fusion(modality_dropout=rate)).fit(items, labels) for rate in (0.5, 0.0))
    assert not same_weights(with_it, without)


# Training


def test_history(model: MultimodalClassifier) -> None:
    assert model.fusion_.history_["epoch"].tolist() == [1]
    assert set(model.fusion_.history_.columns) == {"epoch", "train_loss", "dur"}


def test_epochs_and_batches_come_from_the_members_unless_given(items: pd.DataFrame, labels: np.ndarray) -> None:
    members = [("small", image().set_params(max_epochs=2), "picture"), ("large", image(), "picture")]
    epochs = len(MultimodalClassifier(members, fusion=fusion()).fit(items, labels).fusion_.history_)
    assert epochs == 2
    assert len(image_and_facts(fusion(max_epochs=3)).fit(items, labels).fusion_.history_) == 3
    from_member = image_and_facts(fusion(), batch_size=16).fit(items, labels)
    assert same_weights(from_member, image_and_facts(fusion(batch_size=16)).fit(items, labels))
    assert not same_weights(from_member, image_and_facts(fusion()).fit(items, labels))


def test_joint_training_learns_categories_of_emoji(emoji: Bunch) -> None:
    rng = np.random.default_rng(0)
    categories = ("Animals & Nature", "Flags", "People & Body")
    rows = np.concatenate([rng.permutation(np.flatnonzero(emoji.target == c))[:100] for c in categories])
    rng.shuffle(rows)
    X, y = emoji.frame.iloc[rows], emoji.target[rows]
    members = [("text", text(), "name"), ("image", image(), "picture")]
    model = MultimodalClassifier(members, fusion=fusion(max_epochs=4)).fit(X[:200], y[:200])
    losses = model.fusion_.history_["train_loss"].tolist()
    assert losses[-1] < losses[0]
    assert model.score(X[200:], y[200:]) > 0.75  # chance is 0.33


def test_random_state(items: pd.DataFrame, labels: np.ndarray) -> None:
    one = image_and_facts(fusion()).fit(items, labels)
    assert same_weights(one, image_and_facts(fusion(), random_state=5).fit(items, labels))
    assert not same_weights(one, image_and_facts(fusion(random_state=1)).fit(items, labels))


def test_global_random_state_is_not_changed(items: pd.DataFrame, labels: np.ndarray) -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002 - the point
    image_and_facts(fusion(modality_dropout=0.5)).fit(items, labels).predict(items)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002


def test_member_with_fine_tune_head_is_frozen(items: pd.DataFrame, labels: np.ndarray) -> None:
    """The statistics of batch normalisation too; what fuses is trained all the same."""
    models = [image_and_facts(fusion(max_epochs=n), fine_tune="head").fit(items, labels) for n in (1, 3)]
    short, long = (model.estimators_[0].module_.encoder.state_dict() for model in models)
    assert any(name.endswith("running_mean") for name in short)
    for name, value in short.items():
        np.testing.assert_array_equal(value, long[name])
        if name.endswith(("running_mean", "num_batches_tracked")):
            assert (value == 0).all()
    heads = [state_of(model)["head.weight"] for model in models]
    assert (heads[0] != heads[1]).any()


def test_member_is_trained_end_to_end(items: pd.DataFrame, labels: np.ndarray) -> None:
    short, long = (state_of(image_and_facts(fusion(max_epochs=n)).fit(items, labels)) for n in (1, 3))
    trained = [n for n in short if n.startswith("encoders.0.backbone") and n.endswith(("weight", "running_mean"))]
    assert trained
    assert all((short[name] != long[name]).any() for name in trained)


def test_rows_of_weight_0_are_not_trained_on(complete: tuple[pd.DataFrame, np.ndarray]) -> None:
    X, y = complete
    both = pd.concat([X, X])
    weight = np.concatenate([np.ones(len(X)), np.zeros(len(X))])
    one = image_and_facts(fusion()).fit(X, y)
    # Rows given twice have the same moments, so the features are the same but for rounding.
    other = image_and_facts(fusion()).fit(both, np.concatenate([y, y[::-1]]), sample_weight=weight)
    np.testing.assert_allclose(other.predict_proba(X), one.predict_proba(X), rtol=0, atol=1e-4)
    np.testing.assert_allclose(other.fusion_.prior_, one.fusion_.prior_)


def test_verbose(items: pd.DataFrame, labels: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    image_and_facts(fusion()).fit(items, labels)
    assert capsys.readouterr() == ("", "")
    image_and_facts(fusion(verbose=1)).fit(items, labels)
    assert "ConcatFusion: member 1 of 2 (image)" in capsys.readouterr().err


# Members of all kinds


@pytest.mark.parametrize(
    "facts",
    [
        LogisticRegression(),
        RandomForestClassifier(),
        MinMaxScaler(),
        make_pipeline(LogisticRegression()),
        make_pipeline(SimpleImputer(), MinMaxScaler()),
        "passthrough pipeline",
    ],
    ids=["classifier", "forest", "transformer", "pipeline of one", "pipeline of transformers", "passthrough"],
)
def test_features_of_a_member(items: pd.DataFrame, labels: np.ndarray, facts: Any) -> None:
    """Standardised features do not depend on scale, so that all of these members bring the same ones."""
    if facts == "passthrough pipeline":
        facts = make_pipeline("passthrough", LogisticRegression())
    made = image_and_facts(fusion(), facts=facts).fit(items, labels)
    expected = image_and_facts(fusion()).fit(items, labels)
    np.testing.assert_allclose(made.predict_proba(items), expected.predict_proba(items), rtol=0, atol=1e-3)


def test_steps_that_make_features_learn_numbers_of_labels(items: pd.DataFrame, labels: np.ndarray) -> None:
    """Some estimators learn nothing else; the first of four classes has no facts."""
    selection = SelectFromModel(OfConsecutiveNumbers(), threshold=-1)
    facts = make_pipeline(SimpleImputer(), selection, LogisticRegression())
    frame = items.copy()
    frame.loc[labels == np.unique(labels)[0], NUMBERS] = np.nan
    made = image_and_facts(fusion(), facts=facts).fit(frame, labels)
    assert made.named_estimators_.facts[-1].estimator_.classes_.tolist() == [0, 1, 2]
    assert set(made.predict(frame)) <= set(labels)


class OfConsecutiveNumbers(LogisticRegression):
    """Refuses all other labels."""

    def fit(self, X: Any, y: Any) -> OfConsecutiveNumbers:
        assert np.array_equal(np.unique(y), np.arange(len(np.unique(y))))
        return super().fit(X, y)


def test_sparse_features_of_strings(items: pd.DataFrame, labels: np.ndarray) -> None:
    columns = ColumnTransformer([("initial", OneHotEncoder(handle_unknown="ignore"), ["initial"])], sparse_threshold=1)
    member = ("initial", make_pipeline(columns, LogisticRegression()), ["initial"])
    model = MultimodalClassifier([member], fusion=fusion(max_epochs=30, learning_rate=0.01)).fit(items, labels)
    assert model.fusion_.network_.encoders[0].embedding_size == items["initial"].nunique()
    proba = model.predict_proba(items)
    same = items["initial"] == items["initial"].iloc[0]
    np.testing.assert_allclose(proba[same], [proba[0]] * same.sum(), rtol=0, atol=1e-6)
    assert np.ptp(proba[:, 0]) > 0.05


def test_one_member_only(items: pd.DataFrame, labels: np.ndarray) -> None:
    model = MultimodalClassifier([("image", image(), "picture")], fusion=fusion()).fit(items, labels)
    proba = model.predict_proba(items)
    np.testing.assert_allclose(proba[WITHOUT_PICTURE], [model.fusion_.prior_] * len(WITHOUT_PICTURE))


def test_members_have_an_embedding_but_no_head(model: MultimodalClassifier, items: pd.DataFrame) -> None:
    member = model.named_estimators_["text"]
    assert member.transform(items["name"]).shape == (len(items), 128)
    with pytest.raises(NotFittedError, match="no head of its own"):
        member.predict_proba(items["name"])


def test_members_given_are_not_fitted(items: pd.DataFrame, labels: np.ndarray) -> None:
    model = image_and_facts(fusion())
    model.fit(items, labels)
    assert not hasattr(model.estimators[0][1], "module_")
    assert not hasattr(model.fusion, "network_")


def test_transform(model: MultimodalClassifier, items: pd.DataFrame) -> None:
    fused = model.transform(items)
    assert fused.shape == (len(items), 128)
    assert fused.dtype == np.float32
    assert model.transform(items[:0]).shape == (0, 128)
    assert model.get_feature_names_out()[[0, 127]].tolist() == ["multimodalclassifier_0", "multimodalclassifier_127"]


def test_pickle_keeps_the_encoders_shared(model: MultimodalClassifier) -> None:
    loaded = pickle.loads(pickle.dumps(model))
    for number in (0, 1):
        assert loaded.fusion_.network_.encoders[number] is loaded.estimators_[number].module_.encoder
        assert loaded.fusion_.members_[number].estimator is loaded.estimators_[number]


def test_search_inside_the_strategy(items: pd.DataFrame, labels: np.ndarray) -> None:
    grid = {"fusion__hidden_size": [4, 8], "image__fine_tune": ["head"]}
    search = GridSearchCV(image_and_facts(fusion()), grid, cv=2, error_score="raise").fit(items, labels)
    fused = search.best_estimator_.fusion_
    assert fused.network_.fuser.fused_size == search.best_params_["fusion__hidden_size"]


def test_exported_model_of_two_classes_and_frozen_members(
    items: pd.DataFrame, labels: np.ndarray, tmp_path: Any
) -> None:
    model = image_and_facts(fusion(), facts=LogisticRegression(), fine_tune="head").fit(items, labels == "Flags")
    manifest = export_onnx(model, tmp_path / "model.onnx", verify=items)
    assert manifest.parity["max_abs_difference"] < 1e-5
    assert OnnxPredictor(tmp_path / "model.onnx", device="cpu").predict(items).dtype == bool


# What cannot work


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 0),
        ("dropout", 1.5),
        ("hidden_size", 0),
        ("label_smoothing", -0.1),
        ("learning_rate", -1),
        ("max_epochs", 0),
        ("modality_dropout", 1.0),
        ("warmup_fraction", 2),
        ("weight_decay", -0.1),
    ],
)
def test_parameter_that_cannot_work(items: pd.DataFrame, labels: np.ndarray, name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=name):
        image_and_facts(fusion(**{name: value})).fit(items, labels)


def test_parameter_of_a_member_that_cannot_work(items: pd.DataFrame, labels: np.ndarray) -> None:
    with pytest.raises(ConfigurationError, match="fine_tune"):
        image_and_facts(fusion(), fine_tune="nothing").fit(items, labels)


def test_device_that_does_not_work(items: pd.DataFrame, labels: np.ndarray) -> None:
    with pytest.raises(DeviceError, match="nonsense"):
        image_and_facts(fusion(device="nonsense")).fit(items, labels)


def test_training_that_diverges(items: pd.DataFrame, labels: np.ndarray) -> None:
    with pytest.raises(ConfigurationError, match="lower learning_rate"):
        image_and_facts(fusion(learning_rate=1e30, max_epochs=3), learning_rate=1e30).fit(items, labels)


def test_nan_among_the_features(complete: tuple[pd.DataFrame, np.ndarray], items: pd.DataFrame) -> None:
    X, y = complete
    model = image_and_facts(fusion()).fit(X, y)
    # Row 1 has its facts, row 5 has none of them, row 7 has one of two.
    items.iloc[7, items.columns.get_loc("length")] = np.nan
    with pytest.raises(DataError, match=r"row 7: member 'facts' has NaN or infinite features; put a SimpleImputer"):
        model.predict_proba(items)
    bad = X.copy()
    bad.iloc[7, bad.columns.get_loc("length")] = np.inf
    with pytest.raises(ValueError, match=r"column .length.: member .facts. .* takes no infinite number"):
        clone(model).fit(bad, y)
    bad.iloc[7, bad.columns.get_loc("length")] = np.nan
    with pytest.raises(DataError, match=r"row 7: member 'facts'"):
        clone(model).fit(bad, y)


def test_strings_without_an_encoder(items: pd.DataFrame, labels: np.ndarray) -> None:
    members = [("initial", LogisticRegression(), ["initial"]), ("image", image(), "picture")]
    with pytest.raises(ConfigurationError, match=r"member 'initial' gives a joint fusion no numbers .* OneHotEncoder"):
        MultimodalClassifier(members, fusion=fusion()).fit(items, labels)


@pytest.mark.parametrize(("member", "columns"), [("image", ["picture"]), ("facts", NUMBERS)])
def test_modality_that_no_row_has(items: pd.DataFrame, labels: np.ndarray, member: str, columns: list[str]) -> None:
    nothing = dict.fromkeys(columns, None if member == "image" else np.nan)
    with pytest.raises(DataError, match="every row"):
        image_and_facts(fusion()).fit(items.assign(**nothing), labels)


def test_labels_and_text_that_cannot_work(items: pd.DataFrame) -> None:
    members = [("text", text(), "name"), ("facts", numbers(), NUMBERS)]
    with pytest.raises(DataError, match="one class only"):
        MultimodalClassifier(members, fusion=fusion()).fit(items, ["same"] * len(items))
    items.iloc[50, 0] = 3
    with pytest.raises(DataError, match=r"row 50, column 'name': a text is expected as str, not int"):
        MultimodalClassifier(members, fusion=fusion()).fit(items, np.arange(len(items)) % 2)


# Every strategy

STRATEGIES = [ConcatFusion, AttentionFusion, GatedFusion, BilinearFusion, CrossAttentionFusion]


def table(n: int = 120) -> tuple[pd.DataFrame, np.ndarray]:
    """Two numbers with gaps, and a class that the sign of their sum tells."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a": rng.normal(size=n), "b": rng.normal(size=n)})
    y = np.where(X["a"] + X["b"] > 0, "up", "down")
    X = X.where(rng.random(X.shape) > 0.1)
    X.loc[[5, 17]] = np.nan
    return X, y


def of_numbers(strategy: Any, **changes: Any) -> MultimodalClassifier:
    """Without any network but the fusion's own, so that it is fast."""
    members = [("a", LogisticRegression(), ["a"]), ("b", LogisticRegression(), ["b"])]
    return MultimodalClassifier(members, fusion=quick(strategy, **changes))


def quick(strategy: Any, **changes: Any) -> Any:
    return strategy(**{"random_state": 0, "hidden_size": 16, "max_epochs": 15, "learning_rate": 0.01, **changes})


def of_labels(kind: str, y: np.ndarray) -> Any:
    up = y == "up"
    return {
        "multilabel": np.column_stack([up, ~up, np.ones(len(y), dtype=bool)]).astype(int),
        "columns": np.column_stack([y, np.where(up, "yes", "no")]),
        "mixed": pd.DataFrame({"s": y, "i": 7 * up, "b": ~up}),
    }[kind]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_single_columns_of_numbers_count(strategy: Any) -> None:
    X, y = table()
    model = of_numbers(strategy).fit(X, y)
    some = X.notna().all(axis=1).to_numpy()
    assert model.score(X[some], y[some]) > 0.9
    probabilities = model.predict_proba(X)
    nothing = X.isna().all(axis=1).to_numpy()
    assert nothing.any()
    np.testing.assert_allclose(probabilities[nothing], [[(y == "down").mean(), (y == "up").mean()]] * nothing.sum())
    np.testing.assert_allclose(model.predict_proba(X[20:30]), probabilities[20:30], rtol=0, atol=1e-6)
    assert model.predict_proba(X[:0]).shape == (0, 2)


@pytest.mark.parametrize("kind", ["multilabel", "columns", "mixed"])
def test_kinds_of_labels(kind: str) -> None:
    X, y = table()
    target = of_labels(kind, y)
    model = of_numbers(ConcatFusion).fit(X, target)
    predicted = model.predict(X)
    assert predicted.shape == target.shape
    assert model.score(X, target) > 0.8
    made = model.predict_proba(X)
    if kind == "multilabel":
        np.testing.assert_array_equal(predicted, made > 0.5)
        return
    for column, part, classes in zip(predicted.T, made, model.classes_, strict=True):
        np.testing.assert_allclose(part.sum(axis=1), 1)
        assert column.tolist() == classes[part.argmax(axis=1)].tolist()


@pytest.mark.parametrize(
    ("strategy", "width"), [*((strategy, 0) for strategy in STRATEGIES), (ConcatFusion, 1), (ConcatFusion, 2)]
)
def test_numbers_are_standardised_for_training(strategy: Any, width: int) -> None:
    """In whatever unit they come: the same network, the predictions in that unit."""
    X, _ = table()
    truth = X["a"].fillna(0).to_numpy() + 2 * X["b"].fillna(0).to_numpy()
    y = truth if width == 0 else np.column_stack([truth, -truth])[:, :width]
    members = of_numbers(strategy).estimators
    one = MultimodalRegressor(members, fusion=quick(strategy)).fit(X, y)
    other = MultimodalRegressor(members, fusion=quick(strategy)).fit(X, 1000 * y + 5e5)
    assert one.predict(X).shape == y.shape
    np.testing.assert_allclose(other.predict(X), 1000 * one.predict(X) + 5e5, rtol=0, atol=5)
    assert one.score(X, y) > 0.5
    nothing = X.isna().all(axis=1).to_numpy()
    np.testing.assert_allclose(one.predict(X)[nothing], [y.mean(axis=0)] * nothing.sum())


@pytest.mark.parametrize("strategy", [AttentionFusion, GatedFusion])
def test_weights_of_modalities(strategy: Any) -> None:
    X, y = table()
    model = of_numbers(strategy).fit(X, y)
    weights = model.fusion_.modality_weights(X)
    assert weights.shape == (len(X), 2)
    assert ((weights > 0) & (weights < 1)).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)  # of two modalities the gates are complements
    assert model.fusion_.modality_weights(X[:0]).shape == (0, 2)


def test_attention_adds_up_to_1_over_three_modalities(fitted: Callable[[str], Any], items: pd.DataFrame) -> None:
    weights = fitted("attention_fusion").fusion_.modality_weights(items)
    assert weights.shape == (len(items), 3)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("strategy", [AttentionFusion, CrossAttentionFusion])
def test_heads_that_do_not_divide_the_size(strategy: Any) -> None:
    X, y = table(20)
    with pytest.raises(ConfigurationError, match="hidden_size=16 is no multiple of n_heads=3"):
        of_numbers(strategy, n_heads=3).fit(X, y)


@pytest.mark.parametrize(("name", "strategy"), [("rank", BilinearFusion), ("n_layers", CrossAttentionFusion)])
def test_parameters_of_single_strategies(name: str, strategy: Any) -> None:
    X, y = table(20)
    with pytest.raises(ConfigurationError, match=f"{name} must be an integer of at least 1, not 0"):
        of_numbers(strategy, **{name: 0}).fit(X, y)


# Frozen encoders


def test_frozen_epochs_train_the_fusion_alone(items: pd.DataFrame, labels: np.ndarray) -> None:
    """What comes before the last phase is as good as nothing here, whose learning rate is next to 0."""
    tiny = 1e-30
    untrained = image_and_facts(fusion(max_epochs=1, learning_rate=tiny), learning_rate=tiny).fit(items, labels)
    frozen = image_and_facts(fusion(max_epochs=1, frozen_epochs=2), learning_rate=tiny).fit(items, labels)
    trained = image_and_facts(fusion(max_epochs=1, frozen_epochs=2)).fit(items, labels)
    assert frozen.fusion_.history_["epoch"].tolist() == [1, 2, 3]
    before, during, after = (state_of(model) for model in (untrained, frozen, trained))
    weights = [name for name in before if name.startswith("encoders.0.backbone") and name.endswith("weight")]
    assert weights
    for name in weights:
        np.testing.assert_allclose(during[name], before[name], rtol=0, atol=1e-12)
    assert any((after[name] != before[name]).any() for name in weights)
    assert (during["head.weight"] != before["head.weight"]).any()
    # Batch normalisation has seen one epoch, not three.
    batches = "num_batches_tracked"
    assert [v for n, v in during.items() if n.endswith(batches)] == [
        v for n, v in before.items() if n.endswith(batches)
    ]
    assert all(p.requires_grad for p in trained.fusion_.network_.encoders[0].parameters())


def test_frozen_epochs_number_at_least_0(items: pd.DataFrame, labels: np.ndarray) -> None:
    for wrong in (-1, 1.5):
        with pytest.raises(ConfigurationError, match="frozen_epochs must be an integer of at least 0"):
            image_and_facts(fusion(frozen_epochs=wrong)).fit(items, labels)


@pytest.mark.parametrize("strategy", [ConcatFusion, CrossAttentionFusion])
def test_a_store_changes_nothing(items: pd.DataFrame, labels: np.ndarray, tmp_path: Any, strategy: Any) -> None:
    made = quick(strategy, max_epochs=2)
    without = image_and_facts(made, fine_tune="head").fit(items, labels)
    expected = without.predict_proba(items)
    for _ in range(2):
        stored = image_and_facts(made, fine_tune="head").set_params(cache=tmp_path).fit(items, labels)
        np.testing.assert_allclose(stored.predict_proba(items), expected, rtol=0, atol=1e-6)
        assert same_weights(without, stored)
