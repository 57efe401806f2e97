"""Which tokens of a text a network goes by, and the figure of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import torch
from tokenizers import Encoding, Tokenizer
from torch import Tensor, nn

from mmensemble.exceptions import ConfigurationError
from mmensemble.frames import leaf_cells
from mmensemble.preprocessing import NGramPreprocessor, TextPreprocessor
from mmensemble.preprocessing.n_grams import N_GRAM_IDS, places_of
from mmensemble.preprocessing.text import CHARACTERS_PER_TOKEN
from mmensemble_estimators.backbones.network import Network
from mmensemble_estimators.base.rows import arrays_of, encode
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
from mmensemble_estimators.inspection._lettering import LINE_HEIGHT, letters, segments, width_of, wrapped
from mmensemble_estimators.text import TextModality

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["TokenAttribution", "TokenAttributionDisplay", "token_attributions"]


class TokenAttribution(NamedTuple):
    """A token and its part in a score.

    Parameters
    ----------
    token : str
        What it stands for in the text; of a special token, its name.
    offset : (int, int)
        Where that begins and ends in the text, in characters; (0, 0) for a special token. Tokens that are parts of one
        character have the same offset.
    attribution : float
    """

    token: str
    offset: tuple[int, int]
    attribution: float


TokenAttribution.__module__ = "mmensemble_estimators.inspection"  # mypy takes no such line in a NamedTuple


def token_attributions(
    estimator: Any, texts: Any, target: Any = None, *, n_steps: int = N_STEPS
) -> list[list[TokenAttribution]]:
    """Share the score of each text out among its tokens, by integrated gradients (Sundararajan et al. 2017).

    The gradients of the score are taken along the line from an uninformative text, every token of which is the padding
    token, special tokens excepted, to the text, at the layer of token embeddings. The attributions of a text add up to
    its score minus that of the uninformative text, up to an error that falls with `n_steps`. Of a network that adds
    n-grams, the uninformative text has none, and what an n-gram adds is shared by the tokens of its letters.

    Parameters
    ----------
    estimator : TextClassifier or TextRegressor
        Fitted, from scratch or pretrained; a member of a late fusion is ``model.named_estimators_["text"]``.
    texts : sequence of str, or frame or array of one column, n_samples rows
    target : label, int or sequence of them, default=None
        What is explained: of a classifier the score of a class, before the softmax; of several labels or targets one
        by its position. A sequence has one for each text. None is the predicted class, or the only target.
    n_steps : int, default=50
        Points on the line. One pass with gradients is made for each.

    Returns
    -------
    list of list of TokenAttribution
        Of each text its tokens, in order, as (token, offset, attribution); none where the text is missing. Tokens cut
        off by ``max_length`` are not there. Attributions of a regressor are in the units of its target.

    Raises
    ------
    ConfigurationError
        If the estimator is none of these, `target` is not there, or the network has no layer of token embeddings.
    DataError
        For a text that cannot be read.
    MissingDependencyError
        If captum is not installed.
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted, or has no head of its own, as a member of a joint fusion.

    References
    ----------
    Sundararajan, Taly, Yan (2017). Axiomatic attribution for deep networks. ICML.

    Examples
    --------
    >>> from mmensemble_estimators import TextClassifier
    >>> from mmensemble_estimators.inspection import token_attributions
    >>> texts, y = ["red apple", "fast car", "green apple", "slow car"] * 4, ["fruit", "vehicle"] * 8
    >>> clf = TextClassifier(backbone="lstm", vocab_size=300, max_epochs=3, random_state=0).fit(texts, y)
    >>> (tokens,) = token_attributions(clf, ["red car"], target="vehicle")
    >>> "".join(token.token for token in tokens)
    'red car<eos>'
    """
    captum = captum_attr()
    check_explainable(estimator, TextModality, n_steps)
    preprocessor = estimator.preprocessor_
    encoded = encode(estimator, texts)
    outputs = explained_outputs(estimator, encoded, target)
    encodings = _with_offsets(preprocessor, leaf_cells(texts))
    found: list[list[TokenAttribution]] = []
    with gradients(estimator) as (network, device):
        layers = [_embedding_layer(estimator.module_, preprocessor.vocab_size)]
        names = ["input_ids"]
        if isinstance(preprocessor, NGramPreprocessor):
            layers.append(estimator.module_.encoder.n_grams.table)
            names.append(N_GRAM_IDS)

        def score(*inputs: Tensor) -> Tensor:
            *ids, attention_mask = inputs
            raw: Tensor = network(attention_mask=attention_mask, **dict(zip(names, ids, strict=True)))
            return raw

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # captum asks whether one layer feeds the other; none does
            method = captum.LayerIntegratedGradients(score, layers)
        for row, (output, (text, encoding)) in enumerate(zip(outputs, encodings, strict=True)):
            if not encoded.present[row] or not encoding.ids:
                found.append([])
                continue
            ids = torch.tensor(encoding.ids)
            special = torch.tensor(encoding.special_tokens_mask, dtype=torch.bool)
            inputs, baselines = [ids[None]], [torch.where(special, ids, preprocessor.pad_id)[None]]
            if len(layers) > 1:
                n_gram_ids = torch.from_numpy(arrays_of(preprocessor, encoded, np.array([row]))[N_GRAM_IDS])
                inputs.append(n_gram_ids)
                baselines.append(torch.zeros_like(n_gram_ids))
            attributed = method.attribute(
                tuple(ids.to(device) for ids in inputs),
                baselines=tuple(ids.to(device) for ids in baselines),
                target=int(output),
                additional_forward_args=(torch.ones_like(inputs[0], device=device),),
                n_steps=n_steps,
                internal_batch_size=estimator.batch_size,
            )
            parts, *of_n_grams = (part[0].sum(dim=-1).cpu().numpy() for part in attributed)
            parts = parts[: len(ids)]  # SigLIP's encoder goes on with padding, the same in both texts
            for part in of_n_grams:
                parts = parts + _shared(part, inputs[1][0].numpy(), preprocessor, text, encoding)
            parts = parts * unit(estimator, output)
            found.append(
                [
                    TokenAttribution(name if special or start == end else text[start:end], (start, end), float(part))
                    for name, (start, end), special, part in zip(
                        encoding.tokens, encoding.offsets, encoding.special_tokens_mask, parts, strict=True
                    )
                ]
            )
    return found


class TokenAttributionDisplay:
    """Texts whose tokens are coloured by what they add to a score.

    Use `from_estimator` to make one.

    Parameters
    ----------
    texts : sequence of str
    attributions : list of list of TokenAttribution
        What `token_attributions` returned.
    titles : sequence of str, default=None
        A line above each text.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    patches_ : list of matplotlib Rectangle
        The coloured grounds, in the order of the tokens; a token that is broken at the end of a line has several.
    letters_ : list of matplotlib PathPatch
        The titles and the pieces of the texts, in the order of reading; ``get_label()`` says what each one reads.

    Examples
    --------
    >>> from mmensemble_estimators.inspection import TokenAttribution, TokenAttributionDisplay
    >>> tokens = [TokenAttribution("red", (0, 3), -0.1), TokenAttribution(" car", (3, 7), 0.8)]
    >>> display = TokenAttributionDisplay(["red car"], [tokens], titles=["vehicle"]).plot()
    >>> [letters.get_label() for letters in display.letters_]
    ['vehicle', 'red', ' car']
    """

    __module__ = "mmensemble_estimators.inspection"

    def __init__(
        self,
        texts: Sequence[str],
        attributions: Sequence[Sequence[TokenAttribution]],
        *,
        titles: Sequence[str] | None = None,
    ) -> None:
        self.texts = texts
        self.attributions = attributions
        self.titles = titles

    def plot(self, ax: Axes | None = None, *, width: int = 72, cmap: str = "RdBu_r") -> Self:
        """Draw the texts below each other, in letters of one width.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure with a colour bar. The letters are as large as the axes let them be.
        width : int, default=72
            Letters in a line.
        cmap : str, default="RdBu_r"
            A diverging colour map; its middle is an attribution of 0.

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
        from matplotlib.patches import Rectangle

        limit = max((abs(t.attribution) for tokens in self.attributions for t in tokens), default=0.0) or 1.0
        colours = ScalarMappable(Normalize(-limit, limit), cmap)
        titles = [None] * len(self.texts) if self.titles is None else self.titles
        lines: list[tuple[str | None, list[tuple[str, float | None]]]] = []
        for text, tokens, title in zip(self.texts, self.attributions, titles, strict=True):
            if title is not None:
                lines.append((title, []))
            lines += [(None, pieces) for pieces in wrapped(segments(text, tokens), width)]
            lines.append((None, []))
        n_lines = max(1, len(lines) - 1)  # no empty line after the last text
        if ax is None:
            height = 0.96 * 8.0 / width * LINE_HEIGHT * n_lines
            figure = plt.figure(figsize=(8.0, height + 0.85))
            ax = figure.add_axes((0.02, 0.75 / (height + 0.85), 0.96, height / (height + 0.85)))
            bar = figure.add_axes((0.3, 0.45 / (height + 0.85), 0.4, 0.12 / (height + 0.85)))
            figure.colorbar(colours, cax=bar, orientation="horizontal", label="Attribution")
        self.patches_: list[Any] = []
        self.letters_: list[Any] = []
        for number, (title, pieces) in enumerate(lines):
            if title is not None:
                self.letters_.append(ax.add_artist(letters(title, 0, number, family="DejaVu Sans", weight="bold")))
            place = 0
            for piece, attribution in pieces:
                cells = width_of(piece)
                ink = "black"
                if attribution is not None:
                    red, green, blue, alpha = colours.to_rgba(np.array([attribution]))[0]
                    ground = Rectangle((place, number + 0.06), cells, 0.9, color=(red, green, blue, alpha), linewidth=0)
                    self.patches_.append(ax.add_patch(ground))
                    ink = "black" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.45 else "white"
                self.letters_.append(ax.add_artist(letters(piece, place, number, color=ink)))
                place += cells
        ax.set(xlim=(0, width), ylim=(n_lines, 0))
        ax.set_aspect(LINE_HEIGHT, anchor="NW")
        ax.set_axis_off()
        self.ax_: Axes = ax
        self.figure_: Figure | None = ax.get_figure(root=True)
        return self

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        texts: Any,
        target: Any = None,
        *,
        n_steps: int = N_STEPS,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> TokenAttributionDisplay:
        """Compute attributions and draw them.

        Parameters
        ----------
        estimator : TextClassifier or TextRegressor
        texts : sequence of str, or frame or array of one column, n_samples rows
            Missing ones are left out.
        target : label, int or sequence of them, default=None
        n_steps : int, default=50
            These as in `token_attributions`.
        ax : matplotlib Axes, default=None
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        TokenAttributionDisplay

        Raises
        ------
        ConfigurationError, DataError, MissingDependencyError, sklearn.exceptions.NotFittedError
            As `token_attributions`.
        """
        pyplot()  # before the work, not after it
        attributions = token_attributions(estimator, texts, target, n_steps=n_steps)
        titles = score_titles(estimator, texts, target)
        cells = leaf_cells(texts)
        shown = [row for row, cell in enumerate(cells) if isinstance(cell, str)]
        display = cls(
            [cells[row] for row in shown],
            [attributions[row] for row in shown],
            titles=None if titles is None else [titles[row] for row in shown],
        )
        return display.plot(ax, **kwargs)


