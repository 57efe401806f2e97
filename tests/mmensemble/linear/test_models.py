"""Solved linear models against scikit-learn's at the same penalty, and the penalty that they choose."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array, csr_matrix, random_array
from scipy.special import expit, log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.model_selection import LeaveOneOut, StratifiedKFold

from mmensemble import DataError
from mmensemble.linear import LinearSolution, descent, models, pareto_scale, solve_classes, solve_labels, solve_numbers
from mmensemble.linear.choice import fold_numbers
from mmensemble.linear.features import Preconditioned

N, D, K = 90, 6, 3


@pytest.fixture(scope="module")
def X() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, D)) * [1, 2, 0.5, 1, 3, 1] + [5, 0, -1, 0, 0, 100]


@pytest.fixture(scope="module")
def y(X: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(1)
    return (X[:, :K] - X[:, :K].mean(axis=0) + rng.normal(size=(N, K))).argmax(axis=1)


@pytest.fixture(scope="module")
def weight() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 4, N).astype(float)


def reference(X: Any, y: np.ndarray, penalty: float, weight: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """What scikit-learn's logistic regression finds; its own centring makes its solver converge."""
    mean = 0 if hasattr(X, "toarray") else X.mean(axis=0)
    model = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10_000).fit(
        X - mean if np.ndim(mean) else X, y, weight
    )
    return model.coef_, model.intercept_ - (model.coef_ @ mean if np.ndim(mean) else 0)


def assert_same(solution: LinearSolution, coef: np.ndarray, intercept: np.ndarray) -> None:
    np.testing.assert_allclose(solution.coef, coef, atol=1e-4)
    # scikit-learn lets the sum of the intercepts be what it is.
    np.testing.assert_allclose(solution.intercept - solution.intercept.mean(), intercept - intercept.mean(), atol=1e-3)


# The solution


