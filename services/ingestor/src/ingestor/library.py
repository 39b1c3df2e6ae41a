"""Puts documents into the index and takes them out: one writer, one commit for each group, nothing embedded twice."""

import datetime as dt
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from threading import RLock

from chassis.errors import InvalidArgumentError, ServiceError
from ingestor import versions
from ingestor.ledger import Change, Ledger, searchable
from knowledge.index import Index
from knowledge.preparation import Embeds, access_hash, content_hash, cut, digest_text, embed, known_vectors, metadata_hash
from knowledge.schema import Chunk, Document, Kind, digest, document_key

_LABEL = re.compile(r"[a-z][a-z0-9_]*")
_LONGEST_NAME = 500


@dataclass(frozen=True)
class Outcome:
    """What became of one document: a change, nothing to do, or a refusal."""

    document: Document
    change: Change | None = None
    chunks: int = 0
    supersedes: str = ""
    refusal: ServiceError | None = None


@dataclass
class _Plan:
    """A group on its way into the index."""

    stored: dict[str, list[Chunk]]
    outcomes: list[Outcome]
    changes: list[Change]


class Library:
    """The only writer of the index of one kind of encoder."""

    def __init__(self, index: Index, encoder: Embeds, ledger: Ledger, *, longest_text_bytes: int) -> None:
        """Write to `index`; changes are announced from `ledger`."""
        self._index, self._encoder, self._ledger = index, encoder, ledger
        self._longest = longest_text_bytes
        self._lock = RLock()
        self._untidy = False

    def fingerprint(self, document: Document) -> str:
        """Return what changes when the document would be stored differently."""
        return _hash(document, self._index.encoder)

    def put(self, documents: Sequence[Document]) -> list[Outcome]:
        """Store a group of one kind in one commit; each document has its own outcome, in order."""
        if not documents:
            return []
        kind, now = documents[0].kind, dt.datetime.now(dt.UTC)
        with self._lock:
            plan = _Plan(self._index.documents(kind, sorted({document.key for document in documents})), [], [])
            before = {key: list(chunks) for key, chunks in plan.stored.items()}
            for document in documents:
                try:
                    plan.outcomes.append(self._plan(plan, document, now))
                except ServiceError as error:
                    plan.outcomes.append(Outcome(document, refusal=error))
            touched = sorted({change.document_key for change in plan.changes})
            self._commit(kind, {key: self._with_vectors(before[key], plan.stored[key]) for key in touched}, plan.changes)
        return plan.outcomes

    def remove(self, kind: Kind, collection: str, document_id: str, *, tenant: str = "", version: str = "", reason: str = "") -> bool:
        """Delete a fluid document or withdraw an anchored version; return whether it was there."""
        key, now = document_key(collection, document_id, tenant), dt.datetime.now(dt.UTC)
        if kind is Kind.ANCHORED and not (version and reason.strip()):
            raise InvalidArgumentError("an anchored document is never deleted; name the 'version' to withdraw and a 'reason'")
        with self._lock:
            stored = self._index.documents(kind, [key])[key]
            gone = [c for c in stored if kind is Kind.FLUID or (c.version == version and c.withdrawn_at is None)]
            if not gone:
                return False
            left = [] if kind is Kind.FLUID else versions.withdrawn(stored, version, now)
            was, is_now = versions.in_force(stored, now), versions.in_force(left, now)
            change = Change(
                uuid.uuid4().hex, kind.value, collection, key, document_id, tenant, "deleted", version if kind is Kind.ANCHORED else "", "",
                in_force=is_now, no_longer=was if was != is_now else "", chunks=len(gone),
                document_sha256=gone[0].document_sha256, reason=reason,
            )  # fmt: skip
            self._commit(kind, {key: left}, [change])
        return True

    def recover(self) -> None:
        """Settle the changes that a crash interrupted: those that the index holds are announced, the others never were."""
        with self._lock:
            for change in self._ledger.pending(done=False):
                stored = self._index.documents(Kind(change.kind), [change.document_key])[change.document_key]
                if _happened(change, stored):
                    index_version = self._index.versions()[change.kind]
                    self._ledger.done([searchable(change, index_version, dt.datetime.now(dt.UTC).isoformat())])
                else:
                    self._ledger.drop([change])

    def tidy(self) -> None:
        """Fold what was written into the search structures, if anything was."""
        with self._lock:
            if self._untidy:
                self._index.tidy()
                self._untidy = False

    def _plan(self, plan: _Plan, document: Document, now: dt.datetime) -> Outcome:
        self._check(document)
        document = versions.normalised(document)
        stored = plan.stored[document.key]
        same = [chunk for chunk in stored if document.kind is Kind.FLUID or chunk.version == document.version]
        expected = (document.version, _hash(document, self._index.encoder), None)
        if same and (same[0].version, _hash_of(same[0]), same[0].withdrawn_at) == expected:
            return Outcome(document, chunks=len(same))
        sha256 = digest_text(document.text)
        versions.check(document, sha256, stored)
        fresh = cut(document, self._index.encoder, now)
        after = versions.combined(document, stored, fresh)
        was, is_now = versions.in_force(stored, now), versions.in_force(after, now)
        supersedes = versions.before(after, document.version) if document.kind is Kind.ANCHORED else ""
        change = Change(
            uuid.uuid4().hex, document.kind.value, document.collection, document.key, document.document_id, document.tenant,
            "upserted", document.version, expected[1],
            in_force=is_now, no_longer=was if was != is_now else "", supersedes=supersedes,
            chunks=len(fresh), document_sha256=sha256,
        )  # fmt: skip
        plan.stored[document.key] = after
        plan.changes.append(change)
        return Outcome(document, change, len(fresh), supersedes)

    def _check(self, document: Document) -> None:
        name = document.document_id
        if not name.strip() or len(name) > _LONGEST_NAME:
            raise InvalidArgumentError(f"field 'id' must have 1 to {_LONGEST_NAME} characters, got {len(name)}")
        if not document.text.strip():
            raise InvalidArgumentError(f"{name!r}: field 'text' is empty")
        if "\x00" in document.text:
            raise InvalidArgumentError(f"{name!r}: field 'text' holds binary data")
        if (size := len(document.text.encode(errors="replace"))) > self._longest:
            raise InvalidArgumentError(f"{name!r}: field 'text' has {size} bytes; the limit is {self._longest}")
        for label in document.labels:
            if not _LABEL.fullmatch(label):
                raise InvalidArgumentError(f"{name!r}: label {label!r} must be lower-case letters, digits and '_'")

    def _with_vectors(self, before: Sequence[Chunk], after: Sequence[Chunk]) -> list[Chunk]:
        return embed(after, self._encoder, known_vectors([*before, *(chunk for chunk in after if chunk.vector)]))

    def _commit(self, kind: Kind, documents: dict[str, list[Chunk]], changes: Sequence[Change]) -> None:
        """Note the intent, write, note the deed: a crash in between is settled by `recover`."""
        if not changes:
            return
        self._ledger.intend(changes)
        index_version = self._index.replace(kind, documents)
        self._untidy = True
        at = dt.datetime.now(dt.UTC).isoformat()
        self._ledger.done([searchable(change, index_version, at) for change in changes])


def _hash(document: Document, encoder: str) -> str:
    return digest(content_hash(document, encoder), metadata_hash(document), access_hash(document))


def _hash_of(chunk: Chunk) -> str:
    return digest(chunk.content_hash, chunk.metadata_hash, chunk.access_hash)


def _happened(change: Change, stored: Sequence[Chunk]) -> bool:
    if change.change == "deleted":
        return all(chunk.version != change.version or chunk.withdrawn_at is not None for chunk in stored) if change.version else not stored
    return any(chunk.version == change.version and _hash_of(chunk) == change.hash for chunk in stored)
