"""The network of zero-shot classification: how likely each label is behind a prompt. Computes nothing twice."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from mmensemble.preprocessing import PromptPreprocessor
from mmensemble.preprocessing.text import read_tokenizer
from mmensemble_estimators.backbones.portable import Portable
from mmensemble_estimators.backbones.writers.networks import CausalNetwork, State

__all__ = ["LabelLikelihood", "shared_prefix"]

# Behind these, a prefix has to be tokenised as it is alone: words, numbers, punctuation, white space, nothing.
PROBES = ("N/A", "[MASK]", "", "a word", "Two", " 3", "\n", "'s", "…", "Привет")


class LabelLikelihood(Portable):
    """Left-padded prompts → the log-likelihood of each label as what comes next, (batch, n_labels).

    The tokens that all prompts begin with were run once, and their keys and values are kept. A prompt is run once for
    all labels: what follows the labels' first tokens stands side by side behind it, each seeing the prompt and its own
    label alone.

    Parameters
    ----------
    network : CausalNetwork
    label_ids : list of list of int
        The tokens of each label.
    prefix_ids : list of int, default=()
        Tokens that stand before every prompt.
    """

    first: Tensor
    given: Tensor
    next: Tensor
    sees: Tensor
    belongs: Tensor

    def __init__(
        self, network: CausalNetwork, label_ids: Sequence[Sequence[int]], prefix_ids: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.network = network
        self.n_prefix = len(prefix_ids)
        given = [(label, place) for label, ids in enumerate(label_ids) for place in range(len(ids) - 1)]
        labels, places = torch.tensor(given, dtype=torch.int64).reshape(-1, 2).unbind(dim=1)
        self.n_given = len(given)
        self.register_buffer("first", torch.tensor([ids[0] for ids in label_ids]))
        self.register_buffer("given", torch.tensor([[label_ids[n][place] for n, place in given]], dtype=torch.int64))
        self.register_buffer("next", torch.tensor([[label_ids[n][place + 1] for n, place in given]], dtype=torch.int64))
        same_label = labels[:, None] == labels[None]
        self.register_buffer("sees", (same_label & (places[None] <= places[:, None]))[None].long())
        self.register_buffer("belongs", (labels[None] == torch.arange(len(label_ids))[:, None])[None].float())
        self._names = list(network.state_spec()) if len(prefix_ids) else []
        if self._names:
            with torch.inference_mode():
                device = next(network.parameters()).device
                state = network.eval().decode(torch.tensor([list(prefix_ids)], device=device), None)[1]
            for name in self._names:
                self.register_buffer(self._buffer(name), state[name].clone())

    def pickled_apart(self) -> Iterable[nn.Module]:
        """Return the language model's network, which its estimator holds too."""
        return [self.network]

    @staticmethod
    def _buffer(name: str) -> str:
        return f"prefix_{name.replace('.', '_')}"

    def _prefix(self, n_rows: int) -> State:
        return {name: getattr(self, self._buffer(name)).expand(n_rows, -1, -1, -1) for name in self._names}

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the log-likelihoods behind prompts (batch, length), shape (batch, n_labels)."""
        n_rows = len(input_ids)
        if self.n_prefix:
            before = attention_mask.new_ones(1, self.n_prefix).expand(n_rows, -1)
            attention_mask = torch.cat([before, attention_mask], dim=1)
        hidden, state = self.network.decode(input_ids, attention_mask, **self._prefix(n_rows))
        total = self.network.head(hidden[:, -1]).log_softmax(dim=-1)[:, self.first]
        if not self.n_given:
            return total
        prompt = attention_mask[:, None].expand(-1, self.n_given, -1)
        seen = torch.cat([prompt, self.sees.expand(n_rows, -1, -1)], dim=2)
        hidden, _ = self.network.decode(self.given.expand(n_rows, -1), seen, **state)
        scores = self.network.head(hidden).log_softmax(dim=-1)
        each = scores.gather(2, self.next.expand(n_rows, -1)[:, :, None]).squeeze(2)
        return total + (each[:, None] * self.belongs).sum(dim=2)


def shared_prefix(preprocessor: PromptPreprocessor) -> tuple[list[int], PromptPreprocessor]:
    """Take what all prompts begin with out of a preprocessor.

    Parameters
    ----------
    preprocessor : PromptPreprocessor
        Its `prefix` is what the prompts share.

    Returns
    -------
    prefix_ids : list of int
        The first tokens of every prompt. Empty where the prefix is too short to cut, or where what stands before a
        place changes with what stands behind it, as in some tokenizers.
    preprocessor : PromptPreprocessor
        For what follows them.
    """
    # Tokenizers split before white space, hardly any behind it.
    cut = re.search(r"\s+\S*\Z", preprocessor.prefix)
    if cut is None or not cut.start():
        return [], preprocessor
    tokenizer = preprocessor.tokenizer
    if read_tokenizer(tokenizer, None).num_special_tokens_to_add(False):
        tokenizer = json.dumps({**json.loads(tokenizer), "post_processor": None}, ensure_ascii=False)
    whole = PromptPreprocessor(preprocessor.tokenizer)
    (prefix,) = whole.encode_whole([preprocessor.prefix[: cut.start()]]).items
    rest = PromptPreprocessor(
        tokenizer,
        max_length=preprocessor.max_length - len(prefix),
        pad_id=preprocessor.pad_id,
        prefix=preprocessor.prefix[cut.start() :],
        suffix=preprocessor.suffix,
    )
    together = whole.encode_whole([f"{preprocessor.prefix}{probe}{preprocessor.suffix}" for probe in PROBES]).items
    apart = rest.encode_whole([f"{rest.prefix}{probe}{rest.suffix}" for probe in PROBES]).items
    if any([*prefix, *behind] != both.tolist() for behind, both in zip(apart, together, strict=True)):
        return [], preprocessor
    return prefix.tolist(), rest
