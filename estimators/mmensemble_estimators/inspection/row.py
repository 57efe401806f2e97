"""Why a composition predicts what it does for one row: its modalities, its members, the tokens and the pixels."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from sklearn.base import is_classifier
from sklearn.utils.validation import check_is_fitted

from mmensemble.exceptions import ConfigurationError, DataError, MissingDependencyError
from mmensemble.frames import column_cells, missing_cells, n_rows
from mmensemble.fusion import Fusion, LateFusion, Member
from mmensemble.inspection import modality_shapley
from mmensemble.learning.columns import as_list
from mmensemble.learning.outputs import outputs_of
from mmensemble_estimators.base.estimator import TorchEstimator
from mmensemble_estimators.image import ImageModality
from mmensemble_estimators.inspection._gradients import N_STEPS, pyplot
from mmensemble_estimators.inspection._lettering import LINE_HEIGHT, segments, wrapped
from mmensemble_estimators.inspection.image import ImageSaliencyDisplay, image_saliency
from mmensemble_estimators.inspection.text import TokenAttribution, TokenAttributionDisplay, token_attributions
from mmensemble_estimators.text import TextModality

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["RowExplanation", "explain_row"]

# For and against, as the ends of the colour map RdBu_r.
_FOR, _AGAINST = "#b2182b", "#2166ac"
_LETTERS = 84
_INCHES = 8.0


@dataclass(frozen=True)
class RowExplanation:
    """Why a composition predicts what it does for one row.

    Parameters
    ----------
    target : str
        The output that is explained: a class, a label, a target.
    prediction : float
        Its probability, or the number.
    base_value : float
        What is predicted where every modality is missing.
    modalities : dict of str to float
        What each one adds, signed: Shapley values, which with `base_value` add up to `prediction`.
    members : dict of str to float
        What each member predicts by itself; NaN where the row lacks its modality. Empty of a strategy whose members
        predict nothing by themselves.
    texts : dict of str to (str, list of TokenAttribution)
        By member, the text and what each token adds to that member's score.
    images : dict of str to (ndarray of uint8 (size, size, 3), ndarray of float (size, size))
        By member, the image as the network sees it, and what each pixel adds.
    left_out : dict of str to str
        Members into which nothing looks, and why.
    """

    __module__ = "mmensemble_estimators.inspection"
    target: str
    prediction: float
    base_value: float
    modalities: dict[str, float]
    members: dict[str, float]
    texts: dict[str, tuple[str, list[TokenAttribution]]] = field(default_factory=dict)
    images: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        shares = ", ".join(f"{name} {value:+.3g}" for name, value in self.modalities.items())
        return f"{self.target}: {self.prediction:.3g} = {self.base_value:.3g} {shares}"

    def plot(self) -> Figure:
        """Draw it all in one figure.

        Returns
        -------
        matplotlib Figure

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        plt = pyplot()
        heights = [0.7 + 0.34 * max(len(self.modalities), len(self.members), 2)]
        lines = [len(wrapped(segments(text, tokens), _LETTERS)) + 1 for text, tokens in self.texts.values()]
        heights += [_INCHES / _LETTERS * LINE_HEIGHT * n for n in lines]
        heights += [2.6 for _ in self.images]
        figure = plt.figure(figsize=(_INCHES, sum(heights) + 0.45), layout="constrained")
        figure.suptitle(f"{self.target}: {self.prediction:.3g}")
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        left, right = parts[0].subplots(1, 2) if self.members else (parts[0].subplots(), None)
        self._draw_modalities(left)
        if right is not None:
            self._draw_members(right)
        rest = iter(parts[1:])
        for name, (text, tokens) in self.texts.items():
            TokenAttributionDisplay([text], [tokens], titles=[name]).plot(next(rest).subplots(), width=_LETTERS)
        for name, (pixels, saliency) in self.images.items():
            axes = next(rest).subplots(1, 2)
            ImageSaliencyDisplay(pixels[None], saliency[None], titles=[name]).plot(np.array(axes)[:, None])
        return figure

    def _draw_modalities(self, ax: Axes) -> None:
        """Draw the way from the base value to the prediction, a step for each modality."""
        place, names = self.base_value, list(self.modalities)
        for number, value in enumerate(self.modalities.values()):
            ax.barh(number, value, left=place, height=0.6, color=_FOR if value > 0 else _AGAINST)
            end = (max(place, place + value), number)
            ax.annotate(f"{value:+.3g}", end, (3, 0), textcoords="offset points", va="center")
            place += value
        for line, style in ((self.base_value, ":"), (self.prediction, "-")):
            ax.axvline(line, color="0.5", linewidth=1, linestyle=style, zorder=0)
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.margins(x=0.22)
        ax.set_xlabel(f"from {self.base_value:.3g}, where all is missing, to {self.prediction:.3g}")
        ax.spines[["top", "right"]].set_visible(False)

    def _draw_members(self, ax: Axes) -> None:
        names, values = list(self.members), list(self.members.values())
        ax.barh(range(len(names)), np.nan_to_num(values), height=0.6, color="0.6")
        for number, value in enumerate(values):
            text = "missing" if np.isnan(value) else f"{value:.3g}"
            ax.annotate(text, (np.nan_to_num(value), number), (3, 0), textcoords="offset points", va="center")
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.margins(x=0.22)
        ax.set_xlabel("each member by itself")
        ax.spines[["top", "right"]].set_visible(False)

    def _repr_html_(self) -> str:
        return self.to_html()

    def to_html(self) -> str:
        """Return it as a piece of HTML without scripts, as notebooks show it."""
        span = max((abs(value) for value in self.modalities.values()), default=0.0) or 1.0
        shares = [
            (name, f"{value:+.3g}", _bar(abs(value) / span, _FOR if value > 0 else _AGAINST))
            for name, value in self.modalities.items()
        ]
        members = [(name, "missing" if np.isnan(value) else f"{value:.3g}", "") for name, value in self.members.items()]
        parts = [
            f"<p><b>{escape(self.target)}: {self.prediction:.3g}</b> (where all is missing: {self.base_value:.3g})</p>",
            _table("modality", "adds", shares),
            *([_table("member", "by itself", members)] if members else []),
        ]
        for name, (text, tokens) in self.texts.items():
            most = max((abs(token.attribution) for token in tokens), default=0.0) or 1.0
            pieces = "".join(_piece(piece, value, most) for piece, value in segments(text, tokens))
            parts.append(f"<p><b>{escape(name)}</b><br><span style='font-family: monospace'>{pieces}</span></p>")
        for name, (pixels, saliency) in self.images.items():
            both, alt = np.hstack([pixels, _coloured(saliency)]), f"{name}, and what each pixel adds"
            parts.append(f"<p><b>{escape(name)}</b><br><img alt='{escape(alt)}' src='{_uri(both)}'></p>")
        parts += [f"<p>{escape(name)}: {escape(reason)}</p>" for name, reason in self.left_out.items()]
        return f"<div style='max-width: 60em'>{''.join(parts)}</div>"


