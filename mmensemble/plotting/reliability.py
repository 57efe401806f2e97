"""Reliability diagrams of the most probable class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from mmensemble.exceptions import ConfigurationError
from mmensemble.plotting._pyplot import pyplot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

__all__ = ["ReliabilityDisplay"]


class ReliabilityDisplay:
    """Accuracy over confidence, and how the confidences are distributed.

    The confidence is the probability of the most probable class. Points under the diagonal are over-confident. Use
    `from_estimator` or `from_predictions` to make one.

    Parameters
    ----------
    curve : Bunch
        What `mmensemble.inspection.reliability_curve` returned.
    estimator_name : str, default=None
        Name for the legend.

    Attributes
    ----------
    ax_ : matplotlib Axes
        With the diagram.
    histogram_ax_ : matplotlib Axes or None
        With the share of the rows in each bin.
    figure_ : matplotlib Figure
    line_ : matplotlib Line2D

    See Also
    --------
    mmensemble.expected_calibration_error : The number in the legend.
    sklearn.calibration.CalibrationDisplay : The same for one of two classes.

    References
    ----------
    Guo, Pleiss, Sun, Weinberger (2017). On calibration of modern neural networks. ICML.

    Examples
    --------
    >>> from mmensemble import ReliabilityDisplay
    >>> y_proba = [[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.2, 0.8]]
    >>> display = ReliabilityDisplay.from_predictions(["cat", "cat", "dog", "cat"], y_proba, n_bins=10, name="tree")
    >>> display.line_.get_label()
    'tree (ECE 0.200)'
    """

    __module__ = "mmensemble"

    def __init__(self, curve: Any, *, estimator_name: str | None = None) -> None:
        self.curve = curve
        self.estimator_name = estimator_name

    def plot(
        self, ax: Axes | None = None, *, histogram_ax: Axes | None = None, name: str | None = None, **kwargs: Any
    ) -> Self:
        """Draw the diagram; that of a second model onto the first by ``plot(first.ax_, histogram_ax=...)``.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw the diagram; None makes a figure with both axes.
        histogram_ax : matplotlib Axes, default=None
            Where to draw the histogram, if `ax` is given; None draws none there.
        name : str, default=None
            Name for the legend, instead of the estimator's.
        **kwargs : dict
            Passed to matplotlib's ``plot`` for the diagram.

        Returns
        -------
        self

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        plt = pyplot()
        first = ax is None or not ax.get_lines()
        if ax is None:
            _, (ax, histogram_ax) = plt.subplots(
                2, 1, figsize=(5.2, 6.2), sharex=True, height_ratios=(3, 1), layout="constrained"
            )
        curve = self.curve
        if first:
            ax.plot([0, 1], [0, 1], color="0.5", linestyle="--", linewidth=1, label="calibrated")
        name = self.estimator_name if name is None else name
        error = f"ECE {curve.expected_calibration_error:.3f}"
        filled = curve.weight > 0
        x, y = curve.confidence[filled], curve.accuracy[filled]
        self.line_: Line2D
        (self.line_,) = ax.plot(
            x,
            y,
            **{
                "marker": "o",
                "markersize": 5,
                "clip_on": False,
                "label": error if name is None else f"{name} ({error})",
                **kwargs,
            },
        )
        colour = self.line_.get_color()
        ax.vlines(x, np.minimum(x, y), np.maximum(x, y), color=colour, alpha=0.3, linewidth=3)
        ax.set(ylabel="Accuracy", xlim=(0, 1), ylim=(0, 1))
        ax.legend()
        if histogram_ax is None:
            ax.set_xlabel("Confidence")
        else:
            top = histogram_ax.get_ylim()[1] if histogram_ax.patches else 0.0
            share = curve.weight / curve.weight.sum()
            histogram_ax.stairs(share, curve.bin_edges, fill=True, color=colour, alpha=0.35)
            histogram_ax.stairs(share, curve.bin_edges, color=colour)
            histogram_ax.set(xlabel="Confidence", ylabel="Share of rows", xlim=(0, 1))
            histogram_ax.set_ylim(0.0, max(top, 1.05 * float(share.max())))
        self.ax_: Axes = ax
        self.histogram_ax_: Axes | None = histogram_ax
        self.figure_: Figure | None = ax.get_figure(root=True)
        return self

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        n_bins: int = 15,
        strategy: str = "uniform",
        sample_weight: Any = None,
        name: str | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> ReliabilityDisplay:
        """Predict and draw.

        Parameters
        ----------
        estimator : classifier
            Fitted, with `predict_proba`.
        X : DataFrame or other input of the classifier, n_samples rows
        y : array-like of shape (n_samples,)
        n_bins : int, default=15
        strategy : {"uniform", "quantile"}, default="uniform"
        sample_weight : array-like of float, shape (n_samples,), default=None
            These as in `mmensemble.expected_calibration_error`.
        name : str, default=None
            Name for the legend; None takes the estimator's class.
        ax : matplotlib Axes, default=None
        **kwargs : dict
            These as in `plot`.

        Returns
        -------
        ReliabilityDisplay

        Raises
        ------
        ConfigurationError
            If the estimator has no `predict_proba`, or predicts several columns.
        DataError, sklearn.exceptions.NotFittedError
            As `mmensemble.expected_calibration_error` and the estimator.
        MissingDependencyError
            If matplotlib is not installed.
        """
        from sklearn.utils.validation import check_is_fitted

        pyplot()
        check_is_fitted(estimator)
        if not hasattr(estimator, "predict_proba"):
            raise ConfigurationError(f"{type(estimator).__name__} has no predict_proba")
        proba = estimator.predict_proba(X)
        if isinstance(proba, list) or isinstance(estimator.classes_, list):
            raise ConfigurationError("of several columns of labels, give one by from_predictions")
        return cls.from_predictions(
            y,
            proba,
            n_bins=n_bins,
            strategy=strategy,
            classes=estimator.classes_,
            sample_weight=sample_weight,
            name=type(estimator).__name__ if name is None else name,
            ax=ax,
            **kwargs,
        )

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        y_proba: Any,
        *,
        n_bins: int = 15,
        strategy: str = "uniform",
        classes: Any = None,
        sample_weight: Any = None,
        name: str | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> ReliabilityDisplay:
        """Draw from probabilities.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
        y_proba : array-like of float, shape (n_samples, n_classes) or (n_samples,)
        n_bins : int, default=15
        strategy : {"uniform", "quantile"}, default="uniform"
        classes : array-like of shape (n_classes,), default=None
        sample_weight : array-like of float, shape (n_samples,), default=None
            These as in `mmensemble.expected_calibration_error`.
        name : str, default=None
            Name for the legend.
        ax : matplotlib Axes, default=None
        **kwargs : dict
            These as in `plot`.

        Returns
        -------
        ReliabilityDisplay

        Raises
        ------
        ConfigurationError, DataError
            As `mmensemble.expected_calibration_error`.
        MissingDependencyError
            If matplotlib is not installed.
        """
        from mmensemble.inspection import reliability_curve

        curve = reliability_curve(
            y_true, y_proba, n_bins=n_bins, strategy=strategy, classes=classes, sample_weight=sample_weight
        )
        return cls(curve, estimator_name=name).plot(ax, **kwargs)
