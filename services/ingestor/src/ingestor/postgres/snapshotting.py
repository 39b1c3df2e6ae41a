"""A snapshot's rows into the stream, between the events that begin and end it."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial

from chassis.errors import FailedPreconditionError
from ingestor.postgres.catalog import Shape
from ingestor.postgres.connections import in_thread
from ingestor.postgres.declaration import ReplicationDeclaration
from ingestor.postgres.envelopes import EnvelopeWriter, Event, Place, Table, now_milliseconds
from ingestor.postgres.pgoutput import Row
from ingestor.postgres.publishing import Publisher
from ingestor.postgres.signals import SnapshotTaken
from ingestor.postgres.slots import Slots
from ingestor.postgres.snapshot import Snapshot
from ingestor.postgres.values import Types


class Snapshotter:
    """Publishes every row of a source, and makes its slot once the stream has all of them."""

    def __init__(
        self, declaration: ReplicationDeclaration, slots: Slots, writer: EnvelopeWriter, types: Types, publisher: Publisher
    ) -> None:
        """Work for one session of the source."""
        self._declaration, self._slots, self._writer = declaration, slots, writer
        self._types, self._publisher = types, publisher
        self._rows: dict[str, int] = {}

    async def run(self, shapes: Sequence[Shape], reason: str, floor: int, standing: object) -> SnapshotTaken:
        """Take the snapshot; the slot exists afterwards, and only then; FailedPreconditionError where the log is below `floor`.

        `standing` is what the tables were made of before.
        """
        snapshot, publisher = Snapshot(self._declaration, self._slots), self._publisher
        self._rows = {shape.full_name: 0 for shape in shapes}
        try:
            await in_thread(snapshot.open, interrupt=snapshot.interrupt)
            if snapshot.lsn <= floor:
                text = f"source {self._declaration.name!r}: its log stands at {snapshot.lsn}, and {floor} was published already"
                remedy = "a restored or another server cannot go on under this name; declare it under a new one"
                raise FailedPreconditionError(f"{text}; {remedy}", code="source_went_back")
            snapshot_id, ends = f"{self._writer.slot}/snapshot/{snapshot.lsn}", (snapshot.lsn, snapshot.consistent_lsn)
            await publisher.publish(self._writer.snapshot_begins(snapshot_id, *ends, list(self._rows), reason))
            await self._publish_rows(snapshot, snapshot_id, shapes)
            await publisher.publish(self._writer.snapshot_ends(snapshot_id, *ends, self._rows, standing))
            await publisher.settled()
            await in_thread(snapshot.keep, interrupt=snapshot.interrupt)
        finally:
            snapshot.close()
        return SnapshotTaken(self._declaration.name, snapshot_id, snapshot.lsn, self._rows)

    async def _publish_rows(self, snapshot: Snapshot, snapshot_id: str, shapes: Sequence[Shape]) -> None:
        held: tuple[Table, Row] | None = None
        for shape in shapes:
            async with aclosing(self._read(snapshot, shape)) as rows:
                async for found in rows:
                    if held is not None:
                        await self._publisher.publish(self._event(snapshot, snapshot_id, *held, "true"))
                    held = found
        if held is not None:
            await self._publisher.publish(self._event(snapshot, snapshot_id, *held, "last"))

    async def _read(self, snapshot: Snapshot, shape: Shape) -> AsyncGenerator[tuple[Table, Row], None]:
        columns, condition = await in_thread(partial(self._slots.filters, shape), interrupt=snapshot.interrupt)
        converters = tuple((name, self._types.converter(oid)) for name, oid in columns)
        table = Table(shape.schema, shape.name, converters, shape.key)
        pages = snapshot.pages(shape, columns, condition)
        while page := await in_thread(partial(next, pages, None), interrupt=snapshot.interrupt):
            for row in page:
                yield table, row

    def _event(self, snapshot: Snapshot, snapshot_id: str, table: Table, row: Row, mark: str) -> Event:
        self._rows[table.full_name] += 1
        place = Place(snapshot.lsn, snapshot.consistent_lsn, now_milliseconds(), None, mark)
        message_id = f"{snapshot_id}/{table.full_name}/{self._rows[table.full_name]}"
        return self._writer.change(table, "r", place, message_id, after=table.row(row))
