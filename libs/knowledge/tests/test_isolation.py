"""A thousand crafted queries over tenants, labels and time: nothing forbidden comes back, and nothing allowed is missing."""

import datetime as dt
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from index_notes import NOW, VECTOR, chunks

from knowledge.schema import Chunk, Kind, label_key
from knowledge.visibility import Visibility

SEED = 20260601
QUERIES = 1000
TENANTS = ("", "acme", "rival", "acme' OR '1'='1", "ac")
LABELS = ("public", "staff", "finance", "hr", "board")
COLLECTIONS = ("notes", "policies", "notes_old")
HOURS = (-48, -24, -1, 0, 1, 24, 48)
WORDS = ("kettle", "kettle OR *", "tenant:rival kettle", "kettle' --", "the kettle whistles", 'kettle "label_key":"board"')


@dataclass(frozen=True)
class Stored:
    """A chunk and the set of its labels."""

    chunk: Chunk
    labels: frozenset[str]


def _maybe(random_: random.Random, value: object) -> Any:
    return value if random_.random() < 0.25 else None


def _corpus(random_: random.Random, size: int) -> list[Stored]:
    found = []
    for number in range(size):
        labels = frozenset(random_.sample(LABELS, random_.choice((0, 0, 1, 1, 2, 3))))
        start = random_.choice(HOURS[:4])
        position = random_.randrange(1, 100)
        (chunk,) = chunks(
            f"d{number}",
            tenant=random_.choice(TENANTS),
            label_key=label_key(tuple(labels)),
            collection=random_.choice(COLLECTIONS),
            version=random_.choice(("1", "2")),
            kind=random_.choice(tuple(Kind)).value,
            effective_from=NOW + dt.timedelta(hours=start),
            superseded_at=_maybe(random_, NOW + dt.timedelta(hours=start + random_.choice((1, 24, 48)))),
            expires_at=_maybe(random_, NOW + dt.timedelta(hours=random_.choice(HOURS))),
            withdrawn_at=_maybe(random_, NOW) if random_.random() < 0.4 else None,
            metadata=[f"site={random_.choice('ab')}", f"floor={random_.randrange(2)}"],
            position=position,
            closed_position=_maybe(random_, position + random_.randrange(1, 50)),
        )
        found.append(Stored(chunk, labels))
    return found


def _query(random_: random.Random) -> Visibility:
    some = tuple(random_.sample(COLLECTIONS, random_.randrange(4)))
    return Visibility(
        tenant=random_.choice(TENANTS),
        labels=frozenset(random_.sample((*LABELS, "public staff", ""), random_.randrange(6))),
        collections=some,
        at=NOW + dt.timedelta(hours=random_.choice(HOURS)),
        filters=random_.choice(({}, {}, {"site": "a"}, {"site": "b", "floor": "1"}, {"site": "a' OR 'a'='a"})),
        version=random_.choice(("", "", "", "1", "3")),
        positions={name: random_.randrange(120) for name in random_.sample(COLLECTIONS, random_.randrange(3))},
    )


def _allowed(stored: Stored, who: Visibility) -> bool:
    """Say by the rules as people state them whether the chunk may be seen."""
    chunk = stored.chunk
    if chunk.collection not in who.collections or chunk.tenant not in {"", who.tenant} or not stored.labels <= who.labels:
        return False
    if chunk.withdrawn_at is not None or (chunk.expires_at is not None and chunk.expires_at <= who.at):
        return False
    if chunk.collection in who.positions:
        place = who.positions[chunk.collection]
        if chunk.position > place or (chunk.closed_position is not None and chunk.closed_position <= place):
            return False
    elif chunk.closed_position is not None:
        return False
    if who.version:
        in_force = chunk.version == who.version
    else:
        in_force = chunk.effective_from <= who.at and (chunk.superseded_at is None or chunk.superseded_at > who.at)
    return in_force and all(f"{name}={value}" in chunk.metadata for name, value in who.filters.items())


def test_a_thousand_queries_return_exactly_what_is_allowed(index: Any) -> None:
    """Each leg of each query is compared with the rules applied by hand; half way, access of a third of the chunks changes."""
    random_ = random.Random(SEED)
    corpus = _corpus(random_, 150)
    for kind in Kind:
        index.replace(kind, {s.chunk.document_key: [s.chunk] for s in corpus if s.chunk.kind == kind.value})
    wrong, seen = [], 0

    def ask(number: int, who: Visibility) -> tuple[Visibility, set[str], set[str]]:
        hits = index.lexical(WORDS[number % len(WORDS)], who, 200) if number % 2 else index.nearest(VECTOR, who, 200)
        return who, {hit.chunk.chunk_id for hit in hits}, {s.chunk.chunk_id for s in corpus if _allowed(s, who)}

    with ThreadPoolExecutor(4) as pool:
        for half in range(2):
            queries = [_query(random_) for _ in range(QUERIES // 2)]
            for who, returned, allowed in pool.map(ask, range(len(queries)), queries):
                seen += len(returned)
                if returned != allowed:
                    wrong.append((who, returned - allowed, allowed - returned))
            if half == 0:
                for number in random_.sample(range(len(corpus)), 50):
                    labels = frozenset(random_.sample((*LABELS, "late"), random_.randrange(1, 4)))
                    corpus[number] = Stored(replace(corpus[number].chunk, label_key=label_key(tuple(labels))), labels)
                for kind in Kind:
                    index.update(kind, [s.chunk for s in corpus if s.chunk.kind == kind.value])
    assert wrong == []
    assert seen > QUERIES
