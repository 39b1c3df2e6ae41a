"""Who may see what, and when: one predicate, applied inside every leg before anything is ranked."""

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from knowledge.schema import LABEL_SEPARATOR, metadata_pairs

# No collection and no set of labels has this name; SQL knows no empty list.
_NOTHING = "."
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
# Between the parts of a scope; in no name of a collection, tenant or label.
_UNIT = "\x1f"
# Ends of what is hidden at every time, and of what lasts.
OVER, NEVER_OVER = -(2**63) + 1, 2**63 - 1


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

    def sql(self, scopes: "Scopes") -> str:
        """Return the predicate over the columns; `scopes` are those that the table holds.

        One that the table got a moment ago is not among them and stays hidden until it is known.
        """
        # Years before 1000 with all their digits, which `%Y` leaves out.
        moment = f"timestamp '{self.at.astimezone(dt.UTC).replace(tzinfo=None).isoformat(sep=' ', timespec='microseconds')}'"
        clauses = [f"scope IN ({literals(scopes.open_to(self) or [_NOTHING])})"]
        past = {name: int(place) for name, place in self.positions.items() if name in self.collections}
        if self.version or past:
            clauses += [f"(expires_at IS NULL OR expires_at > {moment})", "withdrawn_at IS NULL", _recorded(past)]
            if self.version:
                clauses.append(f"version = {literals([self.version])}")
            else:
                clauses += [f"effective_from <= {moment}", f"(superseded_at IS NULL OR superseded_at > {moment})"]
        else:
            # The same, by the column that holds the first of all ends.
            clauses += [f"over_at > {micros(self.at)}", f"effective_from <= {moment}"]
        if self.filters:
            clauses.append(f"array_has_all(metadata, make_array({literals(metadata_pairs(dict(self.filters)))}))")
        return " AND ".join(clauses)


class Scopes:
    """Which sets of labels there are in each collection of each tenant."""

    def __init__(self, stored: Iterable[str]) -> None:
        """Take what `scope` made."""
        self._labels: dict[tuple[str, str], list[str]] = {}
        for name in stored:
            collection, tenant, label_key = name.split(_UNIT)
            self._labels.setdefault((collection, tenant), []).append(label_key)

    def open_to(self, who: Visibility) -> list[str]:
        """Return the scopes whose chunks the caller may see: collections that were named, and every label held."""
        return [
            scope(collection, tenant, key)
            for collection in dict.fromkeys(who.collections)
            for tenant in sorted({"", who.tenant})
            for key in sorted(self._labels.get((collection, tenant), ()))
            if not key or who.labels.issuperset(key.split(LABEL_SEPARATOR))
        ]


def scope(collection: str, tenant: str, label_key: str) -> str:
    """Return collection, tenant and labels as one value."""
    return _UNIT.join((collection, tenant, label_key))


def micros(moment: dt.datetime) -> int:
    """Return whole microseconds since 1970."""
    return (moment.astimezone(dt.UTC) - _EPOCH) // _MICROSECOND


def _recorded(past: Mapping[str, int]) -> str:
    """Return the predicate over the source's own time axis."""
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
