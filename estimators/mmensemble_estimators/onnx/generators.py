"""Networks that write, as one graph: a step that takes a state and gives the next, and the encoder if there is one."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from mmensemble.graph import ENCODER_SCOPE, Frame, GeneratorGraph, Outputs, Source, to_generator_graph, to_graph
from mmensemble.preprocessing import TensorSpec
from mmensemble.tasks import Classification
from mmensemble_estimators.backbones.writers.networks import GenerativeNetwork
from mmensemble_estimators.base.generator import TorchGenerator
from mmensemble_estimators.onnx.leaves import leaf_feed
from mmensemble_estimators.onnx.networks import add_module
from mmensemble_estimators.zero_shot import ZeroShotTextClassifier

__all__ = ["embedding_graph", "generator_graph", "likelihood_graph"]

# The example that is exported: so many new tokens, and room for so many; different, and not 0 or 1.
SIZES = {"length": 3, "capacity": 8}
TOKENS = TensorSpec("int64", ("batch", "length"))
MASK = TensorSpec("int64", ("batch", "capacity"))
PAST = TensorSpec("int64", ("batch",))


class _Step(nn.Module):
    """Tokens, mask and state → scores after the last token, and the next state."""

    def __init__(self, network: GenerativeNetwork) -> None:
        super().__init__()
        self.network = network
        self.names = list(network.state_spec())

    def forward(self, input_ids: Tensor, attention_mask: Tensor, past: Tensor, **state: Tensor) -> tuple[Tensor, ...]:
        hidden, grown = self.network.decode(input_ids, attention_mask, past, **state)
        return self.network.head(hidden[:, -1]), *(grown[name] for name in self.names)


class _Encode(nn.Module):
    """A network's `encode`, as a tuple."""

    def __init__(self, network: GenerativeNetwork) -> None:
        super().__init__()
        self.network = network
        self.names = list(network.encoded_spec())

    def forward(self, **inputs: Tensor) -> tuple[Tensor, ...]:
        encoded = self.network.encode(**inputs)
        return tuple(encoded[name] for name in self.names)


@to_generator_graph.register
def generator_graph(estimator: TorchGenerator, source: Source) -> GeneratorGraph:
    """Add an estimator that writes; `mmensemble.tasks.Generation` says how inputs and outputs are named."""
    task = estimator.generation_task()
    graph, network = source.graph, estimator.module_
    inputs, _ = leaf_feed(estimator, source)
    outputs: dict[str, tuple[ir.Value, TensorSpec]] = {}
    if task.start_ids:
        encode = graph.further_input("decoder", "encode", TensorSpec("bool", ()))
        encoded: dict[str, tuple[ir.Value, TensorSpec]] = {}
        with graph.only_if(encode, encoded), graph.scope("encode"), graph.scope(ENCODER_SCOPE):
            values = add_module(graph, _Encode(network), inputs)
            for (name, spec), value in zip(task.encoded.items(), values, strict=True):
                encoded[name] = (value, spec)
        outputs |= {f"encoded.{name}": output for name, output in encoded.items()}
        step = {
            "input_ids": graph.further_input("decoder", "input_ids", TOKENS),
            "attention_mask": graph.further_input("decoder", "attention_mask", MASK),
        }
    else:
        step = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
        for name, spec in (("input_ids", TOKENS), ("attention_mask", MASK)):
            step[name].shape = ir.Shape(spec.shape)
    step["past"] = graph.further_input("decoder", "past", PAST)
    for name, spec in {**task.encoded, **task.state}.items():
        step[name] = graph.further_input("state", name, spec)
        step[name].shape = ir.Shape(spec.shape)  # without the group before the axes' names, which all share
    with graph.scope(ENCODER_SCOPE):
        logits, *grown = add_module(graph, _Step(network), step, sizes=SIZES)
    outputs["logits"] = (logits, TensorSpec("float32", ("batch", task.width)))
    for (name, spec), value in zip(task.state.items(), grown, strict=True):
        outputs[f"next.{name}"] = (value, spec)
    return GeneratorGraph(task, outputs)


@to_graph.register
def embedding_graph(estimator: TorchGenerator, source: Source | None = None) -> Outputs:
    """Add an estimator that writes as a step that embeds; zeros where the row is missing."""
    check_is_fitted(estimator, "module_")
    source = Frame() if source is None else source
    graph = source.graph
    inputs, present = leaf_feed(estimator, source)
    with graph.scope(ENCODER_SCOPE):
        (embedding,) = add_module(graph, estimator.embedder_, inputs)
    zeros = graph.constant(np.zeros((1, 1), dtype=np.float32), "missing_embedding")
    return Outputs(graph, transformed=graph.op("Where", present, embedding, zeros), present=present)


@to_graph.register
def likelihood_graph(estimator: ZeroShotTextClassifier, source: Source | None = None) -> Outputs:
    """Add a zero-shot classifier: the likelihood of each label behind the prompt; missing rows get the prior."""
    check_is_fitted(estimator, "module_")
    source = Frame() if source is None else source
    graph = source.graph
    inputs, present = leaf_feed(estimator, source)
    with graph.scope(ENCODER_SCOPE):
        (raw,) = add_module(graph, estimator.module_, inputs)
    with graph.scope("head"):
        bias = graph.constant(estimator.bias_.astype(np.float32)[None], "bias")
        probabilities = graph.op("Softmax", graph.op("Sub", raw, bias), axis=1)
        prior = graph.constant(estimator.class_prior_.astype(np.float32)[None], "prior")
        probabilities = graph.op("Where", present, probabilities, prior)
    return Outputs(graph, probabilities=probabilities, present=present, task=Classification(estimator.classes_))
