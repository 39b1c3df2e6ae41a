"""Puts documents into the index and takes them out: one writer, one commit for each group, nothing embedded twice."""

import datetime as dt
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from threading import Lock, RLock

from chassis.errors import InvalidArgumentError, ServiceError, UnavailableError
from ingestor import admission, fluid, versions
from ingestor.late_vectors import fill
from ingestor.ledger import Change, Ledger, searchable
from ingestor.remembering import Remembering, UnknownTextError
from knowledge.index import Fragmented, Index
from knowledge.preparation import Embeds, access_hash, content_hash, cut, digest_text, embed, known_vectors, metadata_hash
from knowledge.schema import Chunk, Document, Kind, digest, document_key

# How often a group is planned again because what it needs of the encoder changed meanwhile.
_PASSES = 3
# Reads take about a millisecond longer for each fragment.
_FRAGMENTS = 24
_QUIET_SECONDS = 1.0
# A little longer than the embedded engine keeps older states of its tables for queries that run.
_REMEMBERED_SECONDS = 65.0


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
    outcomes: list[Outcome] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    # Versions that are stored already and still to take effect.
    expected: list[Change] = field(default_factory=list)
    # All chunks, with vectors, of the documents that change.
    documents: dict[str, list[Chunk]] = field(default_factory=dict)


class Library:
    """The only writer of the index of one kind of encoder."""

    def __init__(self, index: Index, encoder: Embeds, ledger: Ledger, *, longest_text_bytes: int) -> None:
        """Write to `index`; changes are announced from `ledger`."""
        self._index, self._encoder, self._ledger = index, encoder, ledger
        self._longest = longest_text_bytes
        self._lock, self._putting = RLock(), Lock()
        self._untidy, self._remembering = False, True
        self._written, self._tidied, self._tidying = 0.0, 0.0, 0.0

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
        # One group at a time asks the encoder; deletions and change events never wait for that.
        with self._putting:
            space, encoder = "", Remembering(self._encoder)
            for _ in range(_PASSES):
                if space != self._index.encoder:
                    space, encoder = self._index.encoder, Remembering(self._encoder)
                # Finds out what has to be embedded, and is thrown away.
                self._plan_group(documents, encoder)
                with self._lock, suppress(UnknownTextError):
                    if space == self._index.encoder:
                        plan = self._plan_group(documents, encoder.known)
                        self._commit(documents[0].kind, plan.documents, plan.changes, plan.expected)
                        return plan.outcomes
        raise UnavailableError("what is stored changed again and again meanwhile; nothing was written")

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

    def waiting(self, limit: int, kind: Kind = Kind.FLUID) -> dict[str, tuple[str, ...]]:
        """Return texts of an index that wait for their vector, by document key."""
        found: dict[str, tuple[str, ...]] = {}
        for chunk in self._index.without_vector(kind, limit):
            found[chunk.document_key] = (*found.get(chunk.document_key, ()), chunk.search_text)
        return found

    def fill(self, keys: Sequence[str], embedded: Embedded, kind: Kind = Kind.FLUID) -> bool:
        """Give chunks of the documents the vectors of their texts, where they still have that text and none.

        Return False, and write nothing, where another encoder has come into use meanwhile: vectors of two never mix.
        """
        with self._lock:
            if embedded.encoder != self._index.encoder:
                return False
            self._touched(really=fill(self._index, kind, keys, embedded.vectors))
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
            started = time.monotonic()
            # Older states of a table hold what was deleted until they are dropped, though nothing is written any more.
            late = self._remembering and started - self._written > _REMEMBERED_SECONDS
            if not late and (not self._untidy or (patient and not self._worthwhile())):
                return
            self._remembering = self._remembering and not late
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
            self._untidy, self._remembering, self._written = True, True, time.monotonic()

    def _fresh(self, upsert: Upsert, stored: Sequence[Chunk], result: Applied, *, restore: bool) -> list[Chunk]:
        """Return the chunks of what a document's source says now; none where the index holds that, or something later."""
        document, key = upsert.document, upsert.document.key
        admission.check(document, self._longest)
        now = fluid.present(stored)
        if fluid.place(stored, document.source) > document.position and not restore:
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

    def _plan_group(self, documents: Sequence[Document], encoder: Embeds) -> _Plan:
        """Return what becomes of a group; write nothing."""
        now = dt.datetime.now(dt.UTC)
        before = self._index.documents(documents[0].kind, sorted({document.key for document in documents}))
        plan = _Plan(dict(before))
        for document in documents:
            try:
                plan.outcomes.append(self._plan(plan, document, now, encoder))
            except ServiceError as error:
                plan.outcomes.append(Outcome(document, refusal=error))
        for key in sorted({change.document_key for change in plan.changes}):
            plan.documents[key] = embed(plan.stored[key], encoder, known_vectors([*before[key], *plan.stored[key]]))
        return plan

    def _plan(self, plan: _Plan, document: Document, now: dt.datetime, encoder: Embeds) -> Outcome:
        admission.check(document, self._longest)
        document = versions.normalised(document)
        stored = plan.stored[document.key]
        same = [chunk for chunk in stored if document.kind is Kind.FLUID or chunk.version == document.version]
        expected = (document.version, _hash(document, self._index.encoder), None)
        if same and (same[0].version, _hash_of(same[0]), same[0].withdrawn_at) == expected:
            # A ledger that was lost learns again what is to come.
            if later := _later(document, now):
                stored_as = _change(document, expected[1], len(same), same[0].document_sha256)
                plan.expected.append(replace(stored_as, effective_from=later))
            return Outcome(document, chunks=len(same))
        sha256 = digest_text(document.text)
        versions.check(document, sha256, stored)
        fresh = cut(document, self._index.encoder, now, encoder.encode)
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

    def _commit(self, kind: Kind, documents: dict[str, list[Chunk]], changes: Sequence[Change], expected: Sequence[Change] = ()) -> None:
        """Note the intent, write, note the deed: a crash in between is settled by `recover`."""
        if expected:
            self._ledger.expect(expected)
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
