"""Brings the folders of the collections into the index; what is there already is left alone."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from chassis.errors import ServiceError
from chassis.logging import get_logger
from ingestor.catalogue import Collection
from ingestor.ledger import Ledger
from ingestor.library import Library
from ingestor.parsing.isolated import DocumentParser
from ingestor.sources import read
from knowledge.schema import Document, Kind

log = get_logger("ingestor")


@dataclass(frozen=True)
class Refusal:
    """A document of a folder that could not be taken in."""

    collection: str
    document_id: str
    error: ServiceError


@dataclass
class Loaded:
    """What came of one collection."""

    read: int = 0
    changed: int = 0
    removed: int = 0
    refusals: list[Refusal] = field(default_factory=list)


class Loader:
    """Compares folders with what was loaded from them before, so that later changes over gRPC are not undone."""

    def __init__(self, library: Library, ledger: Ledger, *, batch_documents: int, parser: DocumentParser | None = None) -> None:
        """Put documents into `library` in groups; files are read by `parser`, or by one for each collection."""
        self._library, self._ledger, self._batch, self._parser = library, ledger, batch_documents, parser

    def load(self, collection: Collection, *, indexed: bool, after_group: Callable[[], None] = lambda: None) -> Loaded:
        """Load one collection; `indexed` says whether the index holds any of it, `after_group` runs after each commit."""
        started, result = time.perf_counter(), Loaded()
        if not indexed:
            self._ledger.forget(collection.name)
        known = self._ledger.loaded(collection.name)
        seen: set[str] = set()
        for group in _groups(self._new(collection, known, seen, result), self._batch):
            self._put(collection, group, result)
            after_group()
        # What was refused may be the new form of a document that is there; a picture is none.
        unsure = [refusal for refusal in result.refusals if refusal.error.code != "unsupported_document"]
        if collection.kind is Kind.FLUID and not unsure:
            self._remove(collection, {key for key, _ in known} - seen, result)
        seconds = round(time.perf_counter() - started, 2)
        log.info("collection_loaded", collection=collection.name, read=result.read, changed=result.changed,
                 removed=result.removed, refused=len(result.refusals), seconds=seconds)  # fmt: skip
        return result

    def _new(self, collection: Collection, known: Mapping[tuple[str, str], str], seen: set[str], result: Loaded) -> Iterator[Document]:
        for entry in read(collection, self._parser):
            if isinstance(entry, ServiceError):
                result.refusals.append(Refusal(collection.name, "", entry))
                continue
            result.read += 1
            seen.add(entry.key)
            if known.get((entry.key, entry.version)) != self._library.fingerprint(entry):
                yield entry

    def _put(self, collection: Collection, group: list[Document], result: Loaded) -> None:
        outcomes = self._library.put(group)
        for document, outcome in zip(group, outcomes, strict=True):
            if outcome.refusal is not None:
                result.refusals.append(Refusal(collection.name, document.document_id, outcome.refusal))
        done = [document for document, outcome in zip(group, outcomes, strict=True) if outcome.refusal is None]
        self._ledger.remember(collection.name, [(d.key, d.version, self._library.fingerprint(d)) for d in done])
        result.changed += sum(outcome.change is not None for outcome in outcomes)

    def _remove(self, collection: Collection, keys: set[str], result: Loaded) -> None:
        """Delete fluid documents that left the folder; anchored versions stay, whatever the folder holds."""
        for key in sorted(keys):
            tenant, _, document_id = key.partition(f"{collection.name}/")
            tenant = tenant.removesuffix(":")
            result.removed += self._library.remove(collection.kind, collection.name, document_id, tenant=tenant)
            self._ledger.forget(collection.name, key)


def _groups(documents: Iterator[Document], size: int) -> Iterator[list[Document]]:
    while group := list(islice(documents, size)):
        yield group
