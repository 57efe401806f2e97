"""Training benchmarks: the estimators against a bare PyTorch loop, plain skorch and the pipeline of Hugging Face."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from skorch import NeuralNetClassifier
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from mmensemble.datasets import load_openmoji, load_tweets, minilm_folder
from mmensemble.frames import leaf_cells
from mmensemble_estimators import ImageClassifier, TextClassifier
from mmensemble_estimators.backbones.network import Network
from mmensemble_estimators.base.embedding import learning_rate_of
from mmensemble_estimators.base.rows import arrays_of
from mmensemble_estimators.training.loop import GRADIENT_NORM, _BucketSampler, as_tensors
from tests.benchmarks.side_by_side import Result, compare

SETTINGS = {"max_epochs": 1, "device": "cpu", "random_state": 0}
MAX_LENGTH = 128


def tweets(n_rows: int) -> tuple[list[str], np.ndarray]:
    """Return some tweets in random order, and their sentiments."""
    bunch = load_tweets()
    rows = np.random.default_rng(0).permutation(len(bunch.target))[:n_rows]
    return bunch.frame["text"].iloc[rows].tolist(), bunch.target[rows].astype(str)


def emoji(column: str, n_rows: int) -> tuple[list[Any], np.ndarray]:
    """Return names or pictures of some emoji in random order, and their categories."""
    bunch = load_openmoji()
    rows = np.random.default_rng(0).permutation(len(bunch.target))[:n_rows]
    return bunch.frame[column].iloc[rows].tolist(), bunch.target[rows].astype(str)


def bare_fit(estimator: Any, X: list[Any], y: np.ndarray) -> Network:
    """Train the estimator's own network on its own batches, with its optimiser, by the loop that one writes by hand."""
    estimator = clone(estimator)
    cells = leaf_cells(X)
    preprocessor = estimator.preprocessor_ = estimator.modality.fit_preprocessor(estimator, cells)
    encoded = preprocessor.encode(cells)
    classes, target = np.unique(y, return_inverse=True)
    targets = torch.from_numpy(target)
    torch.manual_seed(0)
    rng = np.random.RandomState(0)
    network = Network(estimator.modality.build_encoder(estimator, preprocessor), len(classes)).train()
    rate = learning_rate_of(estimator)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=estimator.weight_decay)
    n_steps = estimator.max_epochs * math.ceil(len(y) / estimator.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=n_steps)
    loss_function = nn.CrossEntropyLoss(label_smoothing=estimator.label_smoothing)
    for _ in range(estimator.max_epochs):
        for rows in _BucketSampler(encoded.lengths, estimator.batch_size):
            batch = as_tensors(estimator.modality.training_batch(estimator, cells, encoded, np.asarray(rows), rng))
            optimizer.zero_grad()
            loss_function(network(**batch), targets[rows]).backward()
            nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM)
            optimizer.step()
            schedule.step()
    return network.eval()


def bare_predict(fitted: Any, X: list[Any]) -> np.ndarray:
    """Score by the fitted network, over the batches that the estimator makes."""
    encoded = fitted.preprocessor_.encode(X)
    order = np.argsort(encoded.lengths, kind="stable")
    size = fitted.batch_size
    scores = np.empty((len(X), len(fitted.classes_)), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(X), size):
            rows = order[start : start + size]
            batch = as_tensors(arrays_of(fitted.preprocessor_, encoded, rows))
            scores[rows] = fitted.module_(**batch).softmax(dim=1).numpy()
    return scores


def padded(preprocessor: Any, X: list[str]) -> dict[str, np.ndarray]:
    """Encode all texts as one array, as skorch takes it: every row as long as the longest one."""
    arrays = preprocessor.collate(preprocessor.encode(X), np.arange(len(X)))
    return {name: arrays[name] for name in ("input_ids", "attention_mask")}


def skorch_net(module: nn.Module, **settings: Any) -> NeuralNetClassifier:
    """Return a plain skorch classifier over a network."""
    return NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        lr=1e-3,
        train_split=None,
        verbose=0,
        **settings,
    )


