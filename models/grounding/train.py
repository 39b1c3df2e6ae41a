"""Fits the support score on public claims and near-copies, and reports every set against lexical overlap.

Usage: python models/grounding/train.py --data FOLDER_OF_PUBLIC_SETS --read FOLDER_OF_ENTAIL
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from blend import Blend, Read, half, held_out, unseen_sets
from entail import LAST, SPARED_FILE, UNSEEN
from forest import Fit, Flags, Numbers, Table
from pairs import PUBLIC, cg2c, near_copies, public

from encoders import Encoder
from encoders.entailment import WEIGHTS_FILE as ENTAILMENT_FILE
from encoders.grounding import FEATURES, WEIGHTS_FILE, SupportScorer
from encoders.metrics import auroc, balanced_accuracy, bootstrap_interval, calibration_error

HERE = Path(__file__).parent
VERSION = "support@v6"
_OVERLAP = FEATURES.index("all_coverage")
_CG2C_EVERY = 3


def measure(scores: Numbers, supported: Flags, flagged: Flags) -> dict[str, Any]:
    """Return balanced accuracy with its interval, AUROC and calibration error."""
    interval = bootstrap_interval(lambda index: balanced_accuracy(flagged[index], supported[index]), len(scores))
    found = {
        "balanced_accuracy": balanced_accuracy(flagged, supported),
        "auroc": auroc(scores, supported),
        "ece": calibration_error(scores, supported, 10),
    }
    report: dict[str, Any] = {"n": len(scores)} | {name: round(value, 4) for name, value in found.items() if value is not None}
    return report | {"interval": [round(bound, 4) for bound in interval] if interval else None}


def overlap(table: Table) -> dict[str, Any]:
    """Return, per set, what word coverage reaches on the held-out rows, at the threshold that is best for these very rows."""
    report = {}
    for name in PUBLIC:
        own = table.held_out & (table.sources == name)
        shares, supported = table.values[own, _OVERLAP], table.supported[own]
        best = max(balanced_accuracy(shares >= at, supported) or 0.0 for at in np.unique(shares))
        report[name] = {"auroc": round(auroc(shares, supported) or 0.0, 4), "best_balanced_accuracy": round(best, 4)}
    return report


def spread(table: Table, logits: Numbers) -> Numbers:
    """Return the logits of the held-out rows at their places among all rows."""
    result = np.zeros(len(table.supported))
    result[table.held_out] = logits
    return result


def without_seeing(table: Table, words: Fit, logits: Numbers, spared: Numbers) -> Read:
    """Return what words and model say of held-out and spared rows, the latter by a second fit and a second model that did not see them."""
    second = Fit(table, np.flatnonzero(~table.held_out & ~table.spared))
    said, model = words.logits(table, np.arange(len(logits))), logits.copy()
    said[table.spared], model[table.spared] = second.logits(table, np.flatnonzero(table.spared)), spared
    return Read(said, model)


def copies(scorer: SupportScorer, data: Path) -> dict[str, Any]:
    """Return the share of near-copies of unseen documents that the shipped scorer judges right, by their fault."""
    right: dict[str, list[bool]] = {}
    for pair in near_copies(data, test=True):
        found = scorer.score(pair.claim, pair.passages)
        passes = found.supported and found.overreach is None
        right.setdefault(pair.source, []).append(passes == pair.supported)
    return {name: {"n": len(hits), "accuracy": round(float(np.mean(hits)), 4)} for name, hits in right.items()}


def main() -> None:
    """Fit, measure and write `support.json`, `metrics.json` and `entailment.npz`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--read", type=Path, required=True, help="what entail.py wrote")
    options = parser.parse_args()
    data, read = options.data, options.read
    encoder = Encoder.load()
    table = Table([*public(data), *list(cg2c(data))[::_CG2C_EVERY], *near_copies(data, test=False)])
    words = Fit(table, np.flatnonzero(~table.held_out))
    known = without_seeing(table, words, spread(table, np.load(read / f"{LAST}.npy")), np.load(read / SPARED_FILE))
    unseen = {name: spread(table, np.load(read / f"{stage}.npy")) for name, stage in UNSEEN.items()}
    report: dict[str, Any] = {"pairs": len(table.supported), "overlap": overlap(table)}
    report["unseen_items"] = held_out(table, words, known, measure)
    report["half"] = half(table, known, measure)
    report["unseen_set"] = unseen_sets(table, unseen, measure)
    blend = Blend.fit(table, known, np.flatnonzero(table.held_out | table.spared))
    content = {"version": VERSION, "encoder": encoder.identity.key()} | blend.content(words)
    (HERE / WEIGHTS_FILE).write_text(json.dumps(content) + "\n", encoding="utf-8")
    shutil.copyfile(read / ENTAILMENT_FILE, HERE / ENTAILMENT_FILE)
    report |= {"near_copies_unseen_documents": copies(SupportScorer.load(HERE, encoder), data), "threshold": content["threshold"]}
    (HERE / "metrics.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
