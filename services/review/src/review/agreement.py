"""How far reviewers agree: by item, and over all beyond what chance would give."""

from collections import Counter
from collections.abc import Iterable, Sequence


def share(values: Sequence[str], final: str) -> float:
    """Return the share of values that are the final one; 0 without values."""
    return values.count(final) / len(values) if values else 0.0


def majority(values: Sequence[str]) -> str | None:
    """Return the value that more than half have given, or None."""
    if not values:
        return None
    value, count = Counter(values).most_common(1)[0]
    return value if 2 * count > len(values) else None


def krippendorff_alpha(items: Iterable[Sequence[str]]) -> tuple[float | None, int]:
    """Return Krippendorff's alpha for nominal values and the number of items with two or more.

    Source: Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), coincidence matrix. None where nothing varies.
    """
    rated = [values for values in items if len(values) > 1]
    totals: Counter[str] = Counter()
    disagreeing = 0.0
    for values in rated:
        counts, m = Counter(values), len(values)
        totals.update(counts)
        disagreeing += (m * m - sum(n * n for n in counts.values())) / (m - 1)
    n = sum(totals.values())
    expected = (n * n - sum(count * count for count in totals.values())) / (n - 1) if n > 1 else 0.0
    if len(rated) < 2 or not expected:
        return None, len(rated)
    return 1 - disagreeing / expected, len(rated)
