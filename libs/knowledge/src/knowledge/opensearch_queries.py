"""Searches of OpenSearch and rows in its form: one predicate as a filter inside both legs."""

import datetime as dt
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from encoders.encoder import Vectors
from knowledge.opensearch_templates import NEVER
from knowledge.schema import COLUMNS, LABEL_SEPARATOR, Chunk, metadata_pairs
from knowledge.visibility import Visibility, micros

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_TIMES = ("effective_from", "superseded_at", "expires_at", "withdrawn_at")
STATES = ("documents", "superseded", "expired", "withdrawn")
_NOTHING = "."
FOUND = [name for name in COLUMNS if name not in {"vector", "search_text"}]
_MOST_WORDS = 900
# At most as many pieces as the engine's tokenizer makes: one for each ideograph or sign, one for each run of letters.
_PIECES = re.compile(r"[^\W\u2E80-\U0003FFFF]{1,255}|[\u2E80-\U0003FFFF]")
LARGEST_PAGE = 10_000
MOST_CHARACTERS = 900


def predicate(visible: Visibility) -> dict[str, Any]:
    """Return the filter that leaves what the caller may see at that time."""
    moment = micros(visible.at)
    clauses: list[dict[str, Any]] = [
        {"terms": {"collection": list(visible.collections) or [_NOTHING]}},
        {"terms": {"tenant": sorted({"", visible.tenant})}},
        _labelled(visible.labels),
        {"range": {"expires_at": {"gt": moment}}},
        {"term": {"withdrawn_at": NEVER}},
        _recorded(visible),
    ]
    if visible.version:
        clauses.append({"term": {"version": visible.version}})
    else:
        clauses += [{"range": {"effective_from": {"lte": moment}}}, {"range": {"superseded_at": {"gt": moment}}}]
    clauses += [{"term": {"metadata": pair}} for pair in metadata_pairs(dict(visible.filters))]
    return {"bool": {"filter": clauses}}


def _labelled(held: frozenset[str]) -> dict[str, Any]:
    """Return the filter for chunks of whose labels the caller holds every one, whatever sets of labels there are."""
    unlabelled = {"term": {"label_count": 0}}
    if not held:
        return unlabelled
    every = {"terms_set": {"labels": {"terms": sorted(held), "minimum_should_match_field": "label_count"}}}
    return {"bool": {"should": [unlabelled, every], "minimum_should_match": 1}}


def _recorded(visible: Visibility) -> dict[str, Any]:
    """Return the filter over the source's own time axis."""
    past = {name: int(place) for name, place in visible.positions.items() if name in visible.collections}
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
    clause = {"vector": [float(value) for value in vector], "k": min(limit, LARGEST_PAGE), "filter": predicate(visible)}
    return _ranked({"knn": {"vector": clause}}, limit)


def _ranked(query: dict[str, Any], limit: int) -> dict[str, Any]:
    return {
        "size": min(limit, LARGEST_PAGE),
        "query": query,
        "_source": FOUND,
        "sort": ["_score", {"chunk_id": "asc"}],
        "track_scores": True,
        "track_total_hits": False,
    }


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
    row = chunk.row()
    row |= {name: None if row[name] is None else micros(row[name]) for name in _TIMES}
    labels = chunk.label_key.split(LABEL_SEPARATOR) if chunk.label_key else []
    row |= {"labels": labels, "label_count": len(labels), "embedded": chunk.vector is not None}
    if chunk.vector is None:
        del row["vector"]
    else:
        # As float32, written with as many digits as tell it from its neighbours.
        row["vector"] = np.asarray(chunk.vector, dtype=np.float32)
    return row


def chunk_of(stored: Mapping[str, Any]) -> Chunk:
    """Return the chunk of a stored row; columns that were not asked for are None."""
    row: dict[str, Any] = {name: stored.get(name) for name in COLUMNS}
    row |= {name: None if row[name] is None else _EPOCH + int(row[name]) * _MICROSECOND for name in _TIMES}
    return Chunk(**row)
