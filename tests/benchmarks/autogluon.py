"""Fit AutoGluon-MultiModal on the folds of `evidence.py`, with the same pretrained weights and the same scores.

    python tests/benchmarks/autogluon.py write FOLDER     # the data, folds and weights; in the project's environment
    python tests/benchmarks/autogluon.py fit FOLDER       # in an environment that has autogluon.multimodal 1.6.3
    python tests/benchmarks/autogluon.py score FOLDER     # in the project's environment again

AutoGluon fine-tunes MiniLM, EfficientNet-Lite0 and a transformer over the numbers together, on four fifths of the rows
to fit; the other fifth, of whole groups where folds are of groups, chooses among its checkpoints. A fit may take the
processor time of our default (docs/guide/choosing.md), or 430 s. Its time limit counts processor time here, so that
other work on the machine does not shorten the training, and leaves out what comes before and after the training. On
the first fold it is fitted with its own settings, and with rates, a batch and a number of steps that suit so few rows
and seconds. Of these rates, the one with the lowest log loss on that fold's held-out fifth is used on the other folds,
which test some of its rows: what this changes, if anything, is in AutoGluon's favour. What is in FOLDER already is not
fitted again. Give it one thread, as OMP_NUM_THREADS=1, for times to compare. ``score`` prints a table per data set and
writes ``autogluon.json``.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import GroupKFold, GroupShuffleSplit, StratifiedKFold, StratifiedShuffleSplit

# Run as a script: `tests` is no installed package, and this file's own folder would hide the package autogluon.
sys.path[0] = str(Path(__file__).parents[2])

N_FOLDS = 5
BATCH = 16
RATES = [2e-4, 4e-4]
OVERHEAD = 10  # processor seconds of a fit beside its training, at most: to load, to check the last step, to average


@dataclass(frozen=True)
class Budget:
    """The processor seconds that a fit may take, and the training steps that are done in them."""

    seconds: int
    steps: int


BUDGETS = {
    ("openmoji", "random"): [Budget(45, 28), Budget(430, 376)],
    ("tweets", "random"): [Budget(40, 26)],
    ("tuxpaint", "random"): [Budget(21, 16)],
    ("tuxpaint", "grouped"): [Budget(16, 10)],
    ("animated", "random"): [Budget(10, 4)],
    ("animated", "grouped"): [Budget(8, 4)],
}
# Its own without synonyms, for which it downloads WordNet.
AUGMENTATIONS = ["random_delete(0.1)", "random_swap(0.1)", "insert_punc(0.1)"]
# Those that are no feature.
OTHERS = ["y", "group", "random", "grouped"]


def write(folder: Path, names: list[str]) -> None:
    """Write each data set with the number of the fold that tests a row, and the weights."""
    import torch

    from mmensemble.datasets import minilm_folder
    from mmensemble_estimators.packaged import efficientnet_lite0
    from tests.benchmarks.evidence import DATA, SIZE

    for name in names:
        data = DATA[name]()
        frame = data.frame.reset_index(drop=True).assign(y=data.y)
        if "picture" in frame:
            frame["picture"] = frame["picture"].map(_on_white)
        splits = {"random": StratifiedKFold(N_FOLDS, shuffle=True, random_state=0).split(frame, data.y)}
        if data.groups is not None:
            frame["group"] = data.groups
            grouped = GroupKFold(N_FOLDS, shuffle=True, random_state=0)
            splits["grouped"] = grouped.split(frame, data.y, data.groups)
        for split, folds in splits.items():
            for number, (_, testing) in enumerate(folds):
                frame.loc[testing, split] = number
        frame.to_parquet(folder / f"{name}.parquet")
    shutil.copytree(minilm_folder(), folder / "minilm", dirs_exist_ok=True)
    network: Any = efficientnet_lite0().network.eval()  # type: ignore[union-attr]
    torch.manual_seed(0)
    pixels = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        features = network.extract_features(pixels).mean(dim=(2, 3))
    torch.save({"weights": network.state_dict(), "pixels": pixels, "features": features}, folder / "lite0.pt")


def _on_white(png: bytes) -> bytes:
    """Lay a picture on white, as our estimators do, where AutoGluon has black."""
    sink = io.BytesIO()
    with Image.open(io.BytesIO(png)) as picture:
        pixels = picture.convert("RGBA")
    white = Image.new("RGBA", pixels.size, "white")
    Image.alpha_composite(white, pixels).convert("RGB").save(sink, "PNG")
    return sink.getvalue()


def image_folder(folder: Path) -> Path:
    """Return the packaged EfficientNet-Lite0 as a folder that AutoGluon reads, its weights named as timm names them."""
    import timm  # type: ignore[import-not-found]
    import torch

    written = torch.load(folder / "lite0.pt", weights_only=True)
    network = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    weights = dict(zip(network.state_dict(), written["weights"].values(), strict=True))  # both in order of the layers
    network.load_state_dict(weights)
    with torch.no_grad():
        torch.testing.assert_close(network(written["pixels"]), written["features"], rtol=1e-3, atol=1e-4)
    made = folder / "lite0"
    made.mkdir(exist_ok=True)
    torch.save(weights, made / "pytorch_model.bin")
    config = {
        "architecture": "tf_efficientnet_lite0",
        "num_features": network.num_features,
        "input_size": [3, *written["pixels"].shape[2:]],
        "mean": [127 / 255] * 3,
        "std": [128 / 255] * 3,
    }
    (made / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return made


def held_out(y: np.ndarray, groups: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return which of the rows to fit are trained on, and which of them choose among epochs and rates."""
    if groups is None:
        training, choosing = next(StratifiedShuffleSplit(1, test_size=0.2, random_state=0).split(y, y))
    else:
        training, choosing = next(GroupShuffleSplit(1, test_size=0.2, random_state=0).split(y, y, groups))
    known = np.isin(y[choosing], y[training])  # AutoGluon takes no class that it is not trained on
    return np.concatenate([training, choosing[~known]]), choosing[known]


