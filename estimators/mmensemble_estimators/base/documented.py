"""The parameters and attributes that all estimators share, written once and put into each class's docstring."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

__all__ = ["documented"]

T = TypeVar("T", bound=type)

_PARTS = {
    "training": """\
    max_epochs : int, default=20
        Passes over the fitting rows.
    batch_size : int, default=32
        Rows per step.
    learning_rate : float, default=None
        Highest learning rate of AdamW, reached after the warm-up; a cosine takes it to 0. None takes {rate} from
        scratch, 1e-4 for pretrained weights (5e-5 in a joint fusion), 5e-4 with ``fine_tune="lora"``, and 0.6 divided
        by the embedding's size where `partial_fit` trains the head of a frozen backbone.
    layer_decay : float, default=0.9
        Of a pretrained network, each layer's learning rate as a share of that of the layer above it; the head has
        `learning_rate`. 1 is one rate for all.
    weight_decay : float, default=0.01
        AdamW's decoupled weight decay.
    warmup_fraction : float, default=0.1
        Share of the steps over which the learning rate rises from 0.
""",
    "fine_tune": """\
    fine_tune : {"all", "head", "lora"}, default="all"
        What is fitted: the whole network, trained; the linear head on a frozen backbone, solved; or the head and
        low-rank adapters of rank 8 on every linear layer (Hu et al. 2022; needs the extra ``lora``), trained and then
        merged into the weights. A pretrained backbone is trained from the solved head on (Kumar et al. 2022), which is
        kept where training makes nothing better. With ``"head"`` the backbone runs once per row and the head scales its
        embedding to one length. It is a logistic regression, one for each column of labels or label of a 0/1 matrix; of
        numbers a ridge regression. Its penalty has the least log loss in 5 folds, of numbers the least squared error by
        leaving each row out; `groups` are held out whole. Of more than 20,000 rows, a part chooses the penalty. What is
        said of training (epochs, rates, smoothing, rows that are set aside) then counts for `partial_fit` alone.
""",
    "stopping": """\
    early_stopping : bool or "auto", default="auto"
        Set `validation_fraction` of the rows aside, stop when their loss has not fallen for 5 epochs, and restore the
        best weights; those of a pretrained network are the average of up to three epochs that are better together
        (Wortsman et al. 2022), the solved head among them as epoch 0, and a classifier's probabilities are calibrated
        on these rows by one number (Guo et al. 2017). ``"auto"`` does so for pretrained networks that are trained,
        where at least 20 rows are set aside.
    validation_fraction : float, default=0.1
        Share of the rows set aside by `early_stopping`, in the proportions of the classes. Rows of one group, or of the
        same text, stay together.
    time_limit : float, default=None
        Seconds of wall clock that `fit` may take. Training ends then with the best that it has, by a schedule that is
        shortened to that time; a pretrained network that has not the time for an epoch keeps its solved head. What
        comes before the first step is not cut short, nor is a head that is solved. None is no limit.
    warm_start : bool, default=False
        Let a further `fit` go on from the weights that are there, instead of forgetting them. A solved head keeps the
        backbone that is there.
""",
    "classifier": """\
    label_smoothing : float or None, default={smoothing}
        Share of each label that the loss spreads over all classes (Szegedy et al. 2016), against overconfidence. None
        takes 0.1 for texts from scratch, else 0.
    class_weight : dict, "balanced" or None, default=None
        As in scikit-learn's classifiers, for one column of labels.
""",
    "writer": """\
    num_beams : int, default=1
        Beams of `predict`, which is greedy with 1.
    max_epochs : int, default=20
        Passes over the fitting rows.
    batch_size : int, default=32
        Rows per step.
    learning_rate : float, default=None
        Highest learning rate of AdamW, reached after the warm-up; a cosine takes it to 0. None takes {rate}.
    weight_decay : float, default=0.01
        AdamW's decoupled weight decay.
    warmup_fraction : float, default=0.1
        Share of the steps over which the learning rate rises from 0.
    early_stopping : bool, default=False
        Set `validation_fraction` of the rows aside, stop when their loss has not fallen for 5 epochs, and restore the
        best weights.
    validation_fraction : float, default=0.1
        Share of the rows set aside by `early_stopping`.
    warm_start : bool, default=False
        Let a further `fit` go on from the weights that are there, instead of forgetting them.
    label_smoothing : float, default=0.1
        Share of each token that the loss spreads over the vocabulary (Szegedy et al. 2016).
