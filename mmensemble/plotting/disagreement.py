"""A heat map of how members disagree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from mmensemble.exceptions import ConfigurationError
from mmensemble.plotting._pyplot import ink_on, pyplot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

__all__ = ["MemberDisagreementDisplay"]

# The name of each measure, and whether it has a sign.
_MEASURES = {
    "disagreement": ("Disagreement", False),
    "double_fault": ("Both wrong", False),
    "error_correlation": ("Correlation of errors", True),
    "q_statistic": ("Q statistic", True),
}


class MemberDisagreementDisplay:
    """A measure of disagreement for each pair of members.

    Use `from_estimator` or `from_predictions` to make one.

    Parameters
    ----------
    pairwise : pandas.DataFrame
        The field of that name of what `mmensemble.member_disagreement` returned.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    im_ : matplotlib AxesImage
    text_ : list of matplotlib Text
        The numbers in the cells.

    See Also
    --------
    mmensemble.member_disagreement : The numbers.

    Examples
    --------
    >>> from mmensemble import MemberDisagreementDisplay
    >>> predictions = {"text": list("abab"), "image": list("abba"), "ensemble": list("abaa")}
    >>> display = MemberDisagreementDisplay.from_predictions(predictions)
    >>> [text.get_text() for text in display.text_]
    ['0.50', '0.25', '0.25']
    """

    __module__ = "mmensemble"

    def __init__(self, pairwise: Any) -> None:
        self.pairwise = pairwise

    def plot(
        self, ax: Axes | None = None, *, measure: str = "disagreement", cmap: Any = None, colorbar: bool = True
    ) -> Self:
        """Draw the heat map: the half below the diagonal, since the measures are symmetric.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        measure : {"disagreement", "double_fault", "error_correlation", "q_statistic"}, default="disagreement"
            A column of `pairwise`; all but the first one need the truth.
        cmap : str or matplotlib Colormap, default=None
        colorbar : bool, default=True

        Returns
        -------
        self

        Raises
        ------
        ConfigurationError
            If `pairwise` has no such measure, or there is one column of predictions only.
        MissingDependencyError
            If matplotlib is not installed.
        """
        plt = pyplot()
        if measure not in self.pairwise or measure not in _MEASURES:
            there = [name for name in _MEASURES if name in self.pairwise]
            raise ConfigurationError(f"there is no measure {measure!r}; there are {there}; those of errors need y")
        names = list(dict.fromkeys([*self.pairwise["first"], *self.pairwise["second"]]))
        below, beside = names[1:], names[:-1]
        table = np.full((len(below), len(beside)), np.nan)
        for first, second, value in self.pairwise[["first", "second", measure]].itertuples(index=False):
            table[below.index(second), beside.index(first)] = value
        label, signed = _MEASURES[measure]
        if ax is None:
            size = 0.95 * len(below)
            _, ax = plt.subplots(figsize=(2.6 + size, 1.4 + size), layout="compressed")
        finite = table[np.isfinite(table)]
        limits = (-1.0, 1.0) if signed else (0.0, max(float(finite.max(initial=0.0)), 1e-9))
        self.im_: AxesImage = ax.imshow(
            table, cmap=cmap or ("RdBu_r" if signed else "Blues"), vmin=limits[0], vmax=limits[1]
        )
        self.text_: list[Any] = []
        for row, column in np.argwhere(np.tril(np.ones(table.shape, dtype=bool))).tolist():
            value = table[row, column]
            shown = "n/a" if np.isnan(value) else f"{value:.2f}"
            ink = "black" if np.isnan(value) else ink_on(self.im_, value)
            self.text_.append(ax.text(column, row, shown, ha="center", va="center", color=ink))
        slanted = max(len(str(name)) for name in beside) > 9
        ax.set_xticks(
            range(len(beside)),
            beside,
            rotation=30 * slanted,
            ha="right" if slanted else "center",
            rotation_mode="anchor",
        )
        ax.set_yticks(range(len(below)), below)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        figure = ax.get_figure()
        if colorbar and figure is not None:
            figure.colorbar(self.im_, ax=ax, label=label, shrink=0.9)
        else:
            ax.set_title(label)
        self.ax_: Axes = ax
        self.figure_: Figure | None = ax.get_figure(root=True)
        return self

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: Any = None, *, ax: Axes | None = None, **kwargs: Any
    ) -> MemberDisagreementDisplay:
        """Let the members of a fitted composition predict, and draw how they disagree.

        Parameters
        ----------
        estimator : estimator
            A fitted composition with late fusion, or of scikit-learn.
        X : DataFrame (pandas or polars), n_samples rows
        y : array-like of shape (n_samples,), default=None
        ax : matplotlib Axes, default=None
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        MemberDisagreementDisplay

        Raises
        ------
        ConfigurationError, DataError, sklearn.exceptions.NotFittedError
            As `mmensemble.member_disagreement` and `plot`.
        MissingDependencyError
            If matplotlib is not installed.
        """
        from mmensemble.inspection import member_disagreement

        pyplot()  # before the work, not after it
        return cls(member_disagreement(estimator, X, y).pairwise).plot(ax, **kwargs)

    @classmethod
    def from_predictions(
        cls, predictions: Any, y: Any = None, *, ax: Axes | None = None, **kwargs: Any
    ) -> MemberDisagreementDisplay:
        """Draw how columns of predictions disagree.

        Parameters
        ----------
        predictions : pandas.DataFrame or dict of str to array-like, n_samples rows
        y : array-like of shape (n_samples,), default=None
        ax : matplotlib Axes, default=None
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        MemberDisagreementDisplay

        Raises
        ------
        ConfigurationError, DataError
            As `mmensemble.inspection.pairwise_disagreement` and `plot`.
        MissingDependencyError
            If matplotlib is not installed.
        """
        from mmensemble.inspection import pairwise_disagreement

        return cls(pairwise_disagreement(predictions, y)).plot(ax, **kwargs)