def settings(folder: Path, features: list[str], rate: float | None, steps: int, n_rows: int) -> dict[str, Any]:
    """Return AutoGluon's hyperparameters: its own beside the backbones, or those with a rate for few rows.

    Where the steps are less than an epoch, AutoGluon's schedule stops before its rate has fallen to 0.
    """
    found: dict[str, Any] = {"env.num_gpus": 0, "env.num_workers": 0, "env.num_workers_inference": 0}
    names = ["hf_text"]
    found["model.hf_text.checkpoint_name"] = str(folder / "minilm")
    found["model.hf_text.text_train_augment_types"] = AUGMENTATIONS
    if "picture" in features:
        names.append("timm_image")
        found["model.timm_image.checkpoint_name"] = str(folder / "lite0")
    if not {"text", "picture"}.issuperset(features):
        names.append("ft_transformer")
    if len(names) > 1:
        names.append("fusion_mlp")
    found["model.names"] = names
    if rate is not None:
        found |= {
            "model.hf_text.pooling_mode": "mean",
            "env.batch_size": BATCH,
            "env.per_gpu_batch_size": BATCH,
            "optim.lr": rate,
            "optim.max_steps": steps,
            "optim.max_epochs": -(-steps * BATCH // n_rows),  # AutoGluon's schedule of rates knows epochs only
            "optim.warmup_steps": max(1, steps // 10),
            "optim.val_check_interval": steps if steps < n_rows // BATCH else 0.5,
        }
    return found


def fit(
    folder: Path,
    names: list[str],
    splits: list[str],
    seconds: list[int],
    folds: list[int],
    own: bool,
    rates: list[float],
) -> None:
    """Fit AutoGluon on each fold, and write its probabilities."""
    import lightning.pytorch.callbacks.timer as timer  # type: ignore[import-not-found]
    import torch

    timer.time = SimpleNamespace(monotonic=time.process_time)  # what the limit counts
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    image_folder(folder)
    (folder / "fitted").mkdir(exist_ok=True)
    for name, split in BUDGETS:
        if name not in names or split not in splits:
            continue
        frame = pd.read_parquet(folder / f"{name}.parquet")
        for budget in BUDGETS[name, split]:
            if seconds and budget.seconds not in seconds:
                continue
            for fold in folds:
                first = [*([None] if own else []), *rates]
                for rate in first if fold == 0 else [chosen_rate(folder, name, split, budget)]:
                    path = _path(folder, name, split, budget, fold, rate)
                    if not path.exists():
                        found = fitted(folder, frame, split, fold, budget, rate)
                        found.to_parquet(path)
                        print(path.stem, found.attrs, flush=True)


def chosen_rate(folder: Path, name: str, split: str, budget: Budget) -> float:
    """Return the rate with the lowest log loss on the rows that choose, of the first fold."""

    def loss(rate: float) -> float:
        found = pd.read_parquet(_path(folder, name, split, budget, 0, rate))
        found = found[found["part"] == "choosing"].drop(columns="part")
        proba = found.drop(columns="y").sort_index(axis=1)
        return float(log_loss(found["y"], proba, labels=list(proba.columns)))

    return min((rate for rate in RATES if _path(folder, name, split, budget, 0, rate).exists()), key=loss)


def _path(folder: Path, name: str, split: str, budget: Budget, fold: int, rate: float | None) -> Path:
    return folder / "fitted" / f"{name},{split},{budget.seconds},{fold},{rate or 'own'}.parquet"


def fitted(
    folder: Path, frame: pd.DataFrame, split: str, fold: int, budget: Budget, rate: float | None
) -> pd.DataFrame:
    """Return the probabilities of the rows that choose and of those tested, with the processor seconds of the fit."""
    from autogluon.multimodal import MultiModalPredictor  # type: ignore[import-not-found]

    fitting = frame[frame[split] != fold].reset_index(drop=True)
    training, choosing = held_out(fitting["y"].to_numpy(), fitting["group"].to_numpy() if split == "grouped" else None)
    features = [column for column in frame.columns if column not in OTHERS]
    kinds = {"text": "text", "picture": "image_bytearray"}
    with tempfile.TemporaryDirectory() as made:
        predictor = MultiModalPredictor(
            label="y", problem_type="multiclass", path=f"{made}/model", verbosity=1, enable_progress_bar=False
        )
        started = _processor_seconds()
        predictor.fit(
            fitting[[*features, "y"]].iloc[training],
            tuning_data=fitting[[*features, "y"]].iloc[choosing],
            time_limit=budget.seconds - min(OVERHEAD, budget.seconds / 4),
            hyperparameters=settings(folder, features, rate, budget.steps, len(training)),
            column_types={column: kind for column, kind in kinds.items() if column in features},
            standalone=False,
            seed=0,
        )
        used = _processor_seconds() - started
        rows = [fitting.iloc[choosing], frame[frame[split] == fold]]
        found = [predictor.predict_proba(some[features]).assign(y=some["y"].to_numpy()) for some in rows]
    both = pd.concat(found, keys=["choosing", "testing"], names=["part", "row"]).reset_index("part")
    both.attrs = {"fit_seconds": used}
    return both


def _processor_seconds() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def score(folder: Path) -> None:
    """Print a table per data set, and write ``autogluon.json``."""
    from tests.benchmarks.evidence import as_table

    results: dict[str, dict[str, Any]] = {}
    for name, split in BUDGETS:
        rows: dict[str, Any] = {}
        for budget in BUDGETS[name, split]:
            for rate in [None, *RATES]:
                paths = [_path(folder, name, split, budget, fold, rate) for fold in range(N_FOLDS)]
                scored = [_scores(pd.read_parquet(path), folder, name) for path in paths if path.exists()]
                if scored:
                    label = f"{'its own settings' if rate is None else f'rate {rate:g}'}, {budget.seconds} s"
                    rows[label] = {key: [scores[key] for scores in scored] for key in scored[0]}
                    rows[label] |= {
                        "kind": f"{len(scored)} of {N_FOLDS} folds",
                        "fit_seconds": float(np.mean(rows[label]["seconds"])),
                    }
        if rows:
            results[f"{name}, {split}"] = rows
            print(f"\n{name}, {split}\n\n{as_table(rows).replace(' ± nan', '')}")
    (folder / "autogluon.json").write_text(json.dumps(results, indent=2), encoding="utf-8")


def _scores(found: pd.DataFrame, folder: Path, name: str) -> dict[str, float]:
    """Score probabilities of the rows tested, as `evidence.py` does."""
    from mmensemble import expected_calibration_error
    from tests.benchmarks.evidence import _all_classes

    classes = np.unique(pd.read_parquet(folder / f"{name}.parquet", columns=["y"])["y"].to_numpy(dtype=object))
    used = found.attrs["fit_seconds"]
    found = found[found["part"] == "testing"]
    y, proba = found["y"].to_numpy(dtype=object), found.drop(columns=["part", "y"]).sort_index(axis=1)
    full = _all_classes(proba.to_numpy(dtype=float), proba.columns.to_numpy(dtype=object), classes)
    return {
        "accuracy": float(accuracy_score(y, classes[full.argmax(axis=1)])),
        "log_loss": float(log_loss(y, full, labels=classes)),
        "calibration_error": float(expected_calibration_error(y, full, classes=classes)),
        "seconds": float(used),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["write", "fit", "score"])
    parser.add_argument("folder", type=Path)
    names = list(dict.fromkeys(name for name, _ in BUDGETS))
    parser.add_argument("--data", nargs="+", choices=names, default=names)
    parser.add_argument("--splits", nargs="+", choices=["random", "grouped"], default=["random", "grouped"])
    parser.add_argument("--seconds", nargs="+", type=int, default=[], help="of the budgets; all of them by default")
    parser.add_argument("--folds", nargs="+", type=int, default=list(range(N_FOLDS)))
    parser.add_argument("--rates", nargs="+", type=float, choices=RATES, default=RATES, help="to choose from")
    parser.add_argument("--own", action=argparse.BooleanOptionalAction, default=True, help="fit its own settings too")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.command == "write":
        write(arguments.folder, arguments.data)
    elif arguments.command == "fit":
        chosen = arguments.data, arguments.splits, arguments.seconds, arguments.folds, arguments.own, arguments.rates
        fit(arguments.folder, *chosen)
    else:
        score(arguments.folder)


if __name__ == "__main__":
    main()
