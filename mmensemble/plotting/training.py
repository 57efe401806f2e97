"""The course of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from mmensemble.exceptions import ConfigurationError
from mmensemble.plotting._pyplot import pyplot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

__all__ = ["TrainingCurveDisplay"]

_LABELS = {"train_loss": "training", "valid_loss": "validation"}


class TrainingCurveDisplay:
    """The loss of a network over the epochs of its training.

    Use `from_estimator` to make one.

    Parameters
    ----------
    epochs : array-like of int, shape (n_epochs,)
    train_loss : array-like of float, shape (n_epochs,)
        Loss on the fitting rows, as they were varied and with dropout.
    valid_loss : array-like of float, shape (n_epochs,), default=None
        Loss on the rows that ``early_stopping`` set aside.
    estimator_name : str, default=None
        Name for the legend.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    line_ : matplotlib Line2D
        The training loss.
    valid_line_ : matplotlib Line2D or None
        The validation loss, where there is one.
    best_line_ : matplotlib Line2D or None
        Marks the epoch of the lowest validation loss, whose weights ``early_stopping`` restores.

    See Also
    --------
    sklearn.model_selection.LearningCurveDisplay : Scores over the number of fitting rows.

    Examples
    --------
    >>> from mmensemble import TrainingCurveDisplay
    >>> display = TrainingCurveDisplay([1, 2, 3], [1.1, 0.8, 0.7], [1.0, 0.8, 0.9]).plot()
    >>> display.ax_.get_xlabel()
    'Epoch'
    """

    __module__ = "mmensemble"

    def __init__(
        self, epochs: Any, train_loss: Any, valid_loss: Any = None, *, estimator_name: str | None = None
    ) -> None:
        self.epochs = epochs
        self.train_loss = train_loss
        self.valid_loss = valid_loss
        self.estimator_name = estimator_name

    def plot(self, ax: Axes | None = None, *, name: str | None = None, **kwargs: Any) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        name : str, default=None
            Name for the legend, instead of the estimator's.
        **kwargs : dict
            Passed to matplotlib's ``plot`` for both curves.

        Returns
        -------
        self

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        plt = pyplot()
        from matplotlib.ticker import MaxNLocator

        if ax is None:
            _, ax = plt.subplots()
        name = self.estimator_name if name is None else name
        before = "" if name is None else f"{name}, "
        self.line_: Line2D
        self.valid_line_: Line2D | None = None
        self.best_line_: Line2D | None = None
        (self.line_,) = ax.plot(
            self.epochs, self.train_loss, **{"label": f"{before}{_LABELS['train_loss']}", "marker": ".", **kwargs}
        )
        if self.valid_loss is not None:
            style = {"label": f"{before}{_LABELS['valid_loss']}", "linestyle": "--", "marker": "."}
            (self.valid_line_,) = ax.plot(
                self.epochs, self.valid_loss, **{**style, "color": self.line_.get_color(), **kwargs}
            )
            _, best = min(zip(self.valid_loss, self.epochs, strict=True))
            self.best_line_ = ax.axvline(best, color=self.valid_line_.get_color(), linestyle=":", linewidth=1)
        ax.set(xlabel="Epoch", ylabel="Loss")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend()
        self.ax_: Axes = ax
        self.figure_: Figure | None = ax.get_figure(root=True)
        return self

    @classmethod
    def from_estimator(
        cls, estimator: Any, ax: Axes | None = None, *, name: str | None = None, **kwargs: Any
    ) -> TrainingCurveDisplay:
        """Draw the training of a fitted estimator.

        Parameters
        ----------
        estimator : estimator
            With a ``history_`` frame, as the estimators of `mmensemble_estimators` have it.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        name : str, default=None
            Name for the legend; None takes the estimator's class.
        **kwargs : dict
            Passed to matplotlib's ``plot``.

        Returns
        -------
        TrainingCurveDisplay

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        ConfigurationError
            If it keeps no history of a training.
        MissingDependencyError
            If matplotlib is not installed.
        """
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(estimator)
        history = getattr(estimator, "history_", None)
        if history is None:
            raise ConfigurationError(
                f"{type(estimator).__name__} has no history_ of a training; of a composition, take one of its members"
            )
        if "epoch" not in history:
            raise ConfigurationError(
                f"the head of {type(estimator).__name__} was solved, not trained: it had no epochs"
            )
        display = cls(
            history["epoch"].to_numpy(),
            history["train_loss"].to_numpy(),
            history["valid_loss"].to_numpy() if "valid_loss" in history else None,
            estimator_name=type(estimator).__name__ if name is None else name,
        )
        return display.plot(ax, **kwargs)
