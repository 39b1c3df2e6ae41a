"""The one shape of a supervised row, its files, and the split that keeps near-duplicates together."""

import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
ABSTAIN = "I could not find this in the available documents."


@dataclass(frozen=True)
class Row:
    """One supervised example: prompt variables, the wanted reply, and what scoring needs."""

    id: str
    source: str
    group: str
    variables: dict[str, Any]
    target: str
    gold: list[int]


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON Lines file, gzipped or not."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as JSON Lines."""
    text = "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")


def read_rows(path: Path) -> list[Row]:
    """Read rows written by `write_rows`."""
    return [Row(**record) for record in read_jsonl(path)]


def share(key: str, salt: str) -> float:
    """Map `key` to a stable number in [0, 1) that does not depend on the run."""
    digest = hashlib.sha256(f"{salt}:{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def words(text: str) -> list[str]:
    """Lower-case `text` and return its words and numbers."""
    return re.findall(r"[a-z0-9$%']+(?:[.,]\d+)*", text.lower())


def _shingles(text: str, size: int = 5) -> set[tuple[str, ...]]:
    tokens = words(text)
    return {tuple(tokens[i : i + size]) for i in range(max(1, len(tokens) - size + 1))}


def drop_leaks(train: list[Row], held_out: list[Row], limit: float = 0.5) -> list[Row]:
    """Return the held-out rows whose target and text share less than `limit` of 5-grams with a train row."""
    kept = []
    seen = [_shingles(_fingerprint(row)) for row in train]
    for row in held_out:
        mine = _shingles(_fingerprint(row))
        if all(len(mine & other) / len(mine) < limit for other in seen):
            kept.append(row)
    return kept


def _fingerprint(row: Row) -> str:
    gold = [p["text"] for p in row.variables.get("passages", []) if p["n"] in row.gold]
    return " ".join([row.variables["question"], *gold])
