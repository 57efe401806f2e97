"""Generation: the exported step with its cache against transformers' own `generate`, and what a token costs further on.

Both decode greedily and write the same number of tokens: no token ends a text.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from mmensemble import OnnxPredictor, export_onnx
from mmensemble.preprocessing import PRESENT
from mmensemble.scoring.generation import GenerationSettings, generate_tokens
from mmensemble_estimators import CausalLM
from tests.benchmarks.side_by_side import Result, compare
from tests.benchmarks.training import tweets

AIMED_AT = 1.5
NEW_TOKENS = 64
LENGTHS = (16, 64, 128, 256)
REPEATS = 5


@dataclass(frozen=True)
class Cost:
    """Seconds for each of the tokens of a text of some length, by the exported model."""

    name: str
    n_tokens: int
    seconds_per_token: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def small_gpt() -> CausalLM:
    """Fit for a moment: how good it is does not matter here."""
    texts, _ = tweets(400)
    return CausalLM(max_length=320, max_epochs=1, random_state=0).fit(texts)


def run(*, pretrained: str | None = None) -> tuple[list[Result], list[Cost]]:
    """Compare a small GPT, and a pretrained model where its folder is given."""
    models = {"small GPT": small_gpt()}
    if pretrained is not None:
        models["SmolLM2-135M"] = CausalLM.load(pretrained)
    results, costs = [], []
    for name, model in models.items():
        for precision in ("fp32",) if name == "small GPT" else ("fp32", "int8"):
            found, cost = _compare(name, model, precision)
            results += found
            costs += cost
    return results, costs


def _compare(name: str, model: CausalLM, precision: Any) -> tuple[list[Result], list[Cost]]:
    prompts, _ = tweets(8)
    results, costs = [], []
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder, "model"))
        reference = AutoModelForCausalLM.from_pretrained(Path(folder, "model")).eval()
        reference.generation_config.eos_token_id = None
        export_onnx(model, Path(folder, "model.onnx"), precision=precision)
        predictor = OnnxPredictor(Path(folder, "model.onnx"), device="cpu", n_threads=torch.get_num_threads())
        decoder, preprocessor = predictor.token_decoder(), model.preprocessor_
        encoded = preprocessor.shortened(preprocessor.encode(prompts), 48)

        def ours(n_rows: int, n_tokens: int = NEW_TOKENS) -> list[Any]:
            settings = GenerationSettings.of(temperature=0, max_new_tokens=n_tokens, random_state=0)
            batch = preprocessor.collate(encoded, np.arange(n_rows))
            del batch[PRESENT]
            return generate_tokens(decoder, batch, settings, end_ids=[], rows=np.arange(n_rows))

        def theirs(n_rows: int) -> torch.Tensor:
            batch = preprocessor.collate(encoded, np.arange(n_rows))
            with torch.inference_mode():
                return reference.generate(
                    torch.from_numpy(batch["input_ids"]),
                    attention_mask=torch.from_numpy(batch["attention_mask"]),
                    do_sample=False,
                    max_new_tokens=NEW_TOKENS,
                    pad_token_id=preprocessor.pad_id,
                )

        for n_rows in (1, len(prompts)):
            if precision == "fp32":
                written = theirs(n_rows)[:, -NEW_TOKENS:].numpy()
                equal = np.mean(np.concatenate([row[0] for row in ours(n_rows)]) == written.ravel())
                if equal < 1:
                    raise AssertionError(f"{name}: only {equal:.1%} of the greedy tokens are transformers'")
            results.append(
                compare(
                    f"{name}: {n_rows} {'texts' if n_rows > 1 else 'text'} of {NEW_TOKENS} tokens",
                    n_rows * NEW_TOKENS,
                    (f"exported, {precision}", lambda n_rows=n_rows: ours(n_rows)),
                    ("transformers' generate", lambda n_rows=n_rows: theirs(n_rows)),
                    repeats=REPEATS,
                    target=AIMED_AT,
                )
            )
        if precision == "fp32":
            costs += _costs(name, ours)
    return results, costs


def _costs(name: str, write: Any) -> list[Cost]:
    """Time texts of some lengths in turn; the medians count."""
    seconds: dict[int, list[float]] = {length: [] for length in LENGTHS}
    for repeat in range(REPEATS + 1):
        for length in LENGTHS:
            start = time.perf_counter()
            write(1, length)
            if repeat:
                seconds[length].append((time.perf_counter() - start) / length)
    return [Cost(name, length, statistics.median(values)) for length, values in seconds.items()]


def as_cost_table(costs: list[Cost]) -> str:
    """Return the costs as a Markdown table."""
    lines = ["| model | tokens of the text | ms per token |", "| --- | ---: | ---: |"]
    lines += [f"| {cost.name} | {cost.n_tokens} | {1000 * cost.seconds_per_token:.2f} |" for cost in costs]
    return "\n".join(lines)
