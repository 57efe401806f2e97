"""What modalities add to predictions: bars over classes, or a point for each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from mmensemble.exceptions import ConfigurationError
from mmensemble.plotting._pyplot import pyplot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mmensemble.learning.columns import Columns

__all__ = ["ModalityShapleyDisplay"]


class ModalityShapleyDisplay:
    """Shapley values of modalities.

    Use `from_estimator` to make one, or give what `mmensemble.modality_shapley` returned.

    Parameters
    ----------
    shapley_values : array-like of float, shape (n_samples, n_modalities, n_outputs)
    predictions : array-like of float, shape (n_samples, n_outputs)
    names : sequence of str, n_modalities of them
    output_names : sequence of str, n_outputs of them

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    bars_ : list of matplotlib BarContainer
        One for each modality; with ``kind="bar"`` only.
    points_ : list of matplotlib PathCollection
        One for each modality; with ``kind="beeswarm"`` only.

    See Also
    --------
    mmensemble.modality_shapley : The numbers.

    Examples
    --------
    >>> from mmensemble import ModalityShapleyDisplay
    >>> values = [[[0.3, -0.3], [0.1, -0.1]], [[-0.2, 0.2], [0.1, -0.1]]]
    >>> predictions = [[0.9, 0.1], [0.4, 0.6]]
    >>> display = ModalityShapleyDisplay(values, predictions, ["text", "image"], ["fruit", "vehicle"]).plot()
    >>> [label.get_text() for label in display.ax_.get_legend().get_texts()]
    ['text', 'image']
    """

    __module__ = "mmensemble"

    def __init__(
        self, shapley_values: Any, predictions: Any, names: Sequence[str], output_names: Sequence[str]
    ) -> None:
        self.shapley_values = shapley_values
        self.predictions = predictions
        self.names = names
        self.output_names = output_names

    def plot(
        self, ax: Axes | None = None, *, kind: str = "bar", output: str | int | None = None, **kwargs: Any
    ) -> Self:
        """Draw the values.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        kind : {"bar", "beeswarm"}, default="bar"
            ``"bar"``: the mean absolute value of each modality, for each output. ``"beeswarm"``: a point for each row
            and modality, coloured by the prediction.
        output : str or int, default=None
            The only output to draw, by name or position. None is all of them for bars; for points, each row's highest
            one: of a classifier, the predicted class.
        **kwargs : dict
            Passed to matplotlib's ``barh`` or ``scatter``.

        Returns
        -------
        self

        Raises
        ------
        ConfigurationError
            For another `kind`, or an `output` that is not there.
        MissingDependencyError
            If matplotlib is not installed.
        """
        pyplot()
        if kind not in ("bar", "beeswarm"):
            raise ConfigurationError(f"kind must be 'bar' or 'beeswarm', not {kind!r}")
        values = np.asarray(self.shapley_values, dtype=np.float64)
        position = None if output is None else self._position(output)
        draw = self._bars if kind == "bar" else self._beeswarm
        self.ax_: Axes = draw(ax, values, position, kwargs)
        self.ax_.spines[["top", "right"]].set_visible(False)
        self.figure_: Figure | None = self.ax_.get_figure(root=True)
        return self

    def _position(self, output: str | int) -> int:
        names = list(self.output_names)
        if isinstance(output, str) and output in names:
            return names.index(output)
        if isinstance(output, (int, np.integer)) and -len(names) <= output < len(names):
            return int(output) % len(names)
        raise ConfigurationError(f"there is no output {output!r}; the outputs are {names}")

    def _bars(self, ax: Axes | None, values: np.ndarray, position: int | None, kwargs: dict[str, Any]) -> Axes:
        shown = np.arange(values.shape[2]) if position is None else np.array([position])
        means = np.abs(values).mean(axis=0)[:, shown]
        if ax is None:
            height = 1.2 + len(shown) * (0.16 + 0.16 * len(self.names))
            _, ax = pyplot().subplots(figsize=(7.2, max(height, 1.8)), layout="constrained")
        thickness = 0.8 / len(self.names)
        places = np.arange(len(shown))
        self.bars_: list[Any] = [
            ax.barh(
                places + (number - (len(self.names) - 1) / 2) * thickness,
                mean,
                **{"height": thickness, "label": name, **kwargs},
            )
            for number, (name, mean) in enumerate(zip(self.names, means, strict=True))
        ]
        ax.set_yticks(places, [self.output_names[i] for i in shown])
        ax.set_ylim(len(shown) - 0.5, -0.5)  # the first one at the top
        ax.set_xlabel("Mean absolute Shapley value")
        ax.legend(title="Modality", loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
        return ax

    def _beeswarm(self, ax: Axes | None, values: np.ndarray, position: int | None, kwargs: dict[str, Any]) -> Axes:
        predictions = np.asarray(self.predictions, dtype=np.float64)
        chosen = predictions.argmax(axis=1) if position is None else np.full(len(predictions), position)
        rows = np.arange(len(predictions))
        colours = predictions[rows, chosen]
        if ax is None:
            _, ax = pyplot().subplots(figsize=(7.2, 1.4 + 1.0 * len(self.names)), layout="constrained")
        ax.axvline(0, color="0.6", linewidth=1, linestyle="--", zorder=0)
        style = {"c": colours, "s": 14, "cmap": "viridis", "linewidths": 0, "alpha": 0.9, **kwargs}
        spread = values[rows, :, chosen]
        span = (float(spread.min()), float(spread.max()))
        self.points_: list[Any] = [
            ax.scatter(spread[:, number], number + _swarm(spread[:, number], span), **style)
            for number in range(len(self.names))
        ]
        for points in self.points_:
            points.set_clim(float(colours.min()), float(colours.max()))
        ax.set_yticks(range(len(self.names)), list(self.names))
        ax.set_ylim(len(self.names) - 0.5, -0.5)
        of = "each row's highest output" if position is None else f"{self.output_names[position]}"
        ax.set_xlabel(f"Shapley value for {of}")
        figure = ax.get_figure()
        if figure is not None:
            figure.colorbar(self.points_[0], ax=ax, label=f"Prediction for {of}")
        return ax

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        method: str = "auto",
        groups: Mapping[str, Columns] | None = None,
        kind: str = "bar",
        output: str | int | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> ModalityShapleyDisplay:
        """Compute Shapley values and draw them.

        Parameters
        ----------
        estimator : estimator
            A fitted composition.
        X : DataFrame (pandas or polars), n_samples rows
        method : {"auto", "predict_proba", "decision_function", "predict"}, default="auto"
        groups : dict of str to str or list of str, default=None
            These as in `mmensemble.modality_shapley`.
        kind : {"bar", "beeswarm"}, default="bar"
        output : str or int, default=None
        ax : matplotlib Axes, default=None
        **kwargs : dict
            These as in `plot`.

        Returns
        -------
        ModalityShapleyDisplay

        Raises
        ------
        ConfigurationError, DataError, sklearn.exceptions.NotFittedError
            As `mmensemble.modality_shapley` and `plot`.
        MissingDependencyError
            If matplotlib is not installed.
        """
        from mmensemble.inspection import modality_shapley

        pyplot()  # before the work, not after it
        result = modality_shapley(estimator, X, method=method, groups=groups)
        display = cls(result.shapley_values, result.predictions, result.names, result.output_names)
        return display.plot(ax, kind=kind, output=output, **kwargs)


def _swarm(values: np.ndarray, span: tuple[float, float], *, n_bins: int = 80, reach: float = 0.38) -> np.ndarray:
    """Move points that would lie on each other apart: up and down in turn within narrow bins."""
    low, high = span
    bins = np.digitize(values, np.linspace(low, high if high > low else low + 1.0, n_bins + 1))
    offsets = np.zeros(len(values))
    for number in np.unique(bins):
        members = np.flatnonzero(bins == number)
        rank = np.arange(1, len(members) + 1) // 2
        offsets[members] = np.where(np.arange(len(members)) % 2, rank, -rank)
    # Points 14 square points wide need some room; few points must not be torn apart.
    return offsets * min(0.06, reach / max(1.0, float(np.abs(offsets).max(initial=0.0))))
