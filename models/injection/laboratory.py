"""What scripts that train attack and safety heads share: thresholds at a share of harmless texts, and reports per source."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pools import Item

from encoders.metrics import auroc, recall_at_fpr, threshold_at_fpr

Scores = NDArray[np.float64]


def at_fpr(scores: Scores, fpr: float) -> float:
    """Return the threshold that flags at most `fpr` of harmless scores."""
    return threshold_at_fpr(scores, np.zeros(len(scores), dtype=bool), fpr)


def by_source(items: Sequence[Item], scores: Scores, threshold: float, calm: Scores | None = None) -> dict[str, Any]:
    """Return recall, false-positive rate and AUROC for every source; sources of attacks alone are set against `calm`."""
    groups: dict[str, list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        groups[item.source].append(place)
    report: dict[str, Any] = {}
    for source, places in sorted(groups.items()):
        positive, part = np.array([items[place].attack for place in places]), scores[places]
        entry: dict[str, Any] = {"n": len(places)}
        if positive.any():
            entry["recall"] = round(float((part[positive] >= threshold).mean()), 4)
        if not positive.all():
            entry["fpr"] = round(float((part[~positive] >= threshold).mean()), 4)
        if (area := auroc(part, positive)) is not None:
            entry["auroc"] = round(area, 4)
            entry["recall_at_1pct_fpr"] = round(recall_at_fpr(part, positive, 0.01) or 0.0, 4)
        elif positive.any() and calm is not None:
            both = np.concatenate([part, calm])
            entry["auroc_against_calm"] = round(auroc(both, np.arange(len(both)) < len(part)) or 0.0, 4)
        report[source] = entry
    return report
