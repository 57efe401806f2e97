"""scikit-learn's text vectorizers, as graphs: the host counts terms, the graph weighs them.

A row's terms stay a short list for what can make use of that, such as a linear model; see `Terms`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.utils.validation import check_is_fitted

from mmensemble.converters.linear import matrix
from mmensemble.exceptions import ExportError
from mmensemble.graph import Block, Frame, Graph, Outputs, Source, Terms, to_graph
from mmensemble.preprocessing.terms import COUNTS, TERMS, HashedTermsPreprocessor, TermsPreprocessor, TextAnalysis

__all__ = ["check_vectorizer", "dense"]

# The column that a vectorizer reads that was fitted on a plain sequence of texts.
_TEXT = "text"


def check_vectorizer(estimator: CountVectorizer | HashingVectorizer) -> None:
    """Raise `ExportError` where a vectorizer depends on the user's Python code, or reads something else than texts."""
    name = type(estimator).__name__
    for parameter in ("tokenizer", "preprocessor", "analyzer", "strip_accents"):
        if callable(getattr(estimator, parameter)):
            raise ExportError(
                f"{name}({parameter}=...) is Python code, which no model file holds; use scikit-learn's own options, "
                "or make the column that it reads beforehand"
            )
    if estimator.input != "content":
        raise ExportError(f"{name}(input={estimator.input!r}) reads files; only input='content' is exported")


def _preprocessor(estimator: CountVectorizer) -> TermsPreprocessor:
    check_vectorizer(estimator)
    check_is_fitted(estimator, "vocabulary_")
    vocabulary = sorted(estimator.vocabulary_, key=estimator.vocabulary_.__getitem__)
    for term in vocabulary:
        if not isinstance(term, str) or (not term.isascii() and _lone_surrogate(term)):
            raise ExportError(f"{type(estimator).__name__} has {term!r} in its vocabulary, which is no UTF-8 string")
    return TermsPreprocessor(
        [str(term) for term in vocabulary],  # numpy's strings are no JSON
        **_analysis(estimator),
    )


def _analysis(estimator: CountVectorizer | HashingVectorizer) -> dict[str, Any]:
    """Return how a vectorizer splits texts, as a preprocessor's parameters."""
    words = estimator.get_stop_words() if estimator.analyzer == "word" else None
    return {
        "analyzer": estimator.analyzer,
        "lowercase": bool(estimator.lowercase),
        "strip_accents": estimator.strip_accents or None,
        "token_pattern": estimator.token_pattern or "",
        "ngram_range": (int(estimator.ngram_range[0]), int(estimator.ngram_range[1])),
        "stop_words": None if words is None else sorted(str(word) for word in words),
    }


def _lone_surrogate(term: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in term)


@to_graph.register
def _count_vectorizer(estimator: CountVectorizer, source: Source | None = None) -> Outputs:
    preprocessor = _preprocessor(estimator)
    inputs, present, graph = _counted(estimator, source, preprocessor)
    with graph.scope(type(estimator).__name__):
        counts = inputs[COUNTS]
        if estimator.binary:
            counts = graph.op("Sign", counts)
        if isinstance(estimator, TfidfVectorizer):
            counts = _weighted(graph, counts, inputs[TERMS], estimator)
        return _where_present(graph, inputs[TERMS], counts, present, len(preprocessor.vocabulary))


@to_graph.register
def _hashing_vectorizer(estimator: HashingVectorizer, source: Source | None = None) -> Outputs:
    check_vectorizer(estimator)
    preprocessor = HashedTermsPreprocessor(
        int(estimator.n_features),
        alternate_sign=bool(estimator.alternate_sign),
        binary=bool(estimator.binary),
        **_analysis(estimator),
    )
    inputs, present, graph = _counted(estimator, source, preprocessor)
    with graph.scope("HashingVectorizer"):
        counts = _unit_length(graph, graph.double(inputs[COUNTS]), estimator.norm)
        return _where_present(graph, inputs[TERMS], counts, present, preprocessor.n_features)


