"""The weights of the best epochs of a training, and their average."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import Dataset

__all__ = ["Checkpoints"]

Weights = dict[str, Tensor]

PATIENCE = 5
# A loss that is lower by no more than this share is no gain to wait for.
GAIN = 1e-4
N_AVERAGED = 3


class Checkpoints(Callback):
    """Ends a training whose validation loss falls no more, and brings the best weights back.

    Of a network that was a solution before, it keeps the best three epochs, the solution as epoch 0 among them, and
    averages those that are better together (greedy soup, Wortsman et al. 2022): never worse on the validation rows than
    the best of them.

    Parameters
    ----------
    network : nn.Module
    validation : Dataset or None
        Without one, the last weights stay, or the first ones where no epoch was finished.
    solved : bool
        Whether the network is a solution before it is trained.

    Attributes
    ----------
    losses : list of float
        On the validation rows, by epoch, from 0 on.
    kept : list of int
        The epochs whose weights there are in the end.
    """

    def __init__(self, network: nn.Module, validation: Dataset[int] | None, *, solved: bool) -> None:
        self.network = network
        self.validation = validation
        self.solved = solved
        self.losses = [math.nan]
        self.kept: list[int] = []
        self._best: list[tuple[float, int, Weights]] = []
        self._last_gain = 0

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Keep the solution."""
        if self.solved:
            if self.validation is not None:
                self.losses[0] = self._loss(net)
            self._keep(0)

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Keep the weights if they are among the best; end where there has been no gain for some epochs."""
        epoch = len(self.losses)
        loss = math.nan if self.validation is None else float(net.history[-1, "valid_loss"])
        self._note(loss)
        if self.validation is not None and epoch - self._last_gain >= PATIENCE:
            raise KeyboardInterrupt  # how skorch is told to end a training

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Bring the best weights back."""
        n_epochs = len(net.history)
        finished = len(self.losses) - 1
        if n_epochs > finished:  # the last one was cut
            self._note(math.nan if self.validation is None or (self.solved and not finished) else self._loss(net))
        if self.validation is None:
            self.kept = [n_epochs]
            if self.solved and not finished:
                self.kept = [0]
                self._load(self._best[0][2])
            return
        self._average(net)

    def _note(self, loss: float) -> None:
        epoch = len(self.losses)
        least = min((known for known, _, _ in self._best), default=math.inf)
        self.losses.append(loss)
        if self.validation is not None and not math.isnan(loss):
            if loss < least * (1 - GAIN) or not self._best:
                self._last_gain = epoch
            self._keep(epoch)

    def _keep(self, epoch: int) -> None:
        n_kept = N_AVERAGED if self.solved else 1
        loss = self.losses[epoch]
        if len(self._best) == n_kept and loss >= self._best[-1][0]:
            return
        self._best.append((loss, epoch, _weights(self.network)))
        self._best.sort(key=lambda one: one[:2])
        del self._best[n_kept:]

    def _average(self, net: NeuralNet) -> None:
        """Add epoch after epoch to the average, the best one first, as long as the loss does not rise."""
        least, first, weights = self._best[0]
        self._load(weights)
        chosen, self.kept = [weights], [first]
        for _, epoch, weights in self._best[1:]:
            self._load(_mean([*chosen, weights]))
            loss = self._loss(net)
            if loss <= least:
                least = loss
                chosen.append(weights)
                self.kept.append(epoch)
        self._load(_mean(chosen))

    def _loss(self, net: NeuralNet) -> float:
        """Return the loss on the validation rows, as skorch counts it: the batches' mean by their size."""
        losses, sizes = [], []
        for batch in net.get_iterator(self.validation, training=False):
            losses.append(float(net.validation_step(batch)["loss"]))
            sizes.append(len(batch[1][1]))
        return float(np.average(losses, weights=sizes))

    def _load(self, weights: Weights) -> None:
        with torch.no_grad():
            for name, tensor in _tensors(self.network).items():
                tensor.copy_(weights[name])


def _tensors(network: nn.Module) -> Weights:
    """Return what a training changes: parameters that need a gradient, and statistics of batches."""
    trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    return {**trained, **dict(network.named_buffers())}


def _weights(network: nn.Module) -> Weights:
    return {name: tensor.detach().clone() for name, tensor in _tensors(network).items()}


def _mean(checkpoints: Sequence[Weights]) -> Weights:
    """Return the mean of weights; of numbers that count something, those of the first."""
    if len(checkpoints) == 1:
        return checkpoints[0]
    return {
        name: torch.stack([one[name] for one in checkpoints]).mean(dim=0) if tensor.is_floating_point() else tensor
        for name, tensor in checkpoints[0].items()
    }
