"""Brings a group of events into the index and the ledger: one commit of the one, then one transaction of the other."""

import datetime as dt
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum

from chassis.errors import ServiceError
from chassis.logging import get_logger
from ingestor.cdc.envelopes import Change, Mark, NamelessDeletionError, PoisonError, parse_change, parse_mark
from ingestor.cdc.folding import folded
from ingestor.cdc.groups import Group, Letter, Message, Reporter
from ingestor.cdc.mapping import Table
from ingestor.cdc.rows import Progress, Row, Rows, StreamState
from ingestor.cdc.templates import MappingError
from ingestor.library import Library, Upsert

log = get_logger("ingestor")
_CONTROL = "strata"
_REMOVED_AT_ONCE = 1000
_FIRST, _LAST = {"first", "first_in_data_collection"}, {"last", "last_in_data_collection"}
_Key = tuple[str, str, str]


class _Keep(Enum):
    """Says that the index keeps what it holds of a row."""

    KEEP = 1


_KEEP = _Keep.KEEP
# Behind every key, which is a list in JSON.
_ANY_KEY = "~"


class Applier:
    """Folds events into rows and rows into documents; used by one thread."""

    def __init__(self, tables: Sequence[Table], rows: Rows, library: Library) -> None:
        """Write to `library`; what the sources say is kept in `rows`."""
        self.tables = {(table.source.name, table.name): table for table in tables}
        self._by_subject = {table.subject: table for table in tables}
        self._sources = {table.source.name for table in tables}
        self._rows, self._library = rows, library
        self._begin()

    def apply(self, messages: Sequence[Message], stream: str, state: StreamState, reporter: Reporter) -> Group:
        """Apply messages in the order of the stream and move its place to the last one; raise when nothing of it was kept."""
        group = Group()
        self._begin()
        after = replace(state, sequence=messages[-1].sequence)
        with self._rows.transaction():
            self._hear(messages, group)
            self._settle(group, into_index=after.sequence > state.rebuild)
            self._rows.set_stream(stream, after)
            reporter.report(group, f"{stream}/{state.created}", after.sequence)
        return group

    def bury(self, message: Message, error: ServiceError, stream: str, state: StreamState, reporter: Reporter) -> Group:
        """Give one message up and go on behind it."""
        group = Group(letters=[Letter(message, message.subject.split(".")[1], error)])
        with self._rows.transaction():
            self._remember({}, group)
            self._rows.set_stream(stream, replace(state, sequence=message.sequence))
            reporter.report(group, f"{stream}/{state.created}", message.sequence)
        return group

    def remap(self, rows: Sequence[Row], reporter: Reporter) -> Group:
        """Make the documents of rows anew, by a mapping that has changed."""
        group = Group()
        self._begin()
        self._last = max(row.key for row in rows)
        with self._rows.transaction():
            for row in rows:
                self._touch(row, None, row.committed_ms)
            self._settle(group, into_index=True)
            reporter.report(group, f"mapping/{time.time_ns()}", 0)
        return group

    def hear_rows(self, changes: Sequence[Change], reporter: Reporter) -> tuple[Group, int, int]:
        """Take over rows that were read from a source where they say something else; return how many were missing and how many stale."""
        group, missing, stale = Group(), 0, 0
        self._begin()
        with self._rows.transaction():
            self._rows.see(change.key for change in changes)
            for change in changes:
                before = self._rows.get(change.table.source.name, change.table.name, change.key)
                if before.deleted or before.content != change.row:
                    self._fold(change, None, group)
                    heard = self._row(before.source, before.table, before.key) != before
                    # A column that no document is made of may come and go.
                    differs = any(before.content.get(name) != change.row.get(name) for name in change.table.columns)
                    missing, stale = missing + (heard and before.deleted), stale + (heard and differs and not before.deleted)
            self._settle(group, into_index=True)
            reporter.report(group, f"source/{time.time_ns()}", 0)
        return group, missing, stale

    def drop_unseen(self, table: Table, keys: Sequence[str], lsn: int, reporter: Reporter) -> tuple[Group, int]:
        """Remove those of some rows that `hear_rows` did not see and that were changed last before `lsn`; return how many."""
        group = Group()
        self._begin()
        with self._rows.transaction():
            for row in self._rows.unseen(table.source.name, table.name, keys, lsn):
                self._remove(row, Change(table, "d", row.key, {}, lsn - 1, lsn - 1, 0, row.committed_ms), group)
            self._settle(group, into_index=True)
            reporter.report(group, f"source/{time.time_ns()}", 0)
        return group, len(self._touched)

    def end_rows(self, table: Table, lsn: int) -> Group:
        """Note that all rows of a table are known from a place on."""
        with self._rows.transaction():
            self._rows.set_table_state(table.source.name, table.name, complete=lsn)
        return Group(completed={(table.source.name, table.name)})

    def target(self, row: Row) -> Upsert | None:
        """Return the document that the index should hold of a row; None where it should hold none; raise MappingError."""
        table = self.tables[row.source, row.table]
        if row.deleted or row.missing & table.columns:
            return None
        document = table.document(row.content, row.position)
        at = dt.datetime.fromtimestamp(row.committed_ms / 1000, dt.UTC)
        expired = document.expires_at is not None and document.expires_at <= dt.datetime.now(dt.UTC)
        if expired or not document.text:
            return None
        return Upsert(document, at, keep=table.history_days > 0)

    def _begin(self) -> None:
        self._touched: dict[_Key, Row] = {}
        self._carriers: dict[_Key, Message] = {}
        self._unreadable: dict[_Key, str] = {}
        # Up to this key rows are made by the mapping of today.
        self._last = _ANY_KEY
        self._committed: dict[_Key, int] = {}
        # What the ledger knew when the group began, and the states of its tables; every question to it is a wait for the interpreter.
        self._known: dict[_Key, Row] = {}
        self._states: dict[tuple[str, str], tuple[int, int, int]] = {}

    def _hear(self, messages: Sequence[Message], group: Group) -> None:
        heard = [(message, self._read(message)) for message in messages]
        self._recall([said for _, said in heard if isinstance(said, Change)])
        for message, said in heard:
            if isinstance(said, Change):
                self._fold(said, message, group)
            elif isinstance(said, Mark):
                self._mark(said, group)
            elif said is not None:
                if isinstance(said, NamelessDeletionError):
                    # Some row is gone, and only a new snapshot tells which.
                    group.incomplete.add(message.subject.split(".")[1])
                group.letters.append(Letter(message, message.subject.split(".")[1], said))

    def _read(self, message: Message) -> Change | Mark | PoisonError | None:
        table = self._by_subject.get(message.subject)
        source = message.subject.split(".")[1]
        try:
            if table is not None:
                return parse_change(table, message.data)
            control = source in self._sources and message.subject.split(".")[2] == _CONTROL
            return parse_mark(source, message.data) if control else None
        except PoisonError as error:
            return error
        except Exception as error:  # noqa: BLE001 - reading touches nothing but the event, so that whatever fails is its fault
            return PoisonError(repr(error))

    def _recall(self, changes: Sequence[Change]) -> None:
        """Read the rows of these changes, those that were never seen included."""
        keys: dict[tuple[str, str], dict[str, None]] = {}
        for change in changes:
            keys.setdefault((change.table.source.name, change.table.name), {})[change.key] = None
        for where, some in keys.items():
            stored = self._rows.several(*where, list(some))
            self._known |= {(*where, key): stored.get(key) or Row(*where, key) for key in some}

    def _state(self, source: str, name: str) -> tuple[int, int, int]:
        if (source, name) not in self._states:
            self._states[source, name] = self._rows.table_state(source, name)
        return self._states[source, name]

    def _set_state(self, source: str, name: str, **values: int) -> None:
        self._rows.set_table_state(source, name, **values)
        self._states.pop((source, name), None)

    def _fold(self, change: Change, message: Message | None, group: Group) -> None:
        source, name = change.table.source.name, change.table.name
        group.settled[source] = max(group.settled.get(source, 0), change.settled if message is not None else 0)
        if change.op == "t":
            self._set_state(source, name, truncated=max(change.lsn, self._state(source, name)[0]))
            self._remove_below(source, name, change.lsn, change, group)
            return
        if change.op == "r" and message is not None:
            self._snapshot_by_flags(change, group)
        row = self._row(source, name, change.key)
        after = folded(row, change, self._state(source, name)[0])
        if after is not None:
            self._touch(after, message, change.committed_ms)
            needed = [text for column, text in change.unreadable.items() if column in change.table.columns]
            self._unreadable.pop((source, name, change.key), None)
            self._unreadable |= {(source, name, change.key): needed[0]} if needed else {}
            group.changes.setdefault(source, []).append(change)

    def _mark(self, mark: Mark, group: Group) -> None:
        if mark.phase == "watermark":
            group.settled[mark.source] = max(group.settled.get(mark.source, 0), mark.lsn)
            return
        for name in mark.tables:
            if (mark.source, name) not in self.tables:
                continue
            begun = self._state(mark.source, name)[1]
            if mark.phase == "begin":
                self._set_state(mark.source, name, begun=mark.lsn)
            elif begun == mark.lsn:
                self._end_snapshot(mark.source, name, mark.lsn, group)

    def _snapshot_by_flags(self, change: Change, group: Group) -> None:
        """Follow a snapshot of Debezium, which says its beginning and end on the rows themselves."""
        source, name, lsn = change.table.source.name, change.table.name, change.lsn
        if change.snapshot in _FIRST:
            self._set_state(source, name, begun=lsn)
        elif change.snapshot in _LAST and 0 <= self._state(source, name)[1] <= lsn:
            # The one row of a table is its last, and says nothing of a beginning.
            self._set_state(source, name, begun=lsn)
            self._end_snapshot(source, name, lsn, group)
        others = [table for where, table in self.tables if where == source and table != name]
        if change.snapshot == "first":
            # What follows is seen from its beginning, whatever was lost before.
            for other in others:
                self._set_state(source, other, begun=max(self._state(source, other)[1], 0))
        elif change.snapshot == "last":
            for other in others:
                self._end_with_all(source, other, lsn, group)

    def _end_with_all(self, source: str, name: str, lsn: int, group: Group) -> None:
        """End a table at the end of the whole snapshot: one whose only row was the first of all has no end of its own."""
        _, begun, complete = self._state(source, name)
        if begun == lsn != complete:
            self._end_snapshot(source, name, lsn, group)
        elif begun < lsn and any(row.lsn < lsn for row in self._live(source, name)):
            # It is empty, or was not read; nobody can tell whether its rows are still there.
            group.incomplete.add(source)

    def _end_snapshot(self, source: str, name: str, lsn: int, group: Group) -> None:
        """Remove what the snapshot did not have, just below its place, so that a row of it that comes late is still heard."""
        stale = Change(self.tables[source, name], "d", "", {}, lsn - 1, lsn - 1, 0, 0)
        self._remove_below(source, name, lsn, stale, group)
        self._set_state(source, name, complete=lsn)
        group.completed.add((source, name))

    def _remove_below(self, source: str, name: str, lsn: int, change: Change, group: Group) -> None:
        for row in self._live(source, name):
            if row.lsn < lsn:
                self._remove(row, replace(change, op="d", key=row.key), group)

    def _remove(self, row: Row, change: Change, group: Group) -> None:
        self._touch(replace(row, lsn=change.lsn, position=change.position, deleted=True, content={}, since={}), None, change.committed_ms)
        group.changes.setdefault(row.source, []).append(change)

    def _live(self, source: str, name: str) -> list[Row]:
        stored = {row.key: row for row in self._rows.of_table(source, name)}
        heard = {key: row for (where, table, key), row in self._touched.items() if (where, table) == (source, name)}
        return [row for row in {**stored, **heard}.values() if not row.deleted]

    def _row(self, source: str, name: str, key: str) -> Row:
        where = (source, name, key)
        return self._touched.get(where) or self._known.get(where) or self._rows.get(*where)

    def _touch(self, row: Row, message: Message | None, committed_ms: int) -> None:
        key = (row.source, row.table, row.key)
        self._touched[key], self._committed[key] = row, committed_ms
        if message is not None:
            self._carriers[key] = message

    def _settle(self, group: Group, *, into_index: bool) -> None:
        """Write what the touched rows came to into the index, then into the ledger."""
        upserts: dict[_Key, Upsert] = {}
        removals: dict[str, int] = {}
        before: dict[str, Row] = {}
        decisions = {key: self._decide(key, row, group) for key, row in self._touched.items()}
        self._refuse_doubles(decisions, group)
        for key, row in self._touched.items():
            decision = decisions[key]
            if isinstance(decision, Upsert):
                upserts[key] = decision
            if row.document_key and not isinstance(decision, _Keep) and (decision is None or decision.document.key != row.document_key):
                removals[row.document_key] = row.position
                before[row.document_key] = row
            if decision is None:
                # A deletion goes on knowing which document it removed, so that it can be proven.
                name = row.document_key if row.deleted else ""
                self._touched[key] = replace(row, document_key=name, hash="", chunks=0, expires_ms=None)
        for upsert in upserts.values():
            removals.pop(upsert.document.key, None)
        if into_index and (upserts or removals):
            gone = list(removals.items())
            group.applied = self._library.apply(list(upserts.values()), dict(gone[:_REMOVED_AT_ONCE]))
            # An emptied table may be large; each of its documents still goes in one commit.
            for first in range(_REMOVED_AT_ONCE, len(gone), _REMOVED_AT_ONCE):
                more = self._library.apply([], dict(gone[first : first + _REMOVED_AT_ONCE]))
                group.applied.removed += more.removed
                group.applied.index_version = more.index_version
            self._name(upserts, [before[name] for name in removals], group)
        elif upserts:
            group.applied.held = {upsert.document.key: self._library.measure(upsert) for upsert in upserts.values()}
        self._rows.put([self._held(key, row, upserts[key], group) if key in upserts else row for key, row in self._touched.items()])
        for key, row in self._touched.items():
            if key in upserts or row.collection:
                group.collections.setdefault(row.source, set()).add(self.tables[key[:2]].collection.name)
        self._remember({upsert.document.key: self.tables[key[:2]] for key, upsert in upserts.items()}, group)

    def _name(self, upserts: Mapping[_Key, Upsert], removed: Sequence[Row], group: Group) -> None:
        """Name documents that differ from what the ledger knew: after a crash the index may hold them already, and nobody was told."""
        written, gone = set(group.applied.written), set(group.applied.removed)
        for key, upsert in upserts.items():
            document, known = upsert.document, self._touched[key]
            held = group.applied.held.get(document.key)
            if held is not None and (document.key in written or (known.document_key, known.hash) != (document.key, held[1])):
                group.upserted.setdefault(key[0], []).append(f"{document.collection}/{document.document_id}")
        for row in removed:
            if row.chunks or row.document_key in gone:
                # No tenant has a slash in its name.
                tenant_ends = row.document_key.index(f"{row.collection}/")
                group.removed.setdefault(row.source, []).append(row.document_key[tenant_ends:])

    def _decide(self, key: _Key, row: Row, group: Group) -> "Upsert | _Keep | None":
        """Return what the index should hold of one row; what it holds now stays where that cannot be told and nobody else may see it."""
        table = self.tables[row.source, row.table]
        try:
            if row.deleted or not row.missing & table.columns:
                return self.target(replace(row, committed_ms=self._committed[key]))
            group.incomplete.add(row.source)
        except MappingError as error:
            self._refuse(key, error, group)
            if error.code == "mapping_column_missing" and self._last != _ANY_KEY:
                # The mapping asks for a column that the table did not have when the row came.
                group.incomplete.add(row.source)
        before = self._rows.get(*key)
        try:
            same = table.access(before.content) == table.access(row.content)
        except MappingError:
            same = before.deleted and bool(row.missing)
        return _KEEP if same else None

    def _refuse_doubles(self, decisions: dict[_Key, "Upsert | _Keep | None"], group: Group) -> None:
        """Keep the first of two rows whose keys come to the same document, or one would hide the other and take it along when it goes."""
        fresh: dict[str, dict[str, None]] = {}
        claims: dict[str, _Key] = {}
        for key, decision in decisions.items():
            if isinstance(decision, Upsert) and (name := decision.document.key) == self._touched[key].document_key:
                claims.setdefault(name, key)
            elif isinstance(decision, Upsert):
                fresh.setdefault(decision.document.collection, {})[name] = None
        for collection, names in fresh.items():
            owners = self._rows.owners(collection, list(names))
            # Rows of this group may have given their document up, and those that are made anew later will.
            claims |= {name: owner for name, owner in owners.items() if decisions.get(owner, _KEEP) is _KEEP and owner[2] <= self._last}
        for key, decision in decisions.items():
            if not isinstance(decision, Upsert):
                continue
            if (owner := claims.setdefault(decision.document.key, key)) != key:
                name = decision.document.document_id
                text = f"field 'id': {name!r} is the document of row {owner[2]} already; name the key columns so that no two rows share one"
                self._refuse(key, MappingError(text, code="mapping_ambiguous"), group)
                decisions[key] = None

    def _held(self, key: _Key, row: Row, upsert: Upsert, group: Group) -> Row:
        """Return the row with what the index holds of it."""
        name, expires = upsert.document.key, upsert.document.expires_at
        if (error := group.applied.refused.get(name)) is not None:
            self._refuse(key, error, group)
        if name not in group.applied.held:
            return row
        chunks, value = group.applied.held[name]
        return replace(
            row,
            document_key=name,
            collection=upsert.document.collection,
            hash=value,
            chunks=chunks,
            # The time of the last change that said something else.
            committed_ms=row.committed_ms if value == row.hash else self._committed[key],
            expires_ms=int(expires.timestamp() * 1000) if expires else None,
        )

    def _refuse(self, key: _Key, error: ServiceError, group: Group) -> None:
        if (message := self._carriers.get(key)) is not None:
            if (unreadable := self._unreadable.get(key)) is not None:
                error = PoisonError(unreadable)
            group.letters.append(Letter(message, key[0], error))
        else:
            log.warning("row_refused", source=key[0], table=key[1], code=error.code, error=str(error))

    def _remember(self, documents: Mapping[str, Table], group: Group) -> None:
        self._rows.remember_history((key, place, documents[key].kept_until_ms()) for key, place in group.applied.closed)
        dead = [letter.source for letter in group.letters]
        for source in group.changes.keys() | group.settled.keys() | set(dead):
            changes = group.changes.get(source, [])
            last = max((change.committed_ms for change in changes), default=0)
            self._rows.advance(source, Progress(group.settled.get(source, 0), last, len(changes), dead.count(source)))