""",
    "writer_fitted": """\
    module_ : GenerativeNetwork
        The trained network, in evaluation mode.
    preprocessor_ : {preprocessor}
        How cells become arrays.
    target_preprocessor_ : TextPreprocessor
        How texts become tokens.
    history_ : pandas.DataFrame
        A row per epoch: ``epoch``, ``train_loss`` (mean smoothed cross-entropy per token), its exponential
        ``train_perplexity``, with `early_stopping` ``valid_loss`` and ``valid_perplexity``, and ``dur`` in seconds.
    n_features_in_ : int
        1.
    feature_names_in_ : ndarray of shape (1,)
        The column's name, where it had one.
""",
    "device": """\
    device : str, default="auto"
        A torch device; ``"auto"`` takes a GPU where torch sees one, else the CPU.
    precision : {"fp32", "bf16"}, default="fp32"
        ``"bf16"``: train under torch's autocast.
    random_state : int, RandomState or None, default=None
        With an int, two fits on one CPU with the same number of threads give the same weights.
    verbose : bool or int, default=False
        False shows on stderr how far a fit is that takes more than 3 seconds, inside a composition as that is shown.
        True shows it at once, 0 not at all.
""",
    "classes": """\
    classes_ : ndarray of shape (n_classes,), or list of them
        The labels; of several label columns, those of each.
    class_prior_ : ndarray of float, shape (n_classes,)
        The classes' share in the fitting rows, the prediction for a missing row.
""",
    "fitted": """\
    module_ : torch.nn.Module
        The fitted network, in evaluation mode.
    preprocessor_ : {preprocessor}
        How cells become arrays.
    history_ : pandas.DataFrame
        A row per epoch: ``epoch``, ``train_loss``, ``valid_loss`` with `early_stopping`, ``dur`` in seconds. Of a
        pretrained network that was trained, with `early_stopping` from 0 on, which is the solved head, and whether the
        epoch's weights were ``kept``; of a training that a time limit ended, which epoch was ``cut``. Of a solved head,
        a row per penalty that was tried: ``part``, the number of a column of labels, label or target; ``penalty``;
        ``valid_loss`` of the rows held out, log loss or squared error as a share of the target's variance; and whether
        it was ``chosen``.
    timed_out_ : bool
        Whether `time_limit`, or that of a composition around, had a say in the training: it ended early, or in haste.
    n_features_in_ : int
        1.
    feature_names_in_ : ndarray of shape (1,)
        The column's name, where it had one.
""",
    "joint": """\
    modality_dropout : float, default=0.2
        In training, each modality of a row is withheld with this probability (never all of them), which teaches the
        network to do without. With 0, a row that misses a modality is something the network has never seen.
    max_epochs : int, default=None
        Passes over the fitting rows; None takes the largest of the torch members'.
    frozen_epochs : int, default=0
        Passes before these in which the members' encoders are frozen and the fusion layers alone are trained.
    batch_size : int, default=None
        Rows per step; None takes the smallest of the torch members'.
    learning_rate : float, default=1e-3
        Highest learning rate of the fusion layers; each encoder has its member's own.
    weight_decay : float, default=0.01
        Of the fusion layers.
    warmup_fraction : float, default=0.1
        Share of the steps over which the learning rates rise from 0.
    time_limit : float, default=None
        Seconds of wall clock that the fit may take; training ends then, by a schedule that is shortened to that time.
    label_smoothing : float, default=0.1
        Share of each label that the loss spreads over all classes; a regression has no use for it.
    device : str, default="auto"
        A torch device; ``"auto"`` takes a GPU where torch sees one, else the CPU.
    random_state : int, RandomState or None, default=None
        Seeds the whole joint training; the members' own are not used.
    verbose : bool or int, default=False
        False shows on stderr how far a fit is that takes more than 3 seconds, inside a composition as that is shown.
        True shows it at once, 0 not at all.
""",
    "joint_fitted": """\
    network_ : JointNetwork
        Encoders, learned tokens for missing modalities, fusion layers and head.
    members_ : list of Member
        The fitted members. A torch member has its encoder, so ``transform``, but no head of its own.
    history_ : pandas.DataFrame
        A row per epoch: ``epoch``, ``train_loss``, ``dur`` in seconds; which one was ``cut`` by a time limit.
    timed_out_ : bool
        Whether a time limit had a say in the training.
    task_ : Task
    prior_ : ndarray of float, shape (width,)
        What a row that misses all modalities gets.
""",
}


def documented(**values: str) -> Callable[[T], T]:
    """Fill ``<<part>>`` lines of a class's docstring with the shared text of that name, and `values` into that text."""

    def fill(cls: T) -> T:
        text = cls.__doc__ or ""
        for part, shared in _PARTS.items():
            for name, value in values.items():
                shared = shared.replace(f"{{{name}}}", value)
            text = text.replace(f"    <<{part}>>\n", shared)
        cls.__doc__ = text
        return cls

    return fill
