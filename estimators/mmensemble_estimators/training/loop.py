"""The training loop, by skorch: what every estimator and joint fusion of this package is trained with."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, GradientNormClipping, LRScheduler
from skorch.helper import predefined_split
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler

from mmensemble.exceptions import ConfigurationError, DeviceError
from mmensemble.progress import Step
from mmensemble.time_limits import TimeLimit
from mmensemble_estimators.training.checkpoints import Checkpoints
from mmensemble_estimators.training.schedule import Schedule

__all__ = ["TrainingData", "TrainingSettings", "resolve_device", "run_in_batches", "seeded", "train", "was_cut"]

Batch = dict[str, Tensor]

GRADIENT_NORM = 1.0
BUCKET_WINDOW = 4
FACTS = ("epoch", "train_loss", "valid_loss", "dur")

_random_state = threading.RLock()


@dataclass(frozen=True)
class TrainingSettings:
    """How to train, as the estimators' parameters of the same names say it.

    Parameters
    ----------
    max_epochs, batch_size : int
    warmup_fraction : float
        Share of the steps over which the learning rate rises linearly from 0; a cosine takes it back to 0.
    device : torch.device
    autocast : bool
        Whether to compute in bfloat16 where torch deems it safe.
    limit : TimeLimit, default=None
        When to end, whatever there is; it is told whose `name` was cut.
    name : str, default=""
    """

    max_epochs: int
    batch_size: int
    warmup_fraction: float
    device: torch.device
    autocast: bool = False
    limit: TimeLimit | None = None
    name: str = ""


class TrainingData(Dataset[int]):
    """Rows to train on. The items are row numbers; `collate` turns a batch of them into tensors.

    Parameters
    ----------
    rows : ndarray of int, shape (n,)
        Positions in what `batch` draws from.
    batch : callable
        ndarray of positions → the network's inputs as dict of ndarray.
    target : ndarray, shape (n_all,) or (n_all, n_outputs)
        Targets, indexed by position.
    weight : ndarray of float, shape (n_all,)
        Sample weights, indexed by position.
    lengths : ndarray of int, shape (n_all,), default=None
        What each row costs; rows of similar cost share a batch where they differ.
    """

    def __init__(
        self,
        rows: np.ndarray,
        batch: Callable[[np.ndarray], dict[str, np.ndarray]],
        target: np.ndarray,
        weight: np.ndarray,
        lengths: np.ndarray | None = None,
    ) -> None:
        self.rows = rows
        self.lengths = np.ones(len(rows), dtype=np.int64) if lengths is None else lengths[rows]
        self.batch = batch
        self.target = torch.as_tensor(target)
        self.weight = torch.as_tensor(weight, dtype=torch.float32)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> int:
        return int(self.rows[index])

    def collate(self, rows: Sequence[int]) -> tuple[Batch, tuple[Tensor, Tensor]]:
        """Return (inputs, (targets, weights)) of some rows."""
        positions = np.asarray(rows)
        return as_tensors(self.batch(positions)), (self.target[positions], self.weight[positions])


class _BucketSampler(Sampler[list[int]]):
    """Shuffled batches of rows of similar length, so that little of a batch is padding.

    The rows are shuffled, cut into windows of some batches, sorted by length within each window, cut into batches, and
    the batches are shuffled: what is in a batch and when it comes changes with every epoch.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int) -> None:
        self.lengths = lengths
        self.batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.lengths) / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(len(self.lengths)).numpy()
        window = BUCKET_WINDOW * self.batch_size
        if len(order) < 2 * window:
            window = self.batch_size  # too few rows to sort without making the batches the same every time
        batches = []
        for start in range(0, len(order), window):
            rows = order[start : start + window]
            rows = rows[np.argsort(self.lengths[rows], kind="stable")]
            batches += [rows[i : i + self.batch_size].tolist() for i in range(0, len(rows), self.batch_size)]
        return iter([batches[i] for i in torch.randperm(len(batches))])