@pytest.mark.parametrize("penalty", [0.01, 1.0, 100.0])
def test_classes(X: np.ndarray, y: np.ndarray, penalty: float) -> None:
    solution = solve_classes(X, y, K, penalty=penalty)
    assert_same(solution, *reference(X, y, penalty))
    raw = solution.outputs(X)
    residuals = np.exp(log_softmax(raw, axis=1)) - np.eye(K)[y]
    np.testing.assert_allclose(residuals.sum(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(residuals.T @ (X - X.mean(axis=0)), -penalty * solution.coef, atol=5e-4)
    assert solution.penalty.tolist() == [penalty]
    assert solution.path == []


def test_two_classes(X: np.ndarray, y: np.ndarray) -> None:
    two = (y > 0).astype(int)
    solution = solve_classes(X, two, 2, penalty=2.0)
    coef, intercept = reference(X, two, 2.0)
    np.testing.assert_allclose(np.diff(solution.coef, axis=0), coef, atol=1e-5)
    np.testing.assert_allclose(np.diff(solution.intercept), intercept, atol=1e-4)
    np.testing.assert_allclose(solution.coef.sum(axis=0), 0, atol=1e-12)


def test_labels_each_with_its_penalty(X: np.ndarray, y: np.ndarray) -> None:
    Y = np.column_stack([y == 0, y != 1]).astype(int)
    solution = solve_labels(X, Y, penalty=np.array([0.5, 20.0]))
    for number, penalty in enumerate([0.5, 20.0]):
        coef, intercept = reference(X, Y[:, number], penalty)
        np.testing.assert_allclose(solution.coef[number], coef[0], atol=1e-4)
        np.testing.assert_allclose(solution.intercept[number], intercept[0], atol=1e-3)


@pytest.mark.parametrize("sparse", [False, True])
def test_numbers_each_with_its_penalty(X: np.ndarray, weight: np.ndarray, sparse: bool) -> None:
    Y = np.column_stack([X[:, 0] ** 2, 1000 * X[:, 1] + 7])
    rows = csr_array(X - X.mean(axis=0)) if sparse else X
    solution = solve_numbers(rows, Y, weight, penalty=np.array([0.5, 20.0]))
    for number, alpha in enumerate([0.5, 20.0]):
        expected = Ridge(alpha=alpha).fit(rows.toarray() if sparse else rows, Y[:, number], weight)
        np.testing.assert_allclose(solution.coef[number], expected.coef_, rtol=1e-5, atol=1e-5 * Y[:, number].std())
        np.testing.assert_allclose(solution.intercept[number], expected.intercept_, rtol=1e-4, atol=1e-4)


def test_sparse_features_and_blocks(X: np.ndarray, y: np.ndarray) -> None:
    words = csr_matrix(random_array((N, 40), density=0.1, rng=np.random.default_rng(3)))
    coef, intercept = reference(np.hstack([words.toarray(), X]), y, 0.3)
    solution = solve_classes([words, X], y, K, penalty=0.3)
    assert_same(solution, coef, intercept)
    np.testing.assert_allclose(solution.outputs([words, X]), solution.outputs(np.hstack([words.toarray(), X])))
    paths = [solve_classes(rows, y, K).path for rows in (words, words.toarray())]
    for (penalty, losses), (expected, others) in zip(*paths, strict=True):
        assert penalty == pytest.approx(expected)
        np.testing.assert_allclose(losses, others, rtol=5e-3)
    alone = solve_classes(words, y, K, penalty=0.3)
    assert_same(alone, *reference(words, y, 0.3))


def test_more_features_than_rows(y: np.ndarray) -> None:
    wide = np.random.default_rng(4).normal(size=(N, 5 * N)) + 3
    assert_same(solve_classes(wide, y, K, penalty=50.0), *reference(wide, y, 50.0))
    expected = Ridge(alpha=50.0).fit(wide, y)
    solution = solve_numbers(wide, y[:, None], penalty=50.0)
    np.testing.assert_allclose(solution.coef[0], expected.coef_, atol=1e-9)
    np.testing.assert_allclose(solution.intercept[0], expected.intercept_, atol=1e-7)


def test_weighted_rows_equal_repeated_rows(X: np.ndarray, y: np.ndarray, weight: np.ndarray) -> None:
    repeated = np.repeat(np.arange(N), weight.astype(int))
    once, often = (
        solve_classes(X, y, K, weight, penalty=1.0),
        solve_classes(X[repeated], y[repeated], K, penalty=1.0),
    )
    assert_same(once, often.coef, often.intercept)
    Y = X[:, :2] @ [[1.0, 0], [2, 1]] + y[:, None]
    once, often = solve_numbers(X, Y, weight, penalty=1.0), solve_numbers(X[repeated], Y[repeated], penalty=1.0)
    np.testing.assert_allclose(once.coef, often.coef, atol=1e-9)


@pytest.mark.parametrize("solve", ["classes", "numbers"])
def test_a_multiple_of_the_penalty_is_a_scale_of_the_feature(X: np.ndarray, y: np.ndarray, solve: str) -> None:
    multiples = np.array([1, 4, 0.25, 1, np.inf, 1])
    scaled = X / np.sqrt(multiples)

    def found(rows: np.ndarray, multiples: Any = None) -> LinearSolution:
        if solve == "classes":
            return solve_classes(rows, y, K, penalty=1.0, penalty_scale=multiples)
        return solve_numbers(rows, y[:, None].astype(float), penalty=1.0, penalty_scale=multiples)

    solution, expected = found(X, multiples), found(scaled)
    np.testing.assert_allclose(solution.coef, expected.coef / np.sqrt(multiples), atol=1e-6)
    assert not solution.coef[:, 4].any()


def test_the_same_twice(X: np.ndarray, y: np.ndarray) -> None:
    one, other = (solve_classes(X, y, K) for _ in range(2))
    np.testing.assert_array_equal(one.coef, other.coef)
    np.testing.assert_array_equal(one.intercept, other.intercept)


@pytest.mark.parametrize("k", [2, K])
def test_a_start_saves_time_and_nothing_else(
    X: np.ndarray, y: np.ndarray, monkeypatch: pytest.MonkeyPatch, k: int
) -> None:
    passes, gradient = [0], Preconditioned.gradient

    def counting(*args: Any) -> np.ndarray:
        passes[-1] += 1
        return gradient(*args)

    monkeypatch.setattr(Preconditioned, "gradient", counting)
    labels = np.minimum(y, k - 1)
    first = solve_classes(X, labels, k, penalty=1.0)
    passes.append(0)
    cold = solve_classes(X, labels, k, penalty=1.01)
    passes.append(0)
    warm = solve_classes(X, labels, k, penalty=1.01, start=first)
    np.testing.assert_allclose(warm.coef, cold.coef, atol=1e-4)
    assert passes[2] < 0.8 * passes[1]


def test_a_start_of_numbers_is_taken(X: np.ndarray, y: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, Y = csr_array(X), 5.0 * y[:, None] + 3
    first = solve_numbers(rows, Y, penalty=1.0)
    # It needs no step, so it may take none.
    monkeypatch.setattr(descent, "MAX_ITERATIONS", 1)
    again = solve_numbers(rows, Y, penalty=1.0, start=first)
    np.testing.assert_allclose(again.outputs(rows), first.outputs(rows), atol=1e-6)


@pytest.mark.parametrize("k", [2, K])
def test_a_bad_start_does_no_harm(X: np.ndarray, y: np.ndarray, k: int) -> None:
    labels = np.minimum(y, k - 1)
    expected = solve_classes(X, labels, k, penalty=1.0)
    bad = LinearSolution(-20 * expected.coef, -20 * expected.intercept, expected.penalty, [])
    assert_same(solve_classes(X, labels, k, penalty=1.0, start=bad), expected.coef, expected.intercept)


def test_a_solution_that_does_not_converge_is_named(
    X: np.ndarray, y: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descent, "MAX_ITERATIONS", 2)
    with pytest.warns(ConvergenceWarning, match="the solution of my head has not converged"):
        solve_classes(X, y, K, penalty=0.01, name="my head")


@pytest.mark.parametrize("sparse", [False, True])
def test_a_feature_that_is_no_number(X: np.ndarray, y: np.ndarray, sparse: bool) -> None:
    rows = X.copy()
    rows[7, 2] = np.nan
    with pytest.raises(DataError, match="row 7: a feature is NaN or infinite"):
        solve_classes(csr_array(rows) if sparse else rows, y, K)


# What it chooses


def test_folds_are_stratified() -> None:
    strata = np.array([0] * 12 + [1] * 6 + [2] * 2)
    numbers = fold_numbers(strata, None)
    expected = np.empty(len(strata), dtype=int)
    with pytest.warns(UserWarning, match="least populated class"):
        splits = list(StratifiedKFold(5).split(strata, strata))
    for number, (_, held_out) in enumerate(splits):
        expected[held_out] = number
    np.testing.assert_array_equal(numbers, expected)


def test_folds_keep_groups_together() -> None:
    groups = np.repeat(np.arange(7), 3)
    numbers = fold_numbers(np.arange(21) % 2, groups)
    assert len(np.unique(numbers)) == 5
    assert (numbers.reshape(7, 3) == numbers.reshape(7, 3)[:, :1]).all()
    assert not fold_numbers(np.arange(3), np.zeros(3)).any()


@pytest.mark.parametrize("kind", ["classes", "two", "labels", "numbers"])
def test_the_path_is_of_rows_that_were_held_out(X: np.ndarray, y: np.ndarray, weight: np.ndarray, kind: str) -> None:
    weight = weight + 0.5
    folds = fold_numbers(y, None)
    if kind == "classes":
        target, solution = y, solve_classes(X, y, K, weight)
    elif kind == "two":
        target, solution = (y > 0) * 1, solve_classes(X, (y > 0) * 1, 2, weight, folds=folds)
    elif kind == "labels":
        target, solution = (y > 0) * 1, solve_labels(X, (y[:, None] > 0) * 1, weight, folds=folds)
    else:
        target = X[:, 1] + y
        solution = solve_numbers(X, target[:, None], weight, folds=folds)
    assert len(solution.path) > 2
    for penalty, losses in solution.path:
        expected = np.empty(N)
        for number in range(5):
            held_out = folds == number
            fitting = X[~held_out], target[~held_out]
            mean = fitting[0].mean(axis=0)
            if kind == "numbers":
                model: Any = Ridge(alpha=penalty).fit(fitting[0] - mean, fitting[1], weight[~held_out])
                spread = np.average((target - np.average(target, weights=weight)) ** 2, weights=weight)
                expected[held_out] = (target[held_out] - model.predict(X[held_out] - mean)) ** 2 / spread
                continue
            model = LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=10_000)
            model.fit(fitting[0] - mean, fitting[1], weight[~held_out])
            probabilities = model.predict_log_proba(X[held_out] - mean)
            expected[held_out] = -probabilities[np.arange(held_out.sum()), target[held_out]]
        np.testing.assert_allclose(losses, np.average(expected, weights=weight), atol=2e-3, rtol=2e-3)
    least = min(losses[0] for _, losses in solution.path)
    assert solution.penalty[0] == next(p for p, losses in solution.path if losses[0] <= 1.001 * least + 1e-4)
    penalties = [penalty for penalty, _ in solution.path]
    assert penalties == sorted(penalties, reverse=True)


@pytest.mark.parametrize("wide", [False, True])
def test_numbers_leave_one_out_exactly(X: np.ndarray, y: np.ndarray, weight: np.ndarray, wide: bool) -> None:
    weight = weight[:40] + 0.5
    rows = np.random.default_rng(5).normal(size=(40, 90)) if wide else X[:40]
    Y = np.column_stack([rows[:, 0] + y[:40], 50.0 * np.arange(40)])
    solution = solve_numbers(rows, Y, weight)
    assert len(solution.path) == 19
    spread = np.average((Y - np.average(Y, axis=0, weights=weight)) ** 2, axis=0, weights=weight)
    for penalty, losses in solution.path[::6]:
        errors = [
            (Y[out] - Ridge(alpha=penalty).fit(rows[fit], Y[fit], weight[fit]).predict(rows[out])) ** 2
            for fit, out in LeaveOneOut().split(rows)
        ]
        expected = np.average(np.concatenate(errors), axis=0, weights=weight) / spread
        np.testing.assert_allclose(losses, expected, rtol=1e-6)


def test_numbers_as_ridge_cv(X: np.ndarray, y: np.ndarray) -> None:
    Y = np.column_stack([X[:, 0] + 0.1 * y, np.random.default_rng(6).normal(size=N)])
    solution = solve_numbers(X, Y)
    alphas = [penalty for penalty, _ in solution.path]
    model = RidgeCV(alphas, alpha_per_target=True, store_cv_results=True).fit(X, Y)
    table = np.stack([losses for _, losses in solution.path])
    np.testing.assert_allclose(table, model.cv_results_.mean(axis=0).T / Y.var(axis=0), rtol=1e-6)
    # Of noise, the strongest of the penalties that are as good is taken.
    assert (solution.penalty >= model.alpha_).all()
    assert solution.penalty[0] < solution.penalty[1]
    taken = [alphas.index(penalty) for penalty in solution.penalty]
    assert (table[taken, [0, 1]] <= 1.001 * table.min(axis=0)).all()


def test_noise_is_not_learned(X: np.ndarray) -> None:
    noise = np.random.default_rng(7).integers(0, K, N)
    solution = solve_classes(X, noise, K)
    assert np.ptp(solution.outputs(X), axis=0).max() < 0.5
    assert np.ptp(solve_classes(X, noise, K, penalty=1.0).outputs(X), axis=0).max() > 2


def test_groups_are_held_out_together() -> None:
    rng = np.random.default_rng(8)
    groups = np.tile(np.arange(40), 4)
    # Each group has features of its own, by which its label can be learned by heart.
    X = rng.normal(size=(40, 60))[groups]
    y = rng.integers(0, 2, 40)[groups]
    heart, honest = solve_classes(X, y, 2), solve_classes(X, y, 2, groups=groups)
    assert honest.penalty[0] > 10 * heart.penalty[0]
    assert min(losses[0] for _, losses in honest.path) > 0.6 > min(losses[0] for _, losses in heart.path)
    Y = y[:, None].astype(float)
    assert solve_numbers(X, Y, groups=groups).penalty[0] > 10 * solve_numbers(X, Y).penalty[0]


def test_choice_does_not_depend_on_the_unit_of_weights_or_features(X: np.ndarray, y: np.ndarray) -> None:
    expected = solve_classes(X, y, K)
    small = solve_classes(X, y, K, np.full(N, 1e-6))
    np.testing.assert_allclose(small.penalty, 1e-6 * expected.penalty)
    np.testing.assert_allclose(small.coef, expected.coef, atol=1e-6)
    large = solve_classes(1000 * X, y, K)
    np.testing.assert_allclose(large.penalty, 1e6 * expected.penalty)
    np.testing.assert_allclose(1000 * large.coef, expected.coef, atol=1e-6)


def test_a_class_that_a_fold_does_not_know(X: np.ndarray, y: np.ndarray) -> None:
    rare = np.where(np.arange(N) == 5, K, y)
    solution = solve_classes(X, rare, K + 1)
    others = np.arange(N) != 5
    folds = fold_numbers(rare, None)
    expected = solve_classes(X[others], y[others], K, folds=folds[others])
    # The row whose class is met in no other one says nothing of the penalty.
    assert solution.penalty == pytest.approx(expected.penalty, rel=0.05)
    probability = np.exp(log_softmax(solution.outputs(X), axis=1))[:, K]
    np.testing.assert_allclose(probability.sum(), 1, atol=1e-4)


def test_a_single_row_of_each_class() -> None:
    X = np.eye(4)
    solution = solve_classes(X, np.arange(4), 4)
    assert solution.path == []
    np.testing.assert_allclose(solution.penalty, 0.75 / 10**0.5)
    assert solution.outputs(X).argmax(axis=1).tolist() == [0, 1, 2, 3]
    for one_group in (solve_classes(X, np.arange(4) % 2, 2, groups=[1] * 4), solve_numbers(X[:1], np.ones((1, 1)))):
        assert one_group.path == []


def test_classes_and_labels_without_rows(X: np.ndarray, y: np.ndarray) -> None:
    solution = solve_classes(X, np.where(y == 0, 0, 2), 3)
    expected = solve_classes(X, np.minimum(y, 1), 2)
    probability = np.exp(log_softmax(solution.outputs(X), axis=1))
    assert 1e-3 < probability[:, 1].mean() < 0.02
    np.testing.assert_allclose(solution.coef[1], 0, atol=1e-6)
    np.testing.assert_allclose(probability[:, 0], expit(-np.diff(expected.outputs(X)))[:, 0], atol=0.1)
    alone = solve_classes(X, np.ones(N, dtype=int), 2)
    np.testing.assert_allclose(expit(np.diff(alone.outputs(X))), 1 - 0.5 / (N + 1))
    labels = solve_labels(X, np.column_stack([np.zeros(N), y > 0, np.ones(N)]))
    np.testing.assert_allclose(expit(labels.outputs(X))[:, [0, 2]], [[0.5 / (N + 1), 1 - 0.5 / (N + 1)]] * N, rtol=1e-5)
    np.testing.assert_allclose(labels.coef[1], expected.coef[1] - expected.coef[0], atol=1e-4)
    np.testing.assert_allclose(labels.penalty[[0, 2]], X.var(axis=0).sum() / 10**0.5)


def test_sorted_numbers_are_spread_over_the_folds(X: np.ndarray) -> None:
    rows, Y = csr_array(X), X[:, :1] + 0.1 * np.random.default_rng(9).normal(size=(N, 1))
    order = Y[:, 0].argsort()
    in_order, expected = solve_numbers(rows[order], Y[order]), solve_numbers(rows, Y)
    assert in_order.penalty == pytest.approx(expected.penalty)
    least = [min(losses[0] for _, losses in solution.path) for solution in (in_order, expected)]
    assert least[0] < 1.5 * least[1]


def test_pareto_scale(X: np.ndarray, weight: np.ndarray) -> None:
    X = np.column_stack([X, np.full(N, 0.1)])
    repeated = np.repeat(X, weight.astype(int), axis=0)
    expected = [*repeated[:, :D].std(axis=0), np.inf]
    np.testing.assert_allclose(pareto_scale(X, weight), expected)
    np.testing.assert_allclose(pareto_scale([csr_array(X[:, :2]), X[:, 2:]], weight), expected)


def test_features_that_are_all_the_same(y: np.ndarray) -> None:
    same = np.full((N, 4), 3.0)
    probability = np.exp(log_softmax(solve_classes(same, y, K).outputs(same), axis=1))
    np.testing.assert_allclose(probability, np.tile(np.bincount(y) / N, (N, 1)), atol=1e-6)
    np.testing.assert_allclose(solve_numbers(same, y[:, None]).outputs(same), y.mean())


@pytest.mark.parametrize("grouped", [False, True])
def test_of_many_rows_some_choose_the_penalty(
    X: np.ndarray, y: np.ndarray, monkeypatch: pytest.MonkeyPatch, grouped: bool
) -> None:
    groups = np.arange(N) // 3 if grouped else None
    monkeypatch.setattr(models, "MOST_ROWS", N // 2)
    seen = []
    choose = models.choose

    def seeing(features: Any, loss: Any, weight: np.ndarray, *args: Any) -> Any:
        seen.append(np.bincount(loss.target, minlength=K) / np.bincount(y))
        return choose(features, loss, weight, *args)

    monkeypatch.setattr(models, "choose", seeing)
    solution = solve_classes(X, y, K, groups=groups)
    assert_same(solution, *reference(X, y, solution.penalty[0]))
    assert len(seen) == 1
    np.testing.assert_allclose(seen[0], 0.5, atol=0.25 if grouped else 0.05)


def test_many_outputs_are_solved_for_in_turn(X: np.ndarray, y: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = solve_classes(X, y, K)
    monkeypatch.setattr("mmensemble.linear.choice.MOST_OUTPUTS", 2 * K)
    in_turn = solve_classes(X, y, K)
    assert in_turn.penalty == expected.penalty
    for (_, losses), (_, others) in zip(in_turn.path, expected.path, strict=True):
        np.testing.assert_allclose(losses, others, rtol=0.01)


def test_a_long_path_is_seen_from_several_places(X: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    y = (X[:, 0] > 5).astype(int)
    solution = solve_classes(X, y, 2)
    first, last = (next(p for p in path)[0] for path in (solution.path, solution.path[::-1]))
    assert first / last > 100
    monkeypatch.setattr("mmensemble.linear.choice.FAR", 100)
    from_one = dict(solve_classes(X, y, 2).path)
    assert len(from_one) >= len(solution.path)
    for penalty, losses in solution.path:
        np.testing.assert_allclose(losses, from_one[penalty], atol=0.02)