def _counted(
    estimator: Any, source: Source | None, preprocessor: TextAnalysis
) -> tuple[dict[str, ir.Value], ir.Value, Graph]:
    """Add the inputs of a vectorizer's one column."""
    name = type(estimator).__name__
    source = Frame() if source is None else source
    if not isinstance(source, Frame):
        raise ExportError(f"{name} takes texts and stands behind a step that makes a matrix")
    if source.columns is not None and not isinstance(source.columns, str):
        raise ExportError(f"{name} takes one column; name it by a string, not by the list {source.column_list()}")
    inputs = source.graph.feed(source.name or _TEXT, [source.columns or _TEXT], preprocessor)
    return inputs, source.graph.present(inputs), source.graph


def _where_present(graph: Graph, terms: ir.Value, counts: ir.Value, present: ir.Value, width: int) -> Outputs:
    # scikit-learn refuses a row without a text; where only this modality is missing, this value is not looked at.
    values = graph.op("Where", present, counts, graph.number(np.nan, counts))
    graph.refusals.append(graph.op("Not", present))
    block = dense(graph, Terms(terms, values), width)
    return Outputs(graph, transformed=block.value, present=present, blocks=(block,), sparse=True)


@to_graph.register
def _tfidf_transformer(estimator: TfidfTransformer, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    graph = X.graph
    with graph.scope("TfidfTransformer"):
        if len(X.blocks) == 1 and X.blocks[0].terms is not None:
            terms = X.blocks[0].terms
            values = _weighted(graph, terms.values, terms.columns, estimator)
            block = dense(graph, Terms(terms.columns, values), X.blocks[0].width)
            return Outputs(graph, transformed=block.value, present=X.present, blocks=(block,), sparse=True)
        value = _weighted(graph, X.value, None, estimator)
        return Outputs(graph, transformed=value, present=X.present, sparse=True)


def _weighted(
    graph: Graph, counts: ir.Value, terms: ir.Value | None, tfidf: TfidfTransformer | TfidfVectorizer
) -> ir.Value:
    """Weigh counts (batch, length) of terms, or of all terms in order, and normalise each row, in float64.

    A tree's threshold may be a weight that was met in fit.
    """
    counts, one = graph.double(counts), graph.constant(np.float64(1))
    if tfidf.sublinear_tf:
        logarithm = graph.op("Add", graph.op("Log", graph.op("Max", counts, one)), one)
        counts = graph.op("Mul", graph.op("Sign", counts), logarithm)
    if tfidf.use_idf:
        idf = graph.constant(np.asarray(tfidf.idf_, dtype=np.float64), "idf")
        counts = graph.op("Mul", counts, idf if terms is None else graph.op("Gather", idf, terms, axis=0))
    return _unit_length(graph, counts, tfidf.norm)


def _unit_length(graph: Graph, counts: ir.Value, kind: str | None) -> ir.Value:
    """Divide rows by their length, but for those that are 0."""
    if kind is None:
        return counts
    axis = graph.constant(np.asarray([1]))
    norm = graph.op("ReduceL2" if kind == "l2" else "ReduceL1", counts, axis, keepdims=1)
    nothing = graph.op("Equal", norm, graph.constant(np.float64(0)))
    return graph.op("Div", counts, graph.op("Where", nothing, graph.constant(np.float64(1)), norm))


def dense(graph: Graph, terms: Terms, width: int) -> Block:
    """Write terms out as whole rows, for those who need them."""
    rows = graph.op("Gather", graph.op("Shape", terms.columns), graph.constant(np.asarray([0])), axis=0)
    shape = graph.op("Concat", rows, graph.constant(np.asarray([width])), axis=0)
    zeros = graph.op("Expand", graph.number(0, terms.values), shape)
    value = graph.op("ScatterElements", zeros, terms.columns, terms.values, axis=1, reduction="add")
    return Block(width, value, terms)
