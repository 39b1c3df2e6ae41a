"""Puts documents into the index and takes them out: one writer, one commit for each group, nothing embedded twice."""

import datetime as dt
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from threading import RLock

from chassis.errors import InvalidArgumentError, ServiceError
from ingestor import fluid, versions
from ingestor.ledger import Change, Ledger, searchable
from knowledge.index import Fragmented, Index
from knowledge.preparation import Embeds, access_hash, content_hash, cut, digest_text, embed, known_vectors, metadata_hash
from knowledge.schema import Chunk, Document, Kind, digest, document_key

_LABEL = re.compile(r"[a-z][a-z0-9_]*")
_LONGEST_NAME = 500
# Reads take about a millisecond longer for each fragment.
_FRAGMENTS = 24
_QUIET_SECONDS = 1.0


@dataclass(frozen=True)
class Outcome:
    """What became of one document: a change, nothing to do, or a refusal."""

    document: Document
    change: Change | None = None
    chunks: int = 0
    supersedes: str = ""
    refusal: ServiceError | None = None


@dataclass(frozen=True)
class Upsert:
    """What a source says of a fluid document now, and when it said so; `keep` leaves closed copies of what it said before."""

    document: Document
    at: dt.datetime
    keep: bool = False


@dataclass(frozen=True)
class Embedded:
    """Vectors by text, and the encoder that was in use when they were asked for."""

    encoder: str
    vectors: Mapping[str, list[float]]