class _Epochs(Callback):
    """A step for each epoch, whose facts are its losses."""

    epoch_: Step | None = None

    def __init__(self, training: Step, n_in_epoch: int) -> None:
        self.training = training
        self.n_in_epoch = n_in_epoch

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        self.epoch_ = Step("epoch", len(net.history), len(self.training.plan), size=self.n_in_epoch)
        self.epoch_.__enter__()

    def on_batch_end(self, net: NeuralNet, training: bool = False, **kwargs: Any) -> None:
        if training and self.epoch_ is not None:
            self.epoch_.advance()

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        if self._end(net):
            raise KeyboardInterrupt  # how skorch is told to end a training

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        if self.epoch_ is not None:  # the last one, which another callback has ended
            self._end(net)

    def _end(self, net: NeuralNet) -> bool:
        """End the epoch; tell whether one of the estimator's callbacks wants it to be the last."""
        epoch, self.epoch_ = self.epoch_, None
        assert epoch is not None  # noqa: S101 - narrows the type
        last = net.history[-1]
        epoch.facts |= {name: last[name] for name in FACTS if name in last}
        self.training.facts |= epoch.facts
        epoch.__exit__(None, None, None)
        return epoch.stopped


class _Net(NeuralNet):
    """skorch's loop with autocast around the forward pass."""

    autocast = False

    def infer(self, x: Any, **fit_params: Any) -> Any:
        device = torch.device(self.device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.autocast):
            output = super().infer(x, **fit_params)
        return output.float()


