"""Builds the index of another encoder beside the one that is searched, holds it against that one, and switches."""

import datetime as dt
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from chassis.errors import FailedPreconditionError
from chassis.logging import get_logger
from encoders.encoder import Vectors
from ingestor.late_vectors import fill
from knowledge.index import Entry, Index
from knowledge.preparation import Embeds, content_hash_of, embed, known_vectors, reuse
from knowledge.schema import LABEL_SEPARATOR, Chunk, Kind
from knowledge.visibility import Visibility

log = get_logger("ingestor")
_DOCUMENTS_AT_ONCE = 64
_GATE_QUERIES = 100
_GATE_DEPTH = 10
# How much less often the new index may find a chunk by its own words before the switch is refused.
_GATE_TOLERANCE = 0.03
_REFUSED = "retrieval_gate_failed"
# Half of a shorter text tells it from no other; it is asked for by all that it says.
_FEW_WORDS = 16
_ANYBODY = "strata"
_PASSES = 20
_FEW = 32
_FEWER = 0.75


@dataclass
class Report:
    """What building and holding against each other brought."""

    documents: int = 0
    embedded: int = 0
    passes: int = 0
    recall_before: float = 0.0
    recall_after: float = 0.0


class Reembedding:
    """Copies one index into that of another encoder while the first goes on being searched and written."""

    def __init__(self, source: Index, target: Index, source_encoder: Embeds, target_encoder: Embeds) -> None:
        """Read `source`, write `target`; vectors that the target has already are used again."""
        self._source, self._target = source, target
        self._source_encoder, self._encoder = source_encoder, target_encoder

    def run(self, writing: AbstractContextManager[object], switch: Callable[[], None], collections: Sequence[str]) -> Report:
        """Copy until nothing differs, pass the gate, then `switch` while nobody writes.

        `writing` is held by every writer of the source; the gate asks about `collections`. Raise
        FailedPreconditionError with code `retrieval_gate_failed` when the new index finds less; nothing has switched then.
        """
        report = Report()
        self._catch_up(report)
        self._target.tidy()
        self._gate(report, collections)
        with writing:
            # What was written since the last pass. Deletions must not wait for an encoder: words find it until its vector is there.
            left = self._copy(report, late=True)
            switch()
        self._finish(left, writing)
        log.info("reembedding_done", documents=report.documents, embedded=report.embedded)
        return report

    def _catch_up(self, report: Report) -> None:
        """Copy while that leaves fewer and fewer to copy; where rows change all the time something always differs."""
        before, left = float("inf"), len(self._copy(report))
        # A pass that meets nearly as many as the last one keeps step with the changes and no more: the rest waits for the last pass.
        while left > _FEW and left < _FEWER * before and report.passes < _PASSES:
            log.info("reembedding_pass", passes=report.passes, documents=report.documents, embedded=report.embedded)
            before, left = left, len(self._copy(report))

    def _copy(self, report: Report, *, late: bool = False) -> list[tuple[Kind, str]]:
        """Bring every document that differs to the target, `late` without vectors that it does not know; return which did."""
        report.passes += 1
        differing: list[tuple[Kind, str]] = []
        for kind in Kind:
            for keys in self._differing(kind):
                stored = self._source.documents(kind, keys)
                already = known_vectors(chunk for chunks in self._target.documents(kind, keys).values() for chunk in chunks)
                moved = dict[str, list[Chunk]]((key, []) for key in stored)
                for chunk in self._moved([c for chunks in stored.values() for c in chunks], already, report, late=late):
                    moved[chunk.document_key].append(chunk)
                self._target.replace(kind, moved)
                differing += [(kind, key) for key in keys]
        report.documents += len(differing)
        return differing

    def _moved(self, chunks: Sequence[Chunk], already: dict[str, list[float]], report: Report, *, late: bool) -> list[Chunk]:
        named = [
            replace(c, vector=None, content_hash=content_hash_of(c.title, c.document_sha256, c.chunker, self._target.encoder))
            for c in chunks
        ]  # fmt: skip
        report.embedded += len({chunk.search_text for chunk in named} - already.keys())
        return reuse(named, already) if late else embed(named, self._encoder, already)

    def _finish(self, late: Sequence[tuple[Kind, str]], writing: AbstractContextManager[object]) -> None:
        """Embed what was switched to without vectors, a few documents at a time while others write."""
        for kind in Kind:
            keys = [key for where, key in late if where is kind]
            for some in (keys[first : first + _DOCUMENTS_AT_ONCE] for first in range(0, len(keys), _DOCUMENTS_AT_ONCE)):
                chunks = [chunk for found in self._target.documents(kind, some).values() for chunk in found]
                if texts := list(dict.fromkeys(chunk.search_text for chunk in chunks if chunk.vector is None)):
                    vectors = dict(zip(texts, self._encoder.encode(texts).tolist(), strict=True))
                    with writing:
                        fill(self._target, kind, some, vectors)

    def _differing(self, kind: Kind) -> Iterator[list[str]]:
        collections = {*self._source.holdings(), *self._target.holdings()}
        for collection in sorted(collections):
            built = self._target.inventory(kind, collection)
            here, there = _by_document(self._source.inventory(kind, collection)), _by_document(built)
            unfinished = {entry.document_key for entry in built if not entry.embedded}
            keys = sorted(key for key in {*here, *there} if here.get(key) != there.get(key) or key in unfinished)
            for first in range(0, len(keys), _DOCUMENTS_AT_ONCE):
                yield keys[first : first + _DOCUMENTS_AT_ONCE]

    def _gate(self, report: Report, collections: Sequence[str]) -> None:
        """Ask both for chunks by sentences of their own; the new index must find them about as often."""
        questions = self._questions(collections)
        if not questions and any(holding.chunks for holding in self._source.holdings().values()):
            raise FailedPreconditionError("nothing in the index could be asked for; nothing was switched", code=_REFUSED)
        if not questions:
            return
        report.recall_before = _recall(self._source, self._source_encoder, questions)
        report.recall_after = _recall(self._target, self._encoder, questions)
        if report.recall_after < report.recall_before - _GATE_TOLERANCE or not report.recall_after:
            message = (
                f"of {len(questions)} chunks the new encoder finds {report.recall_after:.2f}, the one in use {report.recall_before:.2f}"
            )
            raise FailedPreconditionError(f"{message}; nothing was switched", code=_REFUSED)

    def _questions(self, collections: Sequence[str]) -> list["_Question"]:
        """Return what a sample of visible chunks is asked for by: their second half, which no title gives away."""
        # What was written since the last pass is not in the new one yet, and says nothing of its encoder.
        built = {entry.chunk_id for kind in Kind for name in collections for entry in self._target.inventory(kind, name)}
        entries = [
            entry for kind in Kind for name in collections for entry in self._source.inventory(kind, name)
            if not entry.closed and not entry.withdrawn and entry.chunk_id in built
        ]  # fmt: skip
        order, questions = sorted(entries, key=lambda entry: entry.chunk_id), list[_Question]()
        random.Random(7).shuffle(order)
        # Superseded, expired and future versions are drawn as well, and nobody finds them.
        while order and len(questions) < _GATE_QUERIES:
            some, order = order[: _GATE_QUERIES - len(questions)], order[_GATE_QUERIES - len(questions) :]
            questions += self._asked({entry.chunk_id for entry in some}, sorted({entry.document_key for entry in some}), collections)
        return questions

    def _asked(self, wanted: set[str], keys: Sequence[str], collections: Sequence[str]) -> list["_Question"]:
        now, found = dt.datetime.now(dt.UTC), list[_Question]()
        for kind in Kind:
            for chunk in (chunk for chunks in self._source.documents(kind, keys, vectors=False).values() for chunk in chunks):
                words = chunk.text.split()
                if chunk.chunk_id not in wanted or not words or not _in_force(chunk, now):
                    continue
                # Whoever may see it: someone of its tenant, or of any, who has its labels.
                visible = Visibility(chunk.tenant or _ANYBODY, frozenset(chunk.label_key.split(LABEL_SEPARATOR)), tuple(collections), now)
                question = " ".join(words[len(words) // 2 :][:24]) if len(words) >= _FEW_WORDS else chunk.search_text
                found.append(_Question(question, chunk.document_key, visible))
        return found


@dataclass(frozen=True)
class _Question:
    """Words, the document that they are of, and whoever may see it."""

    text: str
    document_key: str
    visible: Visibility


def _in_force(chunk: Chunk, now: dt.datetime) -> bool:
    ends = [end for end in (chunk.superseded_at, chunk.expires_at, chunk.withdrawn_at) if end is not None]
    return chunk.effective_from <= now < min(ends, default=dt.datetime.max.replace(tzinfo=dt.UTC))


def _recall(index: Index, encoder: Embeds, questions: Sequence[_Question]) -> float:
    vectors: Vectors = encoder.encode([question.text for question in questions])
    found = 0
    for question, vector in zip(questions, vectors, strict=True):
        hits = index.nearest(vector, question.visible, _GATE_DEPTH)
        found += any(hit.chunk.document_key == question.document_key for hit in hits)
    return found / len(questions)


def _by_document(entries: Sequence[Entry]) -> dict[str, set[tuple[object, ...]]]:
    """Return what each document consists of, but for what only the encoder decides."""
    found: dict[str, set[tuple[object, ...]]] = {}
    for e in entries:
        state = (e.chunk_id, e.version, e.position, e.metadata_hash, e.access_hash, e.closed, e.withdrawn)
        found.setdefault(e.document_key, set()).add(state)
    return found
