"""Box plots of permutation importances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from mmensemble.plotting._pyplot import pyplot, score_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.random import RandomState

    from mmensemble.learning.columns import Columns

__all__ = ["ModalityImportanceDisplay"]


class ModalityImportanceDisplay:
    """How much a score drops when a modality is shuffled: a box over the repeats for each modality.

    Use `from_estimator` to make one, or give what `mmensemble.modality_importance` returned.

    Parameters
    ----------
    importances : array-like of float, shape (n_modalities, n_repeats)
    names : sequence of str, n_modalities of them
    score_name : str, default="score"
        What the axis calls the score.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    boxes_ : dict of str to list of matplotlib artists
        What matplotlib's ``boxplot`` returned.

    See Also
    --------
    mmensemble.modality_importance : The numbers.

    Examples
    --------
    >>> from mmensemble import ModalityImportanceDisplay
    >>> display = ModalityImportanceDisplay([[0.2, 0.3, 0.25], [0.1, 0.1, 0.2]], ["text", "image"]).plot()
    >>> [label.get_text() for label in display.ax_.get_yticklabels()]
    ['image', 'text']
    """

    __module__ = "mmensemble"

    def __init__(self, importances: Any, names: Sequence[str], *, score_name: str = "score") -> None:
        self.importances = importances
        self.names = names
        self.score_name = score_name

    def plot(self, ax: Axes | None = None, **kwargs: Any) -> Self:
        """Draw the boxes, the most important modality at the top.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        **kwargs : dict
            Passed to matplotlib's ``boxplot``.

        Returns
        -------
        self

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        plt = pyplot()
        importances = np.asarray(self.importances, dtype=np.float64)
        if ax is None:
            _, ax = plt.subplots(figsize=(6.4, 1.2 + 0.6 * len(importances)), layout="constrained")
        order = np.argsort(importances.mean(axis=1), kind="stable")
        ax.axvline(0, color="0.6", linewidth=1, linestyle="--", zorder=0)
        style = {
            "widths": 0.55,
            "patch_artist": True,
            "boxprops": {"facecolor": "#9ecae1", "edgecolor": "#08519c"},
            "medianprops": {"color": "#08519c", "linewidth": 2},
            "whiskerprops": {"color": "#08519c"},
            "capprops": {"color": "#08519c"},
            "flierprops": {"markeredgecolor": "#08519c", "markersize": 4},
        }
        self.boxes_: dict[str, list[Any]] = ax.boxplot(
            list(importances[order]),
            **{"orientation": "horizontal", "tick_labels": [self.names[i] for i in order], **style, **kwargs},
        )
        ax.set(xlabel=f"Decrease in {self.score_name} when shuffled")
        ax.spines[["top", "right"]].set_visible(False)
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
        scoring: Any = None,
        n_repeats: int = 10,
        random_state: int | RandomState | None = None,
        n_jobs: int | None = None,
        sample_weight: Any = None,
        groups: Mapping[str, Columns] | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> ModalityImportanceDisplay:
        """Compute permutation importances and draw them.

        Parameters
        ----------
        estimator : estimator
            A fitted composition.
        X : DataFrame (pandas or polars), n_samples rows
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        scoring : str or callable, default=None
        n_repeats : int, default=10
        random_state : int, RandomState or None, default=None
        n_jobs : int, default=None
        sample_weight : array-like of float, shape (n_samples,), default=None
        groups : dict of str to str or list of str, default=None
            These as in `mmensemble.modality_importance`.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        **kwargs : dict
            Passed to matplotlib's ``boxplot``.

        Returns
        -------
        ModalityImportanceDisplay

        Raises
        ------
        ConfigurationError, DataError, sklearn.exceptions.NotFittedError
            As `mmensemble.modality_importance`.
        MissingDependencyError
            If matplotlib is not installed.
        """
        from mmensemble.inspection import modality_importance

        pyplot()  # before the work, not after it
        result = modality_importance(
            estimator,
            X,
            y,
            scoring=scoring,
            n_repeats=n_repeats,
            random_state=random_state,
            n_jobs=n_jobs,
            sample_weight=sample_weight,
            groups=groups,
        )
        return cls(result.importances, result.names, score_name=score_name(estimator, scoring)).plot(ax, **kwargs)
