"""Damaged and hostile model files: each is right, refused by `ModelFileError`, or an error of its rows. `make fuzz`.

    python tests/benchmarks/fuzz.py [number of mutants] [seed]

Mutants are opened and score some rows in processes of their own, 50 to each, which are given a time and an amount of
memory. Half of them are the bytes of a small model file with damage anywhere; the others have a manifest whose values
were changed and a checksum that fits, as somebody would write it who means harm.
"""

from __future__ import annotations

import copy
import json
import random
import resource
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from mmensemble import OnnxPredictor
from mmensemble.exceptions import DataError, ModelFileError
from mmensemble.files.seal import seal
from mmensemble.scoring.manifest import METADATA_KEY

ROWS: dict[str, list[Any]] = {
    "title": ["a red apple", None, "pear " * 50],
    "picture": [np.full((9, 7, 3), 90, dtype=np.uint8), None, b"no image"],
    "weight": [1.0, None, 2.5],
    "price": [0.5, 3.0, None],
}
PER_PROCESS = 50
SECONDS, BYTES = 60, 4 * 2**30
ODD = [None, True, -1, 0, 1, 9, 2**31, 2**70, 1e300, "", "8", "x" * 5000, [], {}, [1], {"a": 1}, [[["a"]]], "(a+)+$"]


def original(folder: Path) -> Path:
    """Write a small model of three modalities, with a checksum."""
    from mmensemble.preprocessing import ImagePreprocessor, TabularPreprocessor, TextPreprocessor
    from mmensemble.scoring import Feed, Manifest
    from mmensemble.tasks import Classification
    from tests.mmensemble.conftest import CLASSES, WORDS, save_model

    text = TextPreprocessor.train([" ".join(WORDS)] * 3, vocab_size=300, max_length=600)
    feeds = [
        Feed("text", ("title",), text),
        Feed("image", ("picture",), ImagePreprocessor(size=8)),
        Feed("facts", ("weight", "price"), TabularPreprocessor({"weight": "float", "price": "float"})),
    ]
    manifest = Manifest(task=Classification(np.array(CLASSES, dtype=object)), feeds=feeds)
    path = save_model(folder / "original.onnx", manifest.to_json(sealed=True))
    seal(path)
    return path


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Change, cut, repeat or fill some bytes."""
    at = rng.randrange(len(content))
    n = rng.choice([1, 1, 2, 8, 100, 2000])
    how = rng.randrange(5)
    if how == 0:
        return content[:at] + bytes(rng.randrange(256) for _ in content[at : at + n]) + content[at + n :]
    if how == 1:
        return content[:at] + content[at + n :]
    if how == 2:
        return content[:at] + content[at : at + n] * 2 + content[at + n :]
    if how == 3:
        return content[:at]
    return content[:at] + b"\0" * len(content[at : at + n]) + content[at + n :]


def hostile(content: bytes, rng: random.Random) -> onnx.ModelProto:
    """Change some values of the manifest."""
    model = onnx.load_model_from_string(content)
    properties = {entry.key: entry.value for entry in model.metadata_props if entry.key == METADATA_KEY}
    state = json.loads(properties[METADATA_KEY])
    for _ in range(rng.choice([1, 1, 2, 3])):
        parent, key = rng.choice(list(places(state)))
        parent[key] = copy.deepcopy(rng.choice(ODD))
    for feed in state["feeds"] if isinstance(state.get("feeds"), list) else ():
        described = feed.get("preprocessor") if isinstance(feed, dict) else None
        if isinstance(described, dict) and described.get("kind") == "text" and rng.random() < 0.3:
            described["tokenizer"] = with_odd_values(described.get("tokenizer"), rng)
    helper.set_model_props(model, {METADATA_KEY: json.dumps(state)})
    return model


def with_odd_values(tokenizer: Any, rng: random.Random) -> Any:
    if not isinstance(tokenizer, str):
        return tokenizer
    try:
        state = json.loads(tokenizer)
    except ValueError:
        return tokenizer
    parent, key = rng.choice([place for place in places(state) if place[1] != "vocab"] or [(state, "version")])
    parent[key] = copy.deepcopy(rng.choice(ODD))
    return json.dumps(state)


def places(state: Any) -> Any:
    """Yield each place of a JSON value that can be set."""
    pairs = (
        list(state.items()) if isinstance(state, dict) else list(enumerate(state)) if isinstance(state, list) else []
    )
    for key, value in pairs:
        yield state, key
        if len(pairs) < 200:
            yield from places(value)


def outcome(path: Path, right: np.ndarray | None) -> str:
    """Open a file and score the rows."""
    try:
        predictor = OnnxPredictor(path, device="cpu", n_threads=1)
        if not hasattr(predictor, "predict_proba"):
            return "right"
        (window,) = predictor.score_batches([ROWS])
    except ModelFileError:
        return "refused"
    except DataError:
        return "an error of the data"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"FAULT {type(error).__name__} in {Path(where.filename).name}:{where.lineno}: {str(error)[:200]}"
    good = [row for row, error in enumerate(window.errors) if error is None]
    if right is None or np.allclose(window.outputs[good], right[good], equal_nan=True):
        return "right"
    return "FAULT other scores"


def run(folder: Path) -> None:
    """Score all mutants of a folder; print each one's outcome."""
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    right = np.array(json.loads((folder / "right.json").read_text()), dtype=np.float32)
    for path in sorted(folder.glob("mutant-*.onnx")):
        # A manifest that was changed may well ask for other scores; damage may not.
        print(path.stem, outcome(path, right if "damaged" in path.stem else None), flush=True)


