"""What the estimators that write texts share: training on next tokens, and generation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from mmensemble.scoring.generation import GenerationSettings, generate_texts
from mmensemble.tasks import Generation
from mmensemble_estimators.backbones.writers.networks import GenerativeNetwork, State
from mmensemble_estimators.backbones.writers.token_loss import TokenLoss
from mmensemble_estimators.base.embedding import learning_rate_of
from mmensemble_estimators.base.rows import encode
from mmensemble_estimators.base.trained import TrainedLeaf
from mmensemble_estimators.training.loop import TrainingData, as_tensors, resolve_device, seeded, train

__all__ = ["TorchDecoder", "TorchGenerator"]


class _Itself(nn.Module):
    """The loss of a network that gives its loss."""

    def forward(self, output: Tensor, values: Tensor) -> Tensor:
        return output


@dataclass(frozen=True)
class _DecoderState:
    attention_mask: Tensor
    encoded: State
    grown: State


class TorchDecoder:
    """A `GenerativeNetwork` as the `mmensemble.scoring.generation.Decoder` of the decoding loop.

    Parameters
    ----------
    network : GenerativeNetwork
        In evaluation mode.
    start_ids : sequence of int
        What every row begins with; empty where the row's own tokens are the prompt.
    """

    def __init__(self, network: GenerativeNetwork, start_ids: Sequence[int]) -> None:
        self.network = network
        self.start_ids = start_ids
        self.device = next(network.parameters()).device

    @torch.inference_mode()
    def prefill(self, inputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, _DecoderState]:
        tensors = {name: tensor.to(self.device) for name, tensor in as_tensors(dict(inputs)).items()}
        n_rows = len(next(iter(tensors.values())))
        if self.start_ids:
            encoded = self.network.encode(**tensors)
            ids = torch.tensor([list(self.start_ids)], device=self.device).expand(n_rows, -1)
            mask = torch.ones_like(ids)
        else:
            encoded, ids, mask = {}, tensors["input_ids"], tensors["attention_mask"]
        return self._run(ids, _DecoderState(mask, encoded, self.network.initial_state(n_rows)))

    @torch.inference_mode()
    def step(self, tokens: np.ndarray, state: _DecoderState) -> tuple[np.ndarray, _DecoderState]:
        mask = nn.functional.pad(state.attention_mask, (0, 1), value=1)
        ids = torch.from_numpy(tokens).to(self.device)[:, None]
        return self._run(ids, _DecoderState(mask, state.encoded, state.grown))

    @torch.inference_mode()
    def select(self, state: _DecoderState, rows: np.ndarray) -> _DecoderState:
        chosen = torch.from_numpy(rows).to(self.device)
        encoded, grown = (
            {name: tensor.index_select(0, chosen) for name, tensor in part.items()}
            for part in (state.encoded, state.grown)
        )
        return _DecoderState(state.attention_mask[chosen], encoded, grown)

    def _run(self, ids: Tensor, state: _DecoderState) -> tuple[np.ndarray, _DecoderState]:
        hidden, grown = self.network.decode(ids, state.attention_mask, **state.encoded, **state.grown)
        logits = self.network.head(hidden[:, -1]).float().cpu().numpy()
        return logits, _DecoderState(state.attention_mask, state.encoded, grown)


class TorchGenerator(TrainedLeaf):
    """An estimator of one modality that writes texts.

    A subclass says how its network is built, what it is trained on, and by which tokens its texts start and end.
    """

    _fine_tunes: ClassVar[tuple[str, ...]] = ("all", "lora")

    module_: GenerativeNetwork
    # The tokens that every text begins with, none where the rows are prompts; and those any of which ends a text.
    start_ids_: Sequence[int] = ()
    end_ids_: list[int]

    @property
    def _written_by(self) -> str | None:
        """The tokenizer of what is written, as JSON; None is the preprocessor's own."""
        return None

    def _learning_rates(self) -> list[tuple[str, float, float]]:
        """Return the optimiser's groups: pattern over parameter names, learning rate, weight decay."""
        return [("*", learning_rate_of(self), self.weight_decay)]

    def _train(
        self,
        build: Callable[[], GenerativeNetwork],
        rows: np.ndarray,
        batch: Callable[[np.ndarray], dict[str, np.ndarray]],
        *,
        n_tokens: np.ndarray,
        weight: np.ndarray,
        rng: np.random.RandomState,
        afresh: bool,
        epochs: int,
        lengths: np.ndarray | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        """Build the network, or go on with the one that is there, and train it on next tokens.

        Parameters
        ----------
        build : callable
            → the untrained, or pretrained, network.
        rows : ndarray of int
            The rows to train on.
        batch : callable
            Rows → what `TokenLoss` takes.
        n_tokens : ndarray of int, shape (n_all,)
            Tokens that are predicted in each row.
        weight : ndarray of float, shape (n_all,)
            Of each row; every token counts so much in the loss.
        rng : RandomState
        afresh : bool
        epochs : int
        lengths : ndarray of int, shape (n_all,), default=None
            What each row costs; None is `n_tokens`.
        label_smoothing : float, default=0.0
        """
        fitting, validating = self._split(rows, rng)
        settings = self._settings(epochs)
        nothing = np.zeros(len(n_tokens), dtype=np.float32)
        weight = weight * n_tokens  # the loss of a row is a mean over its tokens
        lengths = n_tokens if lengths is None else lengths
        with seeded(int(rng.randint(2**31)), settings.device):
            if afresh:
                self.module_ = build()
            with self._trainable():
                history = train(
                    TokenLoss(self.module_, label_smoothing),
                    TrainingData(fitting, batch, nothing, weight, lengths=lengths),
                    settings,
                    loss=_Itself(),
                    learning_rates=self._learning_rates(),
                    validation=None if validating is None else TrainingData(validating, batch, nothing, weight),
                )
            self.module_.eval()
        for name in ("train", "valid"):
            if f"{name}_loss" in history:
                history[f"{name}_perplexity"] = np.exp(history[f"{name}_loss"])
        self._record(history, afresh=afresh)

    def generation_task(self) -> Generation:
        """Return what the network's outputs mean, for the decoding loop and for an exported model."""
        check_is_fitted(self, "module_")
        network = self.module_
        return Generation(
            vocab_size=network.vocab_size,
            end_ids=self.end_ids_,
            start_ids=list(self.start_ids_),
            max_length=network.max_length,
            state=network.state_spec(),
            encoded=network.encoded_spec(),
            tokenizer=self._written_by,
        )

    def token_decoder(self) -> TorchDecoder:
        """Return the fitted network as what the decoding loop drives, on the estimator's device."""
        check_is_fitted(self, "module_")
        return TorchDecoder(self.module_.to(resolve_device(self.device)).eval(), self.start_ids_)

    def generate(
        self,
        prompts: Any,
        max_new_tokens: int = 32,
        num_return_sequences: int = 1,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        num_beams: int = 1,
        random_state: Any = None,
    ) -> np.ndarray:
        """Write a text for each row, token by token.

        What a row gets does not depend on the other rows.

        Parameters
        ----------
        prompts : sequence of cells, or frame or array of one column, n_prompts rows
        max_new_tokens : int, default=32
            Most tokens of a text.
        num_return_sequences : int, default=1
            Texts per row.
        temperature : float, default=1.0
            The scores are divided by it before a token is drawn; 0 takes the most probable token (greedy).
        top_k : int, default=None
            Draw among so many most probable tokens only.
        top_p : float, default=None
            Draw among the fewest most probable tokens whose probabilities add up to so much (Holtzman et al. 2020).
        num_beams : int, default=1
            Above 1, search with so many beams, and rank what has ended by its mean log-probability per token.
        random_state : int, RandomState, Generator or None, default=None
            With an int, the same prompts give the same texts, here and by `mmensemble.OnnxPredictor.generate`.

        Returns
        -------
        ndarray of object, shape (n_prompts, num_return_sequences)
            What was written, without the prompt; None where the row is missing.

        Raises
        ------
        ConfigurationError
            For an argument that cannot work, or one that does not go with another.
        DataError
            For a cell that cannot be read; it names the row and the column.

        References
        ----------
        Holtzman, Buys, Du, Forbes, Choi (2020). The curious case of neural text degeneration. ICLR.
        """
        settings = GenerationSettings.of(
            max_new_tokens=max_new_tokens,
            num_return_sequences=num_return_sequences,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            num_beams=num_beams,
            random_state=random_state,
        )
        decoder = self.token_decoder()
        encoded = encode(self, prompts)
        task = self.generation_task()
        return generate_texts(decoder, self.preprocessor_, encoded, task, settings, batch_size=self.batch_size)
