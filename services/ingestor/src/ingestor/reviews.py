"""Which collections and documents somebody must look at again, and who is told so, once a day."""

import asyncio
import datetime as dt
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from chassis.errors import ServiceError
from chassis.logging import get_logger
from chassis.messaging import Bus
from contracts.subjects import REVIEW_DUE
from ingestor import versions
from ingestor.catalogue import Collection
from knowledge.index import Index
from knowledge.schema import Kind
from strata.ingestor.v1.ingestor_events_pb2 import ReviewDue

log = get_logger("ingestor")
_FIELD = "review_date="
_AT_ONCE = 200


@dataclass(frozen=True)
class Due:
    """A collection, or a document of it, whose review is due."""

    collection: str
    owner: str
    review_date: dt.date
    days_over: int
    document_id: str = ""
    tenant: str = ""
    version: str = ""


def due(collections: Iterable[Collection], today: dt.date) -> list[Due]:
    """Return the collections whose review is due on `today`, longest overdue first."""
    dates = [(collection, dt.date.fromisoformat(collection.review_date)) for collection in collections]
    found = [Due(collection.name, collection.owner, date, (today - date).days) for collection, date in dates if date <= today]
    return sorted(found, key=_order)


def due_documents(collections: Iterable[Collection], index: Index, today: dt.date) -> list[Due]:
    """Return the anchored documents in force whose own `review_date` has come, longest overdue first."""
    now = dt.datetime.now(dt.UTC)
    found = []
    for collection in collections:
        if collection.kind is not Kind.ANCHORED:
            continue
        keys = iter(sorted({entry.document_key for entry in index.inventory(collection.kind, collection.name)}))
        while some := list(islice(keys, _AT_ONCE)):
            for chunks in index.documents(collection.kind, some).values():
                version = versions.in_force(chunks, now)
                shown = next((chunk for chunk in chunks if version and chunk.version == version), None)
                date = _review_date(shown.metadata) if shown else None
                if shown and date and date <= today:
                    days = (today - date).days
                    found.append(Due(collection.name, collection.owner, date, days, shown.document_id, shown.tenant, version))
    return sorted(found, key=_order)


def _order(entry: Due) -> tuple[dt.date, str, str, str]:
    return entry.review_date, entry.collection, entry.document_id, entry.tenant


def _review_date(metadata: Iterable[str]) -> dt.date | None:
    for pair in metadata:
        if pair.startswith(_FIELD):
            try:
                return dt.date.fromisoformat(pair.removeprefix(_FIELD)[:10])
            except ValueError:
                return None
    return None


class ReviewWatch:
    """Publishes what is due; `file` remembers what was told on which day, over restarts."""

    def __init__(self, bus: Bus, collections: Mapping[str, Collection], index: Index, file: Path) -> None:
        """Tell nothing yet; `run` or `announce` do."""
        self._bus, self._collections, self._index, self._file = bus, collections, index, file

    async def run(self, *, every_seconds: float = 3600.0) -> None:
        """Tell what is due again and again, until cancelled."""
        while True:
            try:
                await self.announce(dt.datetime.now(dt.UTC).date())
            except (ServiceError, OSError, RuntimeError, ValueError) as error:
                log.warning("review_watch_delayed", error=repr(error))
            await asyncio.sleep(every_seconds)

    async def announce(self, today: dt.date) -> int:
        """Publish one event for each collection with something due that was not told today; return how many."""
        told = await asyncio.to_thread(self._read)
        count = 0
        for event in await asyncio.to_thread(lambda: list(self._events(today))):
            if told.get(event.collection) == today.isoformat():
                continue
            event_id = f"review-due/{event.collection}/{today.isoformat()}"
            await self._bus.publish(REVIEW_DUE, REVIEW_DUE.at(), event, event_id=event_id, about=event.collection)
            log.warning("review_due", collection=event.collection, owner=event.owner, since=event.review_date, documents=event.documents)
            told[event.collection] = today.isoformat()
            await asyncio.to_thread(self._write, told)
            count += 1
        return count

    def _events(self, today: dt.date) -> Iterator[ReviewDue]:
        found: dict[str, list[Due]] = {}
        for entry in [*due(self._collections.values(), today), *due_documents(self._collections.values(), self._index, today)]:
            found.setdefault(entry.collection, []).append(entry)
        for name, entries in sorted(found.items()):
            yield ReviewDue(
                collection=name,
                owner=entries[0].owner,
                review_date=min(entry.review_date for entry in entries).isoformat(),
                documents=sum(bool(entry.document_id) for entry in entries),
            )

    def _read(self) -> dict[str, str]:
        try:
            told = json.loads(self._file.read_text())
        except (OSError, ValueError):
            return {}
        return told if isinstance(told, dict) else {}

    def _write(self, told: dict[str, str]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(told))
        fresh.replace(self._file)