def _embedding_layer(network: Network, vocab_size: int) -> nn.Module:
    backbone = network.encoder.backbone
    get: Callable[[], nn.Module] | None = getattr(backbone, "get_input_embeddings", None)
    if get is not None:
        return get()
    for layer in backbone.modules():  # type: ignore[union-attr]
        if isinstance(layer, nn.Embedding) and layer.num_embeddings >= vocab_size:
            return layer
    raise ConfigurationError(f"{type(backbone).__name__} has no torch.nn.Embedding over the vocabulary")


def _shared(
    parts: np.ndarray, ids: np.ndarray, preprocessor: NGramPreprocessor, text: str, encoding: Encoding
) -> np.ndarray:
    """Share what n-grams add among the tokens, evenly: by where each occurs, by its letters, by a letter's tokens."""
    text = preprocessor.part_read(text, encoding)
    n_grams, places = preprocessor.n_grams([text]), places_of(text)
    part_of = dict(zip(ids.tolist(), parts.tolist(), strict=True))
    unique, times = np.unique(n_grams.ids, return_counts=True)
    times_of = dict(zip(unique.tolist(), times.tolist(), strict=True))
    letters = np.zeros(len(text))
    for number, start, end in zip(n_grams.ids.tolist(), n_grams.starts, n_grams.ends, strict=True):
        covered = places[start:end][places[start:end] >= 0]
        np.add.at(letters, covered, part_of[number] / times_of[number] / len(covered))
    tokens_of = np.zeros(len(text))
    for start, end in encoding.offsets:
        tokens_of[start:end] += 1
    letters /= np.maximum(tokens_of, 1)
    return np.array([letters[start:end].sum() for start, end in encoding.offsets])


def _with_offsets(preprocessor: TextPreprocessor, cells: Any) -> list[tuple[str, Encoding]]:
    """Encode as the preprocessor does, and keep where in the text each token is."""
    tokenizer = Tokenizer.from_str(preprocessor.tokenizer)
    tokenizer.no_padding()
    tokenizer.enable_truncation(preprocessor.max_length)
    longest = CHARACTERS_PER_TOKEN * preprocessor.max_length
    texts = [c[:longest].encode("utf-8", "replace").decode() if isinstance(c, str) else "" for c in cells]
    return list(zip(texts, tokenizer.encode_batch(texts), strict=True))