@dataclass
class Applied:
    """What came of a group of changes."""

    index_version: int = 0
    # Chunks and hash of every document that the index holds as asked, written or found so.
    held: dict[str, tuple[int, str]] = field(default_factory=dict)
    written: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    closed: list[tuple[str, int]] = field(default_factory=list)
    refused: dict[str, ServiceError] = field(default_factory=dict)
    # Texts that wait for their vector, by document.
    waiting: dict[str, tuple[str, ...]] = field(default_factory=dict)


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
        self._untidy, self._written, self._tidied, self._tidying = False, 0.0, 0.0, 0.0

    @property
    def writing(self) -> AbstractContextManager[object]:
        """What every writer holds while it writes."""
        return self._lock

    @property
    def space(self) -> str:
        """Encoder whose vectors the index holds now."""
        return self._index.encoder

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

    def apply(self, upserts: Sequence[Upsert], removals: Mapping[str, int], *, restore: bool = False) -> Applied:
        """Bring fluid documents to what their source says in one commit, without embedding anything.

        What is stored from a later place is left alone. `removals` are document keys with the place of the deletion. `restore`
        trusts neither hashes nor places of what is stored.
        """
        keys = sorted({upsert.document.key for upsert in upserts} | removals.keys())
        result = Applied()
        with self._lock:
            stored = self._index.documents(Kind.FLUID, keys, vectors=restore)
            fresh: list[tuple[Upsert, list[Chunk]]] = []
            for upsert in upserts:
                try:
                    fresh.append((upsert, self._fresh(upsert, stored[upsert.document.key], result, restore=restore)))
                except ServiceError as error:
                    result.refused[upsert.document.key] = error
            plan = self._next_states([(upsert, chunks) for upsert, chunks in fresh if chunks], stored, result)
            for key, position in removals.items():
                if stored[key] and (restore or fluid.place(stored[key]) <= position):
                    plan[key] = []
                    result.removed.append(key)
            result.index_version = self._index.replace(Kind.FLUID, plan) if plan else self._index.versions()[Kind.FLUID]
            self._touched(really=bool(plan))
        return result

    def measure(self, upsert: Upsert) -> tuple[int, str]:
        """Return how many chunks a document would have, and its hash."""
        fresh = cut(upsert.document, self._index.encoder, upsert.at)
        return len(fresh), _hash_of(fresh[0])

    def purge(self, copies: Sequence[tuple[str, int]]) -> int:
        """Drop closed copies by document key and the place at which they were closed, in one commit; return how many there were."""
        with self._lock:
            gone = set(copies)
            stored = self._index.documents(Kind.FLUID, sorted({key for key, _ in gone}))
            plan = {key: [chunk for chunk in chunks if (key, chunk.closed_position) not in gone] for key, chunks in stored.items()}
            plan = {key: left for key, left in plan.items() if len(left) != len(stored[key])}
            if plan:
                self._index.replace(Kind.FLUID, plan)
            self._touched(really=bool(plan))
            return sum(len(stored[key]) - len(left) for key, left in plan.items())

    def waiting(self, limit: int) -> dict[str, tuple[str, ...]]:
        """Return texts of the fluid index that wait for their vector, by document key."""
        found: dict[str, tuple[str, ...]] = {}
        for chunk in self._index.without_vector(Kind.FLUID, limit):
            found[chunk.document_key] = (*found.get(chunk.document_key, ()), chunk.search_text)
        return found

    def fill(self, keys: Sequence[str], embedded: Embedded) -> bool:
        """Give chunks of the documents the vectors of their texts, where they still have that text and none.

        Return False, and write nothing, where another encoder has come into use meanwhile: vectors of two never mix.
        """
        with self._lock:
            if embedded.encoder != self._index.encoder:
                return False
            chunks = [chunk for some in self._index.documents(Kind.FLUID, keys, vectors=False).values() for chunk in some]
            filled = [
                replace(chunk, vector=embedded.vectors[chunk.search_text])
                for chunk in chunks
                if chunk.vector is None and chunk.search_text in embedded.vectors
            ]
            if filled:
                self._index.update(Kind.FLUID, filled)
            self._touched(really=bool(filled))
        return True

    def encode(self, texts: Sequence[str]) -> Embedded:
        """Return the vectors of texts; slow, and needs no lock."""
        encoder = self._index.encoder
        return Embedded(encoder, {text: vector.tolist() for text, vector in zip(texts, self._encoder.encode(texts), strict=True)})

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

    def take_effect(self, now: dt.datetime) -> int:
        """Note for announcement each version whose moment has come and which is in force then; return how many."""
        count = 0
        with self._lock:
            for expected in self._ledger.due(_instant(now)):
                at = dt.datetime.fromisoformat(expected.effective_from)
                kind = Kind(expected.kind)
                stored = self._index.documents(kind, [expected.document_key])[expected.document_key]
                change = None
                # It may have been withdrawn meanwhile.
                if versions.in_force(stored, at) == expected.version:
                    was = versions.before(stored, expected.version)
                    change = replace(
                        expected, change_id=f"effect/{expected.document_key}/{expected.version}",
                        change="superseded" if was else "upserted",
                        in_force=expected.version, no_longer=was, supersedes=was, index_version=self._index.versions()[kind],
                        at=expected.effective_from,
                    )  # fmt: skip
                    count += 1
                self._ledger.take_effect(expected, change)
        return count

    def tidy(self, *, patient: bool = False) -> None:
        """Fold what was written into the search structures, if anything was.

        A `patient` caller leaves it while writes go on, unless they have left so many fragments that everything becomes slow.
        """
        with self._lock:
            if not self._untidy or (patient and not self._worthwhile()):
                return
            started = time.monotonic()
            self._index.tidy()
            self._untidy, self._tidied = False, time.monotonic()
            self._tidying = self._tidied - started

    def fragments(self) -> dict[str, int]:
        """Return into how many pieces each table has fallen; empty where the index sees to it."""
        return self._index.fragments() if isinstance(self._index, Fragmented) else {}

    def _worthwhile(self) -> bool:
        now = time.monotonic()
        if now - self._written > _QUIET_SECONDS:
            return True
        # Nothing else is written while it runs, so that it may take a tenth of the time and no more.
        return now - self._tidied > 10 * self._tidying and max(self.fragments().values(), default=0) > _FRAGMENTS

    def _touched(self, *, really: bool) -> None:
        if really:
            self._untidy, self._written = True, time.monotonic()

    def _fresh(self, upsert: Upsert, stored: Sequence[Chunk], result: Applied, *, restore: bool) -> list[Chunk]:
        """Return the chunks of what a document's source says now; none where the index holds that, or something later."""
        document, key = upsert.document, upsert.document.key
        self._check(document)
        now = fluid.present(stored)
        if fluid.place(stored) > document.position and not restore:
            return []
        fresh = cut(document, self._index.encoder, upsert.at)
        result.held[key] = (len(fresh), _hash_of(fresh[0]))
        result.closed += {(key, chunk.closed_position) for chunk in stored if chunk.closed_position is not None}
        return [] if (fluid.alike(now, fresh) if restore else fluid.same_hashes(now, fresh)) else fresh

    def _next_states(
        self, upserts: Sequence[tuple[Upsert, list[Chunk]]], stored: dict[str, list[Chunk]], result: Applied
    ) -> dict[str, list[Chunk]]:
        """Return all chunks of each document once its fresh ones are what its source says."""
        texts = {chunk.search_text for _, fresh in upserts for chunk in fresh}
        copied = {upsert.document.key for upsert, _ in upserts if upsert.keep}
        # Vectors that stay, or that a fresh chunk takes over.
        wanted = [
            key for key, chunks in stored.items()
            if any(chunk.search_text in texts or key in copied or chunk.closed_position is not None for chunk in chunks)
            and any(chunk.vector is not None and not chunk.vector for chunk in chunks)
        ]  # fmt: skip
        if wanted:
            stored |= self._index.documents(Kind.FLUID, wanted)
        known = known_vectors(chunk for chunks in stored.values() for chunk in chunks)
        plan: dict[str, list[Chunk]] = {}
        for upsert, fresh in upserts:
            key = upsert.document.key
            plan[key] = fluid.next_state(stored[key], fresh, known, keep=upsert.keep)
            result.written.append(key)
            result.closed += {(key, upsert.document.position)} if len(fluid.past(plan[key])) > len(fluid.past(stored[key])) else set()
            if missing := tuple(chunk.search_text for chunk in plan[key] if chunk.vector is None):
                result.waiting[key] = missing
        return plan

    def _plan(self, plan: _Plan, document: Document, now: dt.datetime) -> Outcome:
        self._check(document)
        document = versions.normalised(document)
        stored = plan.stored[document.key]
        same = [chunk for chunk in stored if document.kind is Kind.FLUID or chunk.version == document.version]
        expected = (document.version, _hash(document, self._index.encoder), None)
        if same and (same[0].version, _hash_of(same[0]), same[0].withdrawn_at) == expected:
            # A ledger that was lost learns again what is to come.
            if later := _later(document, now):
                stored_as = _change(document, expected[1], len(same), same[0].document_sha256)
                self._ledger.expect([replace(stored_as, effective_from=later)])
            return Outcome(document, chunks=len(same))
        sha256 = digest_text(document.text)
        versions.check(document, sha256, stored)
        fresh = cut(document, self._index.encoder, now, self._encoder.encode)
        after = versions.combined(document, stored, fresh)
        was, is_now = versions.in_force(stored, now), versions.in_force(after, now)
        supersedes = versions.before(after, document.version) if document.kind is Kind.ANCHORED else ""
        change = replace(
            _change(document, expected[1], len(fresh), sha256),
            in_force=is_now, no_longer=was if was != is_now else "", supersedes=supersedes, effective_from=_later(document, now),
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
        self._touched(really=True)
        at = dt.datetime.now(dt.UTC).isoformat()
        self._ledger.done([searchable(change, index_version, at) for change in changes])


def _change(document: Document, value: str, chunks: int, sha256: str) -> Change:
    return Change(
        uuid.uuid4().hex, document.kind.value, document.collection, document.key, document.document_id, document.tenant,
        "upserted", document.version, value, chunks=chunks, document_sha256=sha256,
    )  # fmt: skip


def _later(document: Document, now: dt.datetime) -> str:
    """Return when an anchored version takes effect; empty where it has already."""
    start = document.effective_from
    return _instant(start) if document.kind is Kind.ANCHORED and start is not None and start > now else ""


def _instant(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).isoformat(timespec="microseconds")


def _hash(document: Document, encoder: str) -> str:
    return digest(content_hash(document, encoder), metadata_hash(document), access_hash(document))


def _hash_of(chunk: Chunk) -> str:
    return digest(chunk.content_hash, chunk.metadata_hash, chunk.access_hash)


def _happened(change: Change, stored: Sequence[Chunk]) -> bool:
    if change.change == "deleted":
        return all(chunk.version != change.version or chunk.withdrawn_at is not None for chunk in stored) if change.version else not stored
    return any(chunk.version == change.version and _hash_of(chunk) == change.hash for chunk in stored)
