"""Searches of OpenSearch and rows in its form: one predicate as a filter inside both legs."""

import datetime as dt
import re
from base64 import b64decode, b64encode
from binascii import a2b_base64
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations, product
from typing import Any

import numpy as np

from encoders.encoder import Vectors
from knowledge.opensearch_templates import NEVER, kind_of
from knowledge.payload import name_of, over_at, pack, unpack, unpack_later
from knowledge.preparation import search_text
from knowledge.schema import LABEL_SEPARATOR, Chunk, metadata_pairs
from knowledge.visibility import Visibility, micros, scope

_TIMES = ("effective_from", "superseded_at", "expires_at", "withdrawn_at")
STATES = ("documents", "superseded", "expired", "withdrawn")
_NOTHING = "."
WHOLE = ["payload", "search_text", "vector"]
# Columns of a chunk that are searched, filtered or listed; all others are in `payload` alone.
_OWN = (
    "chunk_id", "document_key", "collection", "tenant", "version", "metadata", "content_hash", "metadata_hash", "access_hash",
    "position", "closed_position", "search_text", *_TIMES,
)  # fmt: skip
# The stored row of a hit is not touched.
BARE: dict[str, Any] = {"_source": False, "stored_fields": "_none_"}
# Columns of every row, that which a deletion leaves included.
PLACED = ["document_key", "chunk_id", "position"]
WITHOUT_VECTOR: dict[str, Any] = {**BARE, "docvalue_fields": [*PLACED, "payload", "embedded"], "version": True}
WITH_VECTOR: dict[str, Any] = {"_source": WHOLE, "docvalue_fields": PLACED, "version": True}
_BEST_FIRST = ["_score", {"chunk_id": "asc"}]
# Of a packed payload, a multiple of four; a chunk id that does not fit is found in the whole.
_NAME_CHARACTERS = 240
_MOST_SCOPES = 512
_MOST_WORDS = 900
# At most as many pieces as the engine's tokenizer makes: one for each ideograph or sign, one for each run of letters.
_PIECES = re.compile(r"[^\W\u2E80-\U0003FFFF]{1,255}|[\u2E80-\U0003FFFF]")
LARGEST_PAGE = 10_000
MOST_CHARACTERS = 900


def predicate(visible: Visibility) -> dict[str, Any]:
    """Return the filter that leaves what the caller may see at that time."""
    moment = micros(visible.at)
    clauses = _scoped(visible)
    past = {name: int(place) for name, place in visible.positions.items() if name in visible.collections}
    if visible.version or past:
        clauses += [{"range": {"expires_at": {"gt": moment}}}, {"term": {"withdrawn_at": NEVER}}, _recorded(past)]
        if visible.version:
            clauses.append({"term": {"version": visible.version}})
        else:
            clauses += [{"range": {"effective_from": {"lte": moment}}}, {"range": {"superseded_at": {"gt": moment}}}]
    else:
        # The same, by the column that holds the first of all ends.
        clauses += [{"range": {"over_at": {"gt": moment}}}, {"range": {"effective_from": {"lte": moment}}}]
    clauses += [{"term": {"metadata": pair}} for pair in metadata_pairs(dict(visible.filters))]
    return {"bool": {"filter": clauses}}


def _scoped(visible: Visibility) -> list[dict[str, Any]]:
    """Return the filters for collection, tenant and labels: one list of values while that is short, else one for each of the three."""
    collections, tenants = list(dict.fromkeys(visible.collections)), sorted({"", visible.tenant})
    held = sorted(label for label in visible.labels if label and LABEL_SEPARATOR not in label)
    if len(collections) * len(tenants) * 2 ** len(held) <= _MOST_SCOPES:
        sets = [LABEL_SEPARATOR.join(some) for size in range(len(held) + 1) for some in combinations(held, size)]
        return [{"terms": {"scope": [scope(*parts) for parts in product(collections, tenants, sets)] or [_NOTHING]}}]
    return [{"terms": {"collection": collections or [_NOTHING]}}, {"terms": {"tenant": tenants}}, _labelled(visible.labels)]


def _labelled(held: frozenset[str]) -> dict[str, Any]:
    """Return the filter for chunks of whose labels the caller holds every one, whatever sets of labels there are."""
    unlabelled = {"term": {"label_count": 0}}
    if not held:
        return unlabelled
    every = {"terms_set": {"labels": {"terms": sorted(held), "minimum_should_match_field": "label_count"}}}
    return {"bool": {"should": [unlabelled, every], "minimum_should_match": 1}}


def _recorded(past: Mapping[str, int]) -> dict[str, Any]:
    """Return the filter over the source's own time axis."""
    present: dict[str, Any] = {"term": {"closed_position": NEVER}}
    if not past:
        return present
    parts: list[dict[str, Any]] = [{"bool": {"filter": [present], "must_not": [{"terms": {"collection": sorted(past)}}]}}]
    for name, place in sorted(past.items()):
        then: list[dict[str, Any]] = [
            {"term": {"collection": name}},
            {"range": {"position": {"lte": place}}},
            {"range": {"closed_position": {"gt": place}}},
        ]
        parts.append({"bool": {"filter": then}})
    return {"bool": {"should": parts, "minimum_should_match": 1}}


