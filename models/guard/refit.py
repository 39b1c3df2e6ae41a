"""Fits what the guard says of tool results, a column of its head of its own: orders that name nobody, and orders to people.

Usage: python models/guard/refit.py --data FOLDER_OF_PUBLIC_SETS --guard FOLDER --out FOLDER [--measure] [--rebind HEAD ...]

`guard.safetensors` of `--guard` is what `tune.py` and `fit.py` made. Written are one whose head has task `tool` too, which begins
from `data`, and `tool.npz`. With `--measure` held-out rows and templates stay out. All other heads keep their numbers and get the new
name of the guard (`--rebind`).
"""

import argparse
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import rows as drawn
from channels import read
from fit import BESIDE, HASHER, RECIPE
from numpy.typing import NDArray
from pools import HERE as INJECTION
from safetensors.numpy import load_file, save_file
from scipy.optimize import minimize
from twins import Twins

from encoders import TextClassifier
from encoders.classifier import ClassifierConfig
from encoders.encoder import Vectors
from encoders.fitting import fit
from encoders.guard import TASKS, UNKNOWN, WEIGHTS_FILE, Guard
from encoders.injection import ATTACK

DATA, TOOL = TASKS.index("data"), TASKS.index("tool")
# How far the column may go from what it was: chosen on half A of the wild pack and on BIPIA, where more than this forgets other orders.
_REACH = 0.005
_OLD_ROWS = 9000
_NEW_TEXTS = {False: 2600, True: 600}
_KINDS = {"indirect_orders": 1.0, "orders_to_people": 0.0}


def data_rows(root: Path) -> list[drawn.Row]:
    """Return sentences of data with a label: a part of those that the guard was tuned on, and what `readers.yaml` says."""
    chance = random.Random(7)
    found = drawn._thinned(drawn.data_rows(root), drawn._DATA, chance)  # noqa: SLF001 - the same draw as the guard's
    chance.shuffle(found)
    found = found[:_OLD_ROWS]
    twins = Twins(INJECTION / "readers.yaml")
    for kind, label in _KINDS.items():
        for held_out, count in _NEW_TEXTS.items():
            texts = twins.texts(kind, count, held_out=held_out)
            parts = [part for text in texts for part in read(text, "document").parts[:2]]
            found += [drawn.Row(part, drawn.labelled(data=label), kind, held_out) for part in parts]
    return [row for row in found if row.labels[DATA] != UNKNOWN]


def moved(features: Vectors, odds: Vectors, targets: NDArray[np.float64]) -> tuple[Vectors, float]:
    """Return weights (768) and a bias to add to a column whose log odds are `odds`; classes weigh the same."""
    mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-3
    scaled = (features - mean) / spread
    share = targets.mean()
    weights = np.where(targets == 1, 0.5 / share, 0.5 / (1 - share))

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        found = odds + scaled @ flat[:-1].astype(np.float32) + flat[-1]
        missed = np.logaddexp(0, np.where(targets == 1, -found, found))
        slope = weights * (1 / (1 + np.exp(-found)) - targets)
        rows = len(targets) / 1000
        gradient = np.append(scaled.T @ slope.astype(np.float32) / rows + flat[:-1] / _REACH, slope.sum() / rows)
        return float((weights * missed).sum() / rows + 0.5 / _REACH * (flat[:-1] ** 2).sum()), gradient

    best = minimize(loss, np.zeros(features.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    weight = (best[:-1] / spread).astype(np.float32)
    return weight, float(best[-1] - (best[:-1] * mean / spread).sum())


def words_of(guard: Guard, rows: Sequence[drawn.Row]) -> TextClassifier:
    """Return what n-grams say of the rows."""
    texts, nothing = [row.text for row in rows], np.zeros((len(rows), len(TASKS)), dtype=np.float32)
    labels = [("harmless", ATTACK)[int(row.labels[DATA])] for row in rows]
    return fit(guard, "guard-tool", texts, labels, RECIPE, vectors=nothing)


def head(guard: Guard, words: TextClassifier) -> TextClassifier:
    """Return the guard's log odds of an order in a tool result plus half of what its n-grams say."""
    dense = np.zeros((len(TASKS), 2), dtype=np.float32)
    dense[TOOL, words.config.labels.index(ATTACK)] = 1.0
    own = TextClassifier(guard, words.config, dense, np.zeros((HASHER.buckets, 2), dtype=np.float32), np.zeros(2, dtype=np.float32))
    return own.blended(words, 1.0, BESIDE["data"])


def rebind(path: Path, after: Guard) -> None:
    """Give a head of another task the name of the guard that has one more task: its own columns are what they were."""
    with np.load(path, allow_pickle=False) as arrays:
        kept = {name: arrays[name] for name in arrays.files}
    config = ClassifierConfig.from_json(str(kept["config"]))
    dense = np.zeros((len(TASKS), kept["dense"].shape[1]), dtype=np.float16)
    dense[: len(kept["dense"])] = kept["dense"]
    kept |= {"dense": dense, "config": np.array(replace(config, encoder=after.identity.key()).to_json())}
    with path.open("wb") as handle:
        np.savez_compressed(handle, **kept)


def main() -> None:
    """Fit and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--guard", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--measure", action="store_true", help="leave out what measures")
    parser.add_argument("--rebind", type=Path, nargs="*", default=[], help="heads of other tasks that go with the guard")
    options = parser.parse_args()
    rows = [row for row in data_rows(options.data) if not (options.measure and row.left_out)]
    features = Guard.load(options.guard).pooled().encode([row.text for row in rows])
    tensors = load_file(options.guard / WEIGHTS_FILE)
    weight, bias = (tensors[f"head.{name}"].astype(np.float32)[:TOOL] for name in ("weight", "bias"))
    targets = np.array([row.labels[DATA] for row in rows], dtype=np.float64)
    more, base = moved(features, features @ weight[DATA] + bias[DATA], targets)
    tensors |= {"head.weight": np.vstack([weight, weight[DATA] + more]), "head.bias": np.append(bias, bias[DATA] + np.float32(base))}
    options.out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, options.out / WEIGHTS_FILE)
    refitted = Guard.load(options.out)
    head(refitted, words_of(refitted, rows)).save(options.out / "tool.npz")
    for path in options.rebind:
        rebind(path, refitted)


if __name__ == "__main__":
    main()