def explain_row(
    model: Any, row: Any, target: Any = None, *, groups: Mapping[str, Any] | None = None, n_steps: int = N_STEPS
) -> RowExplanation:
    """Say why a composition predicts what it does for one row.

    Parameters
    ----------
    model : MultimodalClassifier or MultimodalRegressor
        Fitted.
    row : DataFrame (pandas or polars), 1 row
        As ``X.iloc[[number]]``.
    target : label or int, default=None
        The class that is explained; of several labels or targets one by its position. None is the predicted class, or
        the only target.
    groups : dict of str to str or list of str, default=None
        As in `mmensemble.modality_shapley`.
    n_steps : int, default=50
        As in `token_attributions`.

    Returns
    -------
    RowExplanation
        With `plot`, and in a notebook shown as HTML.

    Raises
    ------
    ConfigurationError
        If the model is no composition, or `target` is not there.
    DataError
        If it is not one row, or a cell cannot be read.
    sklearn.exceptions.NotFittedError
        If the model is not fitted.

    See Also
    --------
    mmensemble.modality_shapley : The same of many rows, modalities alone.
    token_attributions, image_saliency : The parts of it.

    Notes
    -----
    Tokens and pixels are those of each member by itself, whose score they explain, and not the composition's. They need
    captum (the extra ``inspect``); without it they are left out, as are members that are no neural network of a text or
    a picture, and those of a joint strategy, which have no score of their own.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.linear_model import LogisticRegression
    >>> from mmensemble import MultimodalClassifier
    >>> from mmensemble_estimators.inspection import explain_row
    >>> X = pd.DataFrame({"weight": [0.1, 900.0] * 10, "noise": [0.0, 0.0, 1.0, 1.0] * 5})
    >>> members = [("facts", LogisticRegression(), ["weight"]), ("rest", LogisticRegression(), ["noise"])]
    >>> explain_row(MultimodalClassifier(members).fit(X, ["fruit", "vehicle"] * 10), X.iloc[[0]])
    fruit: 0.75 = 0.5 facts +0.375, rest -0.125
    """
    fusion: Any = getattr(model, "fusion_", None)
    if not isinstance(fusion, Fusion):
        check_is_fitted(model)
        raise ConfigurationError(
            f"a MultimodalClassifier or MultimodalRegressor is expected, not {type(model).__name__}"
        )
    result = modality_shapley(model, row, groups=groups)
    if n_rows(row) != 1:
        raise DataError(f"one row is explained at a time, and {n_rows(row)} were given; take X.iloc[[number]]")
    position = _position(model, result, target)
    explained = RowExplanation(
        target=str(result.output_names[position]),
        prediction=float(result.predictions[0, position]),
        base_value=float(result.base_values[position]),
        modalities=dict(zip(result.names, result.shapley_values[0, :, position].tolist(), strict=True)),
        members=_votes(fusion, row, position) if isinstance(fusion, LateFusion) else {},
    )
    for member in fusion.members_:
        try:
            _look_into(explained, member, row, _own_target(model, member, position), n_steps)
        except MissingDependencyError as error:
            explained.left_out[member.name] = str(error)
    return explained


