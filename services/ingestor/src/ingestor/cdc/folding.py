"""What a row says once an event has been heard: by place in the source, whatever the order of arrival."""

from dataclasses import replace

from ingestor.cdc.envelopes import Change
from ingestor.cdc.rows import Row
from ingestor.cdc.values import UNAVAILABLE


def folded(row: Row, change: Change, truncated: int) -> Row | None:
    """Return the row after a change; None when the change says nothing new.

    A column that an event does not carry keeps the value of the event before it, also where that one arrives later.
    """
    if change.lsn <= truncated:
        return None
    # A change of a key that is not the mapped one comes as a deletion and a new row at the same place.
    remade = change.op == "c" and row.deleted and change.lsn == row.lsn
    if change.lsn <= row.lsn and not remade:
        return _completed(row, change)
    if change.op == "d":
        return replace(row, lsn=change.lsn, position=change.position, deleted=True, content={}, since={}, committed_ms=change.committed_ms)
    content, since = {}, {}
    for name, value in change.row.items():
        if value != UNAVAILABLE:
            content[name] = value
            continue
        since[name] = row.since.get(name, row.lsn) if name in row.content else -1
        if name in row.content:
            content[name] = row.content[name]
    return replace(row, lsn=change.lsn, position=change.position, deleted=False, content=content, since=since)


def _completed(row: Row, change: Change) -> Row | None:
    """Return the row with columns that its last event left to an earlier one, which is this."""
    if row.deleted or not row.since or change.op in {"d", "t"}:
        return None
    content, since = dict(row.content), dict(row.since)
    for name, place in row.since.items():
        value = change.row.get(name, UNAVAILABLE)
        if value != UNAVAILABLE and change.lsn > place:
            content[name], since[name] = value, change.lsn
    return None if since == row.since else replace(row, content=content, since=since)
