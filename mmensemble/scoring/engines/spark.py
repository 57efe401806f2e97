"""The engine of Spark: a partition for each fragment. Imports pyspark at use."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from mmensemble.exceptions import MissingDependencyError
from mmensemble.scoring.engines.engine import Engine

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["SparkEngine"]


class SparkEngine(Engine):
    """Spark's tasks, by ``DataFrame.mapInArrow``, so with Spark Connect too.

    The session is the active one, else the one that Spark's configuration describes, else one on this machine; it
    stays. A task that fails is repeated as ``spark.task.maxFailures`` says. With `workers` there are so many
    partitions, of several fragments each; without, a partition for each fragment.
    """

    name: ClassVar[str] = "spark"

    def map(
        self, function: Callable[[Any], Any], fragments: Sequence[Any], *, workers: int | None, cpus: int, gpus: int
    ) -> Iterator[Any]:
        try:
            from pyspark.sql import SparkSession
        except ImportError as error:
            raise MissingDependencyError("pyspark", "spark") from error
        if not fragments:
            return
        spark = SparkSession.getActiveSession() or SparkSession.builder.getOrCreate()
        partitions = min(len(fragments), workers or len(fragments))
        numbers = spark.range(0, len(fragments), 1, partitions)
        for row in numbers.mapInArrow(_on_worker(function, list(fragments)), "result binary").collect():
            yield pickle.loads(row["result"])


def _on_worker(
    function: Callable[[Any], Any], fragments: list[Any]
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def score(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        for batch in batches:
            for number in batch.column(0).to_pylist():
                result = pickle.dumps(function(fragments[number]))
                yield pa.RecordBatch.from_arrays([pa.array([result], pa.binary())], names=["result"])

    return score