def skorch_fit(estimator: Any, X: list[str], y: np.ndarray) -> NeuralNetClassifier:
    """Train the estimator's own network by plain skorch on padded arrays."""
    estimator = clone(estimator)
    preprocessor = estimator.modality.fit_preprocessor(estimator, X)
    torch.manual_seed(0)
    network = Network(estimator.modality.build_encoder(estimator, preprocessor), len(np.unique(y)))
    net = skorch_net(
        network,
        max_epochs=estimator.max_epochs,
        batch_size=estimator.batch_size,
        iterator_train__shuffle=True,
    )
    return net.fit(padded(preprocessor, X), np.unique(y, return_inverse=True)[1])


def skorch_predict(fitted: Any, X: list[str]) -> np.ndarray:
    """Score by plain skorch over the fitted network, on padded arrays in the order of the rows."""
    net = skorch_net(fitted.module_, batch_size=fitted.batch_size, classes=fitted.classes_).initialize()
    return np.asarray(net.predict_proba(padded(fitted.preprocessor_, X)))


def hugging_face(n_classes: int, batch_size: int = 32) -> Callable[[list[str]], object]:
    """Return Hugging Face's text classification over MiniLM with an untrained head."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(minilm_folder(), num_labels=n_classes)
    classify = pipeline("text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(minilm_folder()))
    return partial(classify, batch_size=batch_size, top_k=None, truncation=True, max_length=MAX_LENGTH)


def minilm(X: list[str], y: np.ndarray) -> TextClassifier:
    """Fit a head on frozen MiniLM, to be scored."""
    model = TextClassifier(pretrained=minilm_folder(), fine_tune="head", max_length=MAX_LENGTH, **SETTINGS)
    return model.fit(X[:100], y[:100])


def run(*, n_rows: int) -> list[Result]:
    """Compare speeds on real tweets and emoji."""
    text, image = TextClassifier(**SETTINGS), ImageClassifier(**SETTINGS)
    texts, sentiments = tweets(n_rows)
    pictures, categories = emoji("picture", n_rows)
    names, name_categories = emoji("name", n_rows)
    results = []
    for name, model, X, y in (
        ("text, small GPT, tweets", text, texts, sentiments),
        ("image, small ResNet, emoji", image, pictures, categories),
    ):
        fitted = clone(model).fit(X, y)
        results += [
            compare(
                f"fit, {name}",
                len(y),
                ("fit, 1 epoch", lambda m=model, X=X, y=y: clone(m).fit(X, y)),
                ("bare PyTorch loop, same batches", lambda m=model, X=X, y=y: bare_fit(m, X, y)),
            ),
            compare(
                f"predict, {name}",
                len(y),
                ("predict_proba", lambda f=fitted, X=X: f.predict_proba(X)),
                ("bare PyTorch loop, same batches", lambda f=fitted, X=X: bare_predict(f, X)),
            ),
        ]
        if model is text:
            results += [
                compare(
                    f"fit, {name}",
                    len(y),
                    ("fit, 1 epoch", lambda m=model, X=X, y=y: clone(m).fit(X, y)),
                    ("plain skorch, padded arrays", lambda m=model, X=X, y=y: skorch_fit(m, X, y)),
                ),
                compare(
                    f"predict, {name}",
                    len(y),
                    ("predict_proba", lambda f=fitted, X=X: f.predict_proba(X)),
                    ("plain skorch, padded arrays", lambda f=fitted, X=X: skorch_predict(f, X)),
                ),
            ]
    for name, X, y in (("tweets", texts, sentiments), ("emoji names", names, name_categories)):
        fitted = minilm(X, y)
        classify = hugging_face(len(fitted.classes_))
        results += [
            compare(
                f"predict, MiniLM, {name}",
                len(X),
                ("predict_proba", lambda f=fitted, X=X: f.predict_proba(X)),
                ("Hugging Face pipeline, batch_size=32", lambda c=classify, X=X: c(list(X))),
                repeats=3,
            ),
            compare(
                f"predict, MiniLM, {name}",
                len(X),
                ("predict_proba", lambda f=fitted, X=X: f.predict_proba(X)),
                ("plain skorch, padded arrays", lambda f=fitted, X=X: skorch_predict(f, X)),
                repeats=3,
            ),
        ]
    return results
