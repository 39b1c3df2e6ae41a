"""Who may see what, and when: one predicate, applied inside every leg before anything is ranked."""

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from knowledge.schema import LABEL_SEPARATOR, metadata_pairs

# No collection and no set of labels has this name; SQL knows no empty list.
_NOTHING = "."


@dataclass(frozen=True)
class Visibility:
    """What one caller may see at one time."""

    tenant: str
    labels: frozenset[str]
    collections: tuple[str, ...]
    at: dt.datetime
    filters: Mapping[str, str] = field(default_factory=dict)
    # A pinned version is shown whether it is in force or not; a withdrawn one never.
    version: str = ""
    # By collection: what was there when its source had come this far. A collection without one shows its present.
    positions: Mapping[str, int] = field(default_factory=dict)

    def allowed(self, label_keys: Iterable[str]) -> list[str]:
        """Return those sets of labels of which the caller holds every one."""
        return sorted(key for key in label_keys if not key or self.labels.issuperset(key.split(LABEL_SEPARATOR)))

    def sql(self, label_keys: Iterable[str]) -> str:
        """Return the predicate over the columns; `label_keys` are the sets of labels that the table holds.

        A set of labels that the table got a moment ago is not among them and stays hidden until it is known.
        """
        moment = f"timestamp '{self.at.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S.%f}'"
        clauses = [
            f"collection IN ({literals(self.collections or (_NOTHING,))})",
            f"tenant IN ({literals(('', self.tenant))})",
            f"label_key IN ({literals(self.allowed(label_keys) or [_NOTHING])})",
            f"(expires_at IS NULL OR expires_at > {moment})",
            "withdrawn_at IS NULL",
            self._recorded(),
        ]
        if self.version:
            clauses.append(f"version = {literals([self.version])}")
        else:
            clauses += [f"effective_from <= {moment}", f"(superseded_at IS NULL OR superseded_at > {moment})"]
        if self.filters:
            clauses.append(f"array_has_all(metadata, make_array({literals(metadata_pairs(dict(self.filters)))}))")
        return " AND ".join(clauses)

    def _recorded(self) -> str:
        """Return the predicate over the source's own time axis."""
        past = {name: int(place) for name, place in self.positions.items() if name in self.collections}
        if not past:
            return "closed_position IS NULL"
        parts = [f"(collection NOT IN ({literals(past)}) AND closed_position IS NULL)"]
        parts += [
            f"(collection = {literals([name])} AND position <= {place} AND (closed_position IS NULL OR closed_position > {place}))"
            for name, place in past.items()
        ]
        return f"({' OR '.join(parts)})"


def literals(values: Iterable[str]) -> str:
    """Return SQL string literals, separated by commas."""
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)
