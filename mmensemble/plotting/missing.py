"""Scores over the share of rows that miss a modality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from mmensemble.plotting._pyplot import pyplot, score_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.random import RandomState

    from mmensemble.learning.columns import Columns

__all__ = ["MissingModalityDisplay"]


class MissingModalityDisplay:
    """A score over the share of rows that miss a modality: a line for each modality.

    Use `from_estimator` to make one.

    Parameters
    ----------
    curve : Bunch
        What `mmensemble.missing_modality_curve` returned.
    score_name : str, default="score"
        What the axis calls the score.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    lines_ : list of matplotlib Line2D
        The mean over the repeats, for each modality; a band around it is a standard deviation wide to both sides.
    member_lines_ : list of matplotlib Line2D
        The scores of the members alone, where they are known.

    See Also
    --------
    mmensemble.missing_modality_curve : The numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.utils import Bunch
    >>> from mmensemble import MissingModalityDisplay
    >>> scores = np.array([[[0.9], [0.6]], [[0.9], [0.8]]])
    >>> curve = Bunch(fractions=np.array([0.0, 1.0]), scores=scores, names=["text", "image"], member_scores={})
    >>> display = MissingModalityDisplay(curve, score_name="accuracy").plot()
    >>> display.lines_[0].get_ydata().tolist()
    [0.9, 0.6]
    """

    __module__ = "mmensemble"

    def __init__(self, curve: Any, *, score_name: str = "score") -> None:
        self.curve = curve
        self.score_name = score_name

    def plot(self, ax: Axes | None = None, **kwargs: Any) -> Self:
        """Draw the lines.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        **kwargs : dict
            Passed to matplotlib's ``plot`` for the modalities' lines.

        Returns
        -------
        self

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        plt = pyplot()
        from matplotlib.ticker import PercentFormatter

        if ax is None:
            _, ax = plt.subplots(figsize=(7.2, 4.2), layout="constrained")
        curve = self.curve
        self.lines_: list[Any] = []
        self.member_lines_: list[Any] = []
        colours = {}
        for name, scores in zip(curve.names, curve.scores, strict=True):
            mean, deviation = scores.mean(axis=1), scores.std(axis=1)
            (line,) = ax.plot(curve.fractions, mean, **{"marker": "o", "label": f"without {name}", **kwargs})
            ax.fill_between(
                curve.fractions, mean - deviation, mean + deviation, color=line.get_color(), alpha=0.2, linewidth=0
            )
            colours[name] = line.get_color()
            self.lines_.append(line)
        for number, (name, score) in enumerate(curve.member_scores.items()):
            style: dict[str, Any] = {
                "linestyle": (0, (1 + number, 2)),
                "linewidth": 1.2,
                "color": colours.get(name, "0.3"),
            }
            self.member_lines_.append(ax.axhline(score, label=f"{name} alone", **style))
        ax.set(xlabel="Rows that miss the modality", ylabel=self.score_name[:1].upper() + self.score_name[1:])
        ax.xaxis.set_major_formatter(PercentFormatter(xmax=1))
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
        self.ax_: Axes = ax
        self.figure_: Figure | None = ax.get_figure(root=True)
        return self

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        fractions: Any = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
        scoring: Any = None,
        n_repeats: int = 3,
        random_state: int | RandomState | None = None,
        groups: Mapping[str, Columns] | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> MissingModalityDisplay:
        """Take cells away, score, and draw.

        Parameters
        ----------
        estimator : estimator
            A fitted composition.
        X : DataFrame (pandas or polars), n_samples rows
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        fractions : array-like of float, shape (n_fractions,), default=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
        scoring : str or callable, default=None
        n_repeats : int, default=3
        random_state : int, RandomState or None, default=None
        groups : dict of str to str or list of str, default=None
            These as in `mmensemble.missing_modality_curve`.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        MissingModalityDisplay

        Raises
        ------
        ConfigurationError, DataError, sklearn.exceptions.NotFittedError
            As `mmensemble.missing_modality_curve`.
        MissingDependencyError
            If matplotlib is not installed.
        """
        from mmensemble.inspection import missing_modality_curve

        pyplot()  # before the work, not after it
        curve = missing_modality_curve(
            estimator,
            X,
            y,
            fractions=fractions,
            scoring=scoring,
            n_repeats=n_repeats,
            random_state=random_state,
            groups=groups,
        )
        return cls(curve, score_name=score_name(estimator, scoring)).plot(ax, **kwargs)