def _position(model: Any, result: Any, target: Any) -> int:
    """Return which output is explained."""
    if target is None:
        if len(result.output_names) > 1 and not is_classifier(model):
            raise ConfigurationError(f"target must be the position of one of the targets {result.output_names}")
        return int(result.predictions[0].argmax())
    names = getattr(model, "classes_", None)
    names = list(range(len(result.output_names))) if names is None or isinstance(names, list) else list(names)
    if target not in names:
        raise ConfigurationError(f"there is no target {target!r}; there are {names}")
    return names.index(target)


def _votes(fusion: LateFusion, row: Any, position: int) -> dict[str, float]:
    votes = {}
    for member in fusion.members_:
        present, rows = member.rows(row)
        votes[member.name] = float("nan")
        if present.any():
            outputs = member.call(present, rows, outputs_of, member.estimator, fusion.task_, rows, member.labels)
            votes[member.name] = float(outputs[0, position])
    return votes


def _own_target(model: Any, member: Member, position: int) -> Any:
    """Return what a member calls the output; a classifier numbers the labels that it has seen."""
    if member.labels is None or len(member.labels) != 1:
        return position
    seen = list(member.labels[0])
    label = model.classes_[position]
    return seen.index(label) if label in seen else None


def _look_into(explained: RowExplanation, member: Member, row: Any, target: Any, n_steps: int) -> None:
    """Add the tokens or the pixels of a member, or why not."""
    estimator, columns = member.estimator, as_list(member.columns)
    modality = estimator.modality if isinstance(estimator, TorchEstimator) else None
    if not isinstance(modality, (TextModality, ImageModality)):
        explained.left_out[member.name] = (
            f"it is a {type(estimator).__name__}, which is no network of a text or a picture"
        )
    elif not explained.members:
        explained.left_out[member.name] = "it has no score of its own"
    elif target is None:
        explained.left_out[member.name] = f"it has not seen {explained.target}"
    elif missing_cells(column_cells(row, columns[0])).all():
        explained.left_out[member.name] = "the row lacks its modality"
    elif isinstance(modality, TextModality):
        cells = column_cells(row, columns[0])
        (tokens,) = token_attributions(estimator, list(cells), target, n_steps=n_steps)
        explained.texts[member.name] = (str(cells[0]), tokens)
    else:
        cells = list(column_cells(row, columns[0]))
        saliency = image_saliency(estimator, cells, target, n_steps=n_steps)[0]
        explained.images[member.name] = (estimator.preprocessor_.encode(cells).items[0], saliency)


def _table(name: str, what: str, rows: Sequence[tuple[str, str, str]]) -> str:
    head = f"<tr><th style='text-align: left'>{name}</th><th>{what}</th><th></th></tr>"
    body = "".join(
        f"<tr><td style='text-align: left'>{escape(first)}</td><td style='text-align: right'>{second}</td>"
        f"<td style='text-align: left'>{bar}</td></tr>"
        for first, second, bar in rows
    )
    return f"<table>{head}{body}</table>"


def _bar(share: float, colour: str) -> str:
    return f"<span style='display: inline-block; height: .8em; width: {10 * share:.2f}em; background: {colour}'></span>"


def _piece(text: str, value: float | None, most: float) -> str:
    shown = escape(text).replace("\n", "<br>")
    if value is None:
        return shown
    red, green, blue = _rgb(_FOR if value > 0 else _AGAINST).tolist()
    return f"<span style='background: rgba({red}, {green}, {blue}, {0.7 * abs(value) / most:.2f})'>{shown}</span>"


def _coloured(saliency: np.ndarray) -> np.ndarray:
    """Return saliency as colours on white, ndarray of uint8, shape (size, size, 3)."""
    most = float(np.percentile(np.abs(saliency), 99)) or 1.0
    share = np.clip(np.abs(saliency) / most, 0, 1)[..., None]
    ends = np.where((saliency > 0)[..., None], _rgb(_FOR), _rgb(_AGAINST))
    return np.round(255 * (1 - share) + ends * share).astype(np.uint8)


def _rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)])


def _uri(pixels: np.ndarray) -> str:
    sink = io.BytesIO()
    image = Image.fromarray(pixels)
    scale = max(1, 160 // image.height)
    image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(sink, "PNG")
    return f"data:image/png;base64,{base64.b64encode(sink.getvalue()).decode()}"