class _WeightedLoss(nn.Module):
    """Weighted mean of a per-sample loss, so that a weight of 2 equals the row given twice."""

    def __init__(self, loss: nn.Module, valid_loss: nn.Module | None = None) -> None:
        super().__init__()
        self.loss = loss
        self.valid_loss = loss if valid_loss is None else valid_loss

    def forward(self, output: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
        values, weights = target
        loss = self.loss if self.training else self.valid_loss
        return (loss(output, values) * weights).sum() / weights.sum().clamp_min(torch.finfo(weights.dtype).tiny)


class _StopAtNonFiniteLoss(Callback):
    """End a training that has diverged, rather than return a network of NaN."""

    def on_batch_end(self, net: NeuralNet, training: bool = False, **kwargs: Any) -> None:
        loss = net.history[-1, "batches", -1, "train_loss" if training else "valid_loss"]
        if not math.isfinite(loss):
            raise ConfigurationError(
                f"the loss became {loss} in epoch {len(net.history)}; "
                "lower learning_rate, or look for extreme values in y"
            )


def train(
    network: nn.Module,
    data: TrainingData,
    settings: TrainingSettings,
    *,
    loss: nn.Module,
    learning_rates: Sequence[tuple[str, float, float]],
    valid_loss: nn.Module | None = None,
    validation: TrainingData | None = None,
    solved: bool = False,
) -> pd.DataFrame:
    """Train a network in place.

    AdamW (Loshchilov and Hutter 2019), linear warm-up, cosine decay, gradients clipped to norm 1.

    Parameters
    ----------
    network : nn.Module
        Takes the arrays of a batch as keyword arguments. Parameters that need no gradient stay as they are.
    data : TrainingData
    settings : TrainingSettings
    loss : nn.Module
        (output, target) → one loss per sample, shape (batch,).
    learning_rates : sequence of (pattern, learning_rate, weight_decay)
        The optimiser's groups, by glob pattern over parameter names; the first match counts.
    valid_loss : nn.Module, default=None
        The loss that counts on the rows of `validation`; None is `loss`.
    validation : TrainingData, default=None
        Where given, training stops when its loss has not fallen for 5 epochs, and the best weights are restored.
    solved : bool, default=False
        Whether the network is a solution already: it is epoch 0 then, the best epochs are averaged, and what is cut
        before its first epoch is over stays as it was.

    Returns
    -------
    DataFrame
        A row per epoch: ``epoch``, ``train_loss``, ``valid_loss`` with `validation`, ``dur`` in seconds. Of a network
        that is `solved`, from 0 on where that is validated or kept, and whether the epoch's weights were ``kept``. Of a
        training that the limit ended, or hurried, which epoch was ``cut``.

    Raises
    ------
    ConfigurationError
        If the loss stops being finite.
    """
    n_in_epoch = math.ceil(len(data) / settings.batch_size)
    n_steps = settings.max_epochs * n_in_epoch
    schedule = Schedule(n_steps, settings.warmup_fraction, settings.limit, n_in_epoch if solved else 0)
    checkpoints = Checkpoints(network, validation, solved=solved)
    callbacks: list[Any] = [
        ("finite", _StopAtNonFiniteLoss()),
        ("rate", LRScheduler(torch.optim.lr_scheduler.LambdaLR, lr_lambda=schedule.factor, step_every="batch")),
        ("clip", GradientNormClipping(GRADIENT_NORM)),
    ]
    training = Step("training", plan=[("epoch", 1.0)] * settings.max_epochs, shown=False, last=True)
    callbacks += [("checkpoints", checkpoints), ("schedule", schedule), ("epochs", _Epochs(training, n_in_epoch))]
    net = _Net(
        network,
        criterion=_WeightedLoss(loss, valid_loss),
        optimizer=torch.optim.AdamW,
        optimizer__param_groups=[(pattern, {"lr": lr, "weight_decay": decay}) for pattern, lr, decay in learning_rates],
        max_epochs=settings.max_epochs,
        batch_size=settings.batch_size,
        iterator_train__batch_size=1,  # what a DataLoader with a batch_sampler wants
        iterator_train__batch_sampler=_BucketSampler(data.lengths, settings.batch_size),
        iterator_train__collate_fn=data.collate,
        iterator_valid__collate_fn=(validation or data).collate,
        train_split=None if validation is None else predefined_split(validation),
        callbacks=callbacks,
        device=str(settings.device),
        verbose=0,
        callbacks__print_log=None,
    )
    net.autocast = settings.autocast
    with training:
        net.fit(data, y=None)
    network.eval()
    history = _history(net, checkpoints)
    if schedule.cut and settings.limit is not None:
        settings.limit.reached(settings.name)
        history["cut"] = history["epoch"] == history["epoch"].max()
    return history


def was_cut(history: pd.DataFrame) -> bool:
    """Tell by a history whether a time limit had a say in the training."""
    return "cut" in history and bool(history["cut"].eq(True).any())


def _history(net: NeuralNet, checkpoints: Checkpoints) -> pd.DataFrame:
    """Return what `train` does."""
    with_validation = checkpoints.validation is not None
    table = []
    for number, loss in enumerate(checkpoints.losses):
        row = net.history[number - 1] if number else {}
        # An epoch that was cut has no mean of its batches.
        losses = [batch["train_loss"] for batch in row.get("batches", []) if "train_loss" in batch]
        row = {"train_loss": np.mean(losses) if losses else math.nan, "dur": math.nan, **row}
        table.append(
            {
                "epoch": number,
                "train_loss": row["train_loss"],
                **({"valid_loss": loss} if with_validation else {}),
                "dur": row["dur"],
                "kept": number in checkpoints.kept,
            }
        )
    history = pd.DataFrame(table)
    if not checkpoints.solved:
        history = history.drop(columns="kept")
    told = checkpoints.solved and (with_validation or 0 in checkpoints.kept)
    return history if told else history.iloc[1:].reset_index(drop=True)


def as_tensors(arrays: dict[str, np.ndarray]) -> Batch:
    """Turn named arrays into tensors that share their memory."""
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch for the block alone: the caller's random state is as it was afterwards.

    That state is the process's, so threads that train wait for each other.
    """
    devices = [device] if device.type == "cuda" else []
    with _random_state, torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def resolve_device(device: str) -> torch.device:
    """Turn the estimators' ``device`` into a torch device.

    Raises
    ------
    DeviceError
        If a device is named that torch cannot use here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise DeviceError(f"device {device!r} does not work here ({reason}); device='auto' uses what works") from error
    return resolved


def run_in_batches(
    function: Callable[..., Tensor],
    batch: Callable[[np.ndarray], dict[str, np.ndarray]],
    order: np.ndarray,
    *,
    batch_size: int,
    device: torch.device,
) -> np.ndarray:
    """Apply a network to all rows, batch by batch, without gradients.

    Parameters
    ----------
    function : callable
        Inputs as keyword arguments → Tensor (batch, n_outputs).
    batch : callable
        ndarray of positions → the inputs as dict of ndarray.
    order : ndarray of int, shape (n,)
        A permutation of the positions: rows of similar length side by side waste the least padding.
    batch_size : int
        Rows per batch on a CPU; on another device four times as many.
    device : torch.device

    Returns
    -------
    ndarray of float32, shape (n, n_outputs)
        In the order of the positions, not of `order`.
    """
    outputs = []
    # Without gradients a GPU takes larger batches; on a CPU they only add padding and miss the cache.
    batch_size = batch_size if device.type == "cpu" else 4 * batch_size
    with torch.inference_mode(), Step("rows", size=len(order), told=False, last=True) as step:
        for start in range(0, len(order), batch_size):
            inputs = as_tensors(batch(order[start : start + batch_size]))
            outputs.append(function(**{name: tensor.to(device) for name, tensor in inputs.items()}).float().cpu())
            step.advance(len(order[start : start + batch_size]))
    result = torch.cat(outputs).numpy()
    unsorted = np.empty_like(result)
    unsorted[order] = result
    return unsorted