def states(now: dt.datetime) -> dict[str, dict[str, Any]]:
    """Return the filter for chunks of versions in force, superseded, expired and withdrawn, by name; each is in one of them."""
    moment = micros(now)
    here: dict[str, Any] = {"term": {"closed_position": NEVER}}
    valid: dict[str, Any] = {"term": {"withdrawn_at": NEVER}}
    lasting: dict[str, Any] = {"range": {"expires_at": {"gt": moment}}}
    over: dict[str, Any] = {"range": {"superseded_at": {"lte": moment}}}
    return {
        "documents": {"bool": {"filter": [here, valid, lasting], "must_not": [over]}},
        "superseded": {"bool": {"filter": [here, valid, lasting, over]}},
        "expired": {"bool": {"filter": [here, valid], "must_not": [lasting]}},
        "withdrawn": {"bool": {"filter": [here], "must_not": [valid]}},
    }


def lexical(query: str, visible: Visibility, limit: int) -> dict[str, Any]:
    """Return the search by BM25."""
    matching = {"match": {"search_text": {"query": _bounded(query), "operator": "or"}}}
    return _ranked({"bool": {"must": [matching], "filter": [predicate(visible)]}}, limit)


def nearest(vector: Vectors, visible: Visibility, limit: int) -> dict[str, Any]:
    """Return the search by cosine with a unit vector (384,); the filter holds while the graph is walked."""
    clause = {"vector": vector.tolist(), "k": min(limit, LARGEST_PAGE), "filter": predicate(visible)}
    return _ranked({"knn": {"vector": clause}}, limit)


def cosines(vector: Vectors, names: Sequence[str]) -> dict[str, Any]:
    """Return the search for the cosines of these chunks; the engine is exact when it may return all that the filter leaves."""
    size = min(len(names), LARGEST_PAGE)
    clause = {"vector": vector.tolist(), "k": size, "filter": {"terms": {"chunk_id": list(names)}}}
    return {"size": size, "query": {"knn": {"vector": clause}}, **BARE, "sort": _BEST_FIRST, "track_total_hits": False}


def hits(answer: Mapping[str, Any]) -> list[tuple[Chunk, float]]:
    """Return the chunks of a ranked answer with the engine's scores, equal ones by chunk id; what they say is decoded later."""
    found = [(_later(hit), float(hit["_score"])) for hit in answer["hits"]["hits"]]
    return sorted(found, key=lambda hit: (-hit[1], hit[0].chunk_id))


def undecided(search: Mapping[str, Any], answer: Mapping[str, Any]) -> bool:
    """Say whether a full answer has one score throughout: which of the equal ones it holds, the engine chose."""
    found = answer["hits"]["hits"]
    return bool(found) and len(found) == search["size"] and bool(found[0]["_score"] == found[-1]["_score"])


def by_name(search: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same ranked search with the first of equal chunks by chunk id, which costs a quarter more."""
    return {**search, "sort": _BEST_FIRST, "track_scores": True}


def _later(hit: Mapping[str, Any]) -> Chunk:
    packed = hit["fields"]["payload"][0]
    name = name_of(a2b_base64(packed[:_NAME_CHARACTERS])) if len(packed) > _NAME_CHARACTERS else ""
    return unpack_later(name or name_of(_unpacked(packed)), kind_of(hit["_index"]), partial(_unpacked, packed))


def _unpacked(packed: str) -> bytes:
    # The engine leaves the padding out.
    return a2b_base64(packed + "==")


def _ranked(query: dict[str, Any], limit: int) -> dict[str, Any]:
    size = min(limit, LARGEST_PAGE)
    return {"size": size, "query": query, **BARE, "docvalue_fields": ["payload"], "track_total_hits": False}


def _bounded(query: str) -> str:
    """Return the query with no more words than one search may have, so that a long letter is no error."""
    if len(query) <= _MOST_WORDS:
        return query
    pieces = _PIECES.findall(query)
    signs = sum(1 for character in query if not character.isascii())
    return query if len(pieces) + signs <= _MOST_WORDS else " ".join(pieces[:_MOST_WORDS])


def cosine(score: float) -> float:
    """Return the cosine for Lucene's score of it, (1 + cosine) / 2."""
    return 2.0 * score - 1.0


def source(chunk: Chunk) -> dict[str, Any]:
    """Return the row of a chunk as OpenSearch stores it."""
    row = {name: getattr(chunk, name) for name in _OWN}
    row |= {name: None if row[name] is None else micros(row[name]) for name in _TIMES}
    labels = chunk.label_key.split(LABEL_SEPARATOR) if chunk.label_key else []
    row |= {"labels": labels, "label_count": len(labels), "embedded": chunk.vector is not None, "over_at": over_at(chunk)}
    row |= {"scope": scope(chunk.collection, chunk.tenant, chunk.label_key), "payload": b64encode(pack(chunk)).decode()}
    if chunk.vector is not None:
        # As float32, written with as many digits as tell it from its neighbours.
        row["vector"] = np.asarray(chunk.vector, dtype=np.float32)
    return row


def chunks_of(row: Mapping[str, Any]) -> list[Chunk]:
    """Return the chunk of a row with the columns of `WITH_VECTOR` or `WITHOUT_VECTOR`; none of that which a deletion leaves.

    Without, its vector is empty, or None where it waits for one.
    """
    if "_source" in row:
        return [chunk_of(row["_source"])] if "payload" in row["_source"] else []
    if "payload" not in (fields := row["fields"]):
        return []
    chunk = unpack(_unpacked(fields["payload"][0]), [] if fields["embedded"][0] else None)
    vars(chunk)["search_text"] = search_text(chunk.title, chunk.text)
    return [chunk]


def chunk_of(stored: Mapping[str, Any]) -> Chunk:
    """Return the chunk of a stored row with the columns of `WHOLE`."""
    return unpack(b64decode(stored["payload"]), stored.get("vector"), stored["search_text"])
