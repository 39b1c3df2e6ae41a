"""Build, clean and describe the supervised rows of each adapter."""

import argparse
import random
from collections import Counter
from collections.abc import Callable
from importlib import import_module

from rows import Row, drop_leaks, share

BUILDERS = {
    "symptom-extract@v1": "symptom_rows",
    "patient-answer@v1": "patient_rows",
    "retail-answer@v1": "retail_rows",
}
HELD_OUT_LIMIT = 120


def build(name: str) -> tuple[list[Row], list[Row]]:
    """Return train and held-out rows of adapter `name`, disjoint by group and free of near-duplicates."""
    if name not in BUILDERS:
        raise ValueError(f"unknown adapter {name!r}; known: {sorted(BUILDERS)}")
    builder: Callable[[], tuple[list[Row], list[Row]]] = import_module(BUILDERS[name]).build
    train, held_out = builder()
    overlap = {row.group for row in train} & {row.group for row in held_out}
    if overlap:
        raise ValueError(f"groups on both sides of the split: {sorted(overlap)[:5]}")
    held_out = drop_leaks(train, held_out)
    held_out = sorted(held_out, key=lambda row: share(row.id, "order"))[:HELD_OUT_LIMIT]
    random.Random(7).shuffle(train)
    return train, held_out


def main() -> None:
    """Print what the rows of an adapter look like."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--adapter", required=True, choices=sorted(BUILDERS))
    parser.add_argument("--show", type=int, default=0, help="print that many rows")
    arguments = parser.parse_args()
    train, held_out = build(arguments.adapter)
    for side, rows in (("train", train), ("held out", held_out)):
        print(side, len(rows), dict(Counter(f"{row.source}/{'answer' if row.gold else 'none'}" for row in rows)))
    for row in train[: arguments.show]:
        print(f"\n{row.variables}\n=> {row.target}")


if __name__ == "__main__":
    main()
