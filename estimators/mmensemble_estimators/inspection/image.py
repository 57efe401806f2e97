"""Which pixels of an image a network goes by, and the figure of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from mmensemble.exceptions import ConfigurationError, DataError
from mmensemble_estimators.base.rows import encode
from mmensemble_estimators.image import ImageModality
from mmensemble_estimators.inspection._gradients import (
    N_STEPS,
    captum_attr,
    check_explainable,
    explained_outputs,
    gradients,
    pyplot,
    score_titles,
    unit,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ImageSaliencyDisplay", "image_saliency"]


def image_saliency(
    estimator: Any, images: Any, target: Any = None, *, baseline: Any = 0, n_steps: int = N_STEPS
) -> np.ndarray:
    """Share the score of each image out among its pixels, by integrated gradients (Sundararajan et al. 2017).

    The gradients of the score are taken along the line from an image of one colour to the image. What is attributed to
    the pixels of an image adds up to its score minus that of the plain image, up to an error that falls with `n_steps`.

    Parameters
    ----------
    estimator : ImageClassifier or ImageRegressor
        Fitted, from scratch or pretrained; a member of a late fusion is ``model.named_estimators_["image"]``.
    images : sequence of images, or frame or array of one column, n_samples rows
    target : label, int or sequence of them, default=None
        What is explained, as in `token_attributions`.
    baseline : int or sequence of 3 int, default=0
        The grey or colour, 0 to 255, that means nothing: pixels of this colour are attributed nothing. Black is the
        custom; of drawings on white take 255.
    n_steps : int, default=50
        Points on the line. One pass with gradients is made for each.

    Returns
    -------
    ndarray of float, shape (n_samples, image_size, image_size)
        Of the image as the network sees it: scaled to its size. Positive where pixels speak for the target; NaN where
        the image is missing. Attributions of a regressor are in the units of its target.

    Raises
    ------
    ConfigurationError
        If the estimator is none of these, `target` is not there, or `baseline` is no colour.
    DataError
        For an image that cannot be read.
    MissingDependencyError
        If captum is not installed.
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted, or has no head of its own, as a member of a joint fusion.

    References
    ----------
    Sundararajan, Taly, Yan (2017). Axiomatic attribution for deep networks. ICML.

    Examples
    --------
    >>> import numpy as np
    >>> from mmensemble_estimators import ImageClassifier
    >>> from mmensemble_estimators.inspection import image_saliency
    >>> images = [np.full((32, 32), grey, dtype=np.uint8) for grey in range(10, 250, 10)]
    >>> clf = ImageClassifier(image_size=32, max_epochs=1, random_state=0).fit(images, ["dark"] * 12 + ["light"] * 12)
    >>> image_saliency(clf, images[:2], target="light").shape
    (2, 32, 32)
    """
    captum = captum_attr()
    check_explainable(estimator, ImageModality, n_steps)
    colour = np.asarray(baseline, dtype=np.float32)
    if colour.shape not in ((), (3,)) or not ((colour >= 0) & (colour <= 255)).all():
        raise ConfigurationError(f"baseline must be a grey or three colours from 0 to 255, not {baseline!r}")
    encoded = encode(estimator, images)
    outputs = explained_outputs(estimator, encoded, target)
    size = estimator.preprocessor_.size
    saliency = np.full((len(encoded), size, size), np.nan)
    with gradients(estimator) as (network, device):
        plain = torch.tensor(np.broadcast_to(colour, (1, size, size, 3)).copy(), device=device)

        def score(pixels: Tensor) -> Tensor:
            raw: Tensor = network(pixels=pixels)
            return raw

        method = captum.IntegratedGradients(score)
        for row in np.flatnonzero(encoded.present):
            pixels = torch.tensor(encoded.items[row : row + 1], dtype=torch.float32, device=device)
            attributed = method.attribute(
                pixels,
                baselines=plain,
                target=int(outputs[row]),
                n_steps=n_steps,
                internal_batch_size=estimator.batch_size,
            )
            saliency[row] = attributed[0].sum(dim=-1).cpu().numpy() * unit(estimator, outputs[row])
    return saliency


class ImageSaliencyDisplay:
    """Images, and below each one the pixels that speak for and against a target.

    Use `from_estimator` to make one.

    Parameters
    ----------
    images : array-like of uint8, shape (n_samples, height, width, 3)
    saliency : array-like of float, shape (n_samples, height, width)
        What `image_saliency` returned.
    titles : sequence of str, default=None
        A line above each image.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (2, n_samples)
    figure_ : matplotlib Figure
    im_ : list of matplotlib AxesImage
        The overlays.

    Examples
    --------
    >>> import numpy as np
    >>> from mmensemble_estimators.inspection import ImageSaliencyDisplay
    >>> image, saliency = np.zeros((1, 8, 8, 3), dtype=np.uint8), np.eye(8)[None]
    >>> ImageSaliencyDisplay(image, saliency, titles=["diagonal"]).plot().axes_.shape
    (2, 1)
    """

    __module__ = "mmensemble_estimators.inspection"

    def __init__(self, images: Any, saliency: Any, *, titles: Sequence[str] | None = None) -> None:
        self.images = images
        self.saliency = saliency
        self.titles = titles

    def plot(self, axes: Any = None, *, smoothing: float | None = None, cmap: str = "RdBu_r") -> Self:
        """Draw the images side by side, each over its saliency.

        Parameters
        ----------
        axes : array-like of matplotlib Axes, shape (2, n_samples), default=None
            Where to draw; None makes a figure with a colour bar.
        smoothing : float, default=None
            Standard deviation, in pixels, of the Gaussian by which the saliency is smoothed for the eye; 0 does not.
            None is 2 % of the height.
        cmap : str, default="RdBu_r"
            A diverging colour map; its middle is a saliency of 0. Each image has its own scale, which ends at the 99th
            percentile of its absolute values.

        Returns
        -------
        self

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        plt = pyplot()
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize
        from scipy.ndimage import gaussian_filter

        images, saliency = np.asarray(self.images), np.asarray(self.saliency, dtype=np.float64)
        smoothing = 0.02 * saliency.shape[1] if smoothing is None else smoothing
        figure = None
        if axes is None:
            figure, axes = plt.subplots(
                2, len(images), figsize=(0.9 + 1.7 * len(images), 3.9), squeeze=False, layout="constrained"
            )
        self.axes_: np.ndarray = np.asarray(axes).reshape(2, len(images))
        self.im_: list[Any] = []
        for number, (image, values) in enumerate(zip(images, saliency, strict=True)):
            above, below = self.axes_[:, number]
            smooth = gaussian_filter(values, smoothing) if smoothing else values
            limit = float(np.percentile(np.abs(smooth), 99)) or 1.0
            grey = image.mean(axis=2)
            above.imshow(image, interpolation="nearest")
            below.imshow(160 + grey * 0.37, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            self.im_.append(
                below.imshow(
                    smooth / limit, cmap=cmap, vmin=-1, vmax=1, alpha=np.clip(np.abs(smooth) / limit, 0, 1) ** 0.7
                )
            )
            if self.titles is not None:
                above.set_title(self.titles[number], fontsize=9)
            for ax in (above, below):
                ax.set(xticks=[], yticks=[])
        if figure is not None:
            bar = figure.colorbar(ScalarMappable(Normalize(-1, 1), cmap), ax=list(self.axes_[1]), ticks=[-1, 0, 1])
            bar.ax.set_yticklabels(["against", "0", "for"])
        self.figure_: Figure | None = self.axes_[0, 0].get_figure(root=True)
        return self

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        images: Any,
        target: Any = None,
        *,
        baseline: Any = 0,
        n_steps: int = N_STEPS,
        axes: Any = None,
        **kwargs: Any,
    ) -> ImageSaliencyDisplay:
        """Compute saliencies and draw them.

        Parameters
        ----------
        estimator : ImageClassifier or ImageRegressor
        images : sequence of images, or frame or array of one column, n_samples rows
            Missing ones are left out.
        target : label, int or sequence of them, default=None
        baseline : int or sequence of 3 int, default=0
        n_steps : int, default=50
            These as in `image_saliency`.
        axes : array-like of matplotlib Axes, shape (2, n_samples), default=None
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        ImageSaliencyDisplay

        Raises
        ------
        ConfigurationError, DataError, MissingDependencyError, sklearn.exceptions.NotFittedError
            As `image_saliency`.
        """
        pyplot()  # before the work, not after it
        saliency = image_saliency(estimator, images, target, baseline=baseline, n_steps=n_steps)
        titles = score_titles(estimator, images, target)
        encoded = encode(estimator, images)
        shown = np.flatnonzero(encoded.present)
        if not len(shown):
            raise DataError("every image is missing; there is nothing to draw")
        display = cls(
            encoded.items[shown],
            saliency[shown],
            titles=None if titles is None else [titles[row] for row in shown],
        )
        return display.plot(axes, **kwargs)
