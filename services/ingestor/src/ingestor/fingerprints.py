"""What a row of a source is compared by without being read: a bucket by its key, and a sum of hashes for each bucket.

The source computes the same in SQL. A value whose text differs on the two sides makes its bucket differ, which costs one
reading of that bucket; what is read is then compared by its values, so that no difference in writing is taken for drift.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

BUCKETS = 1024
BUCKET_DIGITS, HASH_DIGITS = 7, 15
KEY_SEPARATOR = "\x1f"

# Number of rows, and the sum of their hashes.
Fingerprint = tuple[int, int]


def bucket(key: Iterable[Any]) -> int:
    """Return the bucket of the row with a key."""
    return int(_digest(KEY_SEPARATOR.join(text(value) for value in key))[:BUCKET_DIGITS], 16) % BUCKETS


def row_hash(values: Mapping[str, Any], *, json_columns: frozenset[str] = frozenset()) -> int:
    """Return the hash of a row, whose columns are taken in the order of their names; `json_columns` hold decoded JSON."""
    parts = []
    for name in sorted(values):
        value = values[name]
        written = None if value is None else json.dumps(value, ensure_ascii=False) if name in json_columns else text(value)
        parts.append("-" if written is None else f"{len(written)}:{written}")
    return int(_digest("".join(parts))[:HASH_DIGITS], 16)


def text(value: Any) -> str:
    """Return a value as PostgreSQL writes it."""
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, list):
        return _array(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)


def _array(values: Sequence[Any]) -> str:
    return "{" + ",".join(_element(value) for value in values) + "}"


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    written = text(value)
    plain = written and written.upper() != "NULL" and not any(char in '{},"\\' or char.isspace() for char in written)
    return written if plain or isinstance(value, list) else '"' + written.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _digest(written: str) -> str:
    return hashlib.sha256(written.encode()).hexdigest()