def main(n_mutants: int, seed: int) -> int:
    rng, counts, faults = random.Random(seed), Counter[str](), list[str]()
    with tempfile.TemporaryDirectory() as name:
        path = original(Path(name))
        content = path.read_bytes()
        (window,) = OnnxPredictor(path, device="cpu").score_batches([ROWS])
        (Path(name) / "right.json").write_text(json.dumps(window.outputs.tolist()))
        for start in range(0, n_mutants, PER_PROCESS):
            for number in range(start, min(start + PER_PROCESS, n_mutants)):
                if number % 2:
                    mutant = Path(name) / f"mutant-{number:06}-hostile.onnx"
                    onnx.save(hostile(content, rng), mutant)
                    seal(mutant)
                else:
                    mutant = Path(name) / f"mutant-{number:06}-damaged.onnx"
                    mutant.write_bytes(damaged(content, rng))
            mutants = sorted(Path(name).glob("mutant-*.onnx"))
            while mutants:
                told = one_process(Path(name))
                for line in told:
                    _, _, what = line.partition(" ")
                    counts[what.partition(":")[0]] += 1
                    faults += [f"{line} (seed {seed})"] if what.startswith("FAULT") else []
                if len(told) < len(mutants):  # the next one ended the process, or took too long
                    counts["FAULT no answer"] += 1
                    faults.append(f"{mutants[len(told)].stem} gives no answer (seed {seed})")
                for done in mutants[: len(told) + 1]:
                    done.unlink()
                mutants = mutants[len(told) + 1 :]
    print(*(f"{count:6}  {what}" for what, count in counts.most_common()), *faults, sep="\n")
    return int(bool(faults))


def one_process(folder: Path) -> list[str]:
    command = [sys.executable, __file__, "--run", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS).stdout.splitlines()
    except subprocess.TimeoutExpired as error:
        out = error.stdout or b""
        return (out.decode() if isinstance(out, bytes) else out).splitlines()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    if sys.argv[1:2] == ["--run"]:
        run(Path(sys.argv[2]))
    else:
        sys.exit(main(int((sys.argv[1:2] or [2048])[0]), int((sys.argv[2:3] or [0])[0])))
